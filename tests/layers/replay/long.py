"""A long trace, done again on several stacks without a difference.

    python tests/layers/replay/long.py                     100,000 operations
    python tests/layers/replay/long.py --count 5000 --seed 7 --keep full

The trace is of work of all kinds on few names, on a tmpfs. Printed is how long each stack took;
exit status 0 when nothing came out else anywhere.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

if __package__ in (None, ""):  # run as a script: find the package that it belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    __package__ = "tests.layers.replay"

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.replay import compared, replay
from syspuffs.layers.trace import DataKept, Event, events, traced

from ...support.server import ServerTarget
from ...support.stacks import STACKS
from ...support.wander import wander

ON: Final = ("p2k|tmpfs", "p2k|ext2fs", "psshfs")
_EACH: Final = 1.3
"""What `wander` is asked for to make one operation: many ends are dead."""


async def recorded(file: Path, count: int, seed: int, keep: DataKept) -> list[Event]:
    """Return a trace of `count` operations at least."""
    async with p2k_over(TmpFs(mntfromname=b"none")) as below:
        async with traced(below, file, keep) as server:
            await wander(server, int(count * _EACH), seed)
        await below.unmount(0)
    return list(events(file))


async def differences(name: str, place: Path, trace: list[Event]) -> int:
    """Do a trace again on a stack; return how many differences there are."""
    (stack,) = (stack for stack in STACKS if stack.name == name)
    assert stack.build is not None
    async with stack.build(place, None) as target:
        assert isinstance(target, ServerTarget)
        run = await replay(target.server, trace)
    found = list(compared(run.events, run.expected, run.seen))
    for difference in found[:10]:
        print(f"  {difference.event.name} {difference.event.path!r}: {difference.kind}")
    return len(found) + run.skipped


def main(argv: Sequence[str]) -> int:
    """Run as a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="long.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="operations (100000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=DataKept, default=DataKept.DIGEST, help="digest, full, ...")
    args = parser.parse_args(argv)
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        trace = trio.run(recorded, Path(folder) / "trace", args.count, args.seed, args.keep)
        for number, name in enumerate(ON):
            place = Path(folder) / str(number)
            place.mkdir()
            begin = time.perf_counter()
            count = trio.run(differences, name, place, trace)
            took = time.perf_counter() - begin
            print(f"{name:<12}{len(trace)} operations in {took:.1f} s, {count} differences")
            total += count
    return 1 if total or len(trace) < args.count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
