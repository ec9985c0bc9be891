"""A file system whose vnodes have something to write, for tests of who has it written, and when."""

from __future__ import annotations

import trio

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vnode import Vnode
from syspuffs.native.constants import FSYNC_WAIT, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred


class Writeback(TmpFs):
    """Makes vnodes without a node of tmpfs; writes down what it hears.

    A vnode that is dirty (`is_modified`) becomes clean by an fsync that waits. `errors` has
    errnos by key, `gate` holds up every fsync.
    """

    def __init__(self, name: bytes = b"none") -> None:
        super().__init__(name, uid=0, gid=0)
        self.heard: list[tuple[str, object]] = []
        self.fsyncs: list[tuple[object, int]] = []
        self.errors: dict[object, int] = {}
        self.sync_error = 0
        self.unmount_error = 0
        self.gate: trio.Event | None = None

    def make(self, key: int, *, dirty: bool = True, vtype: int = Vtype.VREG) -> Vnode:
        """Return a vnode with one reference, which has something to write."""
        vp = self.mount.insert(key, vtype, f"data {key}")
        if dirty:
            self.soil(vp)
        return vp

    def soil(self, vp: Vnode) -> None:
        """Do as a file system that has changed something."""
        vp.is_modified = True
        if vp.synctime < 0:
            self.mount.kernel.syncer.add(vp)

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        self.fsyncs.append((vp.key, flags))
        if self.gate is not None:
            await self.gate.wait()
        if vp.key in self.errors:
            raise VfsError(self.errors[vp.key])
        if flags & FSYNC_WAIT:
            vp.is_modified = False

    async def sync(self, waitfor: int, cred: Cred) -> None:
        self.heard.append(("sync", waitfor))
        if self.sync_error:
            raise VfsError(self.sync_error)

    async def unmount(self, flags: int) -> None:
        self.heard.append(("unmount", flags))
        if self.unmount_error:
            raise VfsError(self.unmount_error)
        await super().unmount(flags)

    async def inactive(self, vp: Vnode) -> bool:
        self.heard.append(("inactive", vp.key))
        return False

    def reclaim(self, vp: Vnode) -> None:
        self.heard.append(("reclaim", vp.key))

    def reclaimed(self) -> list[object]:
        """Return the keys of the vnodes that were reclaimed, in order."""
        return [key for what, key in self.heard if what == "reclaim"]

    def written(self) -> list[object]:
        """Return the keys of the vnodes for which somebody waited to be written, in order."""
        return [key for key, flags in self.fsyncs if flags & FSYNC_WAIT]
