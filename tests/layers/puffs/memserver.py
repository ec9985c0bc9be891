"""A small FileServer that keeps everything in memory, and remembers what it was asked.

It counts lookups as the rules say and refuses what breaks them, so that a test ends with
`check_given_back`. `gates` holds operations back: an operation whose name is in it waits
for the event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from errno import EEXIST, EINVAL, EIO, EISDIR, ENODATA, ENOENT, ENOTDIR, ENOTEMPTY, ESTALE
from itertools import count

import trio

from syspuffs.layers.ops import FileServer, Upcalls
from syspuffs.native.constants import (
    IO_APPEND,
    MAXMSGLEN_DEFAULT,
    READDIR_PLUS,
    KFlag,
    Setback,
    VnOp,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import (
    Buffer,
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Flock,
    Kargs,
    Newinfo,
    Statvfs,
    Vattr,
)

ALL_OPS = frozenset(op for op in VnOp if hasattr(FileServer, op.name.lower()))
SECOND = 10**9


class Node:
    def __init__(self, cookie: int, va: Vattr) -> None:
        self.cookie = Cookie(cookie)
        self.va = va
        self.data = bytearray()
        self.names: dict[bytes, Node] = {}
        self.parent = self
        self.target = b""
        self.xattrs: dict[bytes, bytes] = {}
        self.nlookup = 0
        self.opens: Counter[int] = Counter()


class MemServer(FileServer):
    """See the module. `calls` are the names of all operations, in order."""

    def __init__(
        self,
        *,
        kflags: int = KFlag.CACHE_FS_TTL | KFlag.IAONDEMAND,
        ops: frozenset[int] = ALL_OPS,
        maxmsglen: int = MAXMSGLEN_DEFAULT,
        typename: str = "mem",
    ) -> None:
        self.calls: list[str] = []
        self.notes: list[tuple[int, int, str, int]] = []
        self.gates: dict[str, trio.Event] = {}
        self.entered: dict[str, trio.Event] = {}
        self.upcalls: Upcalls | None = None
        self.unmounted: list[int] = []
        self.veto: VfsError | None = None
        self.setbacks: dict[str, int] = {}
        self.open_flags = 0
        self.fail_read_at = -1
        self.pids: set[int] = set()
        self._cookies = count(100)
        self._inodes = count(2)
        self.nodes: dict[int, Node] = {}
        self.root = self._make(Vtype.VDIR, 0o755, None)
        self.root.nlookup = 1
        self._kargs = Kargs(
            typename, b"memory", Newinfo(self.root.cookie, Vtype.VDIR), kflags, ops, maxmsglen
        )

    # For tests.

    def gate(self, name: str) -> trio.Event:
        """Hold back operation `name` until the returned event is set."""
        self.entered[name] = trio.Event()
        self.gates[name] = trio.Event()
        return self.gates[name]

    def counts(self) -> Counter[str]:
        return Counter(self.calls)

    def check_given_back(self) -> None:
        held = {
            n.cookie: n.nlookup for n in self.nodes.values() if n.nlookup and n is not self.root
        }
        assert not held, f"lookups never given back: {held}"

    def check_opens(self) -> None:
        for node in self.nodes.values():
            assert not +node.opens, f"opens of {node.cookie} never closed: {node.opens}"

    async def _enter(self, name: str) -> None:
        assert not self.unmounted, f"{name} after unmount"
        self.calls.append(name)
        event = self.entered.get(name)
        if event is not None:
            event.set()
        gate = self.gates.get(name)
        if gate is not None:
            await gate.wait()

    def _make(self, vtype: int, mode: int | None, parent: Node | None, rdev: int = 0) -> Node:
        ino = next(self._inodes)
        node = Node(
            next(self._cookies),
            Vattr(
                vtype=vtype,
                mode=mode or 0,
                nlink=1,
                uid=0,
                gid=0,
                fileid=ino,
                size=0,
                atime=SECOND,
                mtime=SECOND,
                ctime=SECOND,
                rdev=rdev,
            ),
        )
        node.parent = parent or node
        self.nodes[node.cookie] = node
        return node

    def node(self, cookie: int) -> Node:
        try:
            return self.nodes[cookie]
        except KeyError:
            raise VfsError(ESTALE, f"cookie {cookie}") from None

    def _dir(self, cookie: int) -> Node:
        node = self.node(cookie)
        if node.va.vtype != Vtype.VDIR:
            raise VfsError(ENOTDIR)
        return node

    def _info(self, node: Node) -> Newinfo:
        node.nlookup += 1
        va = self._va(node)
        assert va.vtype is not None
        assert va.size is not None
        return Newinfo(node.cookie, va.vtype, va.size, va.rdev or 0, va, 3 * SECOND, 2 * SECOND)

    def _va(self, node: Node) -> Vattr:
        if node.va.vtype == Vtype.VREG:
            return node.va._replace(size=len(node.data))
        return node.va

    @property
    def kargs(self) -> Kargs:
        return self._kargs

    def attach(self, upcalls: Upcalls) -> None:
        assert self.upcalls is None
        self.upcalls = upcalls

    def error_note(self, kind: int, errno: int, text: str, cookie: Cookie) -> None:
        self.notes.append((kind, errno, text, cookie))

    # The whole file system.

    async def statvfs(self) -> Statvfs:
        await self._enter("statvfs")
        return Statvfs(blocks=1000, bfree=500, files=len(self.nodes))

    async def sync(self, waitfor: int, cred: Cred) -> None:
        await self._enter("sync")

    async def unmount(self, flags: int) -> None:
        await self._enter("unmount")
        if self.veto is not None:
            raise self.veto
        self.unmounted.append(flags)

    async def fhtonode(self, handle: bytes) -> Newinfo:
        await self._enter("fhtonode")
        if not handle.isdigit():
            raise VfsError(EINVAL)
        return self._info(self.node(int(handle)))

    async def nodetofh(self, opc: Cookie) -> bytes:
        await self._enter("nodetofh")
        return b"%d" % self.node(opc).cookie

    async def extattrctl(self, cmd: int, opc: int, namespace: int, name: bytes) -> None:
        await self._enter("extattrctl")

    # Names.

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        self.pids.add(cn.cred.pid)
        await self._enter("lookup")
        parent = self._dir(opc)
        if cn.name == b"..":
            return self._info(parent.parent)
        node = parent.names.get(cn.name)
        if node is None:
            return Newinfo(Cookie(0), Vtype.VNON, cn_ttl=SECOND)
        return self._info(node)

    def _enter_name(self, opc: Cookie, cn: Componentname, vtype: int, va: Vattr) -> Node:
        parent = self._dir(opc)
        if cn.name in parent.names:
            raise VfsError(EEXIST)
        node = self._make(vtype, va.mode, parent, va.rdev or 0)
        parent.names[cn.name] = node
        return node

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        await self._enter("create")
        return self._info(self._enter_name(opc, cn, Vtype.VREG, va))

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        await self._enter("mknod")
        assert va.vtype is not None
        return self._info(self._enter_name(opc, cn, va.vtype, va))

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        await self._enter("mkdir")
        return self._info(self._enter_name(opc, cn, Vtype.VDIR, va))

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        await self._enter("symlink")
        node = self._enter_name(opc, cn, Vtype.VLNK, va)
        node.target = target
        node.va = node.va._replace(size=len(target))
        return self._info(node)

    def _unlink(self, opc: Cookie, targ: Cookie, cn: Componentname) -> None:
        parent, node = self._dir(opc), self.node(targ)
        if parent.names.get(cn.name) is not node:
            raise VfsError(ENOENT)
        if node.names:
            raise VfsError(ENOTEMPTY)
        del parent.names[cn.name]
        assert node.va.nlink is not None
        node.va = node.va._replace(nlink=node.va.nlink - 1)

    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        await self._enter("remove")
        if self.node(targ).va.vtype == Vtype.VDIR:
            raise VfsError(EISDIR)
        self._unlink(opc, targ, cn)
        return self.setbacks.get("remove", 0 if self.node(targ).va.nlink else Setback.NOREF_N2)

    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        await self._enter("rmdir")
        self._unlink(opc, targ, cn)
        return self.setbacks.get("rmdir", Setback.NOREF_N2)

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        await self._enter("link")
        parent, node = self._dir(opc), self.node(targ)
        if cn.name in parent.names:
            raise VfsError(EEXIST)
        parent.names[cn.name] = node
        node.va = node.va._replace(nlink=(node.va.nlink or 0) + 1)
        return self._va(node), SECOND

    async def rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
    ) -> None:
        await self._enter("rename")
        node = self.node(src)
        if targ is not None:
            self._unlink(targ_dir, targ, cn_targ)
        del self._dir(opc).names[cn_src.name]
        self._dir(targ_dir).names[cn_targ.name] = node
        node.parent = self.node(targ_dir)

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        await self._enter("readdir")
        node = self._dir(opc)
        names = [(b".", node), (b"..", node.parent), *node.names.items()]
        entries: list[Dirent] = []
        for i, (name, child) in enumerate(names[offset:], offset + 1):
            resid -= 24 + len(name)
            if resid < 0 and entries:
                return entries, False
            info = self._info(child) if flags & READDIR_PLUS and i > 2 else None
            assert child.va.fileid is not None
            assert child.va.vtype is not None
            entries.append(Dirent(child.va.fileid, child.va.vtype, name, i, info))
        return entries, True

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        await self._enter("readlink")
        return self.node(opc).target

    def abortop(self, opc: Cookie, cn: Componentname) -> None:
        self.calls.append("abortop")

    # Files.

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        await self._enter("open")
        self.node(opc).opens[mode] += 1
        return self.open_flags, self.setbacks.get("open", 0)

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        self.calls.append("close")
        self.node(opc).opens[fflag] -= 1

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        await self._enter("access")

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        self.pids.add(cred.pid)
        await self._enter("getattr")
        return self._va(self.node(opc)), SECOND

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        await self._enter("setattr")
        node = self.node(opc)
        if va.size is not None:
            del node.data[va.size :]
            node.data.extend(bytes(va.size - len(node.data)))
        node.va = Vattr(
            *[old if new is None else new for old, new in zip(node.va, va, strict=True)]
        )
        return self._va(node), SECOND

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        await self._enter("read")
        if offset == self.fail_read_at:
            raise VfsError(EIO)
        return bytes(self.node(opc).data[offset : offset + resid])

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        await self._enter("write")
        node = self.node(opc)
        if ioflag & IO_APPEND:
            offset = len(node.data)
        node.data.extend(bytes(max(0, offset - len(node.data))))
        node.data[offset : offset + len(data)] = data

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        await self._enter("fsync")

    async def seek(self, opc: Cookie, old: int, new: int, cred: Cred) -> None:
        await self._enter("seek")

    async def mmap(self, opc: Cookie, prot: int, cred: Cred) -> int:
        await self._enter("mmap")
        return self.setbacks.get("mmap", 0)

    async def poll(self, opc: Cookie, events: int) -> int:
        await self._enter("poll")
        return events & 1

    # Life cycle.

    async def inactive(self, opc: Cookie) -> int:
        await self._enter("inactive")
        self.node(opc)
        return self.setbacks.get("inactive", 0)

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        assert not self.unmounted
        self.calls.append("reclaim")
        node = self.node(opc)
        assert node is not self.root
        assert 0 < nlookup <= node.nlookup, (nlookup, node.nlookup)
        node.nlookup -= nlookup
        if not node.nlookup and not node.va.nlink:
            del self.nodes[opc]

    # The rest.

    async def print(self, opc: Cookie) -> bytes:
        await self._enter("print")
        return b"node %d" % opc

    async def pathconf(self, opc: Cookie, name: int) -> int:
        await self._enter("pathconf")
        return 255

    async def advlock(self, opc: Cookie, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        await self._enter("advlock")
        return flock._replace(pid=7)

    async def getextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> bytes:
        await self._enter("getextattr")
        try:
            return self.node(opc).xattrs[name]
        except KeyError:
            raise VfsError(ENODATA) from None

    async def setextattr(
        self, opc: Cookie, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        await self._enter("setextattr")
        self.node(opc).xattrs[name] = bytes(value)

    async def listextattr(self, opc: Cookie, namespace: int, cred: Cred) -> bytes:
        await self._enter("listextattr")
        return b"".join(name + b"\0" for name in self.node(opc).xattrs)

    async def deleteextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> None:
        await self._enter("deleteextattr")
        self.node(opc).xattrs.pop(name, None)

    async def fallocate(self, opc: Cookie, offset: int, length: int) -> None:
        await self._enter("fallocate")
        data = self.node(opc).data
        data.extend(bytes(max(0, offset + length - len(data))))

    async def fdiscard(self, opc: Cookie, offset: int, length: int) -> None:
        await self._enter("fdiscard")
        self.node(opc).data[offset : offset + length] = bytes(length)
