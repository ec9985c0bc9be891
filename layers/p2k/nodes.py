"""Cookies and the vnodes behind them: what every operation of a P2k begins and ends with."""

from __future__ import annotations

from errno import EROFS, ESTALE

from ...emul.kernel import Kernel
from ...emul.mount import Mount
from ...emul.vfs import FileSystem, Lookup
from ...emul.vnode import Vnode, vref, vrele_nowait
from ...native.constants import MAXMSGLEN_MAX, FlushOp, KFlag, Vtype
from ...native.errors import VfsError
from ...native.records import Cookie, Kargs, Newinfo
from ..ops import FileServer, Upcalls


class Node:
    """What stands behind a cookie: the vnode with our one reference, and the lookups given out."""

    __slots__ = ("nlookup", "vp")

    def __init__(self, vp: Vnode) -> None:
        self.vp = vp
        self.nlookup = 1


class Nodes(FileServer):
    """The mount that is served, and its live cookies, each with one reference on its vnode."""

    def __init__(self, kernel: Kernel, mount: Mount) -> None:
        root = mount.root
        vref(root)
        self._kernel = kernel
        self._mount = mount
        self._fs = mount.fs
        self._root = root
        self._nodes: dict[int, Node] = {root.serial: Node(root)}
        self._upcalls: Upcalls | None = None
        self._unmounted = False
        self._kargs = Kargs(
            typename="p2k|" + self._fs.typename,
            mntfromname=self._fs.mntfromname,
            root=Newinfo(Cookie(root.serial), root.vtype, root.size),
            kflags=KFlag.CACHE_FS_TTL,
            ops=self._fs.ops,
            maxmsglen=MAXMSGLEN_MAX,
        )

    @property
    def kargs(self) -> Kargs:
        """Return the mount arguments; the type is "p2k|" and the trace of what is below."""
        return self._kargs

    @property
    def mount(self) -> Mount:
        """The mount in the emulated kernel."""
        return self._mount

    @property
    def below(self) -> FileSystem:
        """The file system that is served."""
        return self._fs

    def attach(self, upcalls: Upcalls) -> None:
        """Learn whom to hand flushes to."""
        self._upcalls = upcalls

    # Requests from below, through the emulated mount (emul.mount.Client).

    async def flush(
        self, op: FlushOp, vp: Vnode | None, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """Hand a flush of the file system below on to the kernel above."""
        if self._upcalls is not None and (vp is None or vp.serial in self._nodes):
            cookie = Cookie(0 if vp is None else vp.serial)
            await self._upcalls.flush(op, cookie, start, end, name)

    def request_unmount(self) -> None:
        """Hand a wish to be unmounted on."""
        if self._upcalls is not None:
            self._upcalls.unmount()

    # From cookies to vnodes and back.

    def _vp(self, opc: int) -> Vnode:
        try:
            return self._nodes[opc].vp
        except KeyError:
            raise VfsError(ESTALE, f"no node behind cookie {opc}") from None

    def _newinfo(self, found: Lookup) -> Newinfo:
        """Turn a lookup's answer with its reference into a newinfo. No await: see `Node`."""
        vp = found.vp
        if vp is None:
            return Newinfo(Cookie(0), Vtype.VNON, 0, 0, None, 0, found.cn_ttl)
        node = self._nodes.get(vp.serial)
        if node is None:
            self._nodes[vp.serial] = Node(vp)
        else:
            node.nlookup += 1
            vrele_nowait(vp)  # not the last one: the cookie has its own
        va = found.va
        rdev = 0 if va is None or va.rdev is None else va.rdev
        return Newinfo(Cookie(vp.serial), vp.vtype, vp.size, rdev, va, found.va_ttl, found.cn_ttl)

    def _writable(self) -> None:
        if self._mount.is_rdonly:
            raise VfsError(EROFS)
