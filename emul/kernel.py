"""Kernel: mounts, the free list that they share, and the tasks of their own that they need."""

from __future__ import annotations

from collections import deque
from contextlib import AbstractAsyncContextManager
from errno import EBUSY, EINVAL
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from trio.lowlevel import ParkingLot

from ..native.constants import MNT_FORCE, MNT_WAIT
from ..native.errors import VfsError
from ..native.records import FSCRED
from .mount import Mount
from .vnode import FreeList, Vnode, vrele, vrele_nowait

if TYPE_CHECKING:
    from .vfs import FileSystem

DESIREDVNODES: Final = 10_000
"""How many unused vnodes a kernel keeps."""
UNMOUNT_GRACE: Final = 5.0
"""How long a forced unmount waits for the file system, and then for holders of vnodes, seconds."""
_VRELE_THREADS: Final = 4
_VRELE_BATCH: Final = 64


class Statistics(NamedTuple):
    """Figures of a kernel: what there is now, and what became of unused vnodes so far."""

    mounts: int
    vnodes: int
    free: int
    recycled: int
    revived: int


class Kernel:
    """One emulated kernel; several may live in a process and know nothing of each other.

    Use it as `async with Kernel() as kernel`. `nursery` owns the tasks that file systems and
    clients start; what fails there ends the kernel. Leaving the context unmounts by force what is
    still mounted, youngest first, and cancels the tasks.
    """

    nursery: trio.Nursery

    def __init__(self, *, desiredvnodes: int = DESIREDVNODES) -> None:
        self.free_list = FreeList(desiredvnodes)
        self._mounts: list[Mount] = []
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._deferred: deque[Vnode] = deque()
        self._vrele_idle = ParkingLot()
        self._vrele_done = ParkingLot()

    async def __aenter__(self) -> Kernel:
        if self._manager is not None:
            raise RuntimeError("a kernel runs once")
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()
        for _ in range(_VRELE_THREADS):
            self.nursery.start_soon(self._vrele_thread)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._manager is not None
        for mount in reversed(self._mounts.copy()):
            await self.unmount(mount, MNT_FORCE)
        self.nursery.cancel_scope.cancel()
        try:
            return await self._manager.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            # Nothing but what the body raised: let it out as it was, not in a group of one.
            if exc is not None and group.exceptions == (exc,):
                return False
            raise

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
            revived=self.free_list.revived,
        )

    async def mount(self, fs: FileSystem, *, rdonly: bool = False) -> Mount:
        """Mount `fs`, which was not mounted before, and return the mount.

        Errors: what `fs.start` and `fs.root` raise; nothing is mounted then.
        """
        mount = Mount(self, fs, rdonly=rdonly)
        fs.mount = mount
        await fs.start()
        try:
            mount.set_root(await fs.root())
        except BaseException:
            await self._end(mount)
            raise
        self._mounts.append(mount)
        return mount

    async def unmount(self, mount: Mount, flags: int = 0) -> None:
        """Unmount; all vnodes of `mount` are dead afterwards.

        Without MNT_FORCE everything is written first, and an error of that, or the file system's
        own, vetoes and leaves the mount as it was. With MNT_FORCE it always succeeds, cannot be
        cancelled, and takes no longer than twice UNMOUNT_GRACE: the file system is told to end
        (which ends operations that are still waiting) and vnodes are taken from their users.
        Either way `fs.reclaim` is called for the vnodes after `fs.unmount`.

        Errors:
            EINVAL  not mounted here (any more)
            EBUSY   a vnode other than the root is in use
            other   what `sync` and `unmount` of the file system said
        """
        if mount not in self._mounts:
            raise VfsError(EINVAL, "not mounted")
        if flags & MNT_FORCE:
            self._mounts.remove(mount)
            await self._end(mount)
            return
        while mount.deferred:
            if self.nursery.cancel_scope.cancel_called:
                await self._drop_deferred()  # the tasks that did it have gone
            else:
                await self._vrele_done.park()
        if mount.is_busy:
            raise VfsError(EBUSY)
        await mount.fs.sync(MNT_WAIT, FSCRED)
        if mount.is_busy:
            raise VfsError(EBUSY)
        await mount.fs.unmount(flags)
        if mount in self._mounts:  # no forced unmount has overtaken us
            self._mounts.remove(mount)
            await mount.clean(UNMOUNT_GRACE)

    async def _end(self, mount: Mount) -> None:
        """Unmount by force what is not in the list of mounts (any more)."""
        with trio.move_on_after(UNMOUNT_GRACE, shield=True):
            try:
                await mount.fs.unmount(MNT_FORCE)
            except VfsError:
                pass  # no veto with MNT_FORCE
        await mount.clean(UNMOUNT_GRACE)

    # References whose drop may have to wait, from callers that must not.

    def vrele_async(self, vp: Vnode) -> None:
        """Drop a reference without waiting; a task of the kernel does what has to wait.

        The queue is bounded by the references there are.
        """
        if not vrele_nowait(vp):
            vp.mount.deferred += 1
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
                vp.mount.deferred -= 1
                if not vp.mount.deferred:
                    self._vrele_done.unpark_all()
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
            self._vrele_done.unpark_all()  # who waits for us must drop the rest himself
