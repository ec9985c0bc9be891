"""Vnodes: their references and their life from `Mount.insert` to dead.

    Mount.insert -> in use -> last vrele: inactive -> free list -> reclaim -> dead
                      ^ vget                             |
                      +----------------------------------+

A vnode in use has references; who holds its lock holds one, too. With the last one goes
the file system's `inactive`; a node that has no name left is reclaimed there and then,
every other one goes to the end of the kernel's free list, where `Mount.vget` finds it
until it has become the oldest of too many (see `freelist`).

The kernel's own tasks (write-back, page daemon, sync) work on vnodes that nobody uses. What
they take is a reference like any other, but by `vhold`: an unmount waits for such holders,
where it finds a vnode with a user busy.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from itertools import count
from typing import TYPE_CHECKING, Any

import trio

from ..native.constants import FSYNC_VFS, FSYNC_WAIT
from ..native.errors import VfsError
from ..native.records import FSCRED
from .dead import RECYCLED, REVOKED
from .lock import VnodeLock

if TYPE_CHECKING:
    from trio.lowlevel import ParkingLot

    from .bio import Buf
    from .mount import Mount
    from .namecache import Namecache
    from .uvm import UvmAobj, UvmObject
    from .vfs import FileSystem

_serials = count(1)
_log = logging.getLogger(__name__)


class Vnode:
    """One node in memory. Made by `Mount.insert`, ended by `reclaim`.

    `fs` is whom to ask for operations (a dead vnode's answers errors), `data` is the file
    system's own and None afterwards. `size` (octets) is what the file system last knew, `rdev`
    counts for devices. `serial` is unique in the process, never reused, and orders the locks of
    unrelated directories. `usecount` is changed by the functions of this module and by
    `Mount.vget` only, and never across an await.

    `uobj` has the pages of a file whose file system uses the page cache. `dirtyblks` are the
    buffers of this vnode that wait to be written, oldest first; `numoutput` counts the writes of
    its buffers and pages that the device has not answered yet, `output_waiters` those who wait for
    there being none (bio). `is_modified` is the file system's to set while its node in memory says
    more than the buffers do. `mountedhere` is what is mounted on a directory. `ncsrc` and `ncdst`
    are the name cache's, `synctime` is the syncer's (its slot there, -1 for none).
    """

    __slots__ = (
        "data",
        "dirtyblks",
        "fs",
        "is_dead",
        "is_modified",
        "is_root",
        "key",
        "lock",
        "mount",
        "mountedhere",
        "ncdst",
        "ncsrc",
        "numoutput",
        "output_waiters",
        "rdev",
        "serial",
        "size",
        "synctime",
        "uobj",
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
        self.uobj: UvmObject | UvmAobj | None = None
        self.dirtyblks: dict[Buf, None] | None = None
        self.numoutput = 0
        self.output_waiters: ParkingLot | None = None
        self.is_modified = False
        self.mountedhere: Mount | None = None
        self.ncsrc: dict[bytes, Namecache] | None = None
        self.ncdst: dict[Namecache, None] | None = None
        self.synctime = -1

    def __repr__(self) -> str:
        state = " dead" if self.is_dead else ""
        return (
            f"<Vnode {self.serial} {self.fs.typename} key={self.key!r} vtype={self.vtype}"
            f" use={self.usecount}{state} {self.lock!r}>"
        )


def is_clean(vp: Vnode) -> bool:
    """Whether nothing would be lost if `vp` left memory now.

    That is so when its file system's node is no news, its pages are written, its buffers are
    written, and the device has answered for all of that.
    """
    return not (
        vp.is_modified
        or vp.numoutput
        or vp.dirtyblks
        or (vp.uobj is not None and not vp.uobj.is_clean)
    )


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

    Entry: the caller holds neither this lock nor one of a file system's own. The reference is gone
    in any case, also when the file system's `inactive` was cancelled: the vnode is then unused
    without having been recycled. The last one may have to wait until another vnode was written,
    where there are far too many (`FreeList.wait_room`).
    """
    if vp.usecount > 1:
        vp.usecount -= 1
        return
    await _rele_last(vp)
    if vp.mount.free_list.is_crowded:
        await vp.mount.free_list.wait_room()


async def vput(vp: Vnode) -> None:
    """Release the caller's hold of the lock, of either kind, and drop a reference as `vrele`."""
    if vp.usecount > 1:
        vp.usecount -= 1
        vp.lock.release()
    elif vp.lock.is_exclusive:
        await vput_locked(vp)
        if vp.mount.free_list.is_crowded:
            await vp.mount.free_list.wait_room()
    else:
        vp.lock.release()
        await vrele(vp)


def vhold(vp: Vnode) -> None:
    """Take a reference for the kernel itself, for a while; `vp` may be unused, but not dead.

    For tasks of the kernel that come to a vnode without having been asked to (vdrain, syncer, page
    daemon): an unmount waits until `holdrele` instead of finding the vnode busy.
    """
    if not vp.usecount:
        vp.mount.free_list.remove(vp)
    vp.usecount += 1
    vp.mount.holds += 1


async def holdrele(vp: Vnode) -> None:
    """Give back what `vhold` took. As `vrele`, but it never waits for other vnodes."""
    try:
        if vp.usecount > 1:
            vp.usecount -= 1
        else:
            await _rele_last(vp)
    finally:
        vp.mount.unhold()


async def _rele_last(vp: Vnode) -> None:
    """Drop what may be the last reference. Entry: unlocked."""
    if vp.usecount < 1:
        raise RuntimeError(f"vrele without a reference: {vp!r}")
    # Our reference stays until the end of it all: nobody can free the vnode while we wait.
    if not vp.lock.try_exclusive():
        # Who holds the lock has a reference, so this is somebody about to let go. Shielded
        # because a reference that is not dropped is never dropped.
        with trio.CancelScope(shield=True):
            await vp.lock.exclusive()
    await vput_locked(vp)


async def vput_locked(vp: Vnode) -> None:
    """Drop what may be the last reference and release the lock. Entry: `vp` exclusive.

    For this package: `vput` that never waits for other vnodes.
    """
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

    The caller's reference stays and is dropped with `vrele`. Entry: unlocked. What is dirty is
    written first; what cannot be is lost, and the log says so. What other holders of references
    ask of it from then on fails with ENXIO.
    """
    await vp.lock.exclusive()
    try:
        if not vp.is_dead and not is_clean(vp):
            try:
                await vp.fs.fsync(vp, FSYNC_VFS | FSYNC_WAIT, 0, 0, FSCRED)
            except VfsError as exc:
                _log.warning("%r is taken away, and what is dirty of it is lost: %s", vp, exc)
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
    mount = vp.mount
    mount.forget(vp)
    if vp.ncsrc or vp.ncdst:
        mount.kernel.namecache.purge(vp)
    if vp.synctime >= 0:
        mount.kernel.syncer.remove(vp)
    mount.kernel.lockf.forget(vp)
    vp.fs.reclaim(vp)
    vp.data = None
    vp.fs = fs
    vp.is_dead = True
    mount.free_list.discount()
