"""Stress: 64 tasks and 8 real threads over one mount, with every check that the kernel has.

    python tests/disk/stress.py                       two minutes each of tmpfs and ext2fs
    python tests/disk/stress.py --seconds 600 --seed 7 --type ext2fs

The kernel debugs: a broken rule of locks, their order or references ends the run with the name
of who broke it. At the end everything is compared with the models, the mount must unmount
without force, nothing may be left, and e2fsck must find nothing.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

if __package__ in (None, ""):  # run as a script: find the package that it belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "tests.disk"

from syspuffs.emul.ext2fs import Ext2Fs
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.mount import Mount
from syspuffs.emul.rumpuser import open_disk
from syspuffs.emul.sched import blocking, kthread_create_real
from syspuffs.emul.syscalls import Process
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred

from ..support.syscalls import SyscallTarget
from .images import MIB, check_clean, make_image
from .worker import Model, Worker

TASKS: Final = 64
THREADS: Final = 8
ROOT: Final = Cred(0, 0)
TYPES: Final = ("tmpfs", "ext2fs")
_SHARED: Final = b"shared"
_RACES: Final = frozenset(
    {
        errno.ENOENT,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EINVAL,
        errno.EPERM,
        errno.EBUSY,
    }
)
"""What those who fight over the same names may hear."""


@asynccontextmanager
async def mounted(fstype: str, place: Path, **kernel_options: int) -> AsyncIterator[Mount]:
    """A fresh file system of this type in a kernel that debugs; afterwards it is checked."""
    if fstype == "tmpfs":
        async with Kernel(debug=True, **kernel_options) as kernel:
            mount = await kernel.mount(TmpFs(mntfromname=b"none"))
            yield mount
            await _unmount(mount)
        return
    image = make_image(place / "image", 768 * MIB, "-N", "60000")
    disk = open_disk(bytes(image))
    try:
        async with Kernel(debug=True, **kernel_options) as kernel:
            mount = await kernel.mount(Ext2Fs(disk))
            yield mount
            await _unmount(mount)
    finally:
        await disk.close()
    check_clean(image)
    image.unlink()


async def _unmount(mount: Mount) -> None:
    """Unmount without force; nothing may be left."""
    kernel = mount.kernel
    await kernel.unmount(mount)
    assert kernel.debug is not None
    leaks = kernel.debug.leaks()
    assert not leaks, "\n".join(leaks)


class Stress:
    """One run. `count` says how many operations were done, by kind of who did them."""

    def __init__(self, mount: Mount, seed: int, seconds: float) -> None:
        self.count: Counter[str] = Counter()
        self._mount = mount
        self._kernel = mount.kernel
        self._seed = seed
        self._until = trio.current_time() + seconds
        self._workers: list[Worker] = []

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return trio.current_time() >= self._until

    async def run(self) -> None:
        """Work until the time is up, then compare. Raises at the first thing that is wrong."""
        async with Process(self._kernel, ROOT) as process:
            await process.mkdir(_SHARED, 0o755)
            threads = []
            async with trio.open_nursery() as nursery:
                for number in range(TASKS):
                    if number % 4 == 3:
                        nursery.start_soon(self._fight, process.fork(), self._seed + number)
                    else:
                        nursery.start_soon(self._task, await self._worker(process, number))
                nursery.start_soon(self._sync, process)
                for number in range(TASKS, TASKS + THREADS):
                    worker = await self._worker(process, number)
                    name = f"stress {number}"
                    threads.append(
                        kthread_create_real(
                            self._kernel, self._thread, worker, name=name, mustjoin=True
                        )
                    )
                for thread in threads:
                    await thread.join()
            for worker in self._workers:
                await worker.verify()
                await worker.close()
                await worker.verify()

    async def _worker(self, process: Process, number: int) -> Worker:
        worker = Worker(SyscallTarget(process), Model(b"top%d" % number), self._seed + number)
        await worker.start()
        self._workers.append(worker)
        return worker

    async def _task(self, worker: Worker) -> None:
        while not self.is_over:
            await worker.run(5)
            self.count["task"] += 5
            await trio.lowlevel.checkpoint()

    def _thread(self, worker: Worker) -> None:
        while not blocking(self._over):
            blocking(worker.run, 1)
            self.count["thread"] += 1

    async def _over(self) -> bool:
        return self.is_over

    async def _sync(self, process: Process) -> None:
        while not self.is_over:
            with trio.move_on_at(self._until):
                await trio.sleep(0.5)
            await process.sync()
            self.count["sync"] += 1

    async def _fight(self, process: Process, seed: int) -> None:
        """Work on names that others work on as well."""
        rng = random.Random(seed)
        async with process:
            while not self.is_over:
                try:
                    await self._blow(process, rng)
                except VfsError as exc:
                    if exc.errno not in _RACES:
                        raise
                self.count["fight"] += 1
                await trio.lowlevel.checkpoint()

    async def _blow(self, process: Process, rng: random.Random) -> None:
        def name() -> bytes:
            depth = rng.choice([1, 1, 2, 3])
            return b"/".join([_SHARED, *(rng.choice([b"a", b"b", b"c"]) for _ in range(depth))])

        match rng.randrange(8):
            case 0:
                await process.mkdir(name(), 0o755)
            case 1:
                await process.rmdir(name())
            case 2 | 3:
                await process.rename(name(), name())
            case 4:
                await process.unlink(name())
            case 5:
                await process.link(name(), name())
            case 6:
                await process.stat(name())
            case _:
                fd = await process.open(name(), os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    await process.pwrite(fd, rng.randbytes(rng.randint(1, 20_000)), 0)
                    await process.pread(fd, 8192, rng.randint(0, 20_000))
                finally:
                    await process.close(fd)


async def stress(fstype: str, place: Path, seed: int, seconds: float) -> Counter[str]:
    """Run once; return what was done."""
    async with mounted(fstype, place) as mount:
        run = Stress(mount, seed, seconds)
        await run.run()
    return run.count


def main(argv: Sequence[str]) -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="stress.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="for each type (120)")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--type", choices=TYPES, action="append", help="only this one")
    options = parser.parse_args(argv)
    for fstype in options.type or TYPES:
        with tempfile.TemporaryDirectory(prefix="syspuffs-stress-") as place:
            count = trio.run(stress, fstype, Path(place), options.seed, options.seconds)
        done = ", ".join(f"{number:,} by {who}" for who, number in sorted(count.items()))
        print(f"{fstype}: {sum(count.values()):,} operations in {options.seconds:.0f} s: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
