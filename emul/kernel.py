"""Kernel: mounts, the free list that they share, and the tasks of their own that they need."""

from __future__ import annotations

import logging
import os
from collections import deque
from contextlib import AbstractAsyncContextManager
from errno import EBUSY, EINVAL, ENOTDIR, ENXIO
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from trio.lowlevel import ParkingLot

from ..native.constants import MNT_FORCE, MNT_WAIT, Vtype
from ..native.errors import VfsError
from .bio import BUFMEM, BufferCache
from .freelist import FreeList
from .lockf import Lockf
from .mount import Mount
from .namecache import NameCache
from .sched.callout import Callouts
from .specfs import mount_devices
from .syncer import Syncer, vfs_sync
from .uvm import PAGEMEM, PageMemory
from .vnode import Vnode, is_clean, vref, vrele, vrele_nowait
from .vopcheck import KernelDebug

if TYPE_CHECKING:
    from .sched.lockdebug import LockDebug
    from .vfs import FileSystem

DESIREDVNODES: Final = 10_000
"""How many vnodes a kernel has at most, but for those in use or not written yet."""
UNMOUNT_GRACE: Final = 5.0
"""How long a forced unmount takes for each of its steps: writing, the file system's own end, and
waiting for holders of vnodes, seconds."""
EXIT_GRACE: Final = 60.0
"""How long a kernel that ends tries to unmount without force, for each mount that has something
to be written, seconds. The others get UNMOUNT_GRACE."""
_SYNC_ROUNDS: Final = 4
_VRELE_THREADS: Final = 4
_VRELE_BATCH: Final = 64

_log = logging.getLogger(__name__)


class Statistics(NamedTuple):
    """Figures of a kernel: what there is now, and what became of unused vnodes so far."""

    mounts: int
    vnodes: int
    free: int
    recycled: int
    cleaned: int
    revived: int


class Lost(NamedTuple):
    """What a forced unmount throws away: files and pages of data, buffers of metadata."""

    files: int
    pages: int
    metadata: int

    def __str__(self) -> str:
        return f"{self.pages} pages of {self.files} files and {self.metadata} buffers of the device"

    @classmethod
    def of(cls, mount: Mount) -> Lost:
        """Count what is dirty now."""
        vps = [vp for vp in mount if not is_clean(vp)]
        pages = sum(vp.uobj.ndirty for vp in vps if vp.uobj is not None)
        devvp = mount.fs.devvp
        return cls(len(vps), pages, len(devvp.dirtyblks or ()) if devvp is not None else 0)


class Kernel:
    """One emulated kernel; several may live in a process and know nothing of each other.

    Use it as `async with Kernel() as kernel`. `nursery` owns the tasks that file systems and
    clients start; what fails there ends the kernel.

    Leaving the context unmounts what is still mounted, youngest first, and cancels the tasks. That
    is a proper unmount if it succeeds in time (EXIT_GRACE), and else one by force. (After an
    exception, cancellation included, mounts that have nothing to be written are forced at once.)

    With `debug`, or SYSPUFFS_DEBUG=1 in the environment, every vnode operation is checked against
    the rules (vopcheck) and every lock against the order of locks (sched.lockdebug), and what is
    left of both at the end is logged as an error.
    """

    nursery: trio.Nursery

    def __init__(
        self,
        *,
        desiredvnodes: int = DESIREDVNODES,
        pagemem: int = PAGEMEM,
        bufmem: int = BUFMEM,
        debug: bool | None = None,
    ) -> None:
        if debug is None:
            debug = os.environ.get("SYSPUFFS_DEBUG", "0") not in ("", "0")
        self.debug = KernelDebug() if debug else None
        self.lockdebug: LockDebug | None = None if self.debug is None else self.debug.locks
        self.callouts = Callouts(self)
        self.free_list = FreeList(desiredvnodes)
        self.namecache = NameCache(2 * desiredvnodes)
        self.bufs = BufferCache(bufmem)
        self.pages = PageMemory(pagemem)
        self.devices = mount_devices(self)
        self._mounts: list[Mount] = []
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._deferred: deque[Vnode] = deque()
        self._vrele_idle = ParkingLot()
        self.syncer = Syncer()
        self.lockf = Lockf()
        self._covering: set[Vnode] = set()  # directories on which something is being mounted

    async def __aenter__(self) -> Kernel:
        if self._manager is not None:
            raise RuntimeError("a kernel runs once")
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()
        for _ in range(_VRELE_THREADS):
            self.nursery.start_soon(self._vrele_thread)
        self.nursery.start_soon(self.free_list.vdrain)
        self.nursery.start_soon(self.syncer.run)
        self.nursery.start_soon(self.pages.daemon)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        assert self._manager is not None
        bug: BaseException | None = None
        for mount in (*reversed(self._mounts.copy()), self.devices):
            try:
                await self._give_up(mount, in_peace=exc_type is None)
            except BaseException as caught:  # the others, and the tasks, must end all the same
                bug = bug or caught
        self.nursery.cancel_scope.cancel()
        cause = exc if bug is None else bug
        try:
            await self._manager.__aexit__(None if cause is None else type(cause), cause, traceback)
        except BaseExceptionGroup as group:
            # Nothing but what the body raised: let it out as it was, not in a group of one.
            if cause is None or group.exceptions != (cause,):
                raise
        if bug is not None:
            raise bug
        if self.debug is not None and exc is None:
            for leak in self.debug.leaks():
                _log.error("%s", leak)
        return False

    async def _give_up(self, mount: Mount, *, in_peace: bool) -> None:
        """Unmount at the end of the kernel."""
        if mount is self.devices:
            await mount.fs.unmount(MNT_FORCE)
            return
        if mount not in self._mounts:
            return
        is_dirty = mount.is_dirty
        if in_peace or is_dirty:
            with trio.move_on_after(EXIT_GRACE if is_dirty else UNMOUNT_GRACE, shield=True):
                try:
                    await self.unmount(mount)
                    return
                except VfsError as exc:
                    _log.debug("%r is unmounted by force: %s", mount, exc)
        await self.unmount(mount, MNT_FORCE)

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What is mounted, oldest first."""
        return tuple(self._mounts)

    def statistics(self) -> Statistics:
        """Return the figures of now."""
        return Statistics(
            mounts=len(self._mounts),
            vnodes=sum(map(len, self._mounts)),
            free=len(self.free_list),
            recycled=self.free_list.recycled,
            cleaned=self.free_list.cleaned,
            revived=self.free_list.revived,
        )

    async def mount(
        self, fs: FileSystem, *, rdonly: bool = False, covered: Vnode | None = None
    ) -> Mount:
        """Mount `fs`, which was not mounted before, and return the mount.

        It covers the directory `covered`, which gets a reference of the mount's and is found as
        `mount.covered`; `covered.mountedhere` is the mount. Without one it is the kernel's root, if
        it is the first, or nowhere, and its client is who called. Entry: `covered` referenced and
        unlocked.

        Errors, first match wins; nothing is mounted then:
            ENXIO    `covered` is dead
            ENOTDIR  `covered` is no directory
            EBUSY    something is mounted there (its root is what to cover), or on its way
            other    what `fs.start` and `fs.root` raise
        """
        if covered is not None:
            self._cover(covered)
        mount = Mount(self, fs, rdonly=rdonly)
        fs.mount = mount
        try:
            await fs.start()
            try:
                mount.set_root(await fs.root())
                if covered is not None and covered.is_dead:
                    raise VfsError(ENXIO, "the directory to mount on is dead")
            except BaseException:
                await self._end(mount)
                raise
        except BaseException:
            if covered is not None:
                self._covering.remove(covered)
                self.vrele_async(covered)
            raise
        if covered is not None:
            self._covering.remove(covered)
            covered.mountedhere = mount
            mount.covered = covered
        self._mounts.append(mount)
        return mount

    def _cover(self, vp: Vnode) -> None:
        """Take a directory to mount on, with a reference."""
        if vp.is_dead:
            raise VfsError(ENXIO, "the directory to mount on is dead")
        if vp.vtype != Vtype.VDIR:
            raise VfsError(ENOTDIR)
        if vp.mountedhere is not None or vp in self._covering:
            raise VfsError(EBUSY, "something is mounted there")
        vref(vp)
        self._covering.add(vp)

    async def unmount(self, mount: Mount, flags: int = 0) -> None:
        """Unmount; all vnodes of `mount` are dead afterwards.

        Without MNT_FORCE everything is written first, and an error of that, or the file system's
        own, vetoes and leaves the mount as it was: nothing is lost. While the file system ends, the
        directory that was covered is to be seen.

        With MNT_FORCE it always succeeds, and what is mounted in it goes first. What is dirty is
        written if that takes no more than UNMOUNT_GRACE; then the file system is told to end (which
        ends operations that are still waiting), and vnodes are taken from their users, each within
        the same time. It cannot be cancelled. What could not be written is lost, and the log says
        how much it was.

        Either way `fs.reclaim` is called for the vnodes after `fs.unmount`.

        Errors:
            EINVAL  not mounted here (any more)
            EBUSY   a vnode is in use, or covered by another mount, or is being loaded; somebody
                    else is about to unmount, or writes faster than everything can be written
            other   what `sync`, `fsync` and `unmount` of the file system said
        """
        if mount not in self._mounts:
            raise VfsError(EINVAL, "not mounted")
        if flags & MNT_FORCE:
            await self._unmount_force(mount)
            return
        if mount.is_unmounting:
            raise VfsError(EBUSY, "being unmounted")
        mount.is_unmounting = True
        try:
            await self._quiesce(mount)
            # No await up to the file system: nobody uses it, and nobody finds the way in.
            self._uncover(mount)
            try:
                await mount.fs.unmount(flags)
            except BaseException:
                if mount.covered is not None and mount in self._mounts:
                    mount.covered.mountedhere = mount
                raise
        finally:
            mount.is_unmounting = False
        if mount in self._mounts:  # no forced unmount has overtaken us
            self._mounts.remove(mount)
            await self._clean(mount)

    async def _quiesce(self, mount: Mount) -> None:
        """Write all of `mount`, until nothing is dirty and nobody has used it meanwhile."""
        for _ in range(_SYNC_ROUNDS):
            await self._wait_unheld(mount)
            if mount.is_busy:
                raise VfsError(EBUSY, f"in use: {', '.join(map(str, mount.users()))}")
            await vfs_sync(mount, MNT_WAIT)
            if not mount.holds and not mount.is_busy and all(map(is_clean, mount)):
                return
        raise VfsError(EBUSY, "somebody goes on writing")

    async def _unmount_force(self, mount: Mount) -> None:
        for other in reversed(self._mounts.copy()):
            if other.covered is not None and other.covered.mount is mount:
                await self._unmount_force(other)
        if mount in self._mounts:
            self._mounts.remove(mount)
            self._uncover(mount)
            await self._end(mount)

    def _uncover(self, mount: Mount) -> None:
        """Let the directory under `mount` be seen."""
        if mount.covered is not None:
            mount.covered.mountedhere = None

    async def _end(self, mount: Mount) -> None:
        """Unmount by force what is not in the list of mounts (any more)."""
        if mount.is_dirty:
            with trio.move_on_after(UNMOUNT_GRACE, shield=True):
                try:
                    await vfs_sync(mount, MNT_WAIT)
                except VfsError as exc:
                    _log.warning("%r cannot be written: %s", mount, exc)
        lost = Lost.of(mount)
        with trio.move_on_after(UNMOUNT_GRACE, shield=True):
            try:
                await mount.fs.unmount(MNT_FORCE)
                # It has written what belongs to it, or would have said that it could not.
                lost = Lost.of(mount)._replace(metadata=0)
            except VfsError as exc:
                _log.debug("%r: no veto with MNT_FORCE: %s", mount, exc)
        if any(lost):
            _log.warning("%r was unmounted by force and has lost %s", mount, lost)
        if self.debug is not None:
            for vp in mount.users():
                _log.info("%r was unmounted by force under who uses %s", mount, vp)
        await self._clean(mount)

    async def _clean(self, mount: Mount) -> None:
        """Kill the vnodes of a file system that has ended, and let go of what it covered."""
        await mount.clean(UNMOUNT_GRACE)
        if mount.covered is not None:
            self.vrele_async(mount.covered)
            mount.covered = None

    # References whose drop may have to wait, from callers that must not.

    def vrele_async(self, vp: Vnode) -> None:
        """Drop a reference without waiting; a task of the kernel does what has to wait.

        The queue is bounded by the references there are.
        """
        if not vrele_nowait(vp):
            vp.mount.holds += 1
            self._deferred.append(vp)
            self._vrele_idle.unpark()

    async def _drop_deferred(self) -> None:
        """Drop what `vrele_async` left, yielding now and then."""
        queue = self._deferred
        batch = 0
        while queue:
            vp = queue.popleft()
            try:
                await vrele(vp)
            finally:
                vp.mount.unhold()
            batch += 1
            if batch >= _VRELE_BATCH:  # inactive of a local file system never yields
                batch = 0
                await trio.lowlevel.checkpoint()

    async def _vrele_thread(self) -> None:
        try:
            while True:
                await self._drop_deferred()
                await self._vrele_idle.park()
        finally:
            for mount in self._mounts:  # who waits for us must drop the rest himself
                mount.holds_gone.unpark_all()

    async def _wait_unheld(self, mount: Mount) -> None:
        """Wait until the kernel itself holds no vnode of `mount`."""
        while mount.holds:
            if self._deferred and self.nursery.cancel_scope.cancel_called:
                await self._drop_deferred()  # the tasks that did it have gone
            else:
                await mount.holds_gone.park()
