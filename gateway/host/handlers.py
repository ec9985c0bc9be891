"""The host end: the host's FUSE requests become puffs operations.

This is the host kernel's end of the first `puffs`. It keeps the rules of a puffs kernel half where
FUSE does not: lookups are counted (nodes.py), victims of removals and renames are known by cookies
(names.py), and closes are more than FUSE has of them (openfiles.py).

A handler takes a request with its arguments and returns the reply as it goes to the device;
service.py calls it and answers a VfsError in its place. Those of a kind have a module.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ...layers.ops import FileServer, Upcalls
from ...native import device_replies as replies
from ...native.constants import ISDOTDOT, ISLASTCN, NAME_MAX, KFlag, NameiOp, VnOp
from ...native.device_replies import Attr
from ...native.device_requests import Request
from ...native.errors import VfsError
from ...native.fuse_protocol import Opcode, Valid
from ...native.packed import Page
from ...native.records import FSCRED, Componentname, Cookie, Cred, Newinfo, Vattr
from ..words.options import HostOptions
from .attributes import Attributes, Creds, changes
from .device import Device, negotiate
from .extents import Extents
from .locking import Locking, lock_flags
from .names import Names
from .nodes import Node, NodeTable
from .openfiles import OpenFiles
from .service import SILENT, Service
from .worker import Answer
from .xattrs import ExtendedAttributes

if TYPE_CHECKING:
    from ..control import ends

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


class FuseEnd:
    """The request handlers of one mount, and the service that calls them."""

    def __init__(self, server: FileServer, options: HostOptions, device: Device) -> None:
        kargs = server.kargs
        self.server = server
        self._ops = kargs.ops
        self.nodes = NodeTable(server, kargs.root)
        self._attributes = Attributes(options)
        self._creds = Creds(options)
        kflags = kargs.kflags | options.kflags
        self.no_names = bool(kflags & KFlag.NOCACHE_NAME)
        self._no_attrs = bool(kflags & KFlag.NOCACHE_ATTR)
        self.no_pages = bool(kflags & KFlag.NOCACHE_PAGE)
        self._host_checks = options.default_permissions
        self.upcalls: Upcalls | None = None
        self._lock_flags = lock_flags(kargs)
        self.locking = Locking(self)
        self.files = OpenFiles(self, inactive_on_demand=bool(kflags & KFlag.IAONDEMAND))
        handlers: dict[int, Callable[..., Any]] = {
            **Names(self).handlers,
            **self.files.handlers,
            **ExtendedAttributes(self).handlers,
            **Extents(self).handlers,
            **self.locking.handlers,
            Opcode.FORGET: self.forget,
            Opcode.BATCH_FORGET: self.batch_forget,
            Opcode.GETATTR: self.getattr,
            Opcode.SETATTR: self.setattr,
            Opcode.ACCESS: self.access,
            Opcode.STATFS: self.statfs,
            Opcode.INIT: self.init,
            Opcode.DESTROY: self.destroy,
        }
        if options.allow_root:
            for opcode in handlers.keys() - _OF_OPEN_FILES - SILENT:
                handlers[opcode] = self._only_root_and_owner(handlers[opcode])
        self.service = Service(
            device,
            handlers,
            undo=self.undo,
            lost=self.files.lost,
            ends_wait=self.locking.interrupt,
            dump=options.debug,
        )

    # From the host's numbers to nodes and back.

    def node(self, ino: int) -> Node:
        """Return the node of a number. Errors: ESTALE."""
        try:
            return self.nodes.by_ino(ino)
        except KeyError:
            raise VfsError(errno.ESTALE) from None

    def cn(self, name: bytes, request: Request, nameiop: int = NameiOp.LOOKUP) -> Componentname:
        """Return a name that is asked about, with who asks. Errors: ENAMETOOLONG."""
        if len(name) > NAME_MAX:
            raise VfsError(errno.ENAMETOOLONG)
        flags = ISLASTCN | ISDOTDOT if name == b".." else ISLASTCN
        return Componentname(nameiop, name, self._creds.cred(request), flags)

    def cred(self, request: Request) -> Cred:
        """Return who asks."""
        return self._creds.cred(request)

    def need(self, op: VnOp) -> None:
        """Raise ENOSYS, for which the host asks no more, unless the server has an operation."""
        if op not in self._ops:
            raise VfsError(errno.ENOSYS)

    @property
    def has_locks(self) -> bool:
        """Tell whether the host leaves locks to the server."""
        return bool(self._lock_flags)

    def shown(self, ino: int, va: Vattr, va_ttl: int, cn_ttl: int) -> tuple[int, int, Attr]:
        """Return time-outs of name and attributes (ns, 0 without such a cache) and attributes."""
        return (
            0 if self.no_names else cn_ttl,
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
        entry_ttl = 0 if self.no_names else page.entry_ttl
        return (entry_ttl, 0 if self._no_attrs else page.attr_ttl), owner

    async def attributes_of(self, info: Newinfo, cred: Cred) -> tuple[Vattr, int]:
        """Return the attributes that came with `info`, or ask for them."""
        if info.va is not None:
            return info.va, info.va_ttl
        return await self.server.getattr(info.cookie, cred)

    async def told(self, request: Request, parent: Node, cn: Componentname, info: Newinfo) -> bytes:
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
        return negotiate(request, self._lock_flags)

    async def destroy(self, request: Request) -> bytes:
        """Hear of the end; the device says so as well."""
        return replies.error(request.unique, 0)

    async def undo(self, request: Request, answer: Answer) -> None:
        """Take back what an answer would have told the host, which did not get it."""
        if not isinstance(answer, bytes):
            return
        if request.opcode in _TELLS_NODE:
            self.nodes.forget(replies.told_node(answer), 1)
        with suppress(VfsError):  # nobody is left who could be told
            await self.files.undo(request, answer)

    # Lookups.

    def forget(self, request: Request, nlookup: int) -> None:
        """Take lookups back. There is no reply."""
        self.nodes.forget(request.nodeid, nlookup)

    def batch_forget(self, _request: Request, counts: list[tuple[int, int]]) -> None:
        """Take lookups of several nodes back. There is no reply."""
        for ino, nlookup in counts:
            self.nodes.forget(ino, nlookup)

    # Attributes.

    async def getattr(self, request: Request) -> bytes:
        """Return attributes."""
        node = self.node(request.nodeid)
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
        node = self.node(request.nodeid)
        va = changes(valid, size, atime, mtime, mode, uid, gid)
        opened = self.files.known(fh) if valid & Valid.FH else None
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
        self.need(VnOp.ACCESS)
        node = self.node(request.nodeid)
        await self.server.access(node.cookie, mode & 0o7, self._creds.cred(request))
        return replies.error(request.unique, 0)

    async def statfs(self, request: Request) -> bytes:
        """Return the state of the file system."""
        return replies.statfs(request.unique, await self.server.statvfs())

    # For who looks into the living stack: gateway/control/ends.py.

    def stand_on(self, server: FileServer) -> None:
        """See layers.joint.Stander."""
        self.server = self.nodes.server = server

    def requests(self) -> list[ends.Request]:
        """See control.ends.End."""
        from ..control.hostrequests import requests

        return requests(self)

    def path(self, cookie: Cookie) -> bytes | None:
        """See control.ends.End."""
        node = self.nodes.by_cookie(cookie)
        return None if node is None else self.nodes.path(node)

    def known_below(self, path: bytes) -> list[Cookie]:
        """See control.ends.End."""
        return [node.cookie for node in self.nodes.below(path)]

    def statistics(self) -> dict[str, Any]:
        """Return counts of what is known and open, for people."""
        files, directories = self.files.counts
        return {
            "nodes": len(self.nodes),
            "files": files,
            "directories": directories,
            "failures": self.service.failures,
        }
