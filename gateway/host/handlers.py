"""The host end: the host's FUSE requests become puffs operations.

This is the host kernel's end of the first `puffs`. It keeps the rules of a puffs
kernel half where FUSE does not: lookups are counted (nodes.py), `inactive` follows
the last close, close(2) reports errors of write-behind (FLUSH becomes FSYNC_CLOSE),
and a name that is to be removed or renamed is known by its cookie.

A handler takes a request with its arguments and returns the reply as it goes to the
device; service.py calls it and answers a VfsError in its place.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from ...layers.ops import FileServer, Upcalls
from ...native import device_replies as replies
from ...native.constants import (
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
from ...native.device_replies import Attr
from ...native.device_requests import Request
from ...native.errors import VfsError
from ...native.fuse_protocol import (
    FSYNC_FDATASYNC,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    FopenFlag,
    Opcode,
    Valid,
)
from ...native.packed import Page
from ...native.records import (
    FSCRED,
    IFMT_TO_VTYPE,
    Buffer,
    Componentname,
    Cookie,
    Cred,
    Newinfo,
    Vattr,
)
from ..words.options import HostOptions
from .attributes import Attributes, Creds, changes
from .device import Device, negotiate
from .directories import OpenDirectory
from .extents import Extents
from .locking import Locking, lock_flags
from .nodes import Node, NodeTable
from .service import SILENT, Answer, Service

if TYPE_CHECKING:
    from ..control import ends

# As plain numbers: arithmetic on members of an enumeration is slow.
_INACT_N1: Final = int(Setback.INACT_N1)
_IO_DIRECT: Final = int(OpenFlag.IO_DIRECT)
_IO_KEEP: Final = int(OpenFlag.IO_KEEP)

_ACCMODE: Final = os.O_ACCMODE
_SYNC: Final = os.O_SYNC | os.O_DSYNC
_OPEN_MODES: Final = (FREAD, FWRITE, FREAD | FWRITE, FREAD | FWRITE)
_DIRECT_IO: Final = int(FopenFlag.DIRECT_IO)
_KEEP_CACHE: Final = int(FopenFlag.KEEP_CACHE)
_NOFLUSH: Final = int(FopenFlag.NOFLUSH)

_TELLS_NODE: Final = frozenset(
    {
        Opcode.LOOKUP,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.SYMLINK,
        Opcode.LINK,
        Opcode.CREATE,
    }
)
_FOR_DURABILITY: Final = frozenset({Opcode.WRITE, Opcode.FLUSH, Opcode.FSYNC})
_OF_OPEN_FILES: Final = frozenset(
    {
        Opcode.READ,
        Opcode.WRITE,
        Opcode.FSYNC,
        Opcode.RELEASE,
        Opcode.FSYNCDIR,
        Opcode.RELEASEDIR,
        Opcode.GETLK,
        Opcode.SETLK,
        Opcode.SETLKW,
        Opcode.FALLOCATE,
        Opcode.LSEEK,
        Opcode.COPY_FILE_RANGE,
        Opcode.READDIRPLUS,
        Opcode.INIT,
    }
)
"""What those may ask whom allow_root keeps out: it was checked when they got the descriptor."""


class OpenFile:
    """An open file of the host."""

    __slots__ = ("cred", "dirty", "ioflag", "mode", "node", "owed")

    def __init__(self, node: Node, mode: int, ioflag: int, cred: Cred) -> None:
        self.node = node
        self.mode = mode
        self.ioflag = ioflag
        self.cred = cred
        self.dirty = False
        """Written to since the last FLUSH or FSYNC; a clean file's close asks nobody."""
        self.owed = 0
        """An error that nobody was told, for the program that asked was interrupted."""

    def settle(self) -> None:
        """Raise what is owed, once."""
        number, self.owed = self.owed, 0
        if number:
            raise VfsError(number)


def _value(request: Request, size: int, value: bytes) -> Answer:
    """Return the reply with a value, or with its length if `size` is 0. Errors: ERANGE."""
    if not size:
        return replies.count(request.unique, len(value))
    if len(value) > size:
        raise VfsError(errno.ERANGE)
    return replies.data_head(request.unique, len(value)), value


def _fsync_flags(flags: int) -> int:
    return FSYNC_WAIT | FSYNC_CACHE | (FSYNC_DATAONLY if flags & FSYNC_FDATASYNC else 0)


class FuseEnd:
    """The request handlers of one mount, and the service that calls them."""

    def __init__(self, server: FileServer, options: HostOptions, device: Device) -> None:
        kargs = server.kargs
        self.server = server
        self._ops = kargs.ops
        self.nodes = NodeTable(server, kargs.root)
        self._files: dict[int, OpenFile] = {}
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
        self.upcalls: Upcalls | None = None
        self._extents = Extents(self)
        self._locks = lock_flags(kargs)
        self._locking = Locking(self)
        handlers: dict[int, Callable[..., Any]] = {
            Opcode.LOOKUP: self.lookup,
            Opcode.FORGET: self.forget,
            Opcode.GETATTR: self.getattr,
            Opcode.SETATTR: self.setattr,
            Opcode.READLINK: self.readlink,
            Opcode.SYMLINK: self.symlink,
            Opcode.MKNOD: self.mknod,
            Opcode.MKDIR: self.mkdir,
            Opcode.UNLINK: self.unlink,
            Opcode.RMDIR: self.rmdir,
            Opcode.RENAME: self.rename,
            Opcode.LINK: self.link,
            Opcode.OPEN: self.open,
            Opcode.READ: self.read,
            Opcode.WRITE: self.write,
            Opcode.STATFS: self.statfs,
            Opcode.RELEASE: self.release,
            Opcode.FSYNC: self.fsync,
            Opcode.SETXATTR: self.setxattr,
            Opcode.GETXATTR: self.getxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.REMOVEXATTR: self.removexattr,
            Opcode.FLUSH: self.flush,
            Opcode.INIT: self.init,
            Opcode.OPENDIR: self.opendir,
            Opcode.RELEASEDIR: self.releasedir,
            Opcode.FSYNCDIR: self.fsyncdir,
            Opcode.GETLK: self._locking.getlk,
            Opcode.SETLK: self._locking.setlk,
            Opcode.SETLKW: self._locking.setlkw,
            Opcode.ACCESS: self.access,
            Opcode.CREATE: self.create,
            Opcode.DESTROY: self.destroy,
            Opcode.BATCH_FORGET: self.batch_forget,
            Opcode.FALLOCATE: self._extents.fallocate,
            Opcode.LSEEK: self._extents.lseek,
            Opcode.COPY_FILE_RANGE: self._extents.copy_file_range,
            Opcode.READDIRPLUS: self.readdirplus,
            Opcode.RENAME2: self.rename,
        }
        if options.allow_root:
            for opcode in handlers.keys() - _OF_OPEN_FILES - SILENT:
                handlers[opcode] = self._only_root_and_owner(handlers[opcode])
        self.service = Service(
            device,
            handlers,
            undo=self.undo,
            lost=self.lost,
            ends_wait=self._locking.interrupt,
            dump=options.debug,
        )

    # From the host's numbers to nodes and back.

    def _node(self, ino: int) -> Node:
        try:
            return self.nodes.by_ino(ino)
        except KeyError:
            raise VfsError(errno.ESTALE) from None

    def _cn(self, name: bytes, request: Request, nameiop: int = NameiOp.LOOKUP) -> Componentname:
        if len(name) > NAME_MAX:
            raise VfsError(errno.ENAMETOOLONG)
        flags = ISLASTCN | ISDOTDOT if name == b".." else ISLASTCN
        return Componentname(nameiop, name, self._creds.cred(request), flags)

    def shown(self, ino: int, va: Vattr, va_ttl: int, cn_ttl: int) -> tuple[int, int, Attr]:
        """Return time-outs of name and attributes (ns, 0 without such a cache) and attributes."""
        return (
            0 if self._no_names else cn_ttl,
            0 if self._no_attrs else va_ttl,
            self._attributes.attr(ino, va),
        )

    def shown_page(self, page: Page) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Return time-outs of name and attributes, and the owner that is shown (-1: their own), for
        the files of a page; None where each has to be looked at."""
        owner = self._attributes.page_owner
        if owner is None or page.users is not None or page.groups is not None:
            return None
        if not self.nodes.are_all_own:
            return None
        entry_ttl = 0 if self._no_names else page.entry_ttl
        return (entry_ttl, 0 if self._no_attrs else page.attr_ttl), owner

    async def attributes_of(self, info: Newinfo, cred: Cred) -> tuple[Vattr, int]:
        """Return the attributes that came with `info`, or ask for them."""
        if info.va is not None:
            return info.va, info.va_ttl
        return await self.server.getattr(info.cookie, cred)

    async def _told(
        self, request: Request, parent: Node, cn: Componentname, info: Newinfo
    ) -> bytes:
        """Return the reply to a lookup or creation and count the lookup that the host now has."""
        node = self.nodes.absorb(info)
        try:
            va, ttl = await self.attributes_of(info, cn.cred)
            reply = replies.entry(
                request.unique, node.ino, *self.shown(node.ino, va, ttl, info.cn_ttl)
            )
            self.nodes.tell(parent, cn.name, node)
        finally:
            self.nodes.settle(node)
        return reply

    def _attributes_reply(self, request: Request, node: Node, va: Vattr, ttl: int) -> bytes:
        return replies.attributes(
            request.unique, 0 if self._no_attrs else ttl, self._attributes.attr(node.ino, va)
        )

    async def _victim(self, parent: Node, cn: Componentname) -> Node:
        """Return the node that the host means by a name, pinned; as a rule it looked it up."""
        node = await self._present(parent, cn)
        if node is None:
            raise VfsError(errno.ENOENT)
        return node

    async def _present(self, parent: Node, cn: Componentname) -> Node | None:
        node = self.nodes.child(parent, cn.name)
        if node is not None:
            node.pins += 1
            return node
        info = await self.server.lookup(parent.cookie, cn)
        return self.nodes.absorb(info) if info.cookie else None

    def _only_root_and_owner(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        owner = os.getuid()

        async def checked(request: Request, *args: Any) -> Any:
            if request.uid not in (0, owner):
                raise VfsError(errno.EACCES)
            return await handler(request, *args)

        return checked

    # The session.

    async def init(self, request: Request, *_args: int) -> bytes:
        """Agree with the host on a version, sizes and what each can do."""
        return negotiate(request, self._locks)

    async def destroy(self, request: Request) -> bytes:
        """Hear of the end; the device says so as well."""
        return replies.error(request.unique, 0)

    async def undo(self, request: Request, answer: Answer) -> None:
        """Take back what an answer would have told the host, which did not get it."""
        opcode = request.opcode
        if not isinstance(answer, bytes):
            return
        if opcode in _TELLS_NODE:
            self.nodes.forget(replies.told_node(answer), 1)
        elif opcode == Opcode.READDIRPLUS:
            opened = self._dirs.get(request.args[0])
            if opened is not None:
                opened.untell()
        try:
            if opcode in (Opcode.OPEN, Opcode.CREATE):
                await self._release(replies.told_handle(answer, opcode == Opcode.CREATE))
            elif opcode == Opcode.OPENDIR:
                await self._release_directory(replies.told_handle(answer, False))
        except VfsError:
            pass  # nobody is left who could be told

    def lost(self, request: Request, number: int) -> None:
        """Keep the error of what was to be durable for the next who asks through that file."""
        if request.opcode in _FOR_DURABILITY:
            opened = self._files.get(request.args[0])
            if opened is not None:
                opened.owed = number

    # Names.

    async def lookup(self, request: Request, name: bytes) -> bytes:
        """Find a name; a missing one that may be remembered is an entry with number 0."""
        parent = self._node(request.nodeid)
        cn = self._cn(name, request)
        info = await self.server.lookup(parent.cookie, cn)
        if not info.cookie:
            self.nodes.unname(parent, name)
            if not info.cn_ttl or self._no_names:
                raise VfsError(errno.ENOENT)
            return replies.entry(request.unique, 0, info.cn_ttl, 0, replies.NO_ATTR)
        return await self._told(request, parent, cn, info)

    def forget(self, request: Request, nlookup: int) -> None:
        """Take lookups back. There is no reply."""
        self.nodes.forget(request.nodeid, nlookup)

    def batch_forget(self, _request: Request, counts: list[tuple[int, int]]) -> None:
        """Take lookups of several nodes back. There is no reply."""
        for ino, nlookup in counts:
            self.nodes.forget(ino, nlookup)

    async def _make(
        self,
        request: Request,
        name: bytes,
        make: Callable[[Cookie, Componentname], Awaitable[Newinfo]],
    ) -> bytes:
        parent = self._node(request.nodeid)
        cn = self._cn(name, request, NameiOp.CREATE)
        return await self._told(request, parent, cn, await make(parent.cookie, cn))

    async def mknod(self, request: Request, mode: int, rdev: int, name: bytes) -> bytes:
        """Make a file, device, fifo or socket."""
        vtype = IFMT_TO_VTYPE.get(stat.S_IFMT(mode) or stat.S_IFREG)
        if vtype is None:
            raise VfsError(errno.EINVAL)
        va = Vattr(
            vtype, stat.S_IMODE(mode), rdev=rdev if vtype in (Vtype.VBLK, Vtype.VCHR) else None
        )
        server = self.server
        if vtype == Vtype.VREG:
            return await self._make(request, name, lambda opc, cn: server.create(opc, cn, va))
        return await self._make(request, name, lambda opc, cn: server.mknod(opc, cn, va))

    async def mkdir(self, request: Request, mode: int, name: bytes) -> bytes:
        """Make a directory."""
        va = Vattr(Vtype.VDIR, stat.S_IMODE(mode))
        return await self._make(request, name, lambda opc, cn: self.server.mkdir(opc, cn, va))

    async def symlink(self, request: Request, name: bytes, target: bytes) -> bytes:
        """Make a symbolic link."""
        va = Vattr(Vtype.VLNK, 0o777)
        return await self._make(
            request, name, lambda opc, cn: self.server.symlink(opc, cn, va, target)
        )

    async def link(self, request: Request, ino: int, name: bytes) -> bytes:
        """Add a name to a node."""
        node, parent = self._node(ino), self._node(request.nodeid)
        cn = self._cn(name, request, NameiOp.CREATE)
        va, ttl = await self.server.link(parent.cookie, node.cookie, cn)
        self.nodes.tell(parent, name, node)
        return replies.entry(request.unique, node.ino, *self.shown(node.ino, va, ttl, ttl))

    async def _remove(self, request: Request, name: bytes, *, directory: bool) -> bytes:
        parent = self._node(request.nodeid)
        cn = self._cn(name, request, NameiOp.DELETE)
        victim = await self._victim(parent, cn)
        try:
            remove = self.server.rmdir if directory else self.server.remove
            setback = await remove(parent.cookie, victim.cookie, cn)
            if setback & Setback.INACT_N2:
                victim.wants_inactive = True
            self.nodes.unname(parent, name)
        finally:
            self.nodes.settle(victim)
        return replies.error(request.unique, 0)

    async def unlink(self, request: Request, name: bytes) -> bytes:
        """Remove a name of a node that is no directory."""
        return await self._remove(request, name, directory=False)

    async def rmdir(self, request: Request, name: bytes) -> bytes:
        """Remove an empty directory."""
        return await self._remove(request, name, directory=True)

    async def rename(
        self, request: Request, new_parent: int, flags: int, name_old: bytes, name_new: bytes
    ) -> bytes:
        """Rename, replacing what is there, or as one of renameat2's flags says.

        Errors: EINVAL for flags that the server does not have, or that exclude each other.
        """
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise VfsError(errno.EINVAL)
        old_dir, new_dir = self._node(request.nodeid), self._node(new_parent)
        cn_src = self._cn(name_old, request, NameiOp.DELETE)
        cn_targ = self._cn(name_new, request, NameiOp.RENAME)
        src = await self._victim(old_dir, cn_src)
        targ: Node | None = None
        try:
            targ = await self._present(new_dir, cn_targ)
            if targ is not None and flags == RENAME_NOREPLACE:
                raise VfsError(errno.EEXIST)
            args = (old_dir.cookie, src.cookie, cn_src, new_dir.cookie)
            targ_cookie = None if targ is None else targ.cookie
            if flags:
                await self._rename_with(*args, targ_cookie, cn_targ, flags)
            else:
                await self.server.rename(*args, targ_cookie, cn_targ)
            if src is not targ:  # two names of one file: rename(2) leaves both
                self.nodes.unname(old_dir, name_old)
                self.nodes.unname(new_dir, name_new)
                if src.nlookup > 0:
                    self.nodes.name(new_dir, name_new, src)
                if targ is not None and flags == RENAME_EXCHANGE and targ.nlookup > 0:
                    self.nodes.name(old_dir, name_old, targ)
        finally:
            if targ is not None:
                self.nodes.settle(targ)
            self.nodes.settle(src)
        return replies.error(request.unique, 0)

    async def _rename_with(self, *args: Any) -> None:
        try:
            await self.server.rename_with(*args)
        except VfsError as exc:
            if exc.errno != errno.EOPNOTSUPP:
                raise
            raise VfsError(errno.EINVAL) from None  # as file systems without flags say it

    async def readlink(self, request: Request) -> Answer:
        """Return the target of a symbolic link."""
        node = self._node(request.nodeid)
        target = await self.server.readlink(node.cookie, self._creds.cred(request))
        return replies.data_head(request.unique, len(target)), target

    # Attributes.

    async def getattr(self, request: Request) -> bytes:
        """Return attributes."""
        node = self._node(request.nodeid)
        va, ttl = await self.server.getattr(node.cookie, self._creds.cred(request))
        return self._attributes_reply(request, node, va, ttl)

    async def setattr(
        self,
        request: Request,
        valid: int,
        fh: int,
        size: int,
        atime: int,
        mtime: int,
        mode: int,
        uid: int,
        gid: int,
    ) -> bytes:
        """Change attributes; through an open file that was opened for writing by its opener."""
        node = self._node(request.nodeid)
        va = changes(valid, size, atime, mtime, mode, uid, gid)
        opened = self._files.get(fh) if valid & Valid.FH else None
        if self._host_checks:
            cred = FSCRED  # who may do what, "now" and set-id bits included, the host has judged
        else:
            cred = self._creds.cred(request) if opened is None else opened.cred
        if opened is not None and va.size is not None:
            opened.dirty = True
        now, ttl = await self.server.setattr(node.cookie, va, cred)
        return self._attributes_reply(request, node, now, ttl)

    async def access(self, request: Request, mode: int) -> bytes:
        """Answer access(2). ENOSYS, asked once, makes the host say yes to all by itself."""
        self._need(VnOp.ACCESS)
        node = self._node(request.nodeid)
        await self.server.access(node.cookie, mode & 0o7, self._creds.cred(request))
        return replies.error(request.unique, 0)

    async def statfs(self, request: Request) -> bytes:
        """Return the state of the file system."""
        return replies.statfs(request.unique, await self.server.statvfs())

    # Extended attributes. ENOSYS makes the host stop asking: it asks for security.capability
    # before each write otherwise.

    async def getxattr(self, request: Request, size: int, name: bytes) -> Answer:
        """Return the value of an extended attribute, or its length (`size` 0)."""
        self._need(VnOp.GETEXTATTR)
        node = self._node(request.nodeid)
        value = await self.server.getextattr(node.cookie, 0, name, self._creds.cred(request))
        return _value(request, size, value)

    async def setxattr(self, request: Request, flags: int, name: bytes, value: bytes) -> bytes:
        """Set an extended attribute."""
        self._need(VnOp.SETEXTATTR)
        node, cred = self._node(request.nodeid), self._creds.cred(request)
        await self.server.setextattr(node.cookie, 0, name, value, flags, cred)
        return replies.error(request.unique, 0)

    async def listxattr(self, request: Request, size: int) -> Answer:
        """Return the names of extended attributes, or their length (`size` 0)."""
        self._need(VnOp.LISTEXTATTR)
        node = self._node(request.nodeid)
        names = await self.server.listextattr(node.cookie, 0, self._creds.cred(request))
        return _value(request, size, names)

    async def removexattr(self, request: Request, name: bytes) -> bytes:
        """Remove an extended attribute."""
        self._need(VnOp.DELETEEXTATTR)
        node = self._node(request.nodeid)
        await self.server.deleteextattr(node.cookie, 0, name, self._creds.cred(request))
        return replies.error(request.unique, 0)

    def _need(self, op: VnOp) -> None:
        if op not in self._ops:
            raise VfsError(errno.ENOSYS)

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

    async def _open(self, node: Node, flags: int, cred: Cred) -> tuple[int, int]:
        """Open `node`; return the handle, and what the host is told of it (FopenFlag)."""
        mode = _OPEN_MODES[flags & _ACCMODE]
        ioflag = 0
        if flags & os.O_APPEND:
            mode |= FAPPEND
            ioflag |= IO_APPEND
        if flags & _SYNC:
            ioflag |= IO_SYNC
        oflags = await self._begun(node, mode, cred)
        fh = self._next_fh
        self._next_fh += 1
        self._files[fh] = OpenFile(node, mode, ioflag, cred)
        told = 0
        if self._no_pages or oflags & _IO_DIRECT:
            told |= _DIRECT_IO
        if oflags & _IO_KEEP:
            told |= _KEEP_CACHE
        if mode == FREAD and not flags & os.O_TRUNC and not self._locks:
            told |= _NOFLUSH  # nothing can be written through it, so its close asks nobody
        return fh, told

    async def open(self, request: Request, flags: int) -> bytes:
        """Open a file. The host leaves O_TRUNC to us."""
        node = self._node(request.nodeid)
        cred = self._creds.cred(request)
        fh, told = await self._open(node, flags, cred)
        if flags & os.O_TRUNC:
            await self._truncate_opened(fh, node, cred)
        return replies.opened(request.unique, fh, told)

    async def _truncate_opened(self, fh: int, node: Node, cred: Cred) -> None:
        try:
            await self.server.setattr(node.cookie, Vattr(size=0), cred)
        except BaseException:
            await self._release(fh)
            raise
        self._files[fh].dirty = True

    async def create(self, request: Request, flags: int, mode: int, name: bytes) -> bytes:
        """Make and open a file. Without O_EXCL one that somebody else made meanwhile will do."""
        parent = self._node(request.nodeid)
        cn = self._cn(name, request, NameiOp.CREATE)
        made = True
        try:
            info = await self.server.create(
                parent.cookie, cn, Vattr(Vtype.VREG, stat.S_IMODE(mode))
            )
        except VfsError as exc:
            if exc.errno != errno.EEXIST or flags & os.O_EXCL:
                raise
            made = False
            info = await self.server.lookup(parent.cookie, self._cn(name, request))
            if not info.cookie or info.vtype != Vtype.VREG:
                if info.cookie:
                    self.nodes.settle(self.nodes.absorb(info))
                raise
        node = self.nodes.absorb(info)
        try:
            fh, told = await self._open(node, flags, cn.cred)
            try:
                if not made and flags & os.O_TRUNC:
                    await self.server.setattr(node.cookie, Vattr(size=0), cn.cred)
                    info = info._replace(va=None)
                va, ttl = await self.attributes_of(info, cn.cred)
                shown = self.shown(node.ino, va, ttl, info.cn_ttl)
                reply = replies.created(request.unique, node.ino, *shown, fh, told)
            except BaseException:
                await self._release(fh)
                raise
            self.nodes.tell(parent, name, node)
        finally:
            self.nodes.settle(node)
        return reply

    async def read(self, request: Request, fh: int, offset: int, size: int) -> Answer:
        """Read; what is short ends the file."""
        opened = self._files[fh]
        data = await self.server.read(opened.node.cookie, offset, size, 0, opened.cred)
        return replies.data_head(request.unique, len(data)), data

    async def write(self, request: Request, fh: int, offset: int, data: Buffer) -> bytes:
        """Write all of `data`."""
        opened = self._files[fh]
        opened.dirty = True
        await self.server.write(opened.node.cookie, offset, data, opened.ioflag, opened.cred)
        return replies.count(request.unique, len(data))

    async def flush(self, request: Request, fh: int, owner: int) -> bytes:
        """Answer one close(2): what was written is where close promises it, or it fails."""
        opened = self._files[fh]
        try:
            if opened.dirty:
                opened.dirty = False
                await self.server.fsync(opened.node.cookie, FSYNC_CLOSE, 0, 0, opened.cred)
            opened.settle()
        finally:
            await self._locking.closed(opened.node, owner)
        return replies.error(request.unique, 0)

    async def fsync(self, request: Request, fh: int, flags: int) -> bytes:
        """Make data stable."""
        opened = self._files[fh]
        await self.server.fsync(opened.node.cookie, _fsync_flags(flags), 0, 0, opened.cred)
        opened.dirty = False
        opened.settle()
        return replies.error(request.unique, 0)

    async def release(self, request: Request, fh: int, _flags: int, _owner: int) -> bytes:
        """End one open; the last one makes the node inactive."""
        await self._release(fh)
        return replies.error(request.unique, 0)

    async def _release(self, fh: int) -> None:
        opened = self._files.pop(fh)
        try:
            await self._locking.released(opened.node, fh)
        finally:
            await self._ended(opened.node, opened.mode, opened.cred)

    async def _ended(self, node: Node, mode: int, cred: Cred) -> None:
        self.server.close(node.cookie, mode, cred)
        node.opens -= 1
        if not node.opens and (node.wants_inactive or not self._inactive_on_demand):
            node.wants_inactive = False
            await self.server.inactive(node.cookie)

    # Directories.

    async def opendir(self, request: Request, _flags: int) -> bytes:
        """Open a directory."""
        node = self._node(request.nodeid)
        cred = self._creds.cred(request)
        await self._begun(node, FREAD, cred)
        fh = self._next_fh
        self._next_fh += 1
        self._dirs[fh] = OpenDirectory(self, node, cred)
        return replies.opened(request.unique, fh, 0)

    async def readdirplus(self, request: Request, fh: int, offset: int, size: int) -> bytes:
        """Tell entries with their attributes until the host's buffer is full."""
        return await self._dirs[fh].tell(request.unique, offset, size)

    async def releasedir(self, request: Request, fh: int) -> bytes:
        """End one open of a directory."""
        await self._release_directory(fh)
        return replies.error(request.unique, 0)

    async def _release_directory(self, fh: int) -> None:
        opened = self._dirs.pop(fh)
        opened.drop()
        await self._ended(opened.node, FREAD, opened.cred)

    async def fsyncdir(self, request: Request, fh: int, flags: int) -> bytes:
        """Make a directory's names stable."""
        opened = self._dirs[fh]
        await self.server.fsync(opened.node.cookie, _fsync_flags(flags), 0, 0, opened.cred)
        return replies.error(request.unique, 0)

    def opened(self, fh: int) -> OpenFile:
        """Return an open file of the host."""
        return self._files[fh]

    # For who looks into the living stack: gateway/control/ends.py.

    def stand_on(self, server: FileServer) -> None:
        """See layers.joint.Stander."""
        self.server = self.nodes.server = server

    def requests(self) -> list[ends.Request]:
        """See control.ends.End."""
        from ..control.hostrequests import requests

        return requests(self)

    def cred(self, request: Request) -> Cred:
        """Return who asks."""
        return self._creds.cred(request)

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
            "failures": self.service.failures,
        }
