"""Plays the client of an emulated kernel, without a scheduler under it.

`now` runs a coroutine that must not yield: every use of it is a proof that the operation
did not. A `Caller` keeps the rules of emul/vfs.py: references, locks at entry.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import pytest

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.mount import Mount
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vfs import Entry, Lookup
from syspuffs.emul.vnode import Vnode, vrele
from syspuffs.native.constants import FREAD, FWRITE, VEXEC, VREAD, VWRITE, NameiOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Buffer, Componentname, Cred, Vattr, lookup_cn

T = TypeVar("T")

ROOT = Cred(0, 0)
ANN = Cred(1001, 2001, (2009,), 77)
BOB = Cred(1002, 2002, (2001,), 78)
EVE = Cred(1003, 2003, (), 79)


class Attributes(NamedTuple):
    """A `Vattr` with nothing missing."""

    vtype: int
    mode: int
    nlink: int
    uid: int
    gid: int
    fsid: int
    fileid: int
    size: int
    blocksize: int
    atime: int
    mtime: int
    ctime: int
    birthtime: int
    gen: int
    flags: int
    rdev: int
    bytes: int


def complete(va: Vattr) -> Attributes:
    """Return what tmpfs always gives: all of it."""
    assert None not in va
    return Attributes(*va)  # type: ignore[arg-type]


def now(coro: Coroutine[Any, Any, T]) -> T:
    """Run `coro`, which must not yield, and return its result."""
    try:
        coro.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coro.close()
    raise AssertionError("the operation yielded")


@contextmanager
def fails(errno: int) -> Iterator[None]:
    """Expect a `VfsError` with this errno."""
    with pytest.raises(VfsError) as caught:
        yield
    assert caught.value.errno == errno, str(caught.value)


def mounted(fs: TmpFs | None = None, **options: Any) -> Mount:
    """Return a mount in a kernel of its own that runs no tasks."""
    options = {"uid": 0, "gid": 0, "mode": 0o777} | options
    return now(Kernel().mount(fs or TmpFs(**options)))


class Caller:
    """Asks the file system of `mount` on behalf of `cred`."""

    def __init__(self, mount: Mount, cred: Cred = ROOT) -> None:
        self.mount = mount
        self.fs = mount.fs
        self.root = mount.root
        self.cred = cred

    def cn(self, name: bytes, op: int = NameiOp.LOOKUP) -> Componentname:
        return lookup_cn(name, self.cred, op)

    @contextmanager
    def shared(self, vp: Vnode) -> Iterator[None]:
        assert vp.lock.try_shared()
        try:
            yield
        finally:
            vp.lock.release()

    @contextmanager
    def exclusive(self, *vps: Vnode | None) -> Iterator[None]:
        unique = [vp for vp in dict.fromkeys(vps) if vp is not None]
        for vp in unique:
            assert vp.lock.try_exclusive()
        try:
            yield
        finally:
            for vp in unique:
                vp.lock.release()

    def found(self, found: Lookup) -> Vnode:
        assert found.vp is not None
        assert found.va is not None
        assert found.va.vtype == found.vp.vtype
        assert found.va.size == found.vp.size
        return found.vp

    def find(self, dvp: Vnode, name: bytes) -> Vnode | None:
        """Return the vnode with a reference."""
        with self.shared(dvp):
            return now(dvp.fs.lookup(dvp, self.cn(name))).vp

    def get(self, dvp: Vnode, name: bytes) -> Vnode:
        """Return the vnode, which must be there, with a reference."""
        vp = self.find(dvp, name)
        assert vp is not None, name
        return vp

    def walk(self, path: bytes) -> Vnode:
        """Return the vnode of `path` from the root, with a reference; it must exist."""
        vp = now(self.fs.root())
        for name in path.split(b"/"):
            child = self.get(vp, name)
            self.put(vp)
            vp = child
        return vp

    def put(self, *vps: Vnode | None) -> None:
        for vp in vps:
            if vp is not None:
                now(vrele(vp))

    def create(self, dvp: Vnode, name: bytes, mode: int = 0o644) -> Vnode:
        with self.exclusive(dvp):
            va = Vattr(vtype=Vtype.VREG, mode=mode)
            return self.found(now(dvp.fs.create(dvp, self.cn(name, NameiOp.CREATE), va)))

    def mknod(
        self, dvp: Vnode, name: bytes, vtype: int, rdev: int | None = None, mode: int = 0o644
    ) -> Vnode:
        with self.exclusive(dvp):
            va = Vattr(vtype=vtype, mode=mode, rdev=rdev)
            return self.found(now(dvp.fs.mknod(dvp, self.cn(name, NameiOp.CREATE), va)))

    def mkdir(self, dvp: Vnode, name: bytes, mode: int = 0o755) -> Vnode:
        with self.exclusive(dvp):
            va = Vattr(vtype=Vtype.VDIR, mode=mode)
            return self.found(now(dvp.fs.mkdir(dvp, self.cn(name, NameiOp.CREATE), va)))

    def symlink(self, dvp: Vnode, name: bytes, target: bytes) -> Vnode:
        with self.exclusive(dvp):
            cn = self.cn(name, NameiOp.CREATE)
            return self.found(now(dvp.fs.symlink(dvp, cn, Vattr(), target)))

    def link(self, dvp: Vnode, name: bytes, vp: Vnode) -> Attributes:
        with self.exclusive(dvp, vp):
            return complete(now(dvp.fs.link(dvp, vp, self.cn(name, NameiOp.CREATE)))[0])

    def remove(self, dvp: Vnode, name: bytes) -> None:
        self._take_away(dvp, name, dvp.fs.remove)

    def rmdir(self, dvp: Vnode, name: bytes) -> None:
        self._take_away(dvp, name, dvp.fs.rmdir)

    def _take_away(self, dvp: Vnode, name: bytes, operation: Any) -> None:
        # As a system call does it: found by root, so that what is tested is the removal.
        vp = Caller(self.mount).get(dvp, name)
        try:
            with self.exclusive(dvp, vp):
                now(operation(dvp, vp, self.cn(name, NameiOp.DELETE)))
        finally:
            self.put(vp)

    def rename(self, fdvp: Vnode, fname: bytes, tdvp: Vnode, tname: bytes) -> None:
        root = Caller(self.mount)
        fvp, tvp = root.get(fdvp, fname), root.find(tdvp, tname)
        try:
            with self.exclusive(fdvp, tdvp, fvp, tvp):
                now(
                    fdvp.fs.rename(
                        fdvp,
                        fvp,
                        self.cn(fname, NameiOp.DELETE),
                        tdvp,
                        tvp,
                        self.cn(tname, NameiOp.RENAME),
                    )
                )
        finally:
            self.put(fvp, tvp)

    def getattr(self, vp: Vnode) -> Attributes:
        with self.shared(vp):
            return complete(now(vp.fs.getattr(vp, self.cred))[0])

    def setattr(self, vp: Vnode, **fields: int) -> Attributes:
        with self.exclusive(vp):
            return complete(now(vp.fs.setattr(vp, Vattr(**fields), self.cred))[0])

    def mode(self, vp: Vnode) -> int:
        return self.getattr(vp).mode

    def may(self, vp: Vnode) -> str:
        """Return what of "rwx" is allowed."""
        granted = ""
        for letter, wanted in (("r", VREAD), ("w", VWRITE), ("x", VEXEC)):
            with self.shared(vp):
                try:
                    now(vp.fs.access(vp, wanted, self.cred))
                except VfsError:
                    continue
            granted += letter
        return granted

    def open(self, vp: Vnode, mode: int = FREAD | FWRITE) -> None:
        with self.exclusive(vp):
            now(vp.fs.open(vp, mode, self.cred))

    def close(self, vp: Vnode, mode: int = FREAD | FWRITE) -> None:
        vp.fs.close(vp, mode, self.cred)

    def read(self, vp: Vnode, offset: int = 0, resid: int = 1 << 30) -> bytes:
        with self.shared(vp):
            return bytes(now(vp.fs.read(vp, offset, resid, 0, self.cred)))

    def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int = 0) -> None:
        with self.exclusive(vp):
            now(vp.fs.write(vp, offset, data, ioflag, self.cred))

    def readdir(
        self, vp: Vnode, offset: int = 0, resid: int = 1 << 20, flags: int = 0
    ) -> tuple[list[Entry], bool]:
        with self.shared(vp):
            entries, eof = now(vp.fs.readdir(vp, offset, resid, flags, self.cred))
        return list(entries), eof

    def names(self, vp: Vnode) -> list[bytes]:
        entries, eof = self.readdir(vp)
        assert eof
        return [entry.name for entry in entries if entry.name not in (b".", b"..")]
