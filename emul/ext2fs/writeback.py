"""Write-back: the kernel thread of a mounted file system that writes what nobody waits for.

It sleeps while nothing has changed. Some seconds after something has, it starts the data of
all files on their way, commits the nodes (`deps`), and starts everything else, counts and
bitmaps, with B_ASYNC: nobody waits for those.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import ParkingLot

from ...native.constants import PGO_CLEANIT
from ...native.errors import VfsError
from ..bio import vflushbuf
from ..vnode import holdrele, vhold

if TYPE_CHECKING:
    from ..mount import Mount
    from .commit import Order

COMMIT_DELAY: Final = 5.0
"""For how long a change may wait for company before it is written, seconds."""

_log = logging.getLogger(__name__)


class Writeback:
    """Body and bell of the thread."""

    def __init__(self, mount: Mount, order: Order) -> None:
        self._mount = mount
        self._order = order
        self._bell = ParkingLot()
        self.passes = 0
        order.on_crowd = self.kick

    def kick(self) -> None:
        """Have it work now. Never waits."""
        self._bell.unpark_all()

    async def run(self) -> None:
        """Work; never returns (a kernel thread)."""
        order = self._order
        while True:
            await order.wait_active()
            if not order.is_crowded:
                with trio.move_on_after(COMMIT_DELAY):
                    await self._bell.park()
            try:
                await self.work()
            except VfsError as exc:
                # All of it stays as it was; fsync and sync tell those who ask.
                _log.debug("write-back of %r: %s", self._mount, exc)
                with trio.move_on_after(COMMIT_DELAY):
                    await self._bell.park()

    async def work(self) -> None:
        """Write once. Errors: EIO, not for data: those stay dirty, and say so at fsync."""
        self.passes += 1
        for vp in self._mount:
            if vp.is_dead or vp.uobj is None or not vp.uobj.ndirty or vp.uobj.error:
                continue
            vhold(vp)
            try:
                await vp.fs.putpages(vp, 0, 0, PGO_CLEANIT)
            except VfsError:
                pass
            finally:
                with trio.CancelScope(shield=True):
                    await holdrele(vp)
        order = self._order
        await order.commit_all()
        with trio.CancelScope(shield=True):
            await order.volume.write_counts()
            await vflushbuf(order.volume.devvp, False)
