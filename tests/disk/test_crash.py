"""Power cuts: what fsync has promised is there afterwards, whatever the disk did with the rest."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Final

import pytest
import trio

from syspuffs.emul.ext2fs import Ext2Fs
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import FaultDisk, Faults
from syspuffs.emul.syscalls import Process
from syspuffs.native.constants import MNT_FORCE
from syspuffs.native.records import Cred

from .cutting import Promiser, broken
from .images import MIB, check_clean, make_image, repair

RUNS: Final = int(os.environ.get("SYSPUFFS_CRASHES", "210"))
"""How many power cuts; the seed of each is its number."""
BATCH: Final = 35
BLOCKS: Final = (1024, 4096)
"""Sizes of blocks, by turns from batch to batch."""
WORKERS: Final = 3
PIECES: Final = 60
ROOT: Final = Cred(0, 0)
CUT_AT: Final = 1500
"""The power is cut at an operation of the disk before this one, or when all work is done."""


async def _work_until_cut(image: bytearray, seed: int) -> tuple[bytes, list[Promiser]]:
    """Work on the image until the power is cut; return what is on the disk then."""
    rng = Random(seed)
    disk = FaultDisk(image, seed, Faults(die_at=rng.randrange(CUT_AT)))
    try:
        async with Kernel() as kernel:
            try:
                mount = await kernel.mount(Ext2Fs(disk))
            except Exception:
                assert disk.is_dead
                return disk.crash(rng), []
            async with Process(kernel, ROOT) as process:
                promisers = [
                    Promiser(process, b"top%d" % at, seed * WORKERS + at) for at in range(WORKERS)
                ]
                async with trio.open_nursery() as nursery:
                    for promiser in promisers:
                        nursery.start_soon(promiser.run, PIECES)
                left = disk.crash(rng)
            await kernel.unmount(mount, MNT_FORCE)
    finally:
        await disk.close()
    return left, promisers


async def _inspect(image: Path, promisers: list[Promiser]) -> tuple[list[str], int]:
    """Return what is broken in a repaired image, and how many files have lost their names."""
    disk = FaultDisk(bytearray(image.read_bytes()), rdonly=True)
    faults, nameless = [], 0
    async with Kernel() as kernel:
        mount = await kernel.mount(Ext2Fs(disk, rdonly=True), rdonly=True)
        async with Process(kernel, ROOT) as process:
            for promiser in promisers:
                found, lost = await broken(process, promiser.promises)
                faults += found
                nameless += lost
        await kernel.unmount(mount)
    await disk.close()
    return faults, nameless


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.logs(r"")  # a disk that dies under a mount has much to say
@pytest.mark.parametrize(
    ("first", "block"),
    [(first, BLOCKS[at % len(BLOCKS)]) for at, first in enumerate(range(0, RUNS, BATCH))],
)
async def test_fsync_keeps_its_promise(first: int, block: int, tmp_path: Path) -> None:
    pristine = make_image(tmp_path / "pristine", 16 * MIB, block=block).read_bytes()
    image = tmp_path / "image"
    promised = nameless = 0
    for seed in range(first, first + BATCH):
        left, promisers = await _work_until_cut(bytearray(pristine), seed)
        image.write_bytes(left)
        said = repair(image)
        check_clean(image)
        faults, lost = await _inspect(image, promisers)
        assert not faults, f"seed {seed}: {faults}\ne2fsck said:\n{said}"
        promised += sum(len(promiser.promises) for promiser in promisers)
        nameless += lost
    assert promised
    assert nameless == 0, f"{nameless} of {promised} files are in lost+found"
