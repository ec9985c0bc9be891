"""The operations on attributes, extended ones among them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EFBIG, EINVAL, EISDIR, EOPNOTSUPP, EROFS
from typing import Final

from ...native.constants import VWRITE, Vtype
from ...native.errors import VfsError
from ...native.records import Cookie, Cred, Vattr
from . import libc
from .attributes import failure, vattr_of
from .files import ON_MEDIUM, SIZE_MAX, FileOperations
from .node import Node
from .places import proc

_USER: Final = b"user."


class AttrOperations(FileOperations):
    """The part of the server that reads and changes attributes."""

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer. They may change at any time, so they hold for no time."""
        try:
            return vattr_of(self.places.stat(self.table.node(opc))), 0
        except OSError as exc:
            raise failure(exc) from None

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Change size, owner, mode and times, in this order; what was changed before an error is.

        Errors: EROFS; EOPNOTSUPP for flags; EISDIR, EINVAL for the size of what has none; EFBIG;
        those of truncate(2), chown(2), chmod(2) and utimensat(2).
        """
        node = self.table.node(opc)
        self.require_writable()
        if va.flags is not None:
            raise VfsError(EOPNOTSUPP)
        try:
            with self.places.held(node) as fd:
                path = proc(fd)
                if va.size is not None:
                    self._resize(node, path, va.size)
                if va.uid is not None or va.gid is not None:
                    uid = -1 if va.uid is None else va.uid
                    os.chown(path, uid, -1 if va.gid is None else va.gid)
                if va.mode is not None:
                    os.chmod(path, va.mode)
                if va.atime is not None or va.mtime is not None:
                    libc.utime(path, va.atime, va.mtime)
                return vattr_of(os.fstat(fd)), 0
        except (OSError, OverflowError) as exc:
            raise failure(exc) from None

    def _resize(self, node: Node, path: bytes, size: int) -> None:
        if node.vtype != Vtype.VREG:
            raise VfsError(EISDIR if node.vtype == Vtype.VDIR else EINVAL)
        if size > SIZE_MAX:
            raise VfsError(EFBIG)
        file = node.file
        if file is not None and file.writer >= 0:
            os.ftruncate(file.writer, size)
        else:
            os.truncate(path, size)

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        """Ask the host whether the process may, whoever asks. Errors: EROFS; EACCES."""
        node = self.table.node(opc)
        if mode & VWRITE and self.ro and node.vtype in ON_MEDIUM:
            raise VfsError(EROFS)
        try:
            with self.places.held(node) as fd:
                if os.access(proc(fd), mode, effective_ids=True):
                    return
                if mode & VWRITE and os.fstatvfs(fd).f_flag & os.ST_RDONLY:
                    raise VfsError(EROFS)
        except OSError as exc:
            raise failure(exc) from None
        raise VfsError(EACCES)

    # Extended attributes: those of the users alone. The others are the host's business, and to
    # find none of them quickly is worth much: a kernel asks for security.capability at each write.

    @contextmanager
    def _named(self, opc: Cookie, name: bytes) -> Iterator[bytes]:
        """Give the path of a node for an attribute. Errors: EOPNOTSUPP for those not served."""
        node = self.table.node(opc)
        if not name.startswith(_USER):
            raise VfsError(EOPNOTSUPP)
        try:
            with self.places.held(node) as fd:
                yield proc(fd)
        except OSError as exc:
            raise failure(exc) from None

    async def getextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> bytes:
        """See FileServer."""
        with self._named(opc, name) as path:
            return os.getxattr(path, name)

    async def setextattr(
        self, opc: Cookie, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """See FileServer."""
        self.require_writable()
        with self._named(opc, name) as path:
            os.setxattr(path, name, value, flags)

    async def listextattr(self, opc: Cookie, namespace: int, cred: Cred) -> bytes:
        """See FileServer."""
        with self._named(opc, _USER) as path:
            names = [os.fsencode(name) for name in os.listxattr(path)]
        return b"".join(name + b"\0" for name in names if name.startswith(_USER))

    async def deleteextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> None:
        """See FileServer."""
        self.require_writable()
        with self._named(opc, name) as path:
            os.removexattr(path, name)
