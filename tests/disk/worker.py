"""A worker: random operations from a seed in a directory of its own, held against a model.

It works on any `Target`. What the model expects is what Linux answers: results, sizes, link
counts, contents and errnos; `verify` compares everything that is there. Several workers may be
busy in one file system at once, and one may go on with what another kind of target has left, as
long as its `Model` goes along.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NoReturn

from syspuffs.native.constants import NAME_MAX

from ..support.expect import error_name
from ..support.target import File, Stat, Target

NAMES: Final = tuple(b"abcdefgh"[at : at + 1] for at in range(8))
LARGEST: Final = 2 * 1024 * 1024
"""Sizes stay below, octets: double indirect blocks are reached at every block size of ext2."""
OPEN_FILES: Final = 6
DEPTH: Final = 4


class ModelError(Exception):
    """What the model says a call fails with."""

    def __init__(self, number: int) -> None:
        super().__init__(error_name(number))
        self.errno = number


def _fail(number: int) -> NoReturn:
    raise ModelError(number)


class Regular:
    """A regular file."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.mode = 0o644
        self.nlink = 1


class Link:
    """A symbolic link; it points to nothing."""

    def __init__(self, target: bytes) -> None:
        self.target = target
        self.nlink = 1

    def follow(self) -> NoReturn:
        """Go where it points to."""
        _fail(errno.ENAMETOOLONG if len(self.target) > NAME_MAX else errno.ENOENT)


class Directory:
    """A directory."""

    def __init__(self) -> None:
        self.names: dict[bytes, Regular | Link | Directory] = {}
        self.mode = 0o755

    @property
    def nlink(self) -> int:
        """As ext2 counts it."""
        return 2 + sum(isinstance(node, Directory) for node in self.names.values())


Node = Regular | Link | Directory


class Model:
    """What the tree below `top` holds."""

    def __init__(self, top: bytes) -> None:
        self.top = top
        self.root = Directory()

    def find(self, path: tuple[bytes, ...]) -> Node:
        """Return what `path` names; the last component is not followed."""
        node: Node = self.root
        for name in path:
            if isinstance(node, Link):
                node.follow()
            if not isinstance(node, Directory):
                _fail(errno.ENOTDIR)
            if name not in node.names:
                _fail(errno.ENOENT)
            node = node.names[name]
        return node

    def parent(self, path: tuple[bytes, ...]) -> Directory:
        """Return the directory in which the last component is looked up."""
        node = self.find(path[:-1])
        if isinstance(node, Link):
            node.follow()
        if not isinstance(node, Directory):
            _fail(errno.ENOTDIR)
        return node

    def paths(self) -> Iterator[tuple[tuple[bytes, ...], Node]]:
        """Yield everything below the top."""
        todo: list[tuple[tuple[bytes, ...], Directory]] = [((), self.root)]
        while todo:
            above, directory = todo.pop()
            for name, node in directory.names.items():
                yield (*above, name), node
                if isinstance(node, Directory):
                    todo.append(((*above, name), node))

    def new(self, path: tuple[bytes, ...], node: Node) -> None:
        """Enter `node`."""
        parent = self.parent(path)
        if path[-1] in parent.names:
            _fail(errno.EEXIST)
        parent.names[path[-1]] = node

    def unlink(self, path: tuple[bytes, ...]) -> None:
        """Take a name away."""
        parent, node = self.parent(path), self.find(path)
        if isinstance(node, Directory):
            _fail(errno.EISDIR)
        del parent.names[path[-1]]
        node.nlink -= 1

    def rmdir(self, path: tuple[bytes, ...]) -> None:
        """Take an empty directory away."""
        parent, node = self.parent(path), self.find(path)
        if not isinstance(node, Directory):
            _fail(errno.ENOTDIR)
        if node.names:
            _fail(errno.ENOTEMPTY)
        del parent.names[path[-1]]

    def link(self, old: tuple[bytes, ...], new: tuple[bytes, ...]) -> None:
        """Give a node one more name."""
        node, parent = self.find(old), self.parent(new)
        if new[-1] in parent.names:
            _fail(errno.EEXIST)
        if isinstance(node, Directory):
            _fail(errno.EPERM)
        parent.names[new[-1]] = node
        node.nlink += 1

    def rename(self, old: tuple[bytes, ...], new: tuple[bytes, ...]) -> None:
        """Move a name, replacing what is there."""
        fdir, tdir = self.parent(old), self.parent(new)
        node = self.find(old)
        if isinstance(node, Directory) and new[: len(old)] == old and len(new) > len(old):
            _fail(errno.EINVAL)
        victim = tdir.names.get(new[-1])
        if old[: len(new)] == new and len(old) > len(new):
            _fail(errno.ENOTEMPTY)  # the target is an ancestor of what is moved
        if victim is node:
            return
        if victim is not None:
            if isinstance(node, Directory):
                if not isinstance(victim, Directory):
                    _fail(errno.ENOTDIR)
                if victim.names:
                    _fail(errno.ENOTEMPTY)
            elif isinstance(victim, Directory):
                _fail(errno.EISDIR)
            if not isinstance(victim, Directory):
                victim.nlink -= 1
        del fdir.names[old[-1]]
        tdir.names[new[-1]] = node


class Worker:
    """Does random operations on `target`, all below `model.top`, and keeps `model` up to date.

    `done` counts them. Files that it has open stay open from one `run` to the next.
    """

    def __init__(self, target: Target, model: Model, seed: int) -> None:
        self.target = target
        self.model = model
        self.done = 0
        self._rng = random.Random(seed)
        self._open: list[tuple[File, Regular]] = []
        self._last = ""

    async def start(self) -> None:
        """Make the directory, unless it is there."""
        if not await self.target.exists(self.model.top):
            await self.target.mkdir(self.model.top, 0o755)

    async def run(self, count: int) -> None:
        """Do `count` operations. Raises AssertionError at the first wrong answer."""
        works, weights = zip(*self._WORKS, strict=True)
        for work in self._rng.choices(works, weights, k=count):
            try:
                await work(self)
            except Exception as exc:
                exc.add_note(f"operation {self.done} below {self.model.top!r}: {self._last}")
                raise
            self.done += 1

    async def close(self) -> None:
        """Close what is open."""
        while self._open:
            await self._open.pop()[0].close()

    async def verify(self) -> None:
        """Compare everything below the top with the model."""
        await verify(self.target, self.model)
        for file, node in self._open:
            got = await file.pread(LARGEST + 1, 0)
            _same(got, bytes(node.data), "an open file")

    # Means.

    def _path(self) -> tuple[bytes, ...]:
        """Return a path: mostly one whose parent is there."""
        rng = self._rng
        path: tuple[bytes, ...] = ()
        directory = self.model.root
        while True:
            name = rng.choice(NAMES)
            path = (*path, name)
            node = directory.names.get(name)
            if isinstance(node, Directory) and len(path) < DEPTH and rng.random() < 0.6:
                directory = node
                continue
            if len(path) < DEPTH and rng.random() < 0.03:
                return (*path, rng.choice(NAMES))
            return path

    def _full(self, path: tuple[bytes, ...]) -> bytes:
        return b"/".join((self.model.top, *path))

    async def _both(
        self, what: str, model: Callable[[], object], real: Callable[[], Awaitable[object]]
    ) -> bool:
        """Do a change on both sides; return whether it succeeded."""
        self._last = what
        expected = 0
        try:
            model()
        except ModelError as error:
            expected = error.errno
        try:
            await real()
        except OSError as error:
            got = error.errno or 0
            if got == errno.EEXIST and expected == errno.ENOTEMPTY:
                got = expected  # Linux' own choice between the two differs
            assert got == expected, f"{error_name(got)}, expected {error_name(expected)}: {what}"
            return False
        assert not expected, f"success, expected {error_name(expected)}: {what}"
        return True

    def _file(self) -> tuple[File, Regular] | None:
        return self._rng.choice(self._open) if self._open else None

    def _range(self, node: Regular) -> tuple[int, int]:
        """Return offset and length of a write: mostly inside or at the end, sometimes far out."""
        rng = self._rng
        size = len(node.data)
        kind = rng.random()
        if kind < 0.4:
            offset = rng.randint(0, size)
        elif kind < 0.7:
            offset = size
        elif kind < 0.9:
            offset = rng.randint(0, 64 * 1024)
        else:
            offset = rng.randint(0, LARGEST - 1)
        length = rng.choice([rng.randint(1, 600), rng.randint(1, 9000), 4096, 1024, 65536])
        if rng.random() < 0.05:
            length = rng.randint(1, 300_000)
        if rng.random() < 0.3:
            offset &= -4096
        return offset, min(length, LARGEST - offset)

    # Operations.

    async def _open_file(self) -> None:
        if len(self._open) >= OPEN_FILES:
            await self._open.pop(self._rng.randrange(len(self._open)))[0].close()
        path = self._path()
        flags = os.O_RDWR
        if self._rng.random() < 0.7:
            flags |= os.O_CREAT
        if self._rng.random() < 0.15:
            flags |= os.O_TRUNC
        if self._rng.random() < 0.1:
            flags |= os.O_EXCL
        node: Regular | None = None

        def model() -> None:
            nonlocal node
            parent = self.model.parent(path)
            there = parent.names.get(path[-1])
            if there is None:
                if not flags & os.O_CREAT:
                    _fail(errno.ENOENT)
                node = Regular()
                parent.names[path[-1]] = node
                return
            if flags & os.O_CREAT and flags & os.O_EXCL:
                _fail(errno.EEXIST)
            if isinstance(there, Directory):
                _fail(errno.EISDIR)
            if isinstance(there, Link):
                _fail(errno.ELOOP)
            if flags & os.O_TRUNC:
                there.data = bytearray()
            node = there

        async def real() -> None:
            file = await self.target.open(self._full(path), flags | os.O_NOFOLLOW, 0o644)
            assert node is not None
            self._open.append((file, node))

        await self._both(f"open {path} {flags:#o}", model, real)

    async def _close_file(self) -> None:
        if self._open:
            await self._open.pop(self._rng.randrange(len(self._open)))[0].close()

    async def _write(self) -> None:
        if (chosen := self._file()) is None:
            return
        file, node = chosen
        offset, length = self._range(node)
        data = self._rng.randbytes(length)
        self._last = f"write {length} at {offset}"
        assert await file.pwrite(data, offset) == length
        if len(node.data) < offset:
            node.data += bytes(offset - len(node.data))
        node.data[offset : offset + length] = data

    async def _read(self) -> None:
        if (chosen := self._file()) is None:
            return
        file, node = chosen
        offset = self._rng.randint(0, len(node.data) + 100)
        length = self._rng.choice([100, 4096, 20_000, 150_000])
        self._last = f"read {length} at {offset}"
        _same(await file.pread(length, offset), bytes(node.data[offset : offset + length]), "read")

    async def _ftruncate(self) -> None:
        if (chosen := self._file()) is None:
            return
        file, node = chosen
        size, rng = len(node.data), self._rng
        new = rng.choice([0, rng.randint(0, size), rng.randint(0, size), rng.randint(0, LARGEST)])
        self._last = f"truncate from {size} to {new}"
        await file.ftruncate(new)
        if new < size:
            del node.data[new:]
        else:
            node.data += bytes(new - size)

    async def _fsync(self) -> None:
        if (chosen := self._file()) is not None:
            self._last = "fsync"
            await chosen[0].fsync()

    async def _fstat(self) -> None:
        if (chosen := self._file()) is None:
            return
        file, node = chosen
        self._last = "fstat"
        got = await file.fstat()
        assert (got.size, got.nlink) == (len(node.data), node.nlink)

    async def _mkdir(self) -> None:
        path = self._path()
        full = self._full(path)
        await self._both(
            f"mkdir {path}",
            lambda: self.model.new(path, Directory()),
            lambda: self.target.mkdir(full, 0o755),
        )

    async def _rmdir(self) -> None:
        path = self._path()
        full = self._full(path)
        await self._both(
            f"rmdir {path}", lambda: self.model.rmdir(path), lambda: self.target.rmdir(full)
        )

    async def _unlink(self) -> None:
        path = self._path()
        full = self._full(path)
        await self._both(
            f"unlink {path}", lambda: self.model.unlink(path), lambda: self.target.unlink(full)
        )

    async def _rename(self) -> None:
        old, new = self._path(), self._path()
        await self._both(
            f"rename {old} {new}",
            lambda: self.model.rename(old, new),
            lambda: self.target.rename(self._full(old), self._full(new)),
        )

    async def _link(self) -> None:
        old, new = self._path(), self._path()
        await self._both(
            f"link {old} {new}",
            lambda: self.model.link(old, new),
            lambda: self.target.link(self._full(old), self._full(new)),
        )

    async def _symlink(self) -> None:
        path = self._path()
        target = b"t" * self._rng.choice([1, 20, 59, 60, 61, 300])
        await self._both(
            f"symlink {path}",
            lambda: self.model.new(path, Link(target)),
            lambda: self.target.symlink(target, self._full(path)),
        )

    async def _chmod(self) -> None:
        path = self._path()
        mode = self._rng.choice([0o644, 0o600, 0o755, 0o777])

        def model() -> None:
            node = self.model.find(path)
            if isinstance(node, Link):
                node.follow()
            node.mode = mode

        await self._both(f"chmod {path}", model, lambda: self.target.chmod(self._full(path), mode))

    async def _lstat(self) -> None:
        path = self._path()

        async def real() -> None:
            check(await self.target.lstat(self._full(path)), self.model.find(path))

        await self._both(f"lstat {path}", lambda: self.model.find(path), real)

    async def _list(self) -> None:
        path = self._path()[:-1]

        async def real() -> None:
            names = await self.target.listdir(self._full(path))
            node = self.model.find(path)
            assert isinstance(node, Directory)
            assert names == sorted(node.names)

        def model() -> None:
            self.model.parent((*path, b""))

        await self._both(f"list {path}", model, real)

    _WORKS: Final[tuple[tuple[Callable[[Worker], Awaitable[None]], int], ...]] = (
        (_open_file, 12),
        (_close_file, 4),
        (_write, 24),
        (_read, 12),
        (_ftruncate, 5),
        (_fsync, 1),
        (_fstat, 4),
        (_mkdir, 6),
        (_rmdir, 4),
        (_unlink, 9),
        (_rename, 7),
        (_link, 4),
        (_symlink, 4),
        (_chmod, 2),
        (_lstat, 5),
        (_list, 2),
    )


def _same(got: bytes, expected: bytes, what: str) -> None:
    """Compare without printing megabytes."""
    if got == expected:
        return
    at = next(
        (i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b),
        min(len(got), len(expected)),
    )
    raise AssertionError(
        f"{what}: {len(got)} octets, expected {len(expected)}; first difference at {at}: "
        f"{got[at : at + 16]!r}, expected {expected[at : at + 16]!r}"
    )


def check(got: Stat, node: Node) -> None:
    """Hold the attributes that a target tells against the model."""
    if isinstance(node, Directory):
        assert (got.kind, got.perm) == (stat.S_IFDIR, node.mode)
    elif isinstance(node, Link):
        assert (got.kind, got.size) == (stat.S_IFLNK, len(node.target))
    else:
        assert (got.kind, got.perm, got.size) == (stat.S_IFREG, node.mode, len(node.data))
    assert got.nlink == node.nlink


async def verify(target: Target, model: Model) -> None:
    """Compare everything that is on `target` below the top of `model` with it."""

    async def compare(path: bytes, node: Node) -> None:
        check(await target.lstat(path), node)
        if isinstance(node, Directory):
            assert await target.listdir(path) == sorted(node.names), path
            for name, child in node.names.items():
                await compare(path + b"/" + name, child)
        elif isinstance(node, Link):
            assert await target.readlink(path) == node.target, path
        else:
            _same(await target.read_file(path), bytes(node.data), repr(path))

    await compare(model.top, model.root)
