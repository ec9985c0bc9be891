"""`syspuffs PROGRAM` for an unmodified FUSE program: from its wish to mount to what is mounted.

As in Linux, the mount is there first; then mount(2) or fusermount succeeds, and the session begins.
What keeps us from mounting is what fusermount says to the program, which ends in its own way.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import trio

from ..layers.p2k import p2k_over
from ..layers.perfuse import Perfuse, fuse_pair, perfuse_on
from ..layers.puffs import puffs_over
from ..native.errors import VfsError
from .between import puffs_by_faulty_frames
from .capture import Capture, MountCall, NameSpace
from .failures import explain
from .mounting import Attachment
from .options import HOST_GROUP, HostOptions, host_options, parse_words, split_words
from .status import CommandError, Status

if TYPE_CHECKING:
    from ..emul.vfs import FileSystem
    from ..layers.fault import Rules

_log = logging.getLogger(__name__)

_BACKGROUND_SECONDS: Final = 2.0
"""How long a program may take to leave its server in the background, once that has answered."""
_TERM_SECONDS: Final = 5.0
"""Time between SIGTERM and the end of the session, after which the program counts as hung."""
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
        self._call = call
        ours, theirs = fuse_pair()
        is_answered = False
        try:
            host, subtype = _options(call.words, words)
            fsname = host.fsname or os.fsencode(self._name)
            async with (
                self._served(ours, subtype or PurePath(self._name).name, fsname) as server,
                self._mounted(server) as fs,
                p2k_over(fs, rdonly=host.readonly) as top,
            ):

                async def mounted() -> None:
                    nonlocal is_answered
                    is_answered = True
                    with theirs:
                        await call.mounted(theirs)
                    await self._begin(server)

                async with trio.open_nursery() as nursery:
                    self._capture.unmount = server.request_unmount
                    nursery.start_soon(_unmount_when_broken, server)
                    try:
                        yield Attachment(
                            *(top, call.directory, host, words, lambda: self._stays, mounted),
                            rules=self._rules,
                        )
                    finally:
                        nursery.cancel_scope.cancel()
                        # Whoever unmounts himself when he is told to end waits for that then.
                        self._capture.unmount = server.hang_up
                        with trio.CancelScope(shield=True):
                            await _end_server(server)
        except Exception as exc:
            if not is_answered:
                error = explain(exc) or CommandError(Status.FAILURE, f"internal error: {exc!r}")
                call.refused(f"syspuffs: {error.message}" if error.message else "")
            raise
        finally:
            theirs.close()
            with trio.CancelScope(shield=True):
                await _end_all(call.namespace)

    @asynccontextmanager
    async def _served(
        self, ours: socket.socket, program: str, fsname: bytes
    ) -> AsyncIterator[Perfuse]:
        if self._rules is None:
            async with perfuse_on(ours, program, fsname) as server:
                yield server
            return
        from ..layers.fault import faulty_wire

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
    """Have the program end in its own way: by SIGTERM, for there is no end of /dev/fuse to read."""
    pid = server.peer_pid
    if not pid or server.connection.broken.is_set():
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        with trio.move_on_after(_TERM_SECONDS):
            await server.wait_broken()
            return
        _log.warning("process %d does not end; it is killed", pid)
        os.kill(pid, signal.SIGKILL)


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
