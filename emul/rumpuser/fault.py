"""FaultDisk: a disk that fails as disks do, on purpose and reproducibly; for tests.

It has a volatile write cache: what was written is read back, but reaches the medium with a
flush, and is what a power cut may take away. Faults come at given operations, or by chance
from a seed.
"""

from __future__ import annotations

import mmap
from collections.abc import Set
from errno import EIO
from random import Random
from typing import NamedTuple, TypeAlias

import trio
from trio.lowlevel import spawn_system_task

from ...native.constants import DEV_BSHIFT, DEV_BSIZE
from ...native.errors import VfsError
from ..bio.buf import B_READ, Buf
from .disk import Disk

_Sectors: TypeAlias = dict[int, bytes]


class Faults(NamedTuple):
    """What goes wrong. Rates are from 0 to 1.

    Operations are reads, writes and flushes, counted together from 0. One that is in `fail_at`, or
    is met by the rate of its kind, ends with `errno` and has done nothing; but of a write that is
    met by `torn`, too, some sectors were written. A write met by `lost` succeeds and is gone: each
    flush fails from then on, until its sectors have been written again. Operations take a time up
    to `delay` seconds, so that they end in any order. At operation `die_at` the power is cut.
    """

    read: float = 0.0
    write: float = 0.0
    flush: float = 0.0
    torn: float = 0.0
    lost: float = 0.0
    fail_at: Set[int] = frozenset()
    errno: int = EIO
    delay: float = 0.0
    die_at: int | None = None


NO_FAULTS = Faults()


class _Write:
    """A write that is in the cache only. `is_over`: it was answered."""

    __slots__ = ("is_over", "sectors")

    def __init__(self, sectors: _Sectors) -> None:
        self.sectors = sectors
        self.is_over = False


class FaultDisk(Disk):
    """A disk whose medium is `image`: memory, or a file of the host by mmap.

    `image` has what was flushed and stays its owner's. `faults` may be replaced at any time.
    `operations` counts them. `is_dead` after a power cut: everything fails with EIO then. Without
    delay each operation is over at once.
    """

    def __init__(
        self,
        image: bytearray | mmap.mmap,
        seed: int = 0,
        faults: Faults = NO_FAULTS,
        *,
        name: str = "fault",
        rdonly: bool = False,
    ) -> None:
        super().__init__(name, len(image), rdonly=rdonly)
        self.image = image
        self.faults = faults
        self.operations = 0
        self.is_dead = False
        self._rng = Random(seed)
        self._log: list[_Write] = []
        self._cache: _Sectors = {}  # the newest of each sector in the log
        self._lost: set[int] = set()

    def _fails(self, rate: float) -> bool:
        """Count an operation; return whether it fails."""
        index = self.operations
        self.operations += 1
        if index == self.faults.die_at:
            self.is_dead = True
        is_met = self._rng.random() < rate
        return is_met or self.is_dead or index in self.faults.fail_at

    # Transfers.

    def _start(self, bp: Buf, offset: int) -> None:
        faults = self.faults
        write = None
        if bp.flags & B_READ:
            fails = self._fails(faults.read)
        else:
            was_dead = self.is_dead
            fails = self._fails(faults.write)
            if not was_dead:
                # That which the power cut has met is on its way, and done or not like others.
                write = self._store(bp, offset, fails=fails and not self.is_dead)
        error = faults.errno if fails else 0
        if faults.delay:
            seconds = self._rng.uniform(0, faults.delay)
            spawn_system_task(self._answer_later, seconds, bp, offset, error, write)
        else:
            self._answer(bp, offset, error, write)

    def _store(self, bp: Buf, offset: int, *, fails: bool) -> _Write | None:
        """Put a write into the cache, as far as it gets there."""
        data = b"".join(bp.iov)
        first = offset >> DEV_BSHIFT
        sectors = {
            first + index: data[index << DEV_BSHIFT : (index + 1) << DEV_BSHIFT]
            for index in range(len(data) >> DEV_BSHIFT)
        }
        if fails:
            if self._rng.random() >= self.faults.torn:
                return None
            sectors = _torn(sectors, self._rng)
        elif self._rng.random() < self.faults.lost:
            self._lost |= sectors.keys()
            return None
        self._lost -= sectors.keys()
        write = _Write(sectors)
        self._log.append(write)
        self._cache |= sectors
        return write

    async def _answer_later(
        self, seconds: float, bp: Buf, offset: int, error: int, write: _Write | None
    ) -> None:
        await trio.sleep(seconds)
        self._answer(bp, offset, error, write)

    def _answer(self, bp: Buf, offset: int, error: int, write: _Write | None) -> None:
        if self.is_dead:
            error = EIO
        if write is not None:
            write.is_over = True
        if bp.flags & B_READ and not error:
            data = memoryview(self._read(offset, bp.bcount))
            for view in bp.iov:
                memoryview(view)[:] = data[: len(view)]
                data = data[len(view) :]
        self._done(bp, bp.bcount if error else 0, error)

    def _read(self, offset: int, length: int) -> bytearray:
        data = bytearray(self.image[offset : offset + length])
        cache = self._cache
        if cache:
            first = offset >> DEV_BSHIFT
            for index in range(length >> DEV_BSHIFT):
                sector = cache.get(first + index)
                if sector is not None:
                    data[index << DEV_BSHIFT : (index + 1) << DEV_BSHIFT] = sector
        return data

    # The medium.

    async def _flush(self) -> None:
        """Bring the writes that were answered to the medium.

        Errors: those of `faults`, with nothing done; EIO when dead, or when a write was lost.
        """
        faults = self.faults
        if self._fails(faults.flush):
            raise VfsError(EIO if self.is_dead else faults.errno, f"{self.name}: flush")
        answered = [write for write in self._log if write.is_over]
        if faults.delay:
            await trio.sleep(self._rng.uniform(0, faults.delay))
            if self.is_dead:
                raise VfsError(EIO, f"{self.name}: the power was cut")
        for write in answered:
            _write(self.image, write.sectors)
        kept = set(self._log).difference(answered)
        self._log = [write for write in self._log if write in kept]
        self._cache = {}
        for write in self._log:
            self._cache |= write.sectors
        if self._lost:
            raise VfsError(EIO, f"{self.name}: a write was lost")

    def crash(self, rng: Random) -> bytes:
        """Cut the power, if it is on; return what the medium may have then, by `rng`.

        That is all that was flushed, and of the writes since then any subset: nothing, most,
        everything, or all up to one; some of these torn, with any of their sectors missing.
        """
        self.is_dead = True
        image = bytearray(self.image)
        log = self._log
        if rng.random() < 0.25:
            log = log[: rng.randrange(len(log) + 1)]
            survival = 1.0
        else:
            survival = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        tearing = rng.choice((0.0, 0.1, 0.5))
        for write in log:
            if rng.random() < survival:
                tears = rng.random() < tearing
                _write(image, _torn(write.sectors, rng) if tears else write.sectors)
        return bytes(image)

    async def _close(self) -> None:
        pass  # the image is its owner's; what is in the cache is gone


def _torn(sectors: _Sectors, rng: Random) -> _Sectors:
    """Return some of `sectors`, not all: those up to one, or any."""
    count = rng.randrange(len(sectors))
    numbers = list(sectors)
    kept = numbers[:count] if rng.random() < 0.5 else rng.sample(numbers, count)
    return {number: sectors[number] for number in kept}


def _write(image: bytearray | mmap.mmap, sectors: _Sectors) -> None:
    for number, data in sectors.items():
        offset = number << DEV_BSHIFT
        image[offset : offset + DEV_BSIZE] = data
