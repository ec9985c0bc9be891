"""Random operations on ext2fs, in turns with the host's own driver, all held against a model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio

from syspuffs.emul.ext2fs import Ext2Fs
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import open_disk
from syspuffs.emul.syscalls import Process
from syspuffs.native.records import Cred

from ..support.host import OsTarget
from ..support.syscalls import SyscallTarget
from ..support.target import Target
from .images import MIB, check_clean, host_mounted, make_image, needs_loop
from .worker import Model, Worker, verify

WORKERS: Final = 3
TURNS: Final = 4
EACH: Final = 2800
"""Operations of one worker in one turn: 3 block sizes x 4 turns x 3 workers x 2,800 = 100,800."""
BY_HOST: Final = 300
ROOT: Final = Cred(0, 0)


@asynccontextmanager
async def mounted(image: Path) -> AsyncIterator[Target]:
    """The image mounted in a kernel of its own, used by system calls."""
    disk = open_disk(bytes(image))
    try:
        async with Kernel() as kernel:
            mount = await kernel.mount(Ext2Fs(disk))
            async with Process(kernel, ROOT) as process:
                target = SyscallTarget(process)
                yield target
                await target.verify()
            await kernel.unmount(mount)
    finally:
        await disk.close()


async def _work(target: Target, models: Sequence[Model], seed: int, count: int) -> None:
    """Let one worker for each model do `count` operations, all at the same time."""
    workers = [Worker(target, model, seed + at) for at, model in enumerate(models)]
    for worker in workers:
        await worker.start()
    async with trio.open_nursery() as nursery:
        for worker in workers:
            nursery.start_soon(worker.run, count)
    for worker in workers:
        await worker.verify()
        await worker.close()
        await worker.verify()


@needs_loop
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("block", [1024, 2048, 4096])
async def test_in_turns_with_the_host(block: int, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 96 * MIB, block=block)
    point = tmp_path / "mnt"
    models = [Model(b"top%d" % at) for at in range(WORKERS)]
    for turn in range(TURNS):
        seed = block + 100 * turn
        async with mounted(image) as ours:
            for model in models if turn else ():
                await verify(ours, model)
            await _work(ours, models, seed, EACH)
        check_clean(image)
        with host_mounted(image, point):
            theirs = OsTarget(bytes(point))
            for model in models:
                await verify(theirs, model)
            await _work(theirs, models, seed + 50, BY_HOST)
            await theirs.verify()
        check_clean(image)
