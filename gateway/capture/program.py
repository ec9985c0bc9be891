"""`syspuffs PROGRAM` for an unmodified FUSE program: from its wish to mount to what is mounted.

As in Linux, the mount is there first; then mount(2) or fusermount succeeds, and the session begins.
What keeps us from mounting is what fusermount says to the program, which ends in its own way.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import trio

from ...layers.background import background
from ...layers.p2k import p2k_over
from ...layers.perfuse import Perfuse, fuse_pair, perfuse_on
from ...layers.puffs import puffs_over
from ...native.errors import VfsError
from ..between import puffs_by_faulty_frames
from ..failures import explain
from ..mounting import Attachment
from ..status import CommandError, Status
from ..words.options import HOST_GROUP, HostOptions, host_options, parse_words, split_words
from . import Capture, MountCall, NameSpace

if TYPE_CHECKING:
    from ...emul.vfs import FileSystem
    from ...layers.fault import Rules

_log = logging.getLogger(__name__)

_BACKGROUND_SECONDS: Final = 2.0
"""How long a program may take to leave its server in the background, once that has answered."""
_TERM_SECONDS: Final = 2.0
"""How long a program may take to let go of its session when it has got SIGTERM."""
_LEAVE_SECONDS: Final = 10.0
"""How long all that the program has started may take to end after its session: some write
everything only then."""
_KILL_SECONDS: Final = 2.0
"""How long the kernel may take to kill."""


class FuseProgram:
    """One caught program."""

    def __init__(
        self, process: trio.Process, capture: Capture, name: str, rules: Rules | None
    ) -> None:
        self._call: MountCall | None = None
        self._process = process
        self._capture = capture
        self._name = name
        self._rules = rules
        self._is_answered = False
        self._stays = False  # as long as we do not know

    @property
    def told_failure(self) -> bool:
        """Whether it has been refused and told why."""
        return self._call is not None and self._call.is_told

    @asynccontextmanager
    async def attached(self, call: MountCall, words: Sequence[str]) -> AsyncIterator[Attachment]:
        """Yield what the program serves over one more `p2k|puffs`.

        On exit it has ended, and all that it has started, by force if need be. `words` are values
        of `-o` of ours; they win.
        """
        async with self._answering(call):
            host, subtype = _options(call.words, words)
            fsname = host.fsname or os.fsencode(self._name)
            program = subtype or PurePath(self._name).name
            async with (
                self._serving(call, program, fsname) as (server, mounted),
                self._mounted(server) as fs,
                p2k_over(fs, rdonly=host.readonly) as top,
            ):
                yield Attachment(*(top, call.directory, host, words, lambda: self._stays, mounted))

    @asynccontextmanager
    async def serving(self, call: MountCall, mntfromname: bytes) -> AsyncIterator[Perfuse]:
        """Yield what the program serves; it has been told that it is mounted.

        If it has asked for `ro`, it is not asked to write. On exit as `attached`.
        """
        async with self._answering(call), self._serving(call, "", mntfromname) as (server, mounted):
            server.host_words = _words_that_hold(call.words)
            if "ro" in server.host_words:
                server.forbid_writing()
            await mounted()
            yield server

    @asynccontextmanager
    async def _answering(self, call: MountCall) -> AsyncIterator[None]:
        """Refuse `call` when something goes wrong before it was answered; end the program."""
        self._call = call
        try:
            yield
        except Exception as exc:
            if not self._is_answered:
                error = explain(exc) or CommandError(Status.FAILURE, f"internal error: {exc!r}")
                call.refused(f"syspuffs: {error.message}" if error.message else "")
            raise
        finally:
            with trio.CancelScope(shield=True):
                await _end_all(call.namespace)

    @asynccontextmanager
    async def _serving(
        self, call: MountCall, program: str, fsname: bytes
    ) -> AsyncIterator[tuple[Perfuse, Callable[[], Awaitable[None]]]]:
        """Yield the server, and what answers `call` and begins the session."""
        ours, theirs = fuse_pair()
        with theirs:
            async with self._served(ours, program, fsname) as server:

                async def mounted() -> None:
                    self._is_answered = True
                    with theirs:
                        await call.mounted(theirs)
                    await self._begin(server)

                async with background() as nursery:
                    self._capture.unmount = server.request_unmount
                    nursery.start_soon(_unmount_when_broken, server)
                    try:
                        yield server, mounted
                    finally:
                        nursery.cancel_scope.cancel()
                        # Whoever unmounts himself when he is told to end waits for that then.
                        self._capture.unmount = server.hang_up
                        with trio.CancelScope(shield=True):
                            await _end_server(server)

    @asynccontextmanager
    async def _served(
        self, ours: socket.socket, program: str, fsname: bytes
    ) -> AsyncIterator[Perfuse]:
        if self._rules is None:
            async with perfuse_on(ours, program, fsname) as server:
                yield server
            return
        from ...layers.fault import faulty_wire

        with ours:
            async with (
                faulty_wire(ours, "fuse", self._rules) as wire,
                perfuse_on(wire.socket, program, fsname, lambda: wire.peer_pid) as server,
            ):
                yield server

    def _mounted(self, server: Perfuse) -> AbstractAsyncContextManager[FileSystem]:
        if self._rules is None:
            return puffs_over(server)
        return puffs_by_faulty_frames(server, self._rules)

    async def _begin(self, server: Perfuse) -> None:
        """Begin the session, and find out whether the program stays in the foreground."""
        try:
            await server.begin()
        except VfsError as exc:
            text = f"{self._name}: the FUSE session does not begin: {exc}"
            raise CommandError(Status.FAILURE, text) from exc
        if server.peer_pid != self._process.pid:
            with trio.move_on_after(_BACKGROUND_SECONDS):
                await self._process.wait()
        self._stays = self._process.returncode is None


async def _unmount_when_broken(server: Perfuse) -> None:
    """Unmount when the program has ended, as it would have done itself if it could."""
    await server.wait_broken()
    server.request_unmount()


async def _end_server(server: Perfuse) -> None:
    """Have the program end in its own way: by SIGTERM, for there is no end of /dev/fuse to read.

    To whom that says nothing, an end of file does.
    """
    pid = server.peer_pid
    if not pid or server.connection.broken.is_set():
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        with trio.move_on_after(_TERM_SECONDS):
            await server.wait_broken()
    server.hang_up()


async def _end_all(namespace: NameSpace) -> None:
    """See to it that nothing of the program is left."""
    for number, seconds in (
        (0, _LEAVE_SECONDS),
        (signal.SIGTERM, _TERM_SECONDS),
        (signal.SIGKILL, _KILL_SECONDS),
    ):
        if await namespace.emptied(number, seconds):
            return
    _log.error("the program cannot be killed: it waits for the kernel")


def _words_that_hold(call_words: str) -> frozenset[str]:
    """Return the words that make a mount safer, of those that the program has given to its own."""
    said = [word.name for word in split_words([call_words])]
    held = {"default_permissions"} & set(said)
    if [name for name in said if name in ("ro", "rw")][-1:] == ["ro"]:
        held.add("ro")
    return frozenset(held)


def _options(call_words: str, words: Sequence[str]) -> tuple[HostOptions, str]:
    """Return the options of the host mount, and the program's name for its file system.

    Of the program's words those count which the host mount knows; others are for /dev/fuse.
    """
    subtype = ""
    given = []
    for word in split_words([call_words]):
        if word.name == "subtype":
            subtype = (word.value or "").replace("|", ".")
        elif HOST_GROUP.find(word) is not None:
            given.append(str(word).replace(",", "\\,"))
    (settings,) = parse_words([*given, *words], [HOST_GROUP])
    return host_options(settings), subtype
