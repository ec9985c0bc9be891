"""Passing: a file server that hands every operation on to the one below it.

What the elements that stand between two file servers are made from (null, readonly, throttle,
trace, fault). Cookies are those of the server below, so nobody keeps a table.

The methods are no coroutine functions: they return the coroutine of the server below, which saves
a frame on each step of each wait. Who overrides one writes `async def`, as in ops.py. An element
that does the same about all operations derives from `Around` in place of writing forty methods.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar

from ..native.records import (
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
from .operations import OPERATIONS, Operation
from .ops import FileServer, Upcalls

Answers = Coroutine[Any, Any, Any]
"""A running operation."""


class Passing(FileServer):
    """The server `below`, with one more name in the trace. Does not own it: `unmount` passes on."""

    name: ClassVar[str]
    """The element's name in the string of a stack."""

    def __init__(self, below: FileServer) -> None:
        self.below = below
        kargs = below.kargs
        self._kargs = kargs._replace(typename=f"{self.name}|{kargs.typename}")

    @property
    def kargs(self) -> Kargs:
        """See FileServer."""
        return self._kargs

    def stand_on(self, below: FileServer) -> None:
        """Have `below` asked from now on, which knows the same cookies; see layers/joint.py.

        What is under way ends where it has begun.
        """
        self.below = below

    def attach(self, upcalls: Upcalls) -> None:
        """See FileServer."""
        self.below.attach(upcalls)

    def error_note(self, kind: int, errno: int, text: str, cookie: Cookie) -> None:
        """See FileServer."""
        self.below.error_note(kind, errno, text, cookie)

    def names_hold(self) -> bool:
        """See FileServer."""
        return self.below.names_hold()

    # The whole file system.

    def statvfs(self) -> Coroutine[Any, Any, Statvfs]:
        """See FileServer."""
        return self.below.statvfs()

    def statvfs_at(self, opc: Cookie) -> Coroutine[Any, Any, Statvfs]:
        """See FileServer."""
        return self.below.statvfs_at(opc)

    def sync(self, waitfor: int, cred: Cred) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.sync(waitfor, cred)

    def unmount(self, flags: int) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.unmount(flags)

    def fhtonode(self, handle: bytes) -> Coroutine[Any, Any, Newinfo]:
        """See FileServer."""
        return self.below.fhtonode(handle)

    def nodetofh(self, opc: Cookie) -> Coroutine[Any, Any, bytes]:
        """See FileServer."""
        return self.below.nodetofh(opc)

    def extattrctl(
        self, cmd: int, opc: int, namespace: int, name: bytes
    ) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.extattrctl(cmd, opc, namespace, name)

    # Nodes.

    def lookup(self, opc: Cookie, cn: Componentname) -> Coroutine[Any, Any, Newinfo]:
        """See FileServer."""
        return self.below.lookup(opc, cn)

    def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Coroutine[Any, Any, Newinfo]:
        """See FileServer."""
        return self.below.create(opc, cn, va)

    def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Coroutine[Any, Any, Newinfo]:
        """See FileServer."""
        return self.below.mknod(opc, cn, va)

    def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Coroutine[Any, Any, Newinfo]:
        """See FileServer."""
        return self.below.mkdir(opc, cn, va)

    def symlink(
        self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes
    ) -> Coroutine[Any, Any, Newinfo]:
        """See FileServer."""
        return self.below.symlink(opc, cn, va, target)

    def open(self, opc: Cookie, mode: int, cred: Cred) -> Coroutine[Any, Any, tuple[int, int]]:
        """See FileServer."""
        return self.below.open(opc, mode, cred)

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        """See FileServer."""
        self.below.close(opc, fflag, cred)

    def access(self, opc: Cookie, mode: int, cred: Cred) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.access(opc, mode, cred)

    def getattr(self, opc: Cookie, cred: Cred) -> Coroutine[Any, Any, tuple[Vattr, int]]:
        """See FileServer."""
        return self.below.getattr(opc, cred)

    def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> Coroutine[Any, Any, tuple[Vattr, int]]:
        """See FileServer."""
        return self.below.setattr(opc, va, cred)

    def read(
        self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred
    ) -> Coroutine[Any, Any, Buffer]:
        """See FileServer."""
        return self.below.read(opc, offset, resid, ioflag, cred)

    def write(
        self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred
    ) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.write(opc, offset, data, ioflag, cred)

    def fsync(
        self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred
    ) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.fsync(opc, flags, offlo, offhi, cred)

    def seek(self, opc: Cookie, old: int, new: int, cred: Cred) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.seek(opc, old, new, cred)

    def mmap(self, opc: Cookie, prot: int, cred: Cred) -> Coroutine[Any, Any, int]:
        """See FileServer."""
        return self.below.mmap(opc, prot, cred)

    def poll(self, opc: Cookie, events: int) -> Coroutine[Any, Any, int]:
        """See FileServer."""
        return self.below.poll(opc, events)

    def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> Coroutine[Any, Any, int]:
        """See FileServer."""
        return self.below.remove(opc, targ, cn)

    def link(
        self, opc: Cookie, targ: Cookie, cn: Componentname
    ) -> Coroutine[Any, Any, tuple[Vattr, int]]:
        """See FileServer."""
        return self.below.link(opc, targ, cn)

    def rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
    ) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.rename(opc, src, cn_src, targ_dir, targ, cn_targ)

    def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> Coroutine[Any, Any, int]:
        """See FileServer."""
        return self.below.rmdir(opc, targ, cn)

    def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> Coroutine[Any, Any, tuple[Sequence[Dirent], bool]]:
        """See FileServer."""
        return self.below.readdir(opc, offset, resid, flags, cred)

    def readlink(self, opc: Cookie, cred: Cred) -> Coroutine[Any, Any, bytes]:
        """See FileServer."""
        return self.below.readlink(opc, cred)

    def abortop(self, opc: Cookie, cn: Componentname) -> None:
        """See FileServer."""
        self.below.abortop(opc, cn)

    def inactive(self, opc: Cookie) -> Coroutine[Any, Any, int]:
        """See FileServer."""
        return self.below.inactive(opc)

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        """See FileServer."""
        self.below.reclaim(opc, nlookup)

    def print(self, opc: Cookie) -> Coroutine[Any, Any, bytes]:
        """See FileServer."""
        return self.below.print(opc)

    def pathconf(self, opc: Cookie, name: int) -> Coroutine[Any, Any, int]:
        """See FileServer."""
        return self.below.pathconf(opc, name)

    def advlock(
        self, opc: Cookie, owner: int, op: int, flock: Flock, flags: int
    ) -> Coroutine[Any, Any, Flock]:
        """See FileServer."""
        return self.below.advlock(opc, owner, op, flock, flags)

    def getextattr(
        self, opc: Cookie, namespace: int, name: bytes, cred: Cred
    ) -> Coroutine[Any, Any, bytes]:
        """See FileServer."""
        return self.below.getextattr(opc, namespace, name, cred)

    def setextattr(
        self, opc: Cookie, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.setextattr(opc, namespace, name, value, flags, cred)

    def listextattr(self, opc: Cookie, namespace: int, cred: Cred) -> Coroutine[Any, Any, bytes]:
        """See FileServer."""
        return self.below.listextattr(opc, namespace, cred)

    def deleteextattr(
        self, opc: Cookie, namespace: int, name: bytes, cred: Cred
    ) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.deleteextattr(opc, namespace, name, cred)

    def fallocate(self, opc: Cookie, offset: int, length: int) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.fallocate(opc, offset, length)

    def fdiscard(self, opc: Cookie, offset: int, length: int) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.fdiscard(opc, offset, length)

    def seek_data(
        self, opc: Cookie, offset: int, whence: int, cred: Cred
    ) -> Coroutine[Any, Any, int]:
        """See FileServer."""
        return self.below.seek_data(opc, offset, whence, cred)

    def copy_file_range(
        self, opc: Cookie, offset: int, targ: Cookie, targ_offset: int, length: int, cred: Cred
    ) -> Coroutine[Any, Any, int]:
        """See FileServer."""
        return self.below.copy_file_range(opc, offset, targ, targ_offset, length, cred)

    def rename_with(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
        flags: int,
    ) -> Coroutine[Any, Any, None]:
        """See FileServer."""
        return self.below.rename_with(opc, src, cn_src, targ_dir, targ, cn_targ, flags)


class Around(Passing):
    """A Passing that does one thing about all operations, whatever they are called.

    Each operation becomes a function of the instance, made once by `around`: a caller finds it
    without the search through classes, and without a bound method. Arguments come in order, as
    every caller in this system gives them.
    """

    def __init__(self, below: FileServer) -> None:
        super().__init__(below)
        self._surround()

    def stand_on(self, below: FileServer) -> None:
        """See Passing."""
        super().stand_on(below)
        self._surround()

    def _surround(self) -> None:
        for operation in OPERATIONS:
            call = getattr(self.below, operation.name)
            make: Any = self.around if operation.waits else self.around_told
            self.__dict__[operation.name] = make(operation, call)

    @abstractmethod
    def around(self, operation: Operation, call: Callable[..., Answers]) -> Callable[..., Answers]:
        """Return what to do in place of `call`, the operation of the server below."""

    def around_told(self, operation: Operation, call: Callable[..., None]) -> Callable[..., None]:
        """Return the same for an operation that never waits and cannot fail."""
        return call
