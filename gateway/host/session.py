"""Mounting a FileServer on the host, serving it, and ending it.

A process has one session, so `mount_and_serve` runs once at a time.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable

import trio

from ...layers.ops import FileServer
from ...native import device_replies
from ...native.constants import FlushOp
from ...native.errors import VfsError
from ...native.records import Cookie
from ..words.options import HostOptions
from .device import Device
from .handlers import FuseEnd
from .hostmount import HostMountError, HostMountFailure, check_mount_point, mount, unmount
from .nodes import Node

_log = logging.getLogger(__name__)

_READY_SECONDS = 15.0
"""How long a fresh mount may take to answer its first request."""

_READ_AHEAD_KB = 1024
"""What the host may read ahead, where we may set it: one request of the largest size."""


class _Upcalls:
    """Flushes from below, done in the host's caches.

    The host may be holding a lock that the caller waits for (a page being read, a directory
    being changed), so what can block runs in a thread and only its caller waits.
    """

    def __init__(self, end: FuseEnd, device: Device) -> None:
        self._end = end
        self._device = device
        self.unmount = end.service.stop
        self.open = True

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """See layers.ops.Upcalls."""
        nodes = self._end.nodes
        node = nodes.by_cookie(cookie)
        if op == FlushOp.INVAL_NAMECACHE_ALL:
            await self._names(nodes.named())
        elif node is None:
            return
        elif op == FlushOp.INVAL_NAMECACHE_NAME:
            await self._names([(node, name)])
        elif op == FlushOp.INVAL_NAMECACHE_DIR:
            await self._names([(node, child) for child in nodes.children(node)])
        elif op == FlushOp.INVAL_NAMECACHE_NODE:
            if node.parent is not None:
                await self._names([(node.parent, node.name)])
        elif op == FlushOp.INVAL_ATTR_NODE:
            await self._notify(device_replies.inval_inode(node.ino, -1, 0))
        elif op == FlushOp.INVAL_PAGECACHE_NODE_RANGE:
            await self._notify(device_replies.inval_inode(node.ino, 0, 0))
        # FLUSH_PAGECACHE_NODE_RANGE: the host writes through, so it has nothing to write back.

    async def _names(self, names: list[tuple[Node, bytes]]) -> None:
        for parent, name in names:
            await self._notify(device_replies.inval_entry(parent.ino, name))

    async def _notify(self, message: bytes) -> None:
        try:
            await trio.to_thread.run_sync(self._write, message, abandon_on_cancel=True)
        except OSError as exc:
            # ENOENT: the host does not hold it; ENOTCONN, EBADF, ENODEV: the mount has gone.
            if exc.errno not in (errno.ENOENT, errno.ENOTCONN, errno.EBADF, errno.ENODEV):
                raise

    def _write(self, message: bytes) -> None:
        if self.open:
            self._device.notify(message)


_end_session: Callable[[], None] | None = None
"""Ends the session of this process, while there is one."""


def request_unmount() -> bool:
    """End the session, if there is one: `mount_and_serve` unmounts and returns.

    Returns whether there is one. Requests in progress may finish, as `Service.stop` says. Harmless
    when called again.
    """
    if _end_session is None:
        return False
    _end_session()
    return True


_saving: trio.CancelScope | None = None
"""Around the end of what is below, while that waits for what is not saved."""


def hasten_unmount() -> None:
    """Have an unmount that saves what was written last do so no longer. It fails then."""
    if _saving is not None:
        _saving.cancel()


def _raise_read_ahead(mountpoint: str) -> None:
    """Let the host read ahead as much as one request carries. Root's; for others it stays."""
    device = os.stat(mountpoint).st_dev
    knob = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        with open(knob, "r+") as file:
            if int(file.read()) < _READ_AHEAD_KB:
                file.seek(0)
                file.write(str(_READ_AHEAD_KB))
    except OSError:
        _log.debug("the host's read-ahead stays as it is: %s cannot be written", knob)


async def mount_and_serve(
    server: FileServer,
    mountpoint: str,
    options: HostOptions,
    *,
    ready: Callable[[], None],
    mounted: Callable[[], Awaitable[None]] | None = None,
    made: Callable[[FuseEnd], None] | None = None,
) -> None:
    """Mount `server` on `mountpoint`, serve until it is unmounted, and return.

    `mounted` is awaited when the host has mounted and nothing has been asked of `server` yet.
    `ready` is called once, when the mount has answered a request. `made` is called before that
    with the host's end, for who looks into the stack while it lives. Cancellation unmounts.
    `server.unmount` is awaited in any case before this returns, forced if need be; the caller
    still owns the server's own context. Raises HostMountError.
    """
    global _end_session, _saving
    check_mount_point(mountpoint)
    mountpoint = os.path.realpath(mountpoint)
    fd, keeper = mount(mountpoint, options)
    device = Device(fd)
    end = FuseEnd(server, options, device)
    upcalls: _Upcalls | None = None
    try:
        if mounted is not None:
            await mounted()
        async with trio.open_nursery() as nursery:
            upcalls = _Upcalls(end, device)
            _end_session = end.service.stop
            end.upcalls = upcalls
            server.attach(upcalls)
            if made is not None:
                made(end)
            nursery.start_soon(_serve, end, nursery)
            with trio.fail_after(_READY_SECONDS):
                await trio.to_thread.run_sync(os.stat, mountpoint, abandon_on_cancel=True)
            await trio.to_thread.run_sync(_raise_read_ahead, mountpoint, abandon_on_cancel=True)
            ready()
    except* trio.TooSlowError:
        raise HostMountError(
            HostMountFailure.OTHER, f"{mountpoint}: the mount does not answer; given up"
        ) from None
    except* OSError as group:
        raise HostMountError(
            HostMountFailure.OTHER,
            f"{mountpoint}: the mount does not answer: {group.exceptions[0]}",
        ) from None
    finally:
        _end_session = None
        if upcalls is not None:
            upcalls.open = False
        try:
            with trio.CancelScope(shield=True) as _saving:
                await end.server.unmount(0)
            if _saving.cancelled_caught:
                raise VfsError(errno.EINTR, "it was told twice to end, and saved nothing more")
        finally:
            _saving = None
            if device.close():
                unmount(mountpoint)
            if keeper is not None:
                keeper.close()


async def _serve(end: FuseEnd, nursery: trio.Nursery) -> None:
    """Run the session until the host unmounts, `stop` is called, or we are cancelled."""
    await end.service.run()
    nursery.cancel_scope.cancel()
