"""The rows of the table: what is measured, the tree it is measured on, and what is asked of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from .work import PAGE, stamp

MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Scale:
    """How much of everything: octets of the large file, counts of the rest."""

    stream: int = 256 * MIB
    pages: int = 2000
    files: int = 2000
    directories: int = 20
    renames: int = 500


FULL: Final = Scale()
QUICK: Final = Scale(stream=64 * MIB, pages=500, files=400, directories=10, renames=100)


class Tree:
    """The tree on the server: parts that are only read, and parts that each mount has for itself.

    `root` is what gets mounted; `source` is the local file that is copied onto the mount.
    """

    def __init__(self, root: Path, scale: Scale) -> None:
        self.root = root
        self.scale = scale
        self.source = root / "pages"

    def fill(self) -> None:
        """Make what is only read."""
        self.root.mkdir()
        with self.source.open("wb") as file:
            for number in range(0, self.scale.stream // PAGE, 256):
                file.write(b"".join(map(stamp, range(number, number + 256))))
        shutil.copyfile(self.source, self.root / "stream")
        for name in ("list", "small"):
            self._fill_directories(self.root / name)

    def _fill_directories(self, base: Path) -> None:
        each = self.scale.files // self.scale.directories
        for directory in range(self.scale.directories):
            (base / f"d{directory:02}").mkdir(parents=True)
        for number in range(self.scale.files):
            (base / f"d{number // each:02}" / f"f{number:05}").write_bytes(stamp(number))

    def own(self, name: str) -> Path:
        """Return the part that the mount called `name` may change."""
        return self.root / f"own-{name}"

    def renew(self, name: str) -> None:
        """Make that part again; nothing may be mounted meanwhile, for it would not notice."""
        self.clear(name)
        own = self.own(name)
        own.mkdir()
        (own / "rename").mkdir()
        self._fill_directories(own / "remove")
        for directory in range(self.scale.directories):
            (own / "create" / f"d{directory:02}").mkdir(parents=True)

    def clear(self, name: str) -> None:
        """Remove that part."""
        shutil.rmtree(self.own(name), ignore_errors=True)

    def sizes(self, name: str) -> Mapping[str, object]:
        """Return what work.py is told."""
        return {**asdict(self.scale), "own": self.own(name).name, "source": str(self.source)}


@dataclass(frozen=True)
class Row:
    """One row. `check` looks at the server afterwards and says what is wrong, or None.

    `goals` are ratios to sshfs that design.md section 9 wants in the end, `owed` those that are
    due now, by the key of the mount.
    """

    key: str
    title: str
    work: str
    unit: str
    check: Callable[[Tree, Path], str | None]
    goals: Mapping[str, float]
    owed: Mapping[str, float]
    pair_goal: float | None = None
    pair_owed: float | None = None
    per: int = 1

    def rate(self, amount: int, seconds: float) -> float:
        """Return how many of its units it did a second."""
        return amount / self.per / seconds


def _nothing(_tree: Tree, _own: Path) -> str | None:
    return None


def _written(tree: Tree, own: Path) -> str | None:
    with (own / "written").open("rb") as got, tree.source.open("rb") as wanted:
        while (part := wanted.read(MIB)) == got.read(MIB):
            if not part:
                return None
    return "the server does not hold what was written"


def _created(tree: Tree, own: Path) -> str | None:
    found = sorted((own / "create").glob("d*/f*"), key=lambda path: path.name)
    if len(found) != tree.scale.files:
        return f"{len(found)} files on the server, not {tree.scale.files}"
    if any(path.read_bytes() != stamp(number) for number, path in enumerate(found)):
        return "files on the server do not hold what was written before they were closed"
    return None


def _removed(_tree: Tree, own: Path) -> str | None:
    left = sum(len(names) for _, _, names in os.walk(own / "remove"))
    return f"{left} names are left" if left else None


def _renamed(tree: Tree, own: Path) -> str | None:
    found = len(list((own / "rename").glob("old*")))
    return None if found == tree.scale.renames else f"{found} of {tree.scale.renames} are there"


def _ours(ssh: float, asyncssh: float | None = None) -> dict[str, float]:
    return {"asyncssh": ssh if asyncssh is None else asyncssh, "ssh": ssh}


MB: Final = 1_000_000

ROWS: Final[tuple[Row, ...]] = (
    Row(
        *("read", "sequential read, cold", "read_stream", "MB/s", _nothing),
        _ours(1.5, 1.2),
        {"ssh": 0.8},
        pair_goal=0.9,
        pair_owed=0.8,
        per=MB,
    ),
    Row(
        *("write", "sequential write, fsync, close", "write_stream", "MB/s", _written),
        _ours(1.2),
        {"ssh": 0.8},
        pair_goal=0.9,
        pair_owed=0.8,
        per=MB,
    ),
    Row("random", "random 4 KiB reads", "read_pages", "reads/s", _nothing, {}, {}),
    Row("list", "list + lstat of a tree, cold", "list_tree", "entries/s", _nothing, _ours(1.0), {}),
    Row("small", "small files read in turn", "read_files", "files/s", _nothing, _ours(1.5), {}),
    Row(
        "create", "small files created in turn", "create_files", "files/s", _created, _ours(1.0), {}
    ),
    Row("unlink", "names removed in turn", "remove_files", "names/s", _removed, {}, {}),
    Row("rename", "mkdir + rename in turn", "rename_directories", "pairs/s", _renamed, {}, {}),
)
