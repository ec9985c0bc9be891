"""Mount: one file system attached to a kernel, and the table of its vnodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterator
from errno import ENXIO
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import trio
from trio.lowlevel import ParkingLot

from ..native.constants import FlushOp
from ..native.errors import VfsError
from .dead import REVOKED
from .lock import VnodeLock
from .sched.lockdebug import DebugVnodeLock
from .vnode import Vnode, is_clean, reclaim, vrecycle
from .vopcheck import DebugVnode, vopcheck

if TYPE_CHECKING:
    from .kernel import Kernel
    from .vfs import FileSystem

_serials = count(1)
K = TypeVar("K", bound=Hashable)


class Loaded(NamedTuple):
    """What a loader found: what `Mount.insert` wants to know of a new vnode."""

    vtype: int
    data: Any
    size: int = 0
    rdev: int = 0


class Client(Protocol):
    """Who uses a mount from above and caches what it has seen there (p2k)."""

    async def flush(
        self, op: FlushOp, vp: Vnode | None, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """Drop or write back what is cached of `vp`; return when that is done.

        As `Upcalls.flush`: octets, `end` 0 is the end of the file. `vp` is referenced and
        unlocked; it is None for INVAL_NAMECACHE_ALL.
        """
        ...

    def request_unmount(self) -> None:
        """Hear that the file system asks to be unmounted; returns at once."""
        ...


class Mount:
    """A mounted file system. Made and ended by its kernel.

    `root` is the root vnode; the mount itself holds one reference on it, and every other one is a
    user that keeps the mount busy. `covered` is the directory on which it is mounted, with a
    reference; None if it is the kernel's root or nobody's. `is_rdonly` is checked by the clients of
    the kernel, not by file systems. `serial` is unique in the process and serves file systems as
    `fsid`. `is_alive` is False when the file system has been unmounted.
    """

    def __init__(self, kernel: Kernel, fs: FileSystem, *, rdonly: bool) -> None:
        self.kernel = kernel
        self.fs = fs
        self._make: type[Vnode] = Vnode
        if kernel.debug is not None:
            self.fs = vopcheck(fs, kernel.debug.locks)
            self._make = DebugVnode
        self.covered: Vnode | None = None
        self.is_rdonly = rdonly
        self.rdonly_reason = ""
        """Why the file system lets nobody write although that was asked for; for people."""
        self.is_alive = True
        self.is_unmounting = False
        """An unmount is under way that may still be vetoed."""
        self.serial = next(_serials)
        self.free_list = kernel.free_list
        self.renamelock = (
            VnodeLock()
            if kernel.debug is None
            else DebugVnodeLock(kernel.debug.locks, "rename lock", has_instances=False)
        )
        """Held by who renames, before the vnodes' locks: the tree cannot turn under him."""
        self.holds = 0
        """References of the kernel's own (`vhold`, `Kernel.vrele_async`)."""
        self.holds_gone = ParkingLot()
        self._root: Vnode | None = None
        self._client: Client | None = None
        self._vnodes: dict[Hashable, Vnode] = {}
        self._loading: dict[Hashable, ParkingLot] = {}

    def __repr__(self) -> str:
        state = "" if self.is_alive else " dead"
        return f"<Mount {self.serial} {self.fs.typename} vnodes={len(self._vnodes)}{state}>"

    # Vnodes.

    def __len__(self) -> int:
        """Return the number of vnodes, unused ones included."""
        return len(self._vnodes)

    def __iter__(self) -> Iterator[Vnode]:
        """Return the vnodes as they are now, unused ones included."""
        return iter(list(self._vnodes.values()))

    @property
    def root(self) -> Vnode:
        """The root vnode; who keeps it takes a reference of his own."""
        if self._root is None:
            raise RuntimeError("the file system is not mounted yet")
        return self._root

    def set_root(self, vp: Vnode) -> None:
        """Take over a reference on the root vnode (for the kernel)."""
        vp.is_root = True
        self._root = vp

    def vget(self, key: Hashable) -> Vnode | None:
        """Return the vnode that the file system knows by `key`, with a new reference, or None.

        Never waits. A file system that makes vnodes calls `insert` after a None without awaiting
        anything in between: then no other task can have made the same vnode, and there is never
        more than one of a key. (What it must wait for, it fetches before `vget`.)
        """
        vp = self._vnodes.get(key)
        if vp is not None:
            if vp.usecount == 0:
                self.free_list.revive(vp)
            vp.usecount += 1
        return vp

    async def vget_load(self, key: K, load: Callable[[K], Awaitable[Loaded]]) -> Vnode:
        """Return the vnode of `key` with a new reference; `load(key)` is awaited if it has none.

        Does not yield when the vnode is in memory. One task at a time loads a key, others that want
        the same wait for it; a loader that fails or is cancelled leaves nothing behind, and the
        next one tries for itself. What it loaded is dropped, and must need no undoing, if `insert`
        has made the vnode meanwhile (a number that was free, and is used again). After it has read
        what it returns, `load` awaits nothing: it would be old by then.

        Errors: what `load` raises; ENXIO when the file system was unmounted.
        """
        vp = self.vget(key)
        while vp is None:
            waiting = self._loading.get(key)
            if waiting is not None:
                await waiting.park()
                vp = self.vget(key)
                continue
            waiting = self._loading[key] = ParkingLot()
            try:
                vtype, data, size, rdev = await load(key)
                # No await below: see `vget`.
                vp = self.vget(key)
                if vp is None:
                    vp = self.insert(key, vtype, data, size=size, rdev=rdev)
            finally:
                del self._loading[key]
                waiting.unpark_all()
        return vp

    def insert(
        self, key: Hashable, vtype: int, data: Any, *, size: int = 0, rdev: int = 0
    ) -> Vnode:
        """Return a new vnode, with one reference, and enter it in the table.

        `key` has none yet (see `vget`). Errors: ENXIO when the file system was unmounted.
        """
        if not self.is_alive:
            raise VfsError(ENXIO, "the file system was unmounted")
        if key in self._vnodes:
            raise RuntimeError(f"second vnode of {key!r} in {self!r}")
        vp = self._vnodes[key] = self._make(self, key, vtype, data, size, rdev)
        self.free_list.count()
        return vp

    def vrecycle(self, key: Hashable) -> bool:
        """Reclaim the vnode of `key` if nobody uses it; return whether there is none (any more).

        For a node that has lost its last name by an operation which was not given its vnode.
        """
        vp = self._vnodes.get(key)
        return vp is None or vrecycle(vp)

    def forget(self, vp: Vnode) -> None:
        """Take `vp` from the table (for `vnode.reclaim`)."""
        del self._vnodes[vp.key]

    def users(self) -> list[Vnode]:
        """Return the vnodes that somebody uses; the root's reference of ours does not count."""
        root = self._root
        return [vp for vp in self._vnodes.values() if vp.usecount > (vp is root)]

    @property
    def is_busy(self) -> bool:
        """Whether somebody uses a vnode, or is about to."""
        return bool(self._loading or self.users())

    @property
    def is_dirty(self) -> bool:
        """Whether a vnode, or the device of the file system, has something to be written."""
        devvp = self.fs.devvp
        return not all(map(is_clean, self._vnodes.values())) or (
            devvp is not None and not is_clean(devvp)
        )

    def unhold(self) -> None:
        """Count one of `holds` off."""
        self.holds -= 1
        if not self.holds:
            self.holds_gone.unpark_all()

    async def clean(self, grace: float) -> None:
        """End the mount: all vnodes are dead afterwards, used ones too (for the kernel).

        Waits for holders of vnode locks, whom the end of the file system has shaken awake, all in
        all `grace` seconds at most; then the vnodes are taken from under them. Not cancellable.
        """
        self.is_alive = False
        self._client = None
        with trio.move_on_after(grace, shield=True) as scope:
            for vp in self:
                if vp.is_dead:
                    continue
                if vp.usecount == 0:
                    self.free_list.remove(vp)
                    reclaim(vp, REVOKED)
                    continue
                vp.usecount += 1
                try:
                    await vp.lock.exclusive()
                    if not vp.is_dead:
                        reclaim(vp, REVOKED)
                    vp.lock.release()
                finally:
                    vp.usecount -= 1
        if scope.cancelled_caught:
            for vp in self:
                if vp.usecount == 0:
                    self.free_list.remove(vp)
                reclaim(vp, REVOKED)
        if self._root is not None:
            self._root.usecount -= 1
            self._root = None

    # The way up.

    def set_client(self, client: Client | None) -> None:
        """Say who caches what this mount says; there is one at most."""
        self._client = client

    async def flush(
        self, op: FlushOp, vp: Vnode | None, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """Pass a file system's wish on to the caches above; return when it is fulfilled.

        Never from within an operation, see `Upcalls.flush`. Nothing happens without a client.
        """
        if self._client is not None:
            await self._client.flush(op, vp, start, end, name)

    def request_unmount(self) -> None:
        """Pass on that the file system wants to be unmounted. Nothing happens without a client."""
        if self._client is not None:
            self._client.request_unmount()
