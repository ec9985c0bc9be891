"""Trying a server out, in a directory that is made for it and removed in any case."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from ...layers.psshfs import Psshfs, StatusError
from ...layers.psshfs.wire.slot import ATTRS, HANDLE, ONE_NAME, STATUS
from ...native import sftp
from ...native.sftp import Attrs
from .checks import read_through, told_bandwidth, write_through
from .findings import Finding, Tell, Verdict

PREFIX: Final = b".puffsctl-doctor-"
_OCTETS: Final = 8 << 20
_CLEAN_SECONDS: Final = 20.0
"""How long removing may take once the connection is being left."""
_NEW: Final = sftp.FXF_READ | sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_EXCL
_NAMES: Final = (b"plain", b"\xc3\xa4", b"\xff", b"Plain", b"moved", b"linked", b"symbolic")
"""All names that are made."""


async def try_out(server: Psshfs, tell: Tell) -> None:
    """Make files in a directory of our own and see what becomes of them.

    Errors: those of a connection that ends; then a directory called `PREFIX`... may stay.
    """
    try:
        async with _directory(server) as directory:
            await _Trials(server, directory, tell).run()
    except _NotMadeError as exc:
        tell(Finding("writing", Verdict.FAILS, f"no directory can be made here: {exc}"))


class _NotMadeError(Exception):
    """There is no directory to try things in."""


@asynccontextmanager
async def _directory(server: Psshfs) -> AsyncIterator[bytes]:
    connection = server.connection
    path = server.session.root + b"/" + PREFIX + secrets.token_hex(8).encode()
    try:
        await connection.submit(STATUS, sftp.mkdir, path, Attrs(mode=0o700))
    except StatusError as exc:
        raise _NotMadeError(str(exc)) from None
    try:
        yield path
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(_CLEAN_SECONDS):
            for name in _NAMES:
                await _quietly(server, path + b"/" + name)
            await connection.submit(STATUS, sftp.rmdir, path)


async def _quietly(server: Psshfs, path: bytes) -> None:
    try:
        await server.connection.submit(STATUS, sftp.remove, path)
    except StatusError:
        pass  # most of them are not there


class _Trials:
    def __init__(self, server: Psshfs, directory: bytes, tell: Tell) -> None:
        self._server = server
        self._connection = server.connection
        self._directory = directory
        self._tell = tell

    def _path(self, name: bytes) -> bytes:
        assert name in _NAMES
        return self._directory + b"/" + name

    def _say(self, topic: str, is_good: bool, good: str, bad: str) -> None:
        verdict = Verdict.WORKS if is_good else Verdict.FAILS
        self._tell(Finding(topic, verdict, good if is_good else bad))

    async def run(self) -> None:
        """Try everything, one after the other."""
        for trial in (self._data, self._times, self._modes, self._rename, self._hard_link):
            await self._one(trial.__name__.strip("_").replace("_", " "), trial())
        await self._one("symbolic links", self._symbolic())
        await self._one("names", self._names())

    async def _one(self, topic: str, trial: object) -> None:
        try:
            await trial  # type: ignore[misc]
        except StatusError as exc:
            self._tell(Finding(topic, Verdict.FAILS, f"cannot be tried: {exc}"))

    async def _data(self) -> None:
        data = os.urandom(1 << 20) * (_OCTETS >> 20)
        connection = self._connection
        handle = await connection.submit(
            HANDLE, sftp.open_, self._path(b"plain"), _NEW, Attrs(mode=0o600)
        )
        try:
            seconds = await write_through(self._server, handle, data)
            told_bandwidth("writing", len(data), seconds, self._tell)
            if self._server.session.fsync:
                start = trio.current_time()
                await connection.submit(STATUS, sftp.fsync, handle)
                took = (trio.current_time() - start) * 1e3
                text = f"{took:.1f} ms for {_OCTETS >> 20} MiB"
                self._tell(Finding("fsync", Verdict.WORKS, text, took))
            octets, seconds = await read_through(self._server, handle, len(data))
            told_bandwidth("reading", octets, seconds, self._tell)
            attrs = await connection.submit(ATTRS, sftp.fstat, handle)
        finally:
            connection.close_handle(handle)
        bad = f"{len(data)} octets were written, it says {attrs.size}"
        self._say("size", attrs.size == len(data), "what was written is there", bad)
        if attrs.mtime is not None:
            skew = attrs.mtime - time.time()
            good = "is ours, but for a few seconds"
            bad = f"is {skew:+.0f} s off ours: make(1) and the like will be led astray"
            self._say("clock", abs(skew) < 10, good, bad)

    async def _times(self) -> None:
        path, when = self._path(b"plain"), 1_000_000_001
        await self._connection.submit(STATUS, sftp.setstat, path, Attrs(atime=when, mtime=when))
        attrs = await self._connection.submit(ATTRS, sftp.lstat, path)
        self._say(
            "times",
            attrs.mtime == when,
            "can be set, in whole seconds as version 3 has them",
            "are not what was set: rsync will copy everything again",
        )

    async def _modes(self) -> None:
        path = self._path(b"plain")
        await self._connection.submit(STATUS, sftp.setstat, path, Attrs(mode=0o640))
        attrs = await self._connection.submit(ATTRS, sftp.lstat, path)
        self._say(
            "permissions",
            attrs.mode is not None and attrs.mode & 0o777 == 0o640,
            "can be set",
            "are not what was set: chmod has no effect",
        )

    async def _rename(self) -> None:
        other = await self._connection.submit(HANDLE, sftp.open_, self._path(b"moved"), _NEW)
        self._connection.close_handle(other)
        is_posix = self._server.session.posix_rename
        encode = sftp.posix_rename if is_posix else sftp.rename
        try:
            await self._connection.submit(
                STATUS, encode, self._path(b"plain"), self._path(b"moved")
            )
        except StatusError as exc:
            if is_posix:
                raise
            text = f"over a file is refused, and done in three steps ({exc})"
            self._tell(Finding("rename", Verdict.LACKS, text))
        else:
            await self._connection.submit(
                STATUS, sftp.rename, self._path(b"moved"), self._path(b"plain")
            )
            self._tell(Finding("rename", Verdict.WORKS, "over a file, in one step"))

    async def _hard_link(self) -> None:
        if not self._server.session.hardlink:
            return
        await self._connection.submit(
            STATUS, sftp.hardlink, self._path(b"plain"), self._path(b"linked")
        )
        self._tell(Finding("hard links", Verdict.WORKS, "can be made"))

    async def _symbolic(self) -> None:
        path = self._path(b"symbolic")
        await self._connection.submit(STATUS, sftp.symlink, b"plain", path)
        attrs = await self._connection.submit(ATTRS, sftp.lstat, path)
        target = await self._connection.submit(ONE_NAME, sftp.readlink, path)
        if attrs.mode is None or attrs.mode & 0o170000 != 0o120000:
            text = "LSTAT tells of what a link leads to: links look like that"
            self._tell(Finding("symbolic links", Verdict.FAILS, text))
        else:
            bad = f"made with the target 'plain', shown as '{target[:60].decode(errors='replace')}'"
            self._say("symbolic links", target == b"plain", "can be made and read", bad)

    async def _names(self) -> None:
        """Names that are no UTF-8, and names that differ in the case of letters alone."""
        for name, topic, bad in (
            (b"\xc3\xa4", "letters", "names with letters beyond ASCII are refused"),
            (b"\xff", "octets", "names that are no UTF-8 are refused"),
            (b"Plain", "upper case", "'Plain' and 'plain' are one file"),
        ):
            try:
                handle = await self._connection.submit(HANDLE, sftp.open_, self._path(name), _NEW)
            except StatusError:
                self._tell(Finding(topic, Verdict.LACKS, bad))
            else:
                self._connection.close_handle(handle)
                self._tell(Finding(topic, Verdict.WORKS, "of any kind make names"))
