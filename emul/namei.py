"""namei: from a path to vnodes.

A walk holds one reference, on the directory where it is, and locks that directory, shared, for
the time of one lookup. Directories that are renamed while it walks are followed where they go;
one that was removed says ENOENT. Whoever is to change the last name asks for its directory:

    LOCKPARENT  comes back exclusively locked, with the last name looked up under this lock, so
                that the answer stays true until it is released (make, remove, link)
    WANTPARENT  comes back referenced, with the last name not looked up: for rename, which locks
                two directories at once and then asks `relookup`

What Linux does is done here, with NetBSD's words for it: a slash behind the last name follows a
link and asks for a directory, unless the name itself is meant (CREATE, DELETE, RENAME), where the
caller judges it (`ni_slash`). Permission to search is the file system's to check, by the
credentials of the walk. Nothing yields where locks are free and the file system does not.
"""

from __future__ import annotations

from errno import EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR
from typing import Final

from ..native.constants import ISDOTDOT, ISLASTCN, NAME_MAX, PATH_MAX, VEXEC, NameiOp, Vtype
from ..native.errors import VfsError
from ..native.records import Componentname, Cred
from .nameidata import (
    FOLLOW,
    LOCKLEAF,
    LOCKPARENT,
    LOCKSHARED,
    REQUIREDIR,
    SPECIAL_NAMES,
    WANTPARENT,
    Nameidata,
)
from .vnode import Vnode, vref
from .vnops import vn_readlink, vn_rele, vn_search

MAXSYMLINKS: Final = 40
"""How many links are followed in one walk."""

_LOOKUP: Final = NameiOp.LOOKUP
_CREATE: Final = NameiOp.CREATE
_VDIR: Final = Vtype.VDIR
_VLNK: Final = Vtype.VLNK


async def namei(
    path: bytes, nameiop: int, flags: int, cred: Cred, *, atdir: Vnode, rdir: Vnode
) -> Nameidata:
    """Walk `path` from `atdir`, or from `rdir` if it is absolute; ".." does not leave `rdir`.

    The caller has references on both and keeps them. LOOKUP finds what is there; with CREATE,
    DELETE and RENAME (and LOCKPARENT or WANTPARENT, or else nothing is gained) the last name is
    meant, which may be missing. A mount point is crossed to what is mounted there, but not by the
    last name of DELETE and RENAME: `ni_vp.mountedhere` says that somebody has mounted on it.

    Errors, first match wins:
        ENOENT        the path is empty
        ENAMETOOLONG  it has PATH_MAX octets or more
        EINVAL        it has a NUL in it
    and then, as the walk meets them:
        ENOTDIR       `atdir`, or a name before the last one, is no directory; or the last one,
                      with REQUIREDIR or a slash behind it, for LOOKUP
        EACCES        a directory must not be searched
        ENAMETOOLONG  a name is longer than NAME_MAX; or a link's target and what follows it make
                      PATH_MAX octets or more
        ENOENT        a name is missing, or a link's target is empty
        ELOOP         more than MAXSYMLINKS links
        EIO, ENXIO    what file systems say
    """
    if not path:
        raise VfsError(ENOENT, "empty path")
    if len(path) >= PATH_MAX:
        raise VfsError(ENAMETOOLONG)
    if b"\0" in path:
        raise VfsError(EINVAL, "NUL in a path")
    walk = _Walk(path, cred, rdir, rdir if path.startswith(b"/") else atdir)
    try:
        cnd = await walk.run(nameiop, flags)
    except BaseException:
        await walk.abandon()
        raise
    dvp, vp = walk.dvp, walk.vp
    if nameiop != _LOOKUP or flags & (LOCKPARENT | WANTPARENT):
        nd = Nameidata(dvp, vp, cnd, slash=walk.slash, locked=walk.locked)
    elif vp is None:  # the root, or a link to it
        nd = Nameidata(None, dvp, cnd, slash=walk.slash)
    else:
        await _step(dvp, vp)
        nd = Nameidata(None, vp, cnd, slash=walk.slash)
    if flags & LOCKLEAF:
        try:
            await nd.lock_leaf(shared=bool(flags & LOCKSHARED))
        except BaseException:
            await nd.release()
            raise
    return nd


async def relookup(dvp: Vnode, cnd: Componentname) -> Vnode | None:
    """Return the vnode of one name, with a reference, or None; mount points are not crossed.

    Entry: `dvp` locked, and still locked on return; the name is none of ".", ".." and "".
    Errors: EACCES, ENAMETOOLONG, ENOENT (`dvp` was removed).
    """
    if len(cnd.name) > NAME_MAX:
        await dvp.fs.access(dvp, VEXEC, cnd.cred)
        raise VfsError(ENAMETOOLONG)
    return (await dvp.fs.lookup(dvp, cnd)).vp


def _names(path: bytes) -> list[bytes]:
    """Return the names of a path, last one first."""
    names = path.split(b"/")
    names.reverse()
    return [name for name in names if name]


class _Walk:
    """A walk under way: `todo` are the names before it, the next one last.

    Holds a reference on `dvp`, where it is, and on `vp`, what it has found there.
    """

    __slots__ = ("cred", "dvp", "links", "locked", "rdir", "slash", "todo", "vp")

    def __init__(self, path: bytes, cred: Cred, rdir: Vnode, dvp: Vnode) -> None:
        if dvp.vtype != _VDIR:
            raise VfsError(ENOTDIR)
        vref(dvp)
        self.cred = cred
        self.rdir = rdir
        self.dvp = dvp
        self.vp: Vnode | None = None
        self.todo = _names(path)
        self.slash = path.endswith(b"/")
        self.links = 0
        self.locked = False

    async def run(self, nameiop: int, flags: int) -> Componentname:
        """Walk to the end; return the last name. Errors: see `namei`."""
        todo = self.todo
        cred = self.cred
        name = b""
        is_plain = nameiop == _LOOKUP and not flags & (LOCKPARENT | WANTPARENT)
        while todo:
            name = todo.pop()
            if todo or is_plain:
                vp = await _component(self.dvp, name, cred, self.rdir, 0 if todo else ISLASTCN)
            elif flags & WANTPARENT or name in SPECIAL_NAMES:
                await vn_search(self.dvp, cred)  # no lookup does it, or too late
                break
            else:
                await self.dvp.lock.exclusive()
                self.locked = True
                vp = await relookup(self.dvp, Componentname(nameiop, name, cred, ISLASTCN))
            if vp is None:
                if todo or nameiop == _LOOKUP:
                    raise VfsError(ENOENT)
                break
            if vp.mountedhere is not None and (todo or nameiop in (_LOOKUP, _CREATE)):
                vp = await _cross(vp)
            self.vp = vp
            if todo:
                if vp.vtype == _VDIR:
                    done, self.dvp, self.vp = self.dvp, vp, None
                    await vn_rele(done)
                elif vp.vtype == _VLNK:
                    await self.follow(vp)
                else:
                    raise VfsError(ENOTDIR)
            elif vp.vtype == _VLNK and (flags & FOLLOW or (self.slash and nameiop == _LOOKUP)):
                self.slash = await self.follow(vp) or self.slash
                name = b""
            elif vp.vtype != _VDIR and nameiop == _LOOKUP and (self.slash or flags & REQUIREDIR):
                raise VfsError(ENOTDIR)
        return Componentname(nameiop, name, cred, ISLASTCN)

    async def follow(self, vp: Vnode) -> bool:
        """Put the target of the link `vp` before what is to do; return if a slash ends it.

        Entry: `vp` is the leaf so far. It is not afterwards, and the directory is not locked.
        """
        self.links += 1
        if self.links > MAXSYMLINKS:
            raise VfsError(ELOOP)
        if self.locked:
            self.locked = False
            self.dvp.lock.release()
        target = await vn_readlink(vp, self.cred)
        self.vp = None
        await vn_rele(vp)
        if not target:
            raise VfsError(ENOENT, "empty link")
        if len(target) + sum(len(name) + 1 for name in self.todo) >= PATH_MAX:
            raise VfsError(ENAMETOOLONG)
        self.todo += _names(target)
        if target.startswith(b"/"):
            done, self.dvp = self.dvp, self.rdir
            vref(self.dvp)
            await vn_rele(done)
        return target.endswith(b"/")

    async def abandon(self) -> None:
        """Give back what a walk holds that has failed."""
        if self.locked:
            self.dvp.lock.release()
        try:
            if self.vp is not None:
                await vn_rele(self.vp)
        finally:
            await vn_rele(self.dvp)


async def _component(dvp: Vnode, name: bytes, cred: Cred, rdir: Vnode, flags: int) -> Vnode | None:
    """Return the vnode of one name, of "." or "..", with a reference; None if it is missing."""
    if name == b".":
        await vn_search(dvp, cred)
        vref(dvp)
        return dvp
    if name == b"..":
        return await _dotdot(dvp, cred, rdir, flags | ISDOTDOT)
    if len(name) > NAME_MAX:
        await vn_search(dvp, cred)
        raise VfsError(ENAMETOOLONG)
    return await _lookup(dvp, Componentname(_LOOKUP, name, cred, flags))


async def _lookup(dvp: Vnode, cnd: Componentname) -> Vnode | None:
    lock = dvp.lock
    if not lock.try_shared():
        await lock.shared()
    try:
        return (await dvp.fs.lookup(dvp, cnd)).vp
    finally:
        lock.release()


async def _dotdot(dvp: Vnode, cred: Cred, rdir: Vnode, flags: int) -> Vnode | None:
    """Return the directory above, with a reference; above `rdir` and the kernel's root is itself.

    From the root of a mount the way leads out to the directory that it covers, and up from there.
    """
    cnd = Componentname(_LOOKUP, b"..", cred, flags)
    if dvp is not rdir and not dvp.is_root:
        return await _lookup(dvp, cnd)
    await vn_search(dvp, cred)
    vref(dvp)
    while dvp is not rdir and dvp.is_root and (covered := dvp.mount.covered) is not None:
        vref(covered)
        inside, dvp = dvp, covered
        await _step(inside, dvp)
    if dvp is rdir or dvp.is_root:
        return dvp
    try:
        found = await _lookup(dvp, cnd)
    except BaseException:
        await vn_rele(dvp)
        raise
    await _step(dvp, found)
    return found


async def _cross(vp: Vnode) -> Vnode:
    """Return the root of what is mounted on `vp`, with a reference in place of that on `vp`."""
    while (mount := vp.mountedhere) is not None:
        root = mount.root
        vref(root)
        covered, vp = vp, root
        await _step(covered, vp)
    return vp


async def _step(left: Vnode, entered: Vnode | None) -> None:
    """Drop the reference on `left`; where that fails, that on `entered`, too."""
    try:
        await vn_rele(left)
    except BaseException:
        if entered is not None:
            await vn_rele(entered)
        raise
