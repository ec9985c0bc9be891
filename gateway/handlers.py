"""The host end: FUSE requests, through pyfuse3 on trio, become puffs operations.

This is the host kernel's end of the first `puffs`. It keeps the rules of a puffs
kernel half where FUSE does not: lookups are counted (nodes.py), `inactive` follows
the last close, close(2) reports errors of write-behind (FLUSH becomes FSYNC_CLOSE),
and a name that is to be removed or renamed is known by its cookie.

A handler that raises anything but FUSEError would end the session, so each one is
wrapped by `_answered`.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import wraps
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar, cast

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from ..layers.ops import FileServer, Upcalls
from ..native.constants import (
    FAPPEND,
    FREAD,
    FSYNC_CACHE,
    FSYNC_CLOSE,
    FSYNC_DATAONLY,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    IO_SYNC,
    ISDOTDOT,
    ISLASTCN,
    NAME_MAX,
    KFlag,
    NameiOp,
    OpenFlag,
    Setback,
    VnOp,
    Vtype,
)
from ..native.errors import VfsError
from ..native.records import (
    FSCRED,
    IFMT_TO_VTYPE,
    Buffer,
    Componentname,
    Cookie,
    Cred,
    Newinfo,
    Vattr,
)
from .attributes import Attributes, Creds, changes, statvfs_data
from .directories import OpenDirectory
from .nodes import Node, NodeTable
from .options import HostOptions

if TYPE_CHECKING:
    from .control.ends import Request

_log = logging.getLogger(__name__)

# As plain numbers: arithmetic on members of an enumeration is slow.
_INACT_N1: Final = int(Setback.INACT_N1)
_IO_DIRECT: Final = int(OpenFlag.IO_DIRECT)
_IO_KEEP: Final = int(OpenFlag.IO_KEEP)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _answered(
    handler: Callable[Concatenate[FuseEnd, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[FuseEnd, _P], Coroutine[Any, Any, _R]]:
    """Let a handler end in FUSEError only. The one table from our errors to the host's.

    What nobody foresaw is logged with its traceback and answered with EIO.
    """

    @wraps(handler)
    async def answer(self: FuseEnd, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        running = handler(self, *args, **kwargs)
        under_way = self.under_way
        under_way[running] = monotonic_ns()
        try:
            return await running
        except VfsError as exc:
            raise FUSEError(exc.errno) from None
        except FUSEError:
            raise
        except Exception:
            self.failures += 1
            _log.exception("%s failed in a way that it must not", handler.__name__)
            raise FUSEError(errno.EIO) from None
        finally:
            del under_way[running]

    return cast("Callable[Concatenate[FuseEnd, _P], Coroutine[Any, Any, _R]]", answer)


class _OpenFile:
    """An open file of the host."""

    __slots__ = ("cred", "dirty", "ioflag", "mode", "node")

    def __init__(self, node: Node, mode: int, ioflag: int, cred: Cred) -> None:
        self.node = node
        self.mode = mode
        self.ioflag = ioflag
        self.cred = cred
        self.dirty = False
        """Written to since the last FLUSH or FSYNC; a clean file's close asks nobody."""


class FuseEnd(pyfuse3.Operations):
    """The request handlers of one mount. `failures` counts answers that nobody foresaw."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, server: FileServer, options: HostOptions) -> None:
        super().__init__()
        kargs = server.kargs
        self.server = server
        self._ops = kargs.ops
        self.nodes = NodeTable(server, kargs.root)
        self._files: dict[int, _OpenFile] = {}
        self._dirs: dict[int, OpenDirectory] = {}
        self._next_fh = 1
        self._attributes = Attributes(options)
        self._creds = Creds(options)
        kflags = kargs.kflags | options.kflags
        self._no_names = bool(kflags & KFlag.NOCACHE_NAME)
        self._no_attrs = bool(kflags & KFlag.NOCACHE_ATTR)
        self._no_pages = bool(kflags & KFlag.NOCACHE_PAGE)
        self._inactive_on_demand = bool(kflags & KFlag.IAONDEMAND)
        self._host_checks = options.default_permissions
        self.failures = 0
        self.upcalls: Upcalls | None = None
        self.under_way: dict[Any, int] = {}
        """The handlers that are running, and since when (monotonic ns)."""

    # From the host's numbers to nodes and back.

    def _node(self, ino: int) -> Node:
        try:
            return self.nodes.by_ino(ino)
        except KeyError:
            raise FUSEError(errno.ESTALE) from None

    def _cn(self, name: bytes, ctx: RequestContext, nameiop: int = NameiOp.LOOKUP) -> Componentname:
        if len(name) > NAME_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        flags = ISLASTCN | ISDOTDOT if name == b".." else ISLASTCN
        return Componentname(nameiop, name, self._creds.cred(ctx), flags)

    def entry(self, ino: int, va: Vattr, va_ttl: int, cn_ttl: int = 0) -> EntryAttributes:
        """Return the host's form of `va`; time-outs are ns and 0 where the mount has no cache."""
        return self._attributes.entry(
            ino, va, 0 if self._no_attrs else va_ttl, 0 if self._no_names else cn_ttl
        )

    async def attributes_of(self, info: Newinfo, cred: Cred) -> tuple[Vattr, int]:
        """Return the attributes that came with `info`, or ask for them."""
        if info.va is not None:
            return info.va, info.va_ttl
        return await self.server.getattr(info.cookie, cred)

    async def _told(self, parent: Node, cn: Componentname, info: Newinfo) -> EntryAttributes:
        """Return the reply to a lookup or creation and count the lookup that the host now has."""
        node = self.nodes.absorb(info)
        try:
            va, ttl = await self.attributes_of(info, cn.cred)
            entry = self.entry(node.ino, va, ttl, info.cn_ttl)
            self.nodes.tell(parent, cn.name, node)
        finally:
            self.nodes.settle(node)
        return entry

    async def _victim(self, parent: Node, cn: Componentname) -> Node:
        """Return the node that the host means by a name, pinned; as a rule it looked it up."""
        node = await self._present(parent, cn)
        if node is None:
            raise FUSEError(errno.ENOENT)
        return node

    async def _present(self, parent: Node, cn: Componentname) -> Node | None:
        node = self.nodes.child(parent, cn.name)
        if node is not None:
            node.pins += 1
            return node
        info = await self.server.lookup(parent.cookie, cn)
        return self.nodes.absorb(info) if info.cookie else None

    # Names.

    @_answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Find a name; a missing one that may be remembered is an entry with number 0."""
        parent = self._node(parent_inode)
        cn = self._cn(name, ctx)
        info = await self.server.lookup(parent.cookie, cn)
        if not info.cookie:
            self.nodes.unname(parent, name)
            if not info.cn_ttl or self._no_names:
                raise FUSEError(errno.ENOENT)
            missing = EntryAttributes()
            missing.st_ino = pyfuse3.InodeT(0)
            missing.entry_timeout = info.cn_ttl / 1e9
            return missing
        return await self._told(parent, cn, info)

    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:  # type: ignore[override]
        """Take lookups back. Does not wait, so it is no coroutine: pyfuse3 accepts None."""
        for ino, nlookup in inode_list:
            self.nodes.forget(ino, nlookup)

    async def _make(
        self,
        parent_inode: int,
        name: bytes,
        ctx: RequestContext,
        make: Callable[[Cookie, Componentname], Awaitable[Newinfo]],
    ) -> EntryAttributes:
        parent = self._node(parent_inode)
        cn = self._cn(name, ctx, NameiOp.CREATE)
        return await self._told(parent, cn, await make(parent.cookie, cn))

    @_answered
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a file, device, fifo or socket."""
        vtype = IFMT_TO_VTYPE.get(stat.S_IFMT(mode) or stat.S_IFREG)
        if vtype is None:
            raise FUSEError(errno.EINVAL)
        va = Vattr(
            vtype, stat.S_IMODE(mode), rdev=rdev if vtype in (Vtype.VBLK, Vtype.VCHR) else None
        )
        server = self.server
        if vtype == Vtype.VREG:
            return await self._make(
                parent_inode, name, ctx, lambda opc, cn: server.create(opc, cn, va)
            )
        return await self._make(parent_inode, name, ctx, lambda opc, cn: server.mknod(opc, cn, va))

    @_answered
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a directory."""
        va = Vattr(Vtype.VDIR, stat.S_IMODE(mode))
        return await self._make(
            parent_inode, name, ctx, lambda opc, cn: self.server.mkdir(opc, cn, va)
        )

    @_answered
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a symbolic link."""
        va = Vattr(Vtype.VLNK, 0o777)
        return await self._make(
            parent_inode, name, ctx, lambda opc, cn: self.server.symlink(opc, cn, va, target)
        )

    @_answered
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Add a name to a node."""
        node, parent = self._node(inode), self._node(new_parent_inode)
        cn = self._cn(new_name, ctx, NameiOp.CREATE)
        va, ttl = await self.server.link(parent.cookie, node.cookie, cn)
        self.nodes.tell(parent, new_name, node)
        return self.entry(node.ino, va, ttl, ttl)

    async def _remove(
        self, parent_inode: int, name: bytes, ctx: RequestContext, *, directory: bool
    ) -> None:
        parent = self._node(parent_inode)
        cn = self._cn(name, ctx, NameiOp.DELETE)
        victim = await self._victim(parent, cn)
        try:
            remove = self.server.rmdir if directory else self.server.remove
            setback = await remove(parent.cookie, victim.cookie, cn)
            if setback & Setback.INACT_N2:
                victim.wants_inactive = True
            self.nodes.unname(parent, name)
        finally:
            self.nodes.settle(victim)

    @_answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove a name of a node that is no directory."""
        await self._remove(parent_inode, name, ctx, directory=False)

    @_answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an empty directory."""
        await self._remove(parent_inode, name, ctx, directory=True)

    @_answered
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Rename, replacing what is there. EINVAL for renameat2's flags: puffs has none."""
        if flags:
            raise FUSEError(errno.EINVAL)
        old_dir, new_dir = self._node(parent_inode_old), self._node(parent_inode_new)
        cn_src = self._cn(name_old, ctx, NameiOp.DELETE)
        cn_targ = self._cn(name_new, ctx, NameiOp.RENAME)
        src = await self._victim(old_dir, cn_src)
        targ: Node | None = None
        try:
            targ = await self._present(new_dir, cn_targ)
            await self.server.rename(
                old_dir.cookie,
                src.cookie,
                cn_src,
                new_dir.cookie,
                None if targ is None else targ.cookie,
                cn_targ,
            )
            if src is not targ:  # two names of one file: rename(2) leaves both
                self.nodes.unname(old_dir, name_old)
                self.nodes.unname(new_dir, name_new)
                if src.nlookup > 0:
                    self.nodes.name(new_dir, name_new, src)
        finally:
            if targ is not None:
                self.nodes.settle(targ)
            self.nodes.settle(src)

    @_answered
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Return the target of a symbolic link."""
        return await self.server.readlink(self._node(inode).cookie, self._creds.cred(ctx))

    # Attributes.

    @_answered
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Return attributes."""
        node = self._node(inode)
        va, ttl = await self.server.getattr(node.cookie, self._creds.cred(ctx))
        return self.entry(node.ino, va, ttl)

    @_answered
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change attributes; through an open file that was opened for writing by its opener."""
        node = self._node(inode)
        va = changes(attr, fields)
        opened = None if fh is None else self._files.get(fh)
        if self._host_checks:
            cred = FSCRED  # who may do what, "now" and set-id bits included, the host has judged
        else:
            cred = self._creds.cred(ctx) if opened is None else opened.cred
        if opened is not None and va.size is not None:
            opened.dirty = True
        now, ttl = await self.server.setattr(node.cookie, va, cred)
        return self.entry(node.ino, now, ttl)

    @_answered
    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        """Answer access(2). ENOSYS, asked once, makes the host say yes to all by itself."""
        if VnOp.ACCESS not in self._ops:
            raise FUSEError(errno.ENOSYS)
        await self.server.access(self._node(inode).cookie, mode & 0o7, self._creds.cred(ctx))
        return True

    @_answered
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """Return the state of the file system."""
        return statvfs_data(await self.server.statvfs())

    # Extended attributes. ENOSYS makes the host stop asking: it asks for security.capability
    # before each write otherwise.

    @_answered
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Return the value of an extended attribute."""
        self._need(VnOp.GETEXTATTR)
        cred = self._creds.cred(ctx)
        return await self.server.getextattr(self._node(inode).cookie, 0, name, cred)

    @_answered
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an extended attribute."""
        self._need(VnOp.SETEXTATTR)
        cred = self._creds.cred(ctx)
        await self.server.setextattr(self._node(inode).cookie, 0, name, value, 0, cred)

    @_answered
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        """Return the names of extended attributes."""
        self._need(VnOp.LISTEXTATTR)
        cred = self._creds.cred(ctx)
        names = await self.server.listextattr(self._node(inode).cookie, 0, cred)
        return names.split(b"\0")[:-1]

    @_answered
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an extended attribute."""
        self._need(VnOp.DELETEEXTATTR)
        cred = self._creds.cred(ctx)
        await self.server.deleteextattr(self._node(inode).cookie, 0, name, cred)

    def _need(self, op: VnOp) -> None:
        if op not in self._ops:
            raise FUSEError(errno.ENOSYS)

    # Open files.

    async def _begun(self, node: Node, mode: int, cred: Cred) -> int:
        """Open `node` at the server and count it; return OpenFlag. `_ended` takes it back."""
        node.opens += 1  # before the wait: a close that overtakes us must not see the last user go
        try:
            oflags, setback = await self.server.open(node.cookie, mode, cred)
        except BaseException:
            node.opens -= 1
            raise
        if setback & _INACT_N1:
            node.wants_inactive = True
        return oflags

    async def _open(self, node: Node, flags: int, cred: Cred) -> FileInfo:
        mode = (FREAD, FWRITE, FREAD | FWRITE)[min(flags & os.O_ACCMODE, 2)]
        ioflag = 0
        if flags & os.O_APPEND:
            mode |= FAPPEND
            ioflag |= IO_APPEND
        if flags & (os.O_SYNC | os.O_DSYNC):
            ioflag |= IO_SYNC
        oflags = await self._begun(node, mode, cred)
        fh = self._next_fh
        self._next_fh += 1
        self._files[fh] = _OpenFile(node, mode, ioflag, cred)
        return FileInfo(
            fh=pyfuse3.FileHandleT(fh),
            direct_io=self._no_pages or bool(oflags & _IO_DIRECT),
            keep_cache=bool(oflags & _IO_KEEP),
        )

    @_answered
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file. The host leaves O_TRUNC to us."""
        node = self._node(inode)
        cred = self._creds.cred(ctx)
        info = await self._open(node, flags, cred)
        if flags & os.O_TRUNC:
            await self._truncate_opened(info, node, cred)
        return info

    async def _truncate_opened(self, info: FileInfo, node: Node, cred: Cred) -> None:
        try:
            await self.server.setattr(node.cookie, Vattr(size=0), cred)
        except BaseException:
            await self._release(info.fh)
            raise
        self._files[info.fh].dirty = True

    @_answered
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make and open a file. Without O_EXCL one that somebody else made meanwhile will do."""
        parent = self._node(parent_inode)
        cn = self._cn(name, ctx, NameiOp.CREATE)
        made = True
        try:
            info = await self.server.create(
                parent.cookie, cn, Vattr(Vtype.VREG, stat.S_IMODE(mode))
            )
        except VfsError as exc:
            if exc.errno != errno.EEXIST or flags & os.O_EXCL:
                raise
            made = False
            info = await self.server.lookup(parent.cookie, self._cn(name, ctx))
            if not info.cookie or info.vtype != Vtype.VREG:
                if info.cookie:
                    self.nodes.settle(self.nodes.absorb(info))
                raise
        node = self.nodes.absorb(info)
        try:
            opened = await self._open(node, flags, cn.cred)
            try:
                if not made and flags & os.O_TRUNC:
                    await self.server.setattr(node.cookie, Vattr(size=0), cn.cred)
                    info = info._replace(va=None)
                va, ttl = await self.attributes_of(info, cn.cred)
            except BaseException:
                await self._release(opened.fh)
                raise
            entry = self.entry(node.ino, va, ttl, info.cn_ttl)
            self.nodes.tell(parent, name, node)
        finally:
            self.nodes.settle(node)
        return opened, entry

    @_answered
    async def read(self, fh: int, off: int, size: int) -> Buffer:  # type: ignore[override]
        """Read; what is short ends the file."""
        opened = self._files[fh]
        return await self.server.read(opened.node.cookie, off, size, 0, opened.cred)

    @_answered
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write all of `buf`."""
        opened = self._files[fh]
        opened.dirty = True
        await self.server.write(opened.node.cookie, off, buf, opened.ioflag, opened.cred)
        return len(buf)

    @_answered
    async def flush(self, fh: int) -> None:
        """Answer one close(2): what was written is where close promises it, or it fails."""
        opened = self._files[fh]
        if opened.dirty:
            opened.dirty = False
            await self.server.fsync(opened.node.cookie, FSYNC_CLOSE, 0, 0, opened.cred)

    @_answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Make data stable."""
        opened = self._files[fh]
        flags = FSYNC_WAIT | FSYNC_CACHE | (FSYNC_DATAONLY if datasync else 0)
        await self.server.fsync(opened.node.cookie, flags, 0, 0, opened.cred)
        opened.dirty = False

    @_answered
    async def release(self, fh: int) -> None:
        """End one open; the last one makes the node inactive."""
        await self._release(fh)

    async def _release(self, fh: int) -> None:
        opened = self._files.pop(fh)
        await self._ended(opened.node, opened.mode, opened.cred)

    async def _ended(self, node: Node, mode: int, cred: Cred) -> None:
        self.server.close(node.cookie, mode, cred)
        node.opens -= 1
        if not node.opens and (node.wants_inactive or not self._inactive_on_demand):
            node.wants_inactive = False
            await self.server.inactive(node.cookie)

    # Directories.

    @_answered
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Open a directory."""
        node = self._node(inode)
        cred = self._creds.cred(ctx)
        await self._begun(node, FREAD, cred)
        fh = self._next_fh
        self._next_fh += 1
        self._dirs[fh] = OpenDirectory(self, node, cred)
        return fh

    @_answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Tell entries with their attributes until the host's buffer is full."""
        await self._dirs[fh].tell(start_id, token)

    @_answered
    async def releasedir(self, fh: int) -> None:
        """End one open of a directory."""
        opened = self._dirs.pop(fh)
        opened.drop()
        await self._ended(opened.node, FREAD, opened.cred)

    @_answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Make a directory's names stable."""
        opened = self._dirs[fh]
        flags = FSYNC_WAIT | FSYNC_CACHE | (FSYNC_DATAONLY if datasync else 0)
        await self.server.fsync(opened.node.cookie, flags, 0, 0, opened.cred)

    # For who looks into the living stack: gateway/control/ends.py.

    def stand_on(self, server: FileServer) -> None:
        """See layers.joint.Stander."""
        self.server = self.nodes.server = server

    def requests(self) -> list[Request]:
        """See control.ends.End."""
        from .control.hostrequests import requests

        return requests(self)

    def cred(self, ctx: RequestContext) -> Cred:
        """Return who asks."""
        return self._creds.cred(ctx)

    def cred_of(self, fh: int) -> Cred | None:
        """Return who has opened a file or directory."""
        opened = self._files.get(fh) or self._dirs.get(fh)
        return None if opened is None else opened.cred

    def node_of(self, fh: int) -> Node | None:
        """Return the node of an open file or directory."""
        opened = self._files.get(fh) or self._dirs.get(fh)
        return None if opened is None else opened.node

    def path(self, cookie: Cookie) -> bytes | None:
        """See control.ends.End."""
        node = self.nodes.by_cookie(cookie)
        return None if node is None else self.nodes.path(node)

    def known_below(self, path: bytes) -> list[Cookie]:
        """See control.ends.End."""
        return [node.cookie for node in self.nodes.below(path)]

    def statistics(self) -> dict[str, Any]:
        """Return counts of what is known and open, for people."""
        return {
            "nodes": len(self.nodes),
            "files": len(self._files),
            "directories": len(self._dirs),
            "failures": self.failures,
        }
