"""Counting what is there: how a ledger is filled first."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EACCES, ENOENT, ENOTDIR, ESTALE
from typing import Final

from ...native.constants import FREAD, READDIR_PLUS, Vtype
from ...native.errors import VfsError
from ...native.records import FSCRED, Cookie, Dirent, Newinfo, Vattr, lookup_cn
from ..ops import FileServer
from .ledger import LedgerError, Usage

_LISTING: Final = 64 * 1024
"""What one readdir asks for, octets as it counts."""
_PASSED_OVER: Final = frozenset((EACCES, ENOENT, ENOTDIR, ESTALE))
"""Errors that say that something is not for us, or has gone meanwhile."""


async def count_usage(server: FileServer, limit: int) -> Usage:
    """Walk the whole tree of `server` and return what is in it; the root itself does not count.

    A file with several names counts once where the server tells link counts. What may not be
    listed is passed over. Errors: LedgerError for more than `limit` nodes, or when asking fails.
    """
    scan = _Scan(server, limit)
    try:
        return await scan.run()
    except VfsError as exc:
        raise LedgerError(f"counting what is used: {exc}") from exc
    finally:
        scan.give_back()


class _Scan:
    def __init__(self, server: FileServer, limit: int) -> None:
        self._server = server
        self._limit = limit
        self._octets = 0
        self._files = 0
        self._pending: list[Cookie] = []
        self._linked: set[tuple[int | None, int | None]] = set()

    async def run(self) -> Usage:
        await self._directory(self._server.kargs.root.cookie)
        while self._pending:
            cookie = self._pending.pop()
            try:
                await self._directory(cookie)
            finally:
                self._server.reclaim(cookie, 1)
        return Usage(self._octets, self._files)

    def give_back(self) -> None:
        """Give back what was not walked to its end."""
        for cookie in self._pending:
            self._server.reclaim(cookie, 1)
        self._pending.clear()

    async def _directory(self, cookie: Cookie) -> None:
        try:
            await self._server.open(cookie, FREAD, FSCRED)
        except VfsError as exc:
            if exc.errno in _PASSED_OVER:
                return
            raise
        try:
            offset, is_end = 0, False
            while not is_end:
                entries, is_end = await self._server.readdir(
                    cookie, offset, _LISTING, READDIR_PLUS, FSCRED
                )
                is_end = is_end or not entries
                await self._entries(cookie, entries)
                if entries:
                    offset = entries[-1].offset
        except VfsError as exc:
            if exc.errno not in _PASSED_OVER:
                raise
        finally:
            self._server.close(cookie, FREAD, FSCRED)

    async def _entries(self, directory: Cookie, entries: Sequence[Dirent]) -> None:
        held = [e.newinfo for e in entries if e.newinfo is not None]
        try:
            for entry in entries:
                if entry.name in (b".", b".."):
                    continue
                info = entry.newinfo
                if info is None:
                    info = await self._looked_up(directory, entry)
                    if info is None:
                        continue
                    held.append(info)
                if await self._counted(info):
                    held.remove(info)
        finally:
            for info in held:
                self._server.reclaim(info.cookie, 1)

    async def _looked_up(self, directory: Cookie, entry: Dirent) -> Newinfo | None:
        try:
            info = await self._server.lookup(directory, lookup_cn(entry.name, FSCRED))
        except VfsError as exc:
            if exc.errno in _PASSED_OVER:
                return None
            raise
        return info if info.cookie else None

    async def _counted(self, info: Newinfo) -> bool:
        """Count one node; return whether it is a directory that is still to be walked."""
        va = info.va
        if va is None and info.vtype == Vtype.VREG:
            va = await self._attributes(info.cookie)
            if va is None:
                return False
        if info.vtype == Vtype.VREG and va is not None and va.nlink is not None and va.nlink > 1:
            identity = va.fsid, va.fileid
            if identity in self._linked:
                return False
            self._linked.add(identity)
        self._files += 1
        if self._files > self._limit:
            raise LedgerError(f"there are more than {self._limit} files to be counted")
        if info.vtype == Vtype.VDIR:
            self._pending.append(info.cookie)
            return True
        if info.vtype == Vtype.VREG and va is not None:
            self._octets += va.size or 0
        return False

    async def _attributes(self, cookie: Cookie) -> Vattr | None:
        try:
            va, _ = await self._server.getattr(cookie, FSCRED)
        except VfsError as exc:
            if exc.errno in _PASSED_OVER:
                return None
            raise
        return va
