"""A FUSE program that is started here mounts by us, and finds our fusermount in place of the
machine's.

Its calls of fusermount come over a socket in a directory of the owner's, and by that also comes the
listener for its system calls; the answer to a mount is one end of a socket pair, which the program
takes for /dev/fuse. Nothing else on the machine sees any of that.
"""

from __future__ import annotations

import getopt
import os
import socket as _socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from struct import Struct
from typing import Final

import trio

from ...layers.background import background
from . import stage
from .calls import MountCall
from .syscalls import serve_calls

_CALL_MAX: Final = 65536
"""Longest call of fusermount, octets: a path and mount options."""
_CALL_SECONDS: Final = 10.0
"""How long a caller may take to say what he wants."""
_UCRED: Final = Struct("=iII")
_SHORT: Final = "hVo:uqz"
_LONG: Final = ("help", "version", "unmount", "lazy", "quiet", "auto-unmount", "comm-fd=")
"""fusermount3's options; they may stand behind the mount point, as go-fuse has them."""


class HelperCall(MountCall):
    """A call of fusermount that waits for its answer."""

    def __init__(
        self, directory: str, words: str, pid: int, reply: _socket.socket, comm: _socket.socket
    ) -> None:
        super().__init__(directory, words, pid)
        self._reply = reply
        self._comm = comm

    def hand_over(self, fuse: _socket.socket) -> None:
        """See MountCall."""
        with self._comm, self._reply:
            _socket.send_fds(self._comm, [b"\0"], [fuse.fileno()])
            self._reply.send(b"0\0")

    def refuse(self) -> None:
        """See MountCall. It is fusermount that says why."""
        self.is_told = True
        with self._comm, self._reply:
            self._reply.send(b"1\0" + self.refusal.encode())


class Capture:
    """The calls of one program. `unmount` is called when it asks for one."""

    def __init__(self) -> None:
        self.unmount: Callable[[], None] = lambda: None
        self._call: MountCall | None = None
        self._called = trio.Event()

    async def mount_call(self) -> MountCall:
        """Wait for the program's wish to mount. It is closed with the capture."""
        await self._called.wait()
        assert self._call is not None
        return self._call

    def close(self) -> None:
        """Let go of what was held for the program."""
        if self._call is not None:
            self._call.close()

    async def serve(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        """Answer calls, for ever. System calls are answered by a task of `nursery`."""
        while True:
            sock, _ = await listener.accept()
            with trio.move_on_after(_CALL_SECONDS), suppress(OSError, ValueError):
                told, control, _, _ = await sock.recvmsg(_CALL_MAX, _socket.CMSG_SPACE(4))
                fds = [
                    int.from_bytes(octets[:4], sys.byteorder)
                    for level, kind, octets in control
                    if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
                ]
                if told == stage.LISTENER.encode() and fds:
                    nursery.start_soon(serve_calls, fds[0], self._wanted, self._unwanted)
                else:
                    self._answer(told, fds, _socket.socket(fileno=os.dup(sock.fileno())))
            sock.close()

    def _wanted(self, call: MountCall) -> bool:
        """Take the first wish to mount."""
        if self._call is not None:
            call.close()
            return False
        self._call = call
        self._called.set()
        return True

    def _unwanted(self, directory: str) -> bool:
        """Take the wish to unmount what is mounted; what is no more is not worth an error."""
        if self._call is None or os.path.normpath(directory) != self._call.directory:
            return False
        self.unmount()
        return True

    def _answer(self, told: bytes, fds: list[int], reply: _socket.socket) -> None:
        cwd, *words = told.decode("utf-8", "surrogateescape").split("\0")
        comm = _socket.socket(fileno=fds[0]) if fds else None
        try:
            flags, places = getopt.gnu_getopt(words, _SHORT, _LONG)
        except getopt.GetoptError as exc:
            flags, places = [], []
            answer = f"1\0fusermount: {exc}".encode()
        else:
            answer = b"1\0fusermount: syspuffs does not know how to do that"
        given = {name for name, _ in flags}
        if given & {"-u", "--unmount"}:
            self.unmount()
            answer = b"0\0"
        elif given & {"-V", "--version"}:
            answer = b"0\0"
        elif comm is not None and len(places) == 1:
            if self._call is None:
                options = ",".join(value for name, value in flags if name == "-o")
                place = os.path.join(cwd, places[0])
                self._wanted(HelperCall(place, options, _peer(reply), reply, comm))
                return
            answer = b"1\0fusermount: syspuffs mounts once"
            if self._call.refusal and not self._call.is_told:
                self._call.is_told = True
                answer = b"1\0" + self._call.refusal.encode()
        if comm is not None:
            comm.close()
        with reply:
            reply.send(answer)


def _peer(sock: _socket.socket) -> int:
    """Return who is at the other end."""
    peer = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(peer)[0])


@asynccontextmanager
async def captured(
    argv: Sequence[str], environment: dict[str, str], pass_fds: Sequence[int] = ()
) -> AsyncIterator[tuple[trio.Process, Capture]]:
    """Start `argv` where it cannot mount and yield it, with what it asks of fusermount.

    The caller ends the process. Errors: OSError.
    """
    with tempfile.TemporaryDirectory(prefix="syspuffs-") as name:
        folder = Path(name)
        path = str(folder / "calls")
        source = Path(__file__).with_name("fusermount.py").read_text()
        helper = folder / stage.NAMES[0]
        helper.write_text(f"#!{sys.executable} -IS\n{source}\nmain({path!r})\n")
        helper.chmod(0o700)
        for other in stage.NAMES[1:]:
            (folder / other).symlink_to(helper)
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        sock.bind(path)
        sock.listen(4)
        with sock:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-IS", stage.__file__, str(helper), path, name, *argv],
                env=environment,
                pass_fds=pass_fds,
            )
            capture = Capture()
            async with background() as nursery:
                nursery.start_soon(capture.serve, trio.socket.from_stdlib_socket(sock), nursery)
                try:
                    yield process, capture
                finally:
                    capture.close()
