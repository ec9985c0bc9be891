"""The kernel half's operations: a FileSystem whose vnode operations become frames to a server.

How a request goes out and its reply comes back is in `requests`. Here are the rules of
kernel puffs for each operation: CLOSE, RECLAIM and ABORTOP are fire-and-forget; INACTIVE is
sent where it was asked for and never lost; an answer is held against what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from errno import E2BIG, ENXIO, EOPNOTSUPP, EROFS, ETIMEDOUT
from typing import Final

import trio

from ...emul.vfs import Entry, Lookup
from ...emul.vnode import Vnode
from ...native.constants import (
    FWRITE,
    IO_APPEND,
    MNT_FORCE,
    READDIR_PLUS,
    VWRITE,
    ErrorNote,
    OpenFlag,
    VfsOp,
    VnOp,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import (
    FSCRED,
    Buffer,
    Componentname,
    Cred,
    Flock,
    Statvfs,
    Vattr,
)
from .nodes import PuffsNode, apply_setbacks
from .requests import KernelHalf

INACTIVE_WAIT: Final = 10.0
"""How long a node that becomes unused waits for the server, seconds."""

# As plain numbers: members of an enumeration are slow to reach.
_VREG: Final = int(Vtype.VREG)
_LOOKUP: Final = int(VnOp.LOOKUP)
_ACCESS: Final = int(VnOp.ACCESS)
_GETATTR: Final = int(VnOp.GETATTR)
_SETATTR: Final = int(VnOp.SETATTR)
_OPEN: Final = int(VnOp.OPEN)
_CLOSE: Final = int(VnOp.CLOSE)
_READ: Final = int(VnOp.READ)
_WRITE: Final = int(VnOp.WRITE)
_FSYNC: Final = int(VnOp.FSYNC)
_READDIR: Final = int(VnOp.READDIR)
_INACTIVE: Final = int(VnOp.INACTIVE)
_RECLAIM: Final = int(VnOp.RECLAIM)

_PLUS: Final = 9
"""How many times longer an entry with a newinfo is in a frame than `resid` counts it, at most."""


class PuffsFs(KernelHalf):
    """The operations of a kernel half. Made by `puffs_over` and `puffs_over_socket`."""

    # The whole file system.

    async def start(self) -> None:
        """See FileSystem. Errors: ENXIO when the server is gone already."""
        if self.touser.is_dead:
            raise VfsError(ENXIO, "the server is gone")
        self.is_mounted = True

    async def root(self) -> Vnode:
        """See FileSystem."""
        return self._nodes.root()

    async def statvfs(self) -> Statvfs:
        """See FileSystem."""
        answer: Statvfs = await self._ask_vfs(VfsOp.STATVFS, ())
        return answer

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """See FileSystem."""
        if self.touser.is_dead and cred == FSCRED:
            return  # the kernel, about to unmount: there is nothing left to lose
        await self._ask_vfs(VfsOp.SYNC, (waitfor, cred))

    async def unmount(self, flags: int) -> None:
        """See FileSystem; the server's error vetoes, and so does silence, but for MNT_FORCE.

        A dead server is not asked. Errors: the server's; ETIMEDOUT.
        """
        if self.touser.is_dead:
            self.is_mounted = False
            return
        self.is_unmounting = True
        try:
            with trio.move_on_after(self._unmount_wait) as scope:
                await self._ask_vfs(VfsOp.UNMOUNT, (flags,), urgent=True)
            if scope.cancelled_caught:
                raise VfsError(ETIMEDOUT, "the server does not answer the unmount")
        except BaseException as exc:
            if flags & MNT_FORCE or (isinstance(exc, VfsError) and self.touser.is_dead):
                self._end()
                if isinstance(exc, VfsError):
                    return
            raise
        finally:
            self.is_unmounting = False
        self._end()

    def _end(self) -> None:
        self.is_mounted = False
        self.touser.end()

    async def fhtovp(self, handle: bytes) -> Vnode:
        """See FileSystem."""
        return self._nodes.of_handle(await self._ask_vfs(VfsOp.FHTOVP, (handle,)))

    async def vptofh(self, vp: Vnode) -> bytes:
        """See FileSystem."""
        handle: bytes = await self._ask_vfs(VfsOp.VPTOFH, (), vp.data.cookie)
        return handle

    async def extattrctl(self, cmd: int, vp: Vnode | None, namespace: int, name: bytes) -> None:
        """See FileSystem."""
        cookie = 0 if vp is None else vp.data.cookie
        await self._ask_vfs(VfsOp.EXTATTRCTL, (cmd, namespace, name), cookie)

    # Names.

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

    # Files.

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        """See FileSystem. Errors: EROFS to write a regular file without a WRITE operation."""
        if mode & FWRITE and vp.vtype == _VREG and not self._has[_WRITE]:
            raise VfsError(EROFS)
        node: PuffsNode = vp.data
        oflags, setbacks = await self._ask(_OPEN, node.cookie, (mode, cred)) or (0, 0)
        if setbacks:
            apply_setbacks(setbacks, node)
        return oflags | OpenFlag.IO_DIRECT if self._no_pages else oflags

    def close(self, vp: Vnode, fflag: int, cred: Cred) -> None:
        """See FileSystem."""
        self._post(_CLOSE, vp.data.cookie, (fflag, cred))

    async def access(self, vp: Vnode, mode: int, cred: Cred) -> None:
        """See FileSystem. Errors: EROFS to write a regular file without a WRITE operation."""
        if mode & VWRITE and vp.vtype == _VREG and not self._has[_WRITE]:
            raise VfsError(EROFS)
        await self._ask(_ACCESS, vp.data.cookie, (mode, cred))

    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        """See FileSystem."""
        return self._attributes(vp, await self._ask(_GETATTR, vp.data.cookie, (cred,)))

    async def setattr(self, vp: Vnode, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """See FileSystem."""
        return self._attributes(vp, await self._ask(_SETATTR, vp.data.cookie, (va, cred)))

    def _attributes(self, vp: Vnode, answer: tuple[Vattr, int]) -> tuple[Vattr, int]:
        va = answer[0]
        if va.size is not None:
            vp.size = va.size
        return (va, 0) if self._no_attrs else answer

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """See FileSystem. What does not fit in a frame is asked for in pieces, all at once."""
        if resid > self._maxdata:
            return await self._read_pieces(vp, offset, resid, ioflag, cred)
        node: PuffsNode = vp.data
        data: Buffer = await self._ask(_READ, node.cookie, (offset, resid, ioflag, cred))
        if len(data) > resid:
            text = f"{len(data)} octets read, {resid} asked for"
            raise self.violated(ErrorNote.READ, node.cookie, text)
        return data

    async def _read_pieces(
        self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred
    ) -> Buffer:
        limit = self._maxdata
        starts = range(0, resid, limit)
        pieces: list[Buffer] = [b""] * len(starts)
        errors: dict[int, VfsError] = {}

        async def read(i: int, start: int) -> None:
            try:
                n = min(limit, resid - start)
                pieces[i] = await self.read(vp, offset + start, n, ioflag, cred)
            except VfsError as exc:
                errors[i] = exc

        async with trio.open_nursery() as nursery:
            for i, start in enumerate(starts):
                nursery.start_soon(read, i, start)
        # A short piece is the end of the file; what lies behind it came too late to count.
        for i, start in enumerate(starts):
            if i in errors:
                raise errors[i]
            if len(pieces[i]) < min(limit, resid - start):
                return b"".join(pieces[: i + 1])
        return b"".join(pieces)

    async def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """See FileSystem. What does not fit in a frame is written in pieces, one after the other:

        appended pieces must keep their order, and after an error the rest is not written.
        """
        limit = self._maxdata
        if len(data) <= limit:
            await self._write(vp, offset, data, ioflag, cred)
            return
        view = memoryview(data)
        for start in range(0, len(view), limit):
            await self._write(vp, offset + start, view[start : start + limit], ioflag, cred)

    async def _write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        await self._ask(_WRITE, vp.data.cookie, (offset, data, ioflag, cred), data)
        if ioflag & IO_APPEND:
            vp.size += len(data)
        elif offset + len(data) > vp.size:
            vp.size = offset + len(data)

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """See FileSystem. What has no name any more needs no medium."""
        if not vp.data.is_dying:
            await self._ask(_FSYNC, vp.data.cookie, (flags, offlo, offhi, cred))

    async def seek(self, vp: Vnode, old: int, new: int, cred: Cred) -> None:
        """See FileSystem."""
        await self._ask(VnOp.SEEK, vp.data.cookie, (old, new, cred))

    async def mmap(self, vp: Vnode, prot: int, cred: Cred) -> None:
        """See FileSystem. Errors: EOPNOTSUPP when pages are not to be cached."""
        if self._no_pages:
            raise VfsError(EOPNOTSUPP)
        node: PuffsNode = vp.data
        setbacks = await self._ask(VnOp.MMAP, node.cookie, (prot, cred))
        if setbacks:
            apply_setbacks(setbacks, node)

    async def poll(self, vp: Vnode, events: int) -> int:
        """See FileSystem; without a POLL operation everything is always ready."""
        if not self._has[VnOp.POLL]:
            return events
        ready: int = await self._ask(VnOp.POLL, vp.data.cookie, (events,))
        return ready

    # Life cycle.

    async def inactive(self, vp: Vnode) -> bool:
        """See FileSystem. The server hears of it if it wants to, whatever happens to the caller.

        A cancelled caller sends it as fire-and-forget; one who is cancelled while he waits goes
        on waiting, at most INACTIVE_WAIT seconds.
        """
        node: PuffsNode = vp.data
        if self._has[_INACTIVE] and (node.wants_inactive or not self._inactive_on_demand):
            node.wants_inactive = False
            if trio.current_effective_deadline() == -math.inf:
                self._post(_INACTIVE, node.cookie, ())
            else:
                with trio.move_on_after(INACTIVE_WAIT, shield=True):
                    try:
                        setbacks = await self._ask(_INACTIVE, node.cookie, ())
                        if setbacks:
                            apply_setbacks(setbacks, node)
                    except VfsError:
                        pass  # it cannot fail; a broken answer has been complained about
        return node.is_dying

    def reclaim(self, vp: Vnode) -> None:
        """See FileSystem. The root was not looked up and is not given back."""
        node: PuffsNode = vp.data
        if node.nlookup and node.cookie != self.kargs.root.cookie:
            self._post(_RECLAIM, node.cookie, (node.nlookup,))

    # The rest.

    async def print(self, vp: Vnode) -> bytes:
        """See FileSystem."""
        line = repr(vp).encode()
        if self._has[VnOp.PRINT]:
            line += b" " + await self._ask(VnOp.PRINT, vp.data.cookie, ())
        return line

    async def pathconf(self, vp: Vnode, name: int) -> int:
        """See FileSystem."""
        limit: int = await self._ask(VnOp.PATHCONF, vp.data.cookie, (name,))
        return limit

    async def advlock(self, vp: Vnode, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """See FileSystem."""
        args = (owner, op, flock, flags)
        answer: Flock = await self._ask(VnOp.ADVLOCK, vp.data.cookie, args)
        return answer

    async def getextattr(self, vp: Vnode, namespace: int, name: bytes, cred: Cred) -> bytes:
        """See FileSystem."""
        value: bytes = await self._ask(VnOp.GETEXTATTR, vp.data.cookie, (namespace, name, cred))
        return value

    async def setextattr(
        self, vp: Vnode, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """See FileSystem. Errors: E2BIG for what does not fit in a frame."""
        if len(value) > self._maxdata:
            raise VfsError(E2BIG)
        args = (namespace, name, value, flags, cred)
        await self._ask(VnOp.SETEXTATTR, vp.data.cookie, args)

    async def listextattr(self, vp: Vnode, namespace: int, cred: Cred) -> bytes:
        """See FileSystem."""
        names: bytes = await self._ask(VnOp.LISTEXTATTR, vp.data.cookie, (namespace, cred))
        return names

    async def deleteextattr(self, vp: Vnode, namespace: int, name: bytes, cred: Cred) -> None:
        """See FileSystem."""
        await self._ask(VnOp.DELETEEXTATTR, vp.data.cookie, (namespace, name, cred))

    async def fallocate(self, vp: Vnode, offset: int, length: int) -> None:
        """See FileSystem."""
        await self._ask(VnOp.FALLOCATE, vp.data.cookie, (offset, length))

    async def fdiscard(self, vp: Vnode, offset: int, length: int) -> None:
        """See FileSystem."""
        await self._ask(VnOp.FDISCARD, vp.data.cookie, (offset, length))

    async def seek_data(self, vp: Vnode, offset: int, whence: int, cred: Cred) -> int:
        """See FileSystem."""
        args = (offset, whence, cred)
        found: int = await self._ask(VnOp.SEEK_DATA, vp.data.cookie, args)
        return found

    async def copy_file_range(
        self, vp: Vnode, offset: int, tvp: Vnode, toffset: int, length: int, cred: Cred
    ) -> int:
        """See FileSystem. Errors: EPROTO more was copied than was asked for."""
        node: PuffsNode = vp.data
        args = (offset, tvp.data.cookie, toffset, length, cred)
        copied: int = await self._ask(VnOp.COPY_FILE_RANGE, node.cookie, args)
        if copied > length:
            text = f"{copied} octets copied, {length} asked for"
            raise self.violated(ErrorNote.ERROR, node.cookie, text)
        if copied:
            tvp.size = max(tvp.size, toffset + copied)
        return copied
