"""The operations on names."""

from __future__ import annotations

import os
from errno import EINVAL, ENAMETOOLONG, ENOENT, EPERM
from typing import Any, Final

from ...native.constants import NAME_MAX, Vtype
from ...native.errors import VfsError
from ...native.records import (
    VTYPE_TO_IFMT,
    Componentname,
    Cookie,
    Cred,
    Newinfo,
    Vattr,
)
from .attributes import failure, vattr_of, vtype_of
from .attrops import AttrOperations
from .node import Node, key_of
from .places import PATH, proc

_new: Any = tuple.__new__
_MISSING: Final = Newinfo(Cookie(0), Vtype.VNON)
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
_SPECIAL: Final = frozenset((b"", b".", b".."))
_DEFAULT_ACL: Final = "system.posix_acl_default"


def checked(name: bytes) -> bytes:
    """Return a name that is one. Callers see to that; here it is what keeps them in the tree.

    Errors: EINVAL; ENAMETOOLONG.
    """
    if name in _SPECIAL or b"/" in name or b"\0" in name:
        raise VfsError(EINVAL, f"no name of a file: {name!r}")
    if len(name) > NAME_MAX:
        raise VfsError(ENAMETOOLONG)
    return name


class NameOperations(AttrOperations):
    """The part of the server that finds and changes names."""

    def newinfo(
        self, parent: Node, name: bytes, st: os.stat_result, *, is_new: bool = False
    ) -> Newinfo:
        """Return what was seen at a place, or made there; it counts as one lookup."""
        va = vattr_of(st)
        node = self.table.found(parent, name, key_of(st), vtype_of(st), is_new=is_new)
        return _new(  # type: ignore[no-any-return]
            Newinfo, (node.cookie, node.vtype, st.st_size, st.st_rdev, va, 0, 0)
        )

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        """See FileServer. Above the root is the root."""
        node = self.table.directory(opc)
        name = cn.name
        try:
            if name == b"..":
                return self._above(node)
            st = os.stat(checked(name), dir_fd=self.places.directory(node), follow_symlinks=False)
            info = self.newinfo(node, name, st)
            if info.vtype == Vtype.VDIR:
                return self._remembered(info)
            return info
        except FileNotFoundError:
            return _MISSING
        except OSError as exc:
            raise failure(exc) from None

    def _remembered(self, info: Newinfo) -> Newinfo:
        """Say how long a directory's name may be remembered; where that fails, for no time."""
        try:
            ttl = self.places.remembered_for(self.table.node(info.cookie))
        except (VfsError, OSError):
            return info  # it may not be searched, or it was moved just now
        return info._replace(cn_ttl=ttl) if ttl else info

    def _above(self, node: Node) -> Newinfo:
        above = node if node is self.table.root else node.parent
        if above is None:
            raise VfsError(ENOENT)
        st = self.places.stat(above)
        above.nlookup += 1
        return Newinfo(above.cookie, above.vtype, st.st_size, 0, vattr_of(st))

    # Making.

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer. The descriptor waits for the open that follows."""
        self.require_writable()
        parent, name = self.table.directory(opc), checked(cn.name)
        mode = 0o666 if va.mode is None else va.mode
        try:
            directory = self.places.directory(parent)
            fd = os.open(name, _CREATE, mode, dir_fd=directory)
            try:
                info = self.newinfo(parent, name, self._with_mode(fd, directory, mode), is_new=True)
                self.keep(self.table.node(info.cookie), fd)
            except BaseException:
                os.close(fd)
                raise
        except OSError as exc:
            raise failure(exc) from None
        return info

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer. Errors: those of mknod(2), EPERM for devices above all."""
        self.require_writable()
        parent, name = self.table.directory(opc), checked(cn.name)
        ifmt = VTYPE_TO_IFMT.get(Vtype(va.vtype or 0))
        if ifmt is None:
            raise VfsError(EINVAL)
        if va.vtype == Vtype.VDIR:
            raise VfsError(EPERM)
        mode = 0o666 if va.mode is None else va.mode
        try:
            directory = self.places.directory(parent)
            os.mknod(name, ifmt | mode, va.rdev or 0, dir_fd=directory)
            return self._made(parent, directory, name, mode)
        except OSError as exc:
            raise failure(exc) from None

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        self.require_writable()
        parent, name = self.table.directory(opc), checked(cn.name)
        mode = 0o777 if va.mode is None else va.mode
        try:
            directory = self.places.directory(parent)
            os.mkdir(name, mode, dir_fd=directory)
            return self._made(parent, directory, name, mode)
        except OSError as exc:
            raise failure(exc) from None

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        """See FileServer."""
        self.require_writable()
        parent, name = self.table.directory(opc), checked(cn.name)
        try:
            directory = self.places.directory(parent)
            os.symlink(target, name, dir_fd=directory)
            st = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as exc:
            raise failure(exc) from None
        return self.newinfo(parent, name, st, is_new=True)

    def _made(self, parent: Node, directory: int, name: bytes, mode: int) -> Newinfo:
        fd = os.open(name, PATH, dir_fd=directory)
        try:
            st = self._with_mode(fd, directory, mode)
            return self.newinfo(parent, name, st, is_new=True)
        finally:
            os.close(fd)

    def _with_mode(self, fd: int, directory: int, mode: int) -> os.stat_result:
        """Return a new node's attributes, when it has what this process's umask took of `mode`.

        That mask is whoever made the mount's or the session's business, and was theirs already.
        What a default ACL of the directory took stays away.
        """
        st = os.fstat(fd)
        missing = mode & 0o777 & ~st.st_mode
        if missing:
            missing &= _umask()
        if missing and not _has_default_acl(directory):
            os.chmod(proc(fd), (st.st_mode & 0o7777) | missing)
            st = os.fstat(fd)
        return st

    # Removing and moving.

    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """See FileServer. Errors: ESTALE when others have given the name to another file."""
        return self._remove(opc, targ, cn, os.unlink)

    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """See FileServer. Errors: as `remove`."""
        return self._remove(opc, targ, cn, os.rmdir)

    def _remove(self, opc: Cookie, targ: Cookie, cn: Componentname, remove: Any) -> int:
        self.require_writable()
        parent, node = self.table.directory(opc), self.table.node(targ)
        name = checked(cn.name)
        places = self.places
        try:
            directory = places.directory(parent)
            places.hold(node, directory, name)
            try:
                remove(name, dir_fd=directory)
            except BaseException:
                places.let_go(node)
                raise
        except OSError as exc:
            raise failure(exc) from None
        places.removed(node)
        return 0

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        """See FileServer. Errors: those of link(2)."""
        self.require_writable()
        parent, node = self.table.directory(opc), self.table.node(targ)
        name = checked(cn.name)
        if node.vtype == Vtype.VDIR:
            raise VfsError(EPERM)
        try:
            with self.places.held(node) as fd:
                directory = self.places.directory(parent)
                os.link(proc(fd), name, dst_dir_fd=directory, follow_symlinks=True)
                st = os.fstat(fd)
        except OSError as exc:
            raise failure(exc) from None
        self.places.moved(node, parent, name)
        return vattr_of(st), 0

    async def rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
    ) -> None:
        """See FileServer. Errors: ESTALE as `remove`; those of rename(2)."""
        self.require_writable()
        table, places = self.table, self.places
        source, target = table.directory(opc), table.directory(targ_dir)
        node = table.node(src)
        victim = None if targ is None else table.node(targ)
        name, new = checked(cn_src.name), checked(cn_targ.name)
        try:
            with places.two(source, target) as (from_fd, to_fd):
                st = os.stat(name, dir_fd=from_fd, follow_symlinks=False)
                places.compare(node, st)
                if victim is not None and victim is not node:
                    places.hold(victim, to_fd, new)
                try:
                    os.rename(name, new, src_dir_fd=from_fd, dst_dir_fd=to_fd)
                except BaseException:
                    if victim is not None and victim is not node:
                        places.let_go(victim)
                    raise
        except OSError as exc:
            raise failure(exc) from None
        if victim is node:
            return  # two names of one file: rename(2) leaves both
        if victim is not None:
            places.removed(victim)
        places.moved(node, target, new)

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        """See FileServer."""
        node = self.table.node(opc)
        if node.vtype != Vtype.VLNK:
            raise VfsError(EINVAL)
        try:
            with self.places.held(node) as fd:
                return os.readlink(b"", dir_fd=fd)
        except OSError as exc:
            raise failure(exc) from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _has_default_acl(directory: int) -> bool:
    try:
        os.getxattr(proc(directory), _DEFAULT_ACL)
    except OSError:
        return False
    return True
