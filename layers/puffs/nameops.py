"""The kernel half's operations on names: directories and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...emul.vfs import Entry, Lookup
from ...emul.vnode import Vnode
from ...native.constants import READDIR_PLUS, ErrorNote, VnOp, Vtype
from ...native.records import Componentname, Cred, Vattr
from .nodes import PuffsNode, apply_setbacks
from .requests import KernelHalf

# As plain numbers: members of an enumeration are slow to reach.
_VREG: Final = int(Vtype.VREG)
_LOOKUP: Final = int(VnOp.LOOKUP)
_READDIR: Final = int(VnOp.READDIR)

_PLUS: Final = 9
"""How many times longer an entry with a newinfo is in a frame than `resid` counts it, at most."""


class NameOperations(KernelHalf):
    """The part of the kernel half that finds, makes, renames, removes and lists names."""

    async def lookup(self, dvp: Vnode, cn: Componentname) -> Lookup:
        """See FileSystem."""
        return self._nodes.found(dvp, await self._ask(_LOOKUP, dvp.data.cookie, (cn,)))

    async def create(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """See FileSystem."""
        return self._nodes.made(await self._ask(VnOp.CREATE, dvp.data.cookie, (cn, va)), _VREG)

    async def mknod(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """See FileSystem."""
        vtype = _VREG if va.vtype is None else va.vtype
        return self._nodes.made(await self._ask(VnOp.MKNOD, dvp.data.cookie, (cn, va)), vtype)

    async def mkdir(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """See FileSystem."""
        info = await self._ask(VnOp.MKDIR, dvp.data.cookie, (cn, va))
        return self._nodes.made(info, Vtype.VDIR)

    async def symlink(self, dvp: Vnode, cn: Componentname, va: Vattr, target: bytes) -> Lookup:
        """See FileSystem."""
        info = await self._ask(VnOp.SYMLINK, dvp.data.cookie, (cn, va, target))
        return self._nodes.made(info, Vtype.VLNK)

    async def remove(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """See FileSystem."""
        dnode, node = dvp.data, vp.data
        setbacks = await self._ask(VnOp.REMOVE, dnode.cookie, (node.cookie, cn))
        if setbacks:
            apply_setbacks(setbacks, dnode, node)

    async def rmdir(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """See FileSystem."""
        dnode, node = dvp.data, vp.data
        setbacks = await self._ask(VnOp.RMDIR, dnode.cookie, (node.cookie, cn))
        if setbacks:
            apply_setbacks(setbacks, dnode, node)

    async def link(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> tuple[Vattr, int]:
        """See FileSystem."""
        answer = await self._ask(VnOp.LINK, dvp.data.cookie, (vp.data.cookie, cn))
        return self._attributes(vp, answer)

    async def rename(
        self,
        fdvp: Vnode,
        fvp: Vnode,
        fcn: Componentname,
        tdvp: Vnode,
        tvp: Vnode | None,
        tcn: Componentname,
    ) -> None:
        """See FileSystem."""
        targ = None if tvp is None else tvp.data.cookie
        args = (fvp.data.cookie, fcn, tdvp.data.cookie, targ, tcn)
        await self._ask(VnOp.RENAME, fdvp.data.cookie, args)

    async def rename_with(
        self,
        fdvp: Vnode,
        fvp: Vnode,
        fcn: Componentname,
        tdvp: Vnode,
        tvp: Vnode | None,
        tcn: Componentname,
        flags: int,
    ) -> None:
        """See FileSystem."""
        targ = None if tvp is None else tvp.data.cookie
        args = (fvp.data.cookie, fcn, tdvp.data.cookie, targ, tcn, flags)
        await self._ask(VnOp.RENAME_WITH, fdvp.data.cookie, args)

    async def readdir(
        self, vp: Vnode, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Entry], bool]:
        """See FileSystem. Asks for no more than fits in a frame."""
        node: PuffsNode = vp.data
        maxresid = self._maxdata // _PLUS if flags & READDIR_PLUS else self._maxdata
        resid = min(resid, maxresid)
        dirents, eof = await self._ask(_READDIR, node.cookie, (offset, resid, flags, cred))
        # At least 25 octets count for each entry; only a single one may be over the bound.
        if len(dirents) > 1 and 25 * len(dirents) > resid:
            for dirent in dirents:
                self._nodes.refuse(dirent.newinfo)
            text = f"{len(dirents)} entries for {resid} octets"
            raise self.violated(ErrorNote.READDIR, node.cookie, text)
        # Nothing and not the end: there would be no way on, so it is the end.
        return self._nodes.entries(vp, dirents), eof or not dirents

    async def readlink(self, vp: Vnode, cred: Cred) -> bytes:
        """See FileSystem."""
        target: bytes = await self._ask(VnOp.READLINK, vp.data.cookie, (cred,))
        return target

    def abortop(self, dvp: Vnode, cn: Componentname) -> None:
        """See FileSystem."""
        self._post(VnOp.ABORTOP, dvp.data.cookie, (cn,))
