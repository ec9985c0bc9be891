"""A FUSE program that is started here finds our fusermount in place of the machine's.

Its call comes over a socket in a directory of the owner's; the answer to a mount is one end of a
socket pair, which the program takes for /dev/fuse. Nothing else on the machine sees any of that.
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
from typing import Final

import trio

from . import stage

_CALL_MAX: Final = 65536
"""Longest call of fusermount, octets: a path and mount options."""
_CALL_SECONDS: Final = 10.0
"""How long a caller may take to say what he wants."""
_SHORT: Final = "hVo:uqz"
_LONG: Final = ("help", "version", "unmount", "lazy", "quiet", "auto-unmount", "comm-fd=")
"""fusermount3's options; they may stand behind the mount point, as go-fuse has them."""


class MountCall:
    """A program's wish to mount. `mounted` or `refused` is called once."""

    def __init__(
        self, directory: str, words: str, reply: _socket.socket, comm: _socket.socket
    ) -> None:
        self.directory = directory
        """Where, an absolute path."""
        self.words = words
        """The value of `-o`."""
        self._reply = reply
        self._comm = comm

    def mounted(self, fuse: _socket.socket) -> None:
        """Hand over what the program takes for /dev/fuse; the caller closes it. Errors: OSError."""
        with self._comm, self._reply:
            _socket.send_fds(self._comm, [b"\0"], [fuse.fileno()])
            self._reply.send(b"0\0")

    def refused(self, text: str) -> None:
        """Have fusermount say `text` and fail; the program goes on as it does then."""
        with self._comm, self._reply, suppress(OSError):
            self._reply.send(b"1\0" + text.encode())


class Capture:
    """The calls of one program. `unmount` is called when it asks for one by `-u`."""

    def __init__(self) -> None:
        self.unmount: Callable[[], None] = lambda: None
        self._wanted, self._calls = trio.open_memory_channel[MountCall](1)

    async def mount_call(self) -> MountCall:
        """Wait for the program's wish to mount."""
        return await self._calls.receive()

    async def serve(self, listener: trio.socket.SocketType) -> None:
        """Answer calls, for ever."""
        while True:
            sock, _ = await listener.accept()
            with trio.move_on_after(_CALL_SECONDS), suppress(OSError, ValueError):
                told, control, _, _ = await sock.recvmsg(_CALL_MAX, _socket.CMSG_SPACE(4))
                fds = [
                    int.from_bytes(octets[:4], sys.byteorder)
                    for level, kind, octets in control
                    if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
                ]
                self._answer(told, fds, _socket.socket(fileno=os.dup(sock.fileno())))
            sock.close()

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
            options = ",".join(value for name, value in flags if name == "-o")
            call = MountCall(os.path.join(cwd, places[0]), options, reply, comm)
            try:
                self._wanted.send_nowait(call)
            except trio.WouldBlock:
                call.refused("fusermount: syspuffs mounts once")
            return
        if comm is not None:
            comm.close()
        with reply:
            reply.send(answer)


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
                [sys.executable, "-IS", stage.__file__, str(helper), name, *argv],
                env=environment,
                pass_fds=pass_fds,
            )
            capture = Capture()
            failure: Exception | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(capture.serve, trio.socket.from_stdlib_socket(sock))
                try:
                    yield process, capture
                except Exception as exc:
                    failure = exc  # kept out of the nursery, which would wrap it into a group
                finally:
                    nursery.cancel_scope.cancel()
            if failure is not None:
                raise failure
