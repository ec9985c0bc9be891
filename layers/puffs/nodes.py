"""Cookies and vnodes of a kernel half: what a server may hand out, and what it gets back.

A cookie that comes in an answer counts as one lookup on the server. It is *admitted* as a
vnode, which remembers how many lookups it has absorbed; RECLAIM carries that number, so that
a lookup whose answer is on its way when the node is reclaimed keeps the node alive. A cookie
that is not admitted, because the answer broke a rule or nobody waits for it any more, is
given back at once by a RECLAIM of one lookup.

The table from cookie to vnode is the mount's; there is no await in this module, so that an
answer is admitted in the same breath in which it was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EOPNOTSUPP
from typing import TYPE_CHECKING, Final, Protocol

from ...emul.vfs import Entry, Lookup
from ...emul.vnode import Vnode
from ...native.constants import ErrorNote, KFlag, Setback, Vtype
from ...native.errors import VfsError
from ...native.records import Cookie, Dirent, Kargs, Newinfo

if TYPE_CHECKING:
    from ...emul.mount import Mount

_VREG: Final = int(Vtype.VREG)
_VBLK: Final = int(Vtype.VBLK)
_VCHR: Final = int(Vtype.VCHR)
_INACT_N1: Final = int(Setback.INACT_N1)
_INACT_N2: Final = int(Setback.INACT_N2)
_NOREF_N1: Final = int(Setback.NOREF_N1)
_NOREF_N2: Final = int(Setback.NOREF_N2)


class PuffsNode:
    """The kernel half's part of a vnode (`vp.data`).

    `nlookup` lookups have been absorbed. `wants_inactive`: an INACT setback asked for an INACTIVE.
    `is_dying`: a NOREF setback said that no name is left; recycled when its last reference goes.
    """

    __slots__ = ("cookie", "is_dying", "nlookup", "wants_inactive")

    def __init__(self, cookie: Cookie, nlookup: int) -> None:
        self.cookie = cookie
        self.nlookup = nlookup
        self.wants_inactive = False
        self.is_dying = False


class Upstream(Protocol):
    """What the nodes need of their kernel half."""

    mount: Mount

    def give_back(self, cookie: Cookie, nlookup: int) -> None:
        """Send RECLAIM."""
        ...

    def violated(self, kind: ErrorNote, cookie: int, text: str) -> VfsError:
        """Send an error note; return what to raise."""
        ...


class Nodes:
    """Admits what the server of `kargs` hands out, for the kernel half `fs`."""

    def __init__(self, fs: Upstream, kargs: Kargs) -> None:
        self._fs = fs
        self._root = kargs.root
        self._no_names = bool(kargs.kflags & KFlag.NOCACHE_NAME)
        self._no_attrs = bool(kargs.kflags & KFlag.NOCACHE_ATTR)

    def root(self) -> Vnode:
        """Return the root's vnode with a new reference. Its cookie was not looked up."""
        mount = self._fs.mount
        root = self._root
        vp = mount.vget(root.cookie)
        if vp is None:
            node = PuffsNode(root.cookie, 0)
            vp = mount.insert(root.cookie, root.vtype, node, size=root.size, rdev=root.rdev)
        return vp

    def live(self, cookie: int) -> Vnode | None:
        """Return the vnode of a cookie, with a new reference, if there is one."""
        return self._fs.mount.vget(cookie)

    def found(self, dvp: Vnode, info: Newinfo, kind: ErrorNote = ErrorNote.LOOKUP) -> Lookup:
        """Admit the answer of a lookup in `dvp`, which may be a node that we have already."""
        cookie, vtype, size, _, va, va_ttl, cn_ttl = info
        if self._no_names:
            cn_ttl = 0
        if not cookie:
            return Lookup(None, cn_ttl)
        if cookie == dvp.data.cookie:
            # Live, so the lookup is absorbed and given back with the directory's others.
            dvp.data.nlookup += 1
            raise self._fs.violated(kind, cookie, "lookup found the directory itself")
        mount = self._fs.mount
        vp = mount.vget(cookie)
        if vp is None:
            return self._new(info, cn_ttl)
        vp.data.nlookup += 1
        if vp.vtype != vtype:
            mount.kernel.vrele_async(vp)
            raise self._fs.violated(kind, cookie, f"type {vtype} for a live node of {vp.vtype}")
        vp.size = size
        return Lookup(vp, cn_ttl, va, 0 if self._no_attrs else va_ttl)

    def made(self, info: Newinfo, vtype: int) -> Lookup:
        """Admit the answer of an operation that makes a node of type `vtype`."""
        cookie = info.cookie
        if not cookie:
            raise VfsError(EOPNOTSUPP, "the server made a node without a cookie")
        mount = self._fs.mount
        vp = mount.vget(cookie)
        if vp is not None:
            vp.data.nlookup += 1
            mount.kernel.vrele_async(vp)
            raise self._fs.violated(ErrorNote.MAKENODE, cookie, "cookie exists")
        if info.vtype != vtype:
            self._fs.give_back(cookie, 1)
            text = f"type {info.vtype} made in place of {vtype}"
            raise self._fs.violated(ErrorNote.MAKENODE, cookie, text)
        return self._new(info, 0 if self._no_names else info.cn_ttl)

    def of_handle(self, info: Newinfo) -> Vnode:
        """Admit the answer of fhtonode."""
        cookie = info.cookie
        if not cookie:
            raise self._fs.violated(ErrorNote.ERROR, 0, "file handle without a node")
        vp = self._fs.mount.vget(cookie)
        if vp is None:
            vp = self._new(info, 0).vp
            assert vp is not None
        else:
            vp.data.nlookup += 1
        return vp

    def entries(self, dvp: Vnode, dirents: Sequence[Dirent]) -> list[Entry]:
        """Admit a directory listing; all of it or, if a newinfo breaks a rule, nothing."""
        entries: list[Entry] = []
        try:
            for fileid, vtype, name, offset, info in dirents:
                if info is None:
                    entries.append(Entry(fileid, vtype, name, offset))
                else:
                    found = self.found(dvp, info, ErrorNote.READDIR)
                    entries.append(Entry(fileid, vtype, name, offset, found))
        except VfsError:
            for entry in entries:
                if entry.found is not None and entry.found.vp is not None:
                    self._fs.mount.kernel.vrele_async(entry.found.vp)
            for dirent in dirents[len(entries) + 1 :]:
                self.refuse(dirent.newinfo)
            raise
        return entries

    def refuse(self, info: Newinfo | None) -> None:
        """Give back the lookup of an answer that nobody takes."""
        if info is not None and info.cookie and info.cookie != self._root.cookie:
            self._fs.give_back(info.cookie, 1)

    def _new(self, info: Newinfo, cn_ttl: int) -> Lookup:
        cookie, vtype, size, rdev, va, va_ttl, _ = info
        if vtype != _VBLK and vtype != _VCHR:
            rdev = 0
        try:
            vp = self._fs.mount.insert(cookie, vtype, PuffsNode(cookie, 1), size=size, rdev=rdev)
        except VfsError:
            self._fs.give_back(cookie, 1)
            raise
        return Lookup(vp, cn_ttl, va, 0 if self._no_attrs else va_ttl)


def apply_setbacks(setbacks: int, node: PuffsNode, second: PuffsNode | None = None) -> None:
    """Remember what a reply said about the operation's node and its second node."""
    if setbacks & _INACT_N1:
        node.wants_inactive = True
    if setbacks & _NOREF_N1:
        node.is_dying = True
    if second is not None:
        if setbacks & _INACT_N2:
            second.wants_inactive = True
        if setbacks & _NOREF_N2:
            second.is_dying = True
