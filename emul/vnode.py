"""Vnodes: their references and their life from `Mount.insert` to dead.

    Mount.insert -> in use -> last vrele: inactive -> free list -> reclaim -> dead
                      ^ vget                             |
                      +----------------------------------+

A vnode in use has references; who holds its lock holds one, too. With the last one goes
the file system's `inactive`; a node that has no name left is reclaimed there and then,
every other one goes to the end of the kernel's free list, where `Mount.vget` finds it
until it has become the oldest of too many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from itertools import count
from typing import TYPE_CHECKING, Any

import trio

from .dead import RECYCLED, REVOKED
from .lock import VnodeLock

if TYPE_CHECKING:
    from .mount import Mount
    from .vfs import FileSystem

_serials = count(1)


class Vnode:
    """One node in memory. Made by `Mount.insert`, ended by `reclaim`.

    `fs` is whom to ask for operations (a dead vnode's answers errors), `data` is the file
    system's own and None afterwards. `size` (octets) is what the file system last knew, `rdev`
    counts for devices. `serial` is unique in the process, never reused, and orders the locks of
    unrelated directories. `usecount` is changed by the functions of this module and by
    `Mount.vget` only, and never across an await.
    """

    __slots__ = (
        "data",
        "fs",
        "is_dead",
        "is_root",
        "key",
        "lock",
        "mount",
        "rdev",
        "serial",
        "size",
        "usecount",
        "vtype",
    )

    def __init__(
        self, mount: Mount, key: Hashable, vtype: int, data: Any, size: int, rdev: int
    ) -> None:
        self.mount = mount
        self.fs: FileSystem = mount.fs
        self.key = key
        self.vtype = vtype
        self.data = data
        self.size = size
        self.rdev = rdev
        self.serial = next(_serials)
        self.usecount = 1
        self.lock = VnodeLock()
        self.is_root = False
        self.is_dead = False

    def __repr__(self) -> str:
        state = " dead" if self.is_dead else ""
        return (
            f"<Vnode {self.serial} {self.fs.typename} key={self.key!r} vtype={self.vtype}"
            f" use={self.usecount}{state} {self.lock!r}>"
        )


class FreeList:
    """The unused vnodes of a kernel, least recently used first, at most `limit` of them."""

    __slots__ = ("_vnodes", "limit", "recycled", "revived")

    def __init__(self, limit: int) -> None:
        self._vnodes: OrderedDict[Vnode, None] = OrderedDict()
        self.limit = limit
        self.recycled = 0
        """How many were reclaimed to keep the limit."""
        self.revived = 0
        """How many were found again in time."""

    def __len__(self) -> int:
        return len(self._vnodes)

    def add(self, vp: Vnode) -> None:
        """Put `vp` at the young end; reclaim the oldest if that makes too many."""
        vnodes = self._vnodes
        vnodes[vp] = None
        while len(vnodes) > self.limit:
            oldest, _ = vnodes.popitem(last=False)
            self.recycled += 1
            reclaim(oldest, REVOKED)

    def remove(self, vp: Vnode) -> None:
        """Take `vp` off the list."""
        del self._vnodes[vp]


def vref(vp: Vnode) -> None:
    """Add a reference to a vnode that has one already."""
    if vp.usecount < 1:
        raise RuntimeError(f"vref of an unused vnode: {vp!r}")
    vp.usecount += 1


def vrele_nowait(vp: Vnode) -> bool:
    """Drop a reference if it is not the last one; return whether it was dropped.

    False: nothing has happened, and only `vrele` (or `Kernel.vrele_async`) can drop it, for the
    file system's `inactive` may have to wait.
    """
    if vp.usecount > 1:
        vp.usecount -= 1
        return True
    return False


async def vrele(vp: Vnode) -> None:
    """Drop a reference; the vnode becomes inactive with the last one.

    Entry: the caller does not hold the lock. The reference is gone in any case, also when the
    file system's `inactive` was cancelled: the vnode is then unused without having been recycled.
    """
    if vp.usecount > 1:
        vp.usecount -= 1
        return
    if vp.usecount < 1:
        raise RuntimeError(f"vrele without a reference: {vp!r}")
    # Our reference stays until the end of it all: nobody can free the vnode while we wait.
    if not vp.lock.try_exclusive():
        # Who holds the lock has a reference, so this is somebody about to let go. Shielded
        # because a reference that is not dropped is never dropped.
        with trio.CancelScope(shield=True):
            await vp.lock.exclusive()
    await _rele_locked(vp)


async def vput(vp: Vnode) -> None:
    """Release the caller's hold of the lock, of either kind, and drop a reference."""
    if vp.usecount > 1:
        vp.usecount -= 1
        vp.lock.release()
    elif vp.lock.is_exclusive:
        await _rele_locked(vp)
    else:
        vp.lock.release()
        await vrele(vp)


async def _rele_locked(vp: Vnode) -> None:
    """Drop what may be the last reference and release the lock. Entry: `vp` exclusive."""
    recycle = False
    try:
        if vp.usecount == 1 and not vp.is_dead:
            recycle = await vp.fs.inactive(vp)
    finally:
        # No await below. If a vget came while `inactive` ran, the vnode just goes on being used
        # and hears inactive again later.
        vp.usecount -= 1
        if vp.usecount == 0 and not vp.is_dead:
            if recycle:
                reclaim(vp, RECYCLED)
            else:
                vp.mount.free_list.add(vp)
        vp.lock.release()


async def vgone(vp: Vnode) -> None:
    """Take the vnode from its file system although it is in use; it is dead afterwards.

    The caller's reference stays and is dropped with `vrele`. Entry: unlocked. What other holders
    of references ask of it from then on fails with ENXIO.
    """
    await vp.lock.exclusive()
    try:
        if not vp.is_dead:
            reclaim(vp, REVOKED)
    finally:
        vp.lock.release()


def vrecycle(vp: Vnode) -> bool:
    """Reclaim `vp` now if nobody uses it; return whether that was so."""
    if vp.usecount or vp.is_dead:
        return False
    vp.mount.free_list.remove(vp)
    reclaim(vp, RECYCLED)
    return True


def reclaim(vp: Vnode, fs: FileSystem) -> None:
    """Cut `vp` from its mount and file system; `fs` answers for it from now on.

    For this package. Entry: not on the free list, not dead, and either unused or exclusive.
    """
    vp.mount.forget(vp)
    vp.fs.reclaim(vp)
    vp.data = None
    vp.fs = fs
    vp.is_dead = True
