"""A FUSE program mounted directly, as `puffs|perfuse` and by `syspuffs`: what the way round costs.

The program is bindfs over a tree in memory: what it does itself costs nearly nothing, so that all
else is seen. It knows no READDIRPLUS: mounted directly each entry of a listing is a LOOKUP.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from .mounts import Contender, Failed, Sample, attached, script
from .report import Shortfall
from .rounds import drop_caches
from .rows import FULL, MB, MIB, QUICK, Tree
from .usage import settle

_PATIENCE: Final = 120.0


class ProgramRow(NamedTuple):
    """One row; `share` is how much of the direct mount's speed is owed."""

    title: str
    work: str
    unit: str
    share: float
    per: int = 1


ROWS: Final = (
    ProgramRow("sequential read, cold", "read_stream", "MB/s", 1 / 1.3, MB),
    ProgramRow("`find -ls`, cold", "list_tree", "entries/s", 1 / 2),
)
_DIRECT: Final = "bindfs"
_TYPES: Final = {
    _DIRECT: "fuse",
    "puffs|perfuse": "fuse.puffs|perfuse",
    "syspuffs bindfs": "fuse.puffs|p2k|puffs|perfuse|bindfs",
}


def _argv(key: str, tree: Path, point: Path) -> list[str]:
    program = ["bindfs", str(tree)]
    if key == _DIRECT:
        return [*program, str(point)]
    if key == "puffs|perfuse":
        return [script("mount_puffs"), "-t", key, shlex.join(program), str(point)]
    return [script("syspuffs"), *program, str(point)]


def print_fuse_programs(out: Console, quick: bool, rounds: int | None) -> list[Shortfall]:
    """Measure and print; return what falls short."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    scale = replace(QUICK if quick else FULL, stream=(64 if quick else 256) * MIB)
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    faults: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="syspuffs-bench-", dir=memory) as directory:
        place = Path(directory)
        tree = Tree(place / "tree", scale)
        tree.fill()
        with ExitStack() as stack:
            ready = {}
            for number, (key, fstype) in enumerate(_TYPES.items()):
                contender = Contender(key, key, fstype, lambda *_: [])
                point = place / f"mnt{number}"
                argv = _argv(key, tree.root, point)
                try:
                    ready[key] = stack.enter_context(attached(contender, argv, point))
                except Failed as failure:
                    faults[key] = str(failure)
            for _ in range(rounds or (2 if quick else 5)):
                for row in ROWS:
                    for key, mount in ready.items():
                        drop_caches()
                        settle()
                        try:
                            sample = mount.measure(row.work, tree.sizes("own"), _PATIENCE)
                        except Failed as failure:
                            faults.setdefault(key, f"{row.title}: {failure}")
                        else:
                            samples[row.work, key].append(sample)
    return _print(out, samples, faults)


def _print(
    out: Console, samples: dict[tuple[str, str], list[Sample]], faults: dict[str, str]
) -> list[Shortfall]:
    load = os.getloadavg()[0]
    table = Table(title=f"A FUSE program: medians, lowest and highest, CPU s; load {load:.1f}")
    table.add_column("row")
    for key in _TYPES:
        table.add_column(key, justify="right")
    shortfalls = [Shortfall(True, f"FUSE program, {key}: {why}") for key, why in faults.items()]
    for row in ROWS:
        cells = []
        direct = 0.0
        for key in _TYPES:
            done = samples[row.work, key]
            if not done:
                cells.append("-")
                continue
            rates = [each.amount / row.per / each.seconds for each in done]
            rate = median(rates)
            used = median(each.usage.daemon for each in done)
            cell = f"{rate:,.0f}\n[dim]{min(rates):,.0f} .. {max(rates):,.0f}; {used:.2f} s[/]"
            if key == _DIRECT:
                direct = rate
            elif direct:
                cell += f"\n{rate / direct:.2f}x"
                if rate < row.share * direct:
                    cell += " OWED"
                    text = f"{rate / direct:.2f} of {_DIRECT}'s speed, owed {row.share:.2f}"
                    shortfalls.append(Shortfall(True, f"{key}, {row.title}: {text}"))
            cells.append(cell)
        table.add_row(f"{row.title}\n{row.unit}", *cells)
    out.print(table)
    return shortfalls
