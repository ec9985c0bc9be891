"""The rows of the table: what is measured, the tree it is measured on, and what is asked of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from .work import PAGE, stamp

MIB: Final = 1024 * 1024
_CROWD: Final = 8
_LONG_AGO: Final = 1_600_000_000
"""When the files of the checkout were last changed: git trusts no file as young as its index."""


@dataclass(frozen=True)
class Scale:
    """How much of everything: octets of the large file, counts of the rest.

    `files` in `directories` are listed; as many `small` ones in directories of a hundred are read,
    of which a mount that needs whole round trips for each does `share` directories.
    """

    stream: int = 256 * MIB
    pages: int = 2000
    files: int = 2000
    directories: int = 20
    small: int = 2000
    each: int = 100
    share: int = 20
    crowd: int = 1600
    creates: int = 2000
    removes: int = 2000
    renames: int = 500
    checkout: int = 2000


FULL: Final = Scale()
QUICK: Final = Scale(
    stream=64 * MIB,
    pages=500,
    files=400,
    directories=10,
    small=400,
    share=4,
    crowd=320,
    creates=400,
    removes=400,
    renames=100,
    checkout=400,
)


class Tree:
    """The tree on the server: parts that are only read, and parts that each mount has for itself.

    `root` is what gets mounted; `source` is the local file that is copied onto the mount.
    """

    def __init__(self, root: Path, scale: Scale) -> None:
        self.root = root
        self.scale = scale
        self.source = root / "pages"
        self._checkout = root.with_name(f"{root.name}-checkout")

    def fill(self) -> None:
        """Make what is only read."""
        self.root.mkdir()
        with self.source.open("wb") as file:
            for number in range(0, self.scale.stream // PAGE, 256):
                file.write(b"".join(map(stamp, range(number, number + 256))))
        shutil.copyfile(self.source, self.root / "stream")
        scale = self.scale
        _fill(self.root / "list", scale.files, scale.files // scale.directories)
        for name in ("tar", "cp", "grep"):
            _fill(self.root / name, scale.small, scale.each)
        _fill(self.root / "crowd", scale.crowd, scale.crowd // _CROWD)
        self._fill_checkout()

    def _fill_checkout(self) -> None:
        """Make a checkout that git finds unchanged wherever it is copied to."""
        place = self._checkout
        _fill(place, self.scale.checkout, self.scale.each)
        for path in place.rglob("*"):
            os.utime(path, (_LONG_AGO, _LONG_AGO))
        git = ["git", "-C", str(place), "-c", "user.name=b", "-c", "user.email=b@b"]
        # Inode numbers and change times do not survive the copy; sizes and times of data do.
        for words in (
            ("init", "-q"),
            ("config", "core.checkStat", "minimal"),
            ("config", "core.trustctime", "false"),
            ("add", "."),
            ("commit", "-q", "-m", "all"),
        ):
            subprocess.run([*git, *words], check=True, stdin=subprocess.DEVNULL)

    def own(self, name: str) -> Path:
        """Return the part that the mount called `name` may change."""
        return self.root / f"own-{name}"

    def renew(self, name: str) -> None:
        """Make that part again; nothing may be mounted meanwhile, for it would not notice."""
        self.clear(name)
        own = self.own(name)
        own.mkdir()
        (own / "rename").mkdir()
        _fill(own / "remove", self.scale.removes, self.scale.each)
        (own / "create").mkdir()
        for directory in range(-(-self.scale.creates // self.scale.each)):
            (own / "create" / f"d{directory:02}").mkdir()
        shutil.copytree(self._checkout, own / "checkout")

    def clear(self, name: str) -> None:
        """Remove that part."""
        shutil.rmtree(self.own(name), ignore_errors=True)

    def remove(self) -> None:
        """Remove everything."""
        for place in (self.root, self._checkout):
            shutil.rmtree(place, ignore_errors=True)

    def sizes(self, name: str, *, is_slow: bool = False) -> Mapping[str, object]:
        """Return what work.py is told; less is asked of a slow one where less tells the same."""
        scale = asdict(self.scale)
        if is_slow:
            scale["small"] = min(self.scale.small, self.scale.share * self.scale.each)
        return {**scale, "own": self.own(name).name, "source": str(self.source)}


def _fill(base: Path, files: int, each: int) -> None:
    for number in range(files):
        directory = base / f"d{number // each:02}"
        if number % each == 0:
            directory.mkdir(parents=True)
        (directory / f"f{number:05}").write_bytes(stamp(number))


Goals = Mapping[str, Mapping[str, float]]
"""Ratios by the key of the link, then by that of the mount."""


@dataclass(frozen=True)
class Row:
    """One row. `check` looks at the server afterwards and says what is wrong, or None.

    `goals` are ratios to sshfs, `of_cat` those to `ssh HOST cat` or tar by link. `limits` say
    at what a row stands that falls short, by link. `waits`: the work is done twice, the second
    time, which counts, when what the mount believes has expired.
    """

    key: str
    title: str
    work: str
    unit: str
    check: Callable[[Tree, Path], str | None]
    goals: Goals
    per: int = 1
    of_cat: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    waits: bool = False

    def rate(self, amount: int, seconds: float) -> float:
        """Return how many of its units it did a second."""
        return amount / self.per / seconds


PAIR_GOALS: Final = {"0": 0.85, "20": 0.97, "200": 0.97}
"""Ratios of `puffs|p2k|puffs|psshfs` to `puffs|psshfs`, by link."""


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
    if len(found) != tree.scale.creates:
        return f"{len(found)} files on the server, not {tree.scale.creates}"
    if any(path.read_bytes() != stamp(number) for number, path in enumerate(found)):
        return "files on the server do not hold what was written before they were closed"
    return None


def _removed(_tree: Tree, own: Path) -> str | None:
    left = sum(len(names) for _, _, names in os.walk(own / "remove"))
    return f"{left} names are left" if left else None


def _renamed(tree: Tree, own: Path) -> str | None:
    found = len(list((own / "rename").glob("old*")))
    return None if found == tree.scale.renames else f"{found} of {tree.scale.renames} are there"


def _goals(near: float, middle: float, far: float, asyncssh: float | None = None) -> Goals:
    links = {"0": near, "20": middle, "200": far}
    goals = {link: {"ssh": goal, "asyncssh": goal, "late": goal} for link, goal in links.items()}
    if asyncssh is not None:
        goals["0"]["asyncssh"] = asyncssh
    return goals


MB: Final = 1_000_000

ROWS: Final[tuple[Row, ...]] = (
    Row(
        *("read", "sequential read, cold", "read_stream", "MB/s", _nothing),
        {**_goals(1.5, 6.0, 0.0, asyncssh=1.2), "200": {}},
        per=MB,
        of_cat={"20": 0.9, "200": 0.9, "100m": 0.9},
    ),
    Row(
        *("write", "sequential write, fsync, close", "write_stream", "MB/s", _written),
        _goals(1.2, 1.5, 2.0),
        per=MB,
    ),
    Row(
        *("random", "random 4 KiB reads", "read_pages", "reads/s", _nothing),
        _goals(0.8, 1.0, 1.0),
    ),
    Row(
        *("list", "`find -ls`, cold", "list_tree", "entries/s", _nothing),
        _goals(1.0, 5.0, 10.0),
        limits={
            "200": "what OPENDIR and READDIR of two levels take, two round trips each, is the least"
            " that SFTP has; sshfs takes 13 for the six directories of --quick"
        },
    ),
    Row(
        *("tar", "small files read by tar", "tar_files", "files/s", _nothing),
        _goals(1.5, 25.0, 25.0),
    ),
    Row(
        *("cp", "small files read by cp -r", "copy_files", "files/s", _nothing),
        _goals(1.5, 25.0, 25.0),
    ),
    Row(
        *("grep", "small files read by grep -r", "grep_files", "files/s", _nothing),
        _goals(1.5, 25.0, 25.0),
    ),
    Row(
        *("create", "small files created in turn", "create_files", "files/s", _created),
        _goals(1.0, 2.0, 2.0),
    ),
    Row(
        *("late", "the same with writeback=yes", "create_files", "files/s", _nothing),
        _goals(1.5, 20.0, 20.0),
    ),
    Row(
        *("unlink", "names removed in turn", "remove_files", "names/s", _removed),
        _goals(0.8, 1.0, 1.0),
    ),
    Row(
        *("rename", "mkdir + rename in turn", "rename_directories", "pairs/s", _renamed),
        _goals(0.8, 1.0, 1.0),
    ),
    Row(
        *("status", "`git status`, caches expired", "git_status", "files/s", _nothing),
        _goals(1.0, 5.0, 5.0),
        waits=True,
    ),
    Row(
        *("crowd", "8 programs reading small files", "read_crowd", "files/s", _nothing),
        _goals(1.2, 5.0, 5.0),
        limits={
            "200": "with --quick the least that SFTP has, two round trips each for two levels of"
            " directories and for all files together; sshfs takes 25"
        },
    ),
)
