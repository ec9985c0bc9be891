"""sync: writing what waits to be written, of one mount, of all, and by itself after a while.

A vnode that gets its first dirty page or buffer is put on the worklist by who made it dirty; some
time later the syncer starts to write it out (FSYNC_LAZY). Each vnode has a slot of a wheel with
one slot a second; a directory goes before a file, and a device, where metadata are, before
both, so that a file system that is written to at leisure stays close to consistent.

`vfs_sync` writes and waits for what belongs to one mount, and touches nothing else; `sync_all`
is that for all of a kernel.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from trio.lowlevel import ParkingLot

from ..native.constants import FSYNC_LAZY, FSYNC_VFS, FSYNC_WAIT, MNT_NOWAIT, MNT_WAIT, Vtype
from ..native.errors import VfsError
from ..native.records import FSCRED, Cred
from .vnode import holdrele, is_clean, vhold

if TYPE_CHECKING:
    from .kernel import Kernel
    from .mount import Mount
    from .vnode import Vnode

FILEDELAY: Final = 30
"""After how long a file is written, seconds."""
DIRDELAY: Final = 29
"""After how long a directory is written, seconds."""
METADELAY: Final = 28
"""After how long the metadata on a device are written, seconds."""
SYNCER_MAXDELAY: Final = 32
"""Slots of the wheel; delays are shorter, seconds."""

_log = logging.getLogger(__name__)


class Statistics(NamedTuple):
    """Figures of a syncer: vnodes that wait now, and what was written so far."""

    waiting: int
    written: int
    errors: int


class Syncer:
    """The worklist of one kernel and the task that works it off.

    The slot at `_now` is the next one. `vp.synctime` is the slot of a vnode that is on the list; a
    vnode there has no reference by that and goes off it when it is reclaimed.
    """

    def __init__(self) -> None:
        self._wheel: list[dict[Vnode, None]] = [{} for _ in range(SYNCER_MAXDELAY)]
        self._now = 0
        self._waiting = 0
        self._wakeup = ParkingLot()
        self._rush = 0
        self.written = 0
        self.errors = 0

    def statistics(self) -> Statistics:
        """Return the figures of now."""
        return Statistics(self._waiting, self.written, self.errors)

    def add(self, vp: Vnode, delay: int | None = None) -> None:
        """Put `vp` on the list or move it there, to be written in `delay` seconds.

        After a time by its type if none is given. Who makes dirty what was clean does so if
        `vp.synctime` is negative and `vp` not dead. What has become clean meanwhile falls off the
        list by itself.
        """
        if delay is None:
            delay = delay_of(vp)
        if vp.synctime >= 0:
            del self._wheel[vp.synctime][vp]
        else:
            self._waiting += 1
        vp.synctime = (self._now + min(max(delay, 1), SYNCER_MAXDELAY - 1)) % SYNCER_MAXDELAY
        self._wheel[vp.synctime][vp] = None
        self._wakeup.unpark()

    def remove(self, vp: Vnode) -> None:
        """Take `vp` off the list if it is there."""
        if vp.synctime >= 0:
            del self._wheel[vp.synctime][vp]
            vp.synctime = -1
            self._waiting -= 1

    def speedup(self, seconds: int = 1) -> None:
        """Work off the slots of the next `seconds` now: memory is short, or somebody needs room."""
        self._rush = min(self._rush + seconds, SYNCER_MAXDELAY)
        self._wakeup.unpark()

    async def run(self) -> None:
        """Work, one slot a second while anything waits; never returns (a task of the kernel)."""
        while True:
            if not self._waiting:
                self._rush = 0
                await self._wakeup.park()
                continue
            if self._rush:
                self._rush -= 1
            else:
                tick = trio.current_time() + 1
                while trio.current_time() < tick and not self._rush:
                    with trio.move_on_at(tick):
                        await self._wakeup.park()
            self._now = (self._now + 1) % SYNCER_MAXDELAY
            await self._work()

    async def _work(self) -> None:
        """Write the vnodes of this slot, one after the other."""
        # What comes onto the list from now on goes into other slots.
        for vp in list(self._wheel[self._now]):
            if vp.synctime != self._now:
                continue  # gone, or moved, while we wrote another
            self.remove(vp)
            if is_clean(vp):
                continue
            vhold(vp)
            try:
                if not vp.lock.try_shared():
                    self.add(vp, 1)
                    continue
                try:
                    await vp.fs.fsync(vp, FSYNC_LAZY, 0, 0, FSCRED)
                    self.written += 1
                except VfsError as exc:
                    self.errors += 1
                    _log.debug("syncer: %r: %s", vp, exc)  # it stays dirty, fsync will say so
                finally:
                    vp.lock.release()
                if vp.synctime < 0 and not vp.is_dead and not is_clean(vp):
                    self.add(vp)
            finally:
                await holdrele(vp)


def delay_of(vp: Vnode) -> int:
    """Return after how many seconds a vnode like `vp` is written."""
    if vp.vtype == Vtype.VDIR:
        return DIRDELAY
    return METADELAY if vp.vtype == Vtype.VBLK else FILEDELAY


async def vfs_sync(mount: Mount, waitfor: int, cred: Cred = FSCRED) -> None:
    """Write everything that belongs to `mount`, and wait for it with MNT_WAIT.

    First the vnodes, all begun before one is waited for; then `fs.sync` for what belongs to the
    file system as a whole, to which the vnodes have been added. A vnode that is locked comes last,
    or without MNT_WAIT not at all. Nothing that belongs to another mount is written or waited for.
    What is made dirty after the beginning may be left.

    Errors: the first one met; the rest is done all the same.
    """
    wait = waitfor == MNT_WAIT
    error: VfsError | None = None
    vps = [vp for vp in mount if not is_clean(vp)]
    for vp in vps:
        vhold(vp)
    try:
        for flags in (FSYNC_VFS, FSYNC_VFS | FSYNC_WAIT) if wait else (FSYNC_VFS,):
            for vp in sorted(vps, key=_is_locked):
                if not vp.lock.try_shared():
                    if not flags & FSYNC_WAIT:
                        continue
                    await vp.lock.shared()
                try:
                    if not vp.is_dead:
                        await vp.fs.fsync(vp, flags, 0, 0, cred)
                except VfsError as exc:
                    if flags & FSYNC_WAIT or not wait:  # else it is asked again
                        error = error or exc
                finally:
                    vp.lock.release()
    finally:
        with trio.CancelScope(shield=True):
            for vp in vps:
                await holdrele(vp)
    try:
        await mount.fs.sync(waitfor, cred)
    except VfsError as exc:
        error = error or exc
    if error is not None:
        raise error


def _is_locked(vp: Vnode) -> bool:
    return vp.lock.is_locked


async def sync_all(kernel: Kernel, waitfor: int = MNT_WAIT) -> None:
    """Write everything of a kernel and wait for it (sync(2)).

    No errors: who wants to know asks with fsync. All mounts begin before one is waited for.
    """
    mounts = [mount for mount in kernel.mounts if not mount.is_unmounting]
    for mount in mounts:
        mount.holds += 1
    try:
        for step in (MNT_NOWAIT, MNT_WAIT) if waitfor == MNT_WAIT else (waitfor,):
            for mount in mounts:
                if mount.is_alive and not mount.is_rdonly:
                    try:
                        await vfs_sync(mount, step)
                    except VfsError as exc:
                        _log.debug("sync of %r: %s", mount, exc)
    finally:
        for mount in mounts:
            mount.unhold()
