"""Putting the two halves together, in one process or across a socket."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from ...native.constants import FLAG_RESPONSE, MNT_FORCE
from ...native.errors import RemoteProtocolError, TransportClosed, TransportError, VfsError
from ...native.records import Kargs
from ..background import background
from ..ops import FileServer
from .fromserver import DirectUpcalls, FromServer
from .kernel import PuffsFs
from .putter import Putter
from .requests import UNMOUNT_WAIT
from .server import ServerHalf
from .touser import DirectTouser, QueueTouser

_log = logging.getLogger(__name__)

_OPCLASS: Final = 4
"""Where the header has the low octet of opclass (native/frames)."""


@asynccontextmanager
async def puffs_over(
    server: FileServer, *, unmount_wait: float = UNMOUNT_WAIT
) -> AsyncIterator[PuffsFs]:
    """Offer `server`, in this process, as a file system to be mounted in an emulated kernel.

    The server is attached. On exit it is unmounted by force unless that happened before.
    """
    fs = PuffsFs(server.kargs, unmount_wait=unmount_wait)
    half = fs.half = ServerHalf(server)
    async with background() as nursery:
        fs.touser = DirectTouser(half, nursery)
        server.attach(DirectUpcalls(FromServer(fs)))
        try:
            yield fs
        finally:
            fs.touser.end()
            if not half.has_ended:
                with trio.move_on_after(unmount_wait, shield=True):
                    try:
                        await server.unmount(MNT_FORCE)
                    except VfsError as exc:
                        _log.warning("unmounting the server by force said: %s", exc)


@asynccontextmanager
async def puffs_over_socket(
    sock: socket.socket, kargs: Kargs, *, unmount_wait: float = UNMOUNT_WAIT
) -> AsyncIterator[PuffsFs]:
    """Offer the server at the other end of a connected stream socket as a file system.

    The socket belongs to the file system from now on and is closed on exit; a server that has not
    been unmounted takes that as an unmount by force. When the server dies, operations end with
    ENXIO and the mount stays until somebody unmounts it: an empty directory in its place would be
    a wrong answer.
    """
    fs = PuffsFs(kargs, unmount_wait=unmount_wait)
    putter = Putter.of_socket(sock)
    touser = QueueTouser(putter, fs.late)
    fs.touser = touser
    async with background(putter.pump) as nursery:
        nursery.start_soon(_read_frames, fs, putter, touser, nursery)
        try:
            yield fs
        finally:
            touser.end()
            putter.close()


async def _read_frames(
    fs: PuffsFs, putter: Putter, touser: QueueTouser, nursery: trio.Nursery
) -> None:
    """Hand out what the server sends, until the putter ends; then end all calls."""
    from_server = FromServer(fs)
    try:
        while True:
            frame = await putter.next_frame()
            if frame[_OPCLASS] & FLAG_RESPONSE:
                touser.reply(frame)
            else:
                try:
                    from_server.dispatch(frame, touser, nursery)
                except RemoteProtocolError as exc:
                    putter.fail(exc)
    except TransportClosed:
        pass
    except TransportError as exc:
        # An unmount may be granted and its caller not have run yet; or the server has died over
        # it, which is the same to him.
        touser.end()
        if fs.is_mounted and not fs.is_unmounting:
            _log.warning("the server of %s is gone: %s", fs.typename, exc)
    finally:
        touser.end()
