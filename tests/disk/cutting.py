"""Work that makes promises until the power is cut, and the look at the disk afterwards."""

from __future__ import annotations

import errno
import os
from random import Random
from typing import Final

from syspuffs.emul.syscalls import Process
from syspuffs.native.constants import Vtype
from syspuffs.native.errors import VfsError

from .promises import Promise

CUT: Final = frozenset({errno.EIO, errno.EROFS})
"""What calls end with when the disk has gone: EROFS when the file system noticed before."""
FULL: Final = errno.ENOSPC


class Promiser:
    """Makes files below `top`, has them made stable, changes and renames them.

    `promises` is what has to be there whenever the power is cut. Several may be at work.
    """

    def __init__(self, process: Process, top: bytes, seed: int) -> None:
        self.promises: list[Promise] = []
        self.top = top
        self._process = process
        self._rng = Random(seed)
        self._serial = 0

    async def run(self, count: int) -> None:
        """Do `count` pieces of work, or as many as the disk lives for."""
        works, weights = zip(*self._WORKS, strict=True)
        try:
            await self._process.mkdir(self.top, 0o755)
            for work in self._rng.choices(works, weights, k=count):
                try:
                    await work(self)
                except VfsError as exc:
                    if exc.errno != FULL:
                        raise
        except VfsError as exc:
            if exc.errno not in CUT:
                raise

    # Means.

    def _name(self) -> bytes:
        self._serial += 1
        return b"%s/%s%d" % (self.top, b"n" * self._rng.choice([1, 1, 10, 40]), self._serial)

    def _data(self) -> bytes:
        rng = self._rng
        length = rng.choice([rng.randint(1, 500), rng.randint(1, 5000), rng.randint(1, 40_000)])
        if rng.random() < 0.06:
            length = rng.randint(40_000, 400_000)
        return rng.randbytes(length)

    def _some(self) -> Promise | None:
        known = [each for each in self.promises if not each.may_be_gone]
        return self._rng.choice(known) if known else None

    async def _write(self, name: bytes, data: bytes, flags: int = 0, offset: int = 0) -> int:
        fd = await self._process.open(name, os.O_RDWR | flags, 0o644)
        await self._process.pwrite(fd, data, offset)
        return fd

    async def _fsync_dir(self) -> None:
        fd = await self._process.open(self.top, os.O_RDONLY | os.O_DIRECTORY)
        await self._process.fsync(fd)
        await self._process.close(fd)

    # Work.

    async def _new(self) -> None:
        """Make a file, write it, make it stable."""
        name, data = self._name(), self._data()
        fd = await self._write(name, data, os.O_CREAT | os.O_EXCL)
        await self._process.fsync(fd)
        self.promises.append(Promise({name}, data))
        await self._process.close(fd)

    async def _deep(self) -> None:
        """The same in directories that are new as well."""
        name = self._name()
        await self._process.mkdir(name, 0o755)
        await self._process.mkdir(name + b"/below", 0o755)
        data = self._data()
        fd = await self._write(name + b"/below/file", data, os.O_CREAT)
        await self._process.fsync(fd)
        self.promises.append(Promise({name + b"/below/file"}, data))
        await self._process.close(fd)

    async def _change(self) -> None:
        """Overwrite or append, and make it stable or not."""
        promise = self._some()
        if promise is None or len(promise.names) != 1:
            return
        (name,) = promise.names
        data = self._data()[:9000]
        size = max([len(promise.stable), *(at + len(more) for at, more in promise.later)])
        offset = size if self._rng.random() < 0.5 else self._rng.randint(0, size)
        promise.later.append((offset, data))
        fd = await self._write(name, data, 0, offset)
        if self._rng.random() < 0.6:
            await self._process.fsync(fd)
            promise.made_stable()
        await self._process.close(fd)

    async def _rename(self) -> None:
        """Rename; the directory is made stable afterwards or not."""
        promise = self._some()
        if promise is None or len(promise.names) != 1:
            return
        (old,) = promise.names
        new = self._name()
        promise.names.add(new)
        await self._process.rename(old, new)
        if self._rng.random() < 0.7:
            await self._fsync_dir()
            promise.names.discard(old)

    async def _replace(self) -> None:
        """Replace a file as editors do: a new one made stable, and renamed over the old one."""
        promise = self._some()
        if promise is None or len(promise.names) != 1 or promise.later:
            return
        (name,) = promise.names
        data, temporary = self._data(), self._name()
        fd = await self._write(temporary, data, os.O_CREAT | os.O_EXCL)
        await self._process.fsync(fd)
        await self._process.close(fd)
        fresh = Promise({temporary, name}, data)
        self.promises.append(fresh)
        promise.may_be_gone = True
        await self._process.rename(temporary, name)
        await self._fsync_dir()
        fresh.names.discard(temporary)
        promise.names.clear()

    async def _remove(self) -> None:
        """Remove a stable file."""
        promise = self._some()
        if promise is None or len(promise.names) != 1:
            return
        (name,) = promise.names
        promise.may_be_gone = True
        await self._process.unlink(name)
        promise.names.clear()

    async def _noise(self) -> None:
        """Files that nobody has promised anything about, so that blocks and inodes go round."""
        names = [self._name() for _ in range(self._rng.randint(1, 5))]
        for name in names:
            await self._process.close(await self._write(name, self._data(), os.O_CREAT))
        for name in names[: self._rng.randint(0, len(names))]:
            if self._rng.random() < 0.4:
                await self._process.truncate(name, self._rng.randint(0, 20_000))
            else:
                await self._process.unlink(name)

    async def _sync(self) -> None:
        """Have everything written."""
        await self._process.sync()

    _WORKS: Final = (
        (_new, 10),
        (_deep, 2),
        (_change, 6),
        (_rename, 3),
        (_replace, 4),
        (_remove, 4),
        (_noise, 8),
        (_sync, 1),
    )


async def broken(process: Process, promises: list[Promise]) -> tuple[list[str], int]:
    """Return what is wrong on the disk after the cut, and how many files only lost+found has.

    A file that e2fsck has put into lost+found has lost its name, but no data.
    """
    faults = []
    found = [await _read(process, name) for name in await _files(process, b"lost+found")]
    nameless = 0
    for promise in promises:
        faults_here = []
        for name in sorted(promise.names):
            try:
                fault = promise.fault(await _read(process, name))
            except VfsError as exc:
                fault = str(exc)
            if fault is None:
                break
            faults_here.append(f"{name!r}: {fault}")
        else:
            if promise.may_be_gone:
                continue
            if any(promise.fault(contents) is None for contents in found):
                nameless += 1
            else:
                faults += faults_here
    return faults, nameless


async def _read(process: Process, name: bytes) -> bytes:
    fd = await process.open(name, os.O_RDONLY)
    try:
        pieces = []
        while piece := await process.read(fd, 1 << 20):
            pieces.append(bytes(piece))
        return b"".join(pieces)
    finally:
        await process.close(fd)


async def _files(process: Process, directory: bytes) -> list[bytes]:
    """Return the regular files in a directory and below it."""
    files = []
    fd = await process.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while entries := await process.getdents(fd, 4096):
            for entry in entries:
                path = directory + b"/" + entry.name
                if entry.vtype == Vtype.VREG:
                    files.append(path)
                elif entry.vtype == Vtype.VDIR and entry.name not in (b".", b".."):
                    files += await _files(process, path)
    finally:
        await process.close(fd)
    return files
