"""`puffs|p2k|ext2fs` beside fuse2fs: the same image in memory, mounted by each in turn.

Both are file systems in user space behind FUSE, so what is between them is ours: an
emulated kernel in Python in place of a library in C. Every round each of them gets a fresh
copy of the image, is mounted, and does all rows; the host's caches are dropped before each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from .mounts import Contender, Failed, Mount, Sample, attached, script
from .report import MEMORY_GOAL, Shortfall
from .rounds import drop_caches
from .rows import FULL, MB, MIB, QUICK, Scale, Tree
from .usage import settle

_FREE: Final = 128 * MIB
_PATIENCE: Final = 120.0
OWN: Final = "disk"
"""Name of the part of the tree that is written to."""


class DiskRow(NamedTuple):
    """One row; `goal` is what `puffs|p2k|ext2fs` owes, in units of the row."""

    title: str
    work: str
    unit: str
    per: int = 1
    goal: float | None = None


ROWS: Final = (
    DiskRow("sequential read, cold", "read_stream", "MB/s", MB, 250.0),
    DiskRow("sequential write, fsync, close", "write_stream", "MB/s", MB, 120.0),
    DiskRow("random 4 KiB reads", "read_pages", "reads/s"),
    DiskRow("list + lstat of a tree, cold", "list_tree", "entries/s"),
    DiskRow("small files read by tar", "tar_files", "files/s"),
    DiskRow("small files created in turn", "create_files", "files/s"),
    DiskRow("names removed in turn", "remove_files", "names/s"),
    DiskRow("mkdir + rename in turn", "rename_directories", "pairs/s"),
)

_FUSE2FS: Final = "fuse2fs"
_STACK: Final = "puffs|p2k|ext2fs"
TYPES: Final = {_FUSE2FS: "fuse.ext4", _STACK: f"fuse.{_STACK}"}


def _argv(key: str, image: Path, point: Path) -> list[str]:
    if key == _FUSE2FS:
        return [_FUSE2FS, str(image), str(point)]
    return [script("mount_puffs"), "-t", key, str(image), str(point)]


def _make_image(place: Path, scale: Scale) -> tuple[Path, Mapping[str, object]]:
    """Return an image with the tree in it, and what work.py is told of the tree."""
    tree = Tree(place / "tree", scale)
    tree.fill()
    tree.renew(OWN)
    image = place / "image"
    with image.open("wb") as file:
        files = 4 * scale.small + scale.files + scale.removes + scale.checkout + scale.crowd
        file.truncate(3 * scale.stream + files * 8192 + _FREE)
    argv = ["mke2fs", "-q", "-F", "-t", "ext2", "-b", "4096", "-d", str(tree.root), str(image)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    source = place / "source"
    (tree.root / "stream").rename(source)
    tree.remove()
    return image, {**tree.sizes(OWN), "source": str(source)}


def _check(image: Path) -> None:
    """Errors: Failed when the image is not clean after the unmount."""
    found = subprocess.run(["e2fsck", "-fn", str(image)], capture_output=True, text=True)
    if found.returncode:
        raise Failed(f"e2fsck ends with {found.returncode}: {found.stdout.splitlines()[1:3]}")


class _Rounds:
    """Samples by row and mount; `faults` say why some are missing."""

    def __init__(self, image: Path, sizes: Mapping[str, object], place: Path) -> None:
        self._image = image
        self._sizes = sizes
        self._place = place
        self.samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
        self.peaks: dict[str, int] = {}
        self.faults: dict[str, str] = {}

    def run(self, keys: list[str]) -> None:
        """Do all rows once on each mount, row by row."""
        with ExitStack() as stack:
            copies, ready = {}, {}
            for key in keys:
                number = list(TYPES).index(key)
                copy = copies[key] = self._place / f"image{number}"
                shutil.copyfile(self._image, copy)
                point = self._place / f"mnt{number}"
                contender = Contender(key, key, TYPES[key], lambda *_: [])
                try:
                    ready[key] = stack.enter_context(
                        attached(contender, _argv(key, copy, point), point)
                    )
                except Failed as failure:
                    self.faults[key] = str(failure)
            for row in ROWS:
                for key, mount in ready.items():
                    self._measure(row, key, mount)
            for key, mount in ready.items():
                self.peaks[key] = max(self.peaks.get(key, 0), mount.parts.peak())
        for key, copy in copies.items():
            try:
                _check(copy)
            except Failed as failure:
                self.faults[key] = str(failure)
            copy.unlink()

    def _measure(self, row: DiskRow, key: str, mount: Mount) -> None:
        drop_caches()
        settle()
        try:
            self.samples[row.title, key].append(mount.measure(row.work, self._sizes, _PATIENCE))
        except Failed as failure:
            self.faults[key] = f"{row.title}: {failure}"


def print_disks(out: Console, quick: bool, rounds: int | None) -> list[Shortfall]:
    """Measure and print; return what falls short."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    scale = replace(QUICK if quick else FULL, stream=(64 if quick else 128) * MIB)
    with tempfile.TemporaryDirectory(prefix="syspuffs-bench-", dir=memory) as directory:
        place = Path(directory)
        image, sizes = _make_image(place, scale)
        done = _Rounds(image, sizes, place)
        keys = list(TYPES)
        for number in range(rounds or (2 if quick else 5)):
            done.run(keys if number % 2 == 0 else keys[::-1])
    return _print(out, done)


def _print(out: Console, done: _Rounds) -> list[Shortfall]:
    table = Table(title="A disk image in memory: medians, lowest and highest", show_lines=True)
    for title in ("row", _FUSE2FS, _STACK, "ratio", "CPU s"):
        table.add_column(title, justify="left" if title == "row" else "right")
    shortfalls = [Shortfall(True, f"disk image, {key}: {why}") for key, why in done.faults.items()]
    for row in ROWS:
        rates = {
            key: [each.amount / row.per / each.seconds for each in done.samples[row.title, key]]
            for key in TYPES
        }
        cells = [
            f"{median(rate):,.0f}\n[dim]{min(rate):,.0f} .. {max(rate):,.0f}[/]" if rate else "-"
            for rate in rates.values()
        ]
        ours, theirs = rates[_STACK], rates[_FUSE2FS]
        ratio = f"{median(ours) / median(theirs):.2f}x" if ours and theirs else ""
        if row.goal is not None and ours and median(ours) < row.goal:
            text = f"disk image, {row.title}: {median(ours):.0f} {row.unit}, owed {row.goal:.0f}"
            shortfalls.append(Shortfall(True, text))
            ratio += " OWED"
        used = [
            f"{median(each.usage.daemon for each in samples):.2f}"
            for key in TYPES
            if (samples := done.samples[row.title, key])
        ]
        table.add_row(f"{row.title}\n{row.unit}", *cells, ratio, " / ".join(used))
    peaks = [f"{done.peaks.get(key, 0) / 1e6:.0f} MB" for key in TYPES]
    table.add_row("resident memory at its highest", *peaks, "", "")
    if done.peaks.get(_STACK, 0) > MEMORY_GOAL:
        text = f"memory, {_STACK}: {done.peaks[_STACK] / 1e6:.0f} MB, goal 150 MB"
        shortfalls.append(Shortfall(False, text))
    out.print(table)
    return shortfalls
