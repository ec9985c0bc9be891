"""Reading directories. An offset is the host's own, so nothing is kept between two calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EOVERFLOW
from typing import Final

from ...native.constants import READDIR_PLUS
from ...native.errors import VfsError
from ...native.records import Cookie, Cred, Dirent, Newinfo
from .attributes import DT_TO_VTYPE, failure, vtype_of
from .libc import RawDirent, getdents
from .names import NameOperations
from .node import Node

_DIRENT_HEAD: Final = 24
_DOTS: Final = (b".", b"..")


class ListOperations(NameOperations):
    """The part of the server that lists."""

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        """See FileServer. Errors: EACCES; EOVERFLOW for offsets of the host that are none."""
        node = self.table.directory(opc)
        entries: list[Dirent] = []
        try:
            directory = self.places.directory(node)
            fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
            try:
                if offset:
                    os.lseek(fd, offset, os.SEEK_SET)
                is_end = self._read(node, fd, resid, flags, entries)
            except BaseException:
                for entry in entries:
                    if entry.newinfo is not None:
                        self.reclaim(entry.newinfo.cookie, 1)
                raise
            finally:
                os.close(fd)
        except (OSError, OverflowError) as exc:
            raise failure(exc) from None
        return entries, is_end

    def _read(self, node: Node, fd: int, resid: int, flags: int, entries: list[Dirent]) -> bool:
        """Append entries until `resid` octets are full; return whether these are all."""
        while True:
            is_end = True
            for raw in getdents(fd, resid):
                is_end = False
                resid -= _DIRENT_HEAD + len(raw.name)
                if entries and resid < 0:
                    return False
                entry = self._entry(node, fd, raw, plus=bool(flags & READDIR_PLUS))
                if entry is not None:
                    entries.append(entry)
            if is_end:
                return True

    def _entry(self, node: Node, fd: int, raw: RawDirent, *, plus: bool) -> Dirent | None:
        """Return an entry in our form; None for one that is gone by now."""
        ino, offset, kind, name = raw
        if offset < 0:
            raise VfsError(EOVERFLOW, f"the host's offset {offset}")
        if name in _DOTS:
            if node is self.table.root:
                ino = node.key[1]  # what is above is nobody's business
            return Dirent(ino, DT_TO_VTYPE[4], name, offset)
        vtype = DT_TO_VTYPE.get(kind)
        info: Newinfo | None = None
        if plus or vtype is None:
            try:
                st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                return None
            vtype = vtype_of(st)
            if plus:
                info = self.newinfo(node, name, st)
            ino = st.st_ino
        return Dirent(ino, vtype, name, offset, info)
