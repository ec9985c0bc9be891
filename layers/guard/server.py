"""Guard: the FileServer that lets pass what a policy allows. See the package's text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EACCES, EOPNOTSUPP
from pathlib import Path
from typing import Final

from ...native.constants import (
    FAPPEND,
    FREAD,
    FWRITE,
    IO_APPEND,
    VREAD,
    VWRITE,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Buffer, Componentname, Cookie, Cred, Flock, Kargs, Statvfs, Vattr
from ..ops import FileServer, Upcalls
from .ledger import Ledger, Usage, read_usage, write_usage
from .names import NameOperations
from .nodes import Node
from .scan import count_usage
from .settings import GuardSettings, Verb

_LIST: Final = int(Verb.LIST)
_READ: Final = int(Verb.READ)
_OVERWRITE: Final = int(Verb.OVERWRITE)
_APPEND: Final = int(Verb.APPEND)
_CHMOD: Final = int(Verb.CHMOD)
_CHOWN: Final = int(Verb.CHOWN)
_TIMES: Final = int(Verb.TIMES)
_IN_DIRECTORY: Final = int(Verb.CREATE | Verb.DELETE | Verb.RENAME | Verb.MKDIR | Verb.LINK)
_ST_RDONLY: Final = 1


class Guard(NameOperations):
    """A file server behind a policy. `guarded` makes one; `ledger` is there with a quota only.

    Passes cookies on as they are. Rights are asked for at each operation, of where the node is
    then: an open handle may do no more at a place to which its file was moved than others may.
    """

    @property
    def kargs(self) -> Kargs:
        """See FileServer: those of the server below, and a name more in the trace."""
        kargs = self._server.kargs
        return kargs._replace(typename="guard|" + kargs.typename)

    @property
    def usage(self) -> Usage | None:
        """What is used of the quota; None without one."""
        return None if self._quota is None else self._quota.ledger.usage

    @property
    def known(self) -> int:
        """How many nodes are known: the root, what the kernel above holds, and what is above."""
        return len(self._table)

    def attach(self, upcalls: Upcalls) -> None:
        """See FileServer."""
        self._server.attach(upcalls)

    def error_note(self, kind: int, errno: int, text: str, cookie: Cookie) -> None:
        """See FileServer."""
        self._server.error_note(kind, errno, text, cookie)

    def names_hold(self) -> bool:
        """See FileServer."""
        return self._server.names_hold()

    # The whole file system.

    async def statvfs(self) -> Statvfs:
        """See FileServer. Shows no more room than the quota has."""
        return self._shown(await self._server.statvfs())

    async def statvfs_at(self, opc: Cookie) -> Statvfs:
        """See FileServer. As `statvfs`."""
        self._see(opc)
        return self._shown(await self._server.statvfs_at(opc))

    def _shown(self, found: Statvfs) -> Statvfs:
        if self._readonly:
            found = found._replace(flag=found.flag | _ST_RDONLY)
        if self._quota is None:
            return found
        ledger = self._quota.ledger
        if ledger.octets_max is not None:
            unit = found.frsize or 1
            blocks = ledger.octets_max // unit
            left = max(ledger.octets_max - ledger.octets, 0) // unit
            found = found._replace(
                blocks=blocks, bfree=min(left, found.bfree), bavail=min(left, found.bavail)
            )
        if ledger.files_max is not None:
            left = max(ledger.files_max - ledger.files, 0)
            # A file system without a table of nodes says 0 for all three.
            ffree, favail = (
                (min(left, found.ffree), min(left, found.favail)) if found.files else (left, left)
            )
            found = found._replace(files=ledger.files_max, ffree=ffree, favail=favail)
        return found

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """See FileServer."""
        await self._server.sync(waitfor, cred)

    async def unmount(self, flags: int) -> None:
        """See FileServer."""
        await self._server.unmount(flags)

    async def nodetofh(self, opc: Cookie) -> bytes:
        """See FileServer."""
        self._see(opc)
        return await self._server.nodetofh(opc)

    async def extattrctl(self, cmd: int, opc: int, namespace: int, name: bytes) -> None:
        """See FileServer. It concerns more than one place, so that no rule can speak of it."""
        raise VfsError(EOPNOTSUPP)

    # Opening.

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """See FileServer. Asks for LIST or READ, and for what will be written.

        Whoever has made a file may write to it through the first open that writes, and no other.
        """
        node = self._node(opc)
        rights = self._rights(node)
        if mode & FREAD and not rights & (_LIST if node.vtype == Vtype.VDIR else _READ):
            raise VfsError(EACCES)
        was_born, is_fresh = node.born, False
        if mode & FWRITE:
            self._writable()
            is_fresh = self._take_freshness(node, mode)
            may_write = self._may_overwrite(node, rights) if is_fresh else rights & _OVERWRITE
            if not may_write and not (mode & FAPPEND and rights & _APPEND):
                if is_fresh:
                    node.fresh_mode = 0
                raise VfsError(EACCES)
        node.opens += 1
        try:
            return await self._server.open(opc, mode, cred)
        except BaseException:
            if is_fresh:
                node.fresh_mode, node.born = 0, was_born
            self._ended(node)
            raise

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        """See FileServer."""
        node = self._table.get(opc)
        self._server.close(opc, fflag, cred)
        if node is not None:
            if fflag == node.fresh_mode:
                node.fresh_mode = 0
            self._ended(node)

    def _ended(self, node: Node) -> None:
        node.opens -= 1
        if self._quota is not None:
            self._quota.closed(node)

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        """See FileServer."""
        node = self._node(opc)
        rights = self._rights(node)
        is_directory = node.vtype == Vtype.VDIR
        if mode & VWRITE:
            self._writable()
            if not rights & (_IN_DIRECTORY if is_directory else _OVERWRITE | _APPEND):
                raise VfsError(EACCES)
        if mode & VREAD and not rights & (_LIST if is_directory else _READ):
            raise VfsError(EACCES)
        await self._server.access(opc, mode, cred)

    # Attributes.

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer."""
        self._see(opc)
        return await self._server.getattr(opc, cred)

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer. All that is asked for is allowed, or nothing is done."""
        verbs = 0
        if va.mode is not None or va.flags is not None:
            verbs |= _CHMOD
        if va.uid is not None or va.gid is not None:
            verbs |= _CHOWN
        if not (va.atime is va.mtime is va.ctime is va.birthtime is None):
            verbs |= _TIMES
        node = self._alter(opc, verbs)
        if va.size is None:
            return await self._server.setattr(opc, va, cred)
        self._overwritten(node)
        if self._quota is None or node.vtype != Vtype.VREG:
            return await self._server.setattr(opc, va, cred)
        return await self._quota.setattr(node, va, cred)

    def _overwritten(self, node: Node) -> None:
        """Return if any part of a file may change."""
        self._writable()
        if not self._may_overwrite(node, self._rights(node)):
            raise VfsError(EACCES)

    async def getextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> bytes:
        """See FileServer."""
        self._look(opc, _READ)
        return await self._server.getextattr(opc, namespace, name, cred)

    async def listextattr(self, opc: Cookie, namespace: int, cred: Cred) -> bytes:
        """See FileServer."""
        self._look(opc, _READ)
        return await self._server.listextattr(opc, namespace, cred)

    async def setextattr(
        self, opc: Cookie, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """See FileServer. CHMOD: access lists are such attributes."""
        self._alter(opc, _CHMOD)
        await self._server.setextattr(opc, namespace, name, value, flags, cred)

    async def deleteextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> None:
        """See FileServer."""
        self._alter(opc, _CHMOD)
        await self._server.deleteextattr(opc, namespace, name, cred)

    # Data.

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """See FileServer."""
        self._look(opc, _READ)
        data = await self._server.read(opc, offset, resid, ioflag, cred)
        if self._down is not None:
            await self._down.take(len(data), is_done=True)
        return data

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """See FileServer. APPEND allows what goes to the end (IO_APPEND) and nothing else."""
        node = self._node(opc)
        self._may_write(node, ioflag)
        if self._up is not None:
            await self._up.take(len(data))
            self._may_write(node, ioflag)  # it may have been moved while this waited
        if self._quota is None:
            await self._server.write(opc, offset, data, ioflag, cred)
        else:
            await self._quota.write(node, offset, data, ioflag, cred)

    def _may_write(self, node: Node, ioflag: int) -> None:
        rights = self._rights(node)
        self._writable()
        if self._may_overwrite(node, rights):
            return
        if not (ioflag & IO_APPEND and rights & _APPEND):
            raise VfsError(EACCES)

    async def fallocate(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        node = self._node(opc)
        self._overwritten(node)
        if self._quota is None:
            await self._server.fallocate(opc, offset, length)
            return
        await self._quota.allocate(
            node, offset + length, lambda: self._server.fallocate(opc, offset, length)
        )

    async def fdiscard(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        self._overwritten(self._node(opc))
        await self._server.fdiscard(opc, offset, length)

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """See FileServer. Whoever could write may know what became of it, wherever it is now."""
        self._node(opc)
        await self._server.fsync(opc, flags, offlo, offhi, cred)

    async def seek(self, opc: Cookie, old: int, new: int, cred: Cred) -> None:
        """See FileServer."""
        self._see(opc)
        await self._server.seek(opc, old, new, cred)

    async def mmap(self, opc: Cookie, prot: int, cred: Cred) -> int:
        """See FileServer."""
        self._see(opc)
        return await self._server.mmap(opc, prot, cred)

    async def poll(self, opc: Cookie, events: int) -> int:
        """See FileServer."""
        self._see(opc)
        return await self._server.poll(opc, events)

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        """See FileServer."""
        self._look(opc, _READ)
        return await self._server.readlink(opc, cred)

    async def print(self, opc: Cookie) -> bytes:
        """See FileServer."""
        self._see(opc)
        return await self._server.print(opc)

    async def pathconf(self, opc: Cookie, name: int) -> int:
        """See FileServer."""
        self._see(opc)
        return await self._server.pathconf(opc, name)

    async def advlock(self, opc: Cookie, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """See FileServer."""
        self._see(opc)
        return await self._server.advlock(opc, owner, op, flock, flags)

    # The life of nodes.

    def abortop(self, opc: Cookie, cn: Componentname) -> None:
        """See FileServer."""
        self._server.abortop(opc, cn)

    async def inactive(self, opc: Cookie) -> int:
        """See FileServer."""
        return await self._server.inactive(opc)

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        """See FileServer."""
        node = self._table.get(opc)
        if node is not None:
            self._table.reclaim(node, nlookup)


@asynccontextmanager
async def guarded(
    server: FileServer, settings: GuardSettings, *, ledger_file: Path | None = None
) -> AsyncIterator[Guard]:
    """Guard `server`, which stays the caller's, who unmounts the guard or the server, once.

    With a quota, what is there is counted before this yields, unless `ledger_file` knows it: the
    file is this guard's alone while it lasts. Without one it is counted each time. Errors:
    LedgerError when that cannot be done.
    """
    if not settings.has_quota:
        yield Guard(server, settings)
        return
    ledger = Ledger(settings.quota_octets, settings.quota_files)
    usage = None if ledger_file is None else read_usage(ledger_file)
    if usage is None:
        usage = await count_usage(server, settings.scan_max)
    ledger.octets, ledger.files = usage
    if ledger_file is not None:
        write_usage(ledger_file, ledger.usage, clean=False)
    try:
        yield Guard(server, settings, ledger)
    finally:
        if ledger_file is not None:
            write_usage(ledger_file, ledger.usage, clean=not ledger.is_unsure)
