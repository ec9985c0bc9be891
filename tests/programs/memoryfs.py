"""A flat file system in memory, as a program: what people write with pyfuse3."""

from __future__ import annotations

import errno
import stat
import sys
from collections.abc import Iterator

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FUSEError, InodeT, RequestContext

ROOT = pyfuse3.ROOT_INODE


class Memory(pyfuse3.Operations):
    """Files in the root directory and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[bytes, InodeT] = {}
        self.data: dict[InodeT, bytearray] = {}

    def _entry(self, inode: InodeT) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = inode
        entry.st_nlink = 1
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == ROOT else stat.S_IFREG | 0o644
        entry.st_size = 0 if inode == ROOT else len(self.data[inode])
        return entry

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._entry(inode)

    async def lookup(
        self, parent_inode: InodeT, name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        if name not in self.names:
            raise FUSEError(errno.ENOENT)
        return self._entry(self.names[name])

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        if fields.update_size:
            data = self.data[inode]
            data[attr.st_size :] = bytes(max(attr.st_size - len(data), 0))
        return self._entry(inode)

    async def create(
        self, parent_inode: InodeT, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        inode = InodeT(2 + len(self.data))
        self.names[name] = inode
        self.data[inode] = bytearray()
        return FileInfo(fh=FileHandleT(inode)), self._entry(inode)

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=FileHandleT(inode))

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return bytes(self.data[InodeT(fh)][off : off + size])

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        data = self.data[InodeT(fh)]
        data.extend(bytes(max(off - len(data), 0)))
        data[off : off + len(buf)] = buf
        return len(buf)

    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        del self.names[name]

    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: bytes,
        parent_inode_new: InodeT,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        self.names[name_new] = self.names.pop(name_old)

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for place, (name, inode) in self._listed():
            if place > start_id and not pyfuse3.readdir_reply(
                token, name, self._entry(inode), place
            ):
                return

    def _listed(self) -> Iterator[tuple[int, tuple[bytes, InodeT]]]:
        yield from enumerate(self.names.items(), 1)


def main(mountpoint: str) -> None:
    """Mount and serve, for ever."""
    options = {*pyfuse3.default_options, "fsname=memory", "subtype=memoryfs"}
    pyfuse3.init(Memory(), mountpoint, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main(sys.argv[1])
