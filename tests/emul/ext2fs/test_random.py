"""Random operations from a seed beside a model; remounted, synced and checked now and then."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random

import pytest

from ...support.expect import pattern
from .volumes import MIB, Tree, make_image, mounted

OPERATIONS = 2_000
MOUNTS = 5
SIZE_MAX = 400_000


class Model:
    """A tree of dictionaries: a directory is one, a file is a bytearray that names may share."""

    def __init__(self) -> None:
        self.root: dict[bytes, object] = {}

    def walk(self) -> list[tuple[bytes, object]]:
        """Return all paths with what is there."""
        found: list[tuple[bytes, object]] = []
        todo: list[tuple[bytes, dict[bytes, object]]] = [(b"", self.root)]
        while todo:
            path, directory = todo.pop()
            for name, node in directory.items():
                child = path + b"/" + name if path else name
                found.append((child, node))
                if isinstance(node, dict):
                    todo.append((child, node))
        return found

    def parent(self, path: bytes) -> tuple[dict[bytes, object], bytes]:
        """Return the directory of a path, which is there, and the last name."""
        *above, name = path.split(b"/")
        here: object = self.root
        for part in above:
            assert isinstance(here, dict)
            here = here[part]
        assert isinstance(here, dict)
        return here, name


class Worker:
    """Does one operation after the other to a tree and to a model."""

    def __init__(self, seed: int) -> None:
        self.model = Model()
        self.tree: Tree
        self._rng = Random(seed)

    def _pick(self, kind: type) -> bytes | None:
        paths = [path for path, node in self.model.walk() if isinstance(node, kind)]
        return self._rng.choice(paths) if paths else None

    def _fresh(self) -> bytes:
        rng = self._rng
        top = self._pick(dict) if rng.random() < 0.6 else None
        name = b"%d" % rng.randrange(40) + b"n" * rng.choice([0, 0, 5, 60, 200])
        path = top + b"/" + name if top else name
        return path if path.count(b"/") < 5 else name

    async def step(self) -> None:
        """Do one operation."""
        rng = self._rng
        work = rng.choices(
            [
                self._write,
                self._cut,
                self._make,
                self._remove,
                self._rename,
                self._link,
                self._read,
            ],
            [8, 3, 3, 4, 4, 2, 4],
        )[0]
        await work()
        if rng.random() < 0.01:
            await self.tree.sync()

    async def _write(self) -> None:
        rng = self._rng
        path = (self._pick(bytearray) if rng.random() < 0.6 else None) or self._fresh()
        directory, name = self.model.parent(path)
        node = directory.get(name)
        if isinstance(node, dict):
            return
        if node is None:
            node = directory[name] = bytearray()
        assert isinstance(node, bytearray)
        offset = rng.choice([0, len(node), rng.randrange(SIZE_MAX)])
        data = pattern(rng.choice([1, 700, 5_000, 40_000]), rng.randrange(100))
        async with await self.tree.open(path, os.O_RDWR | os.O_CREAT) as file:
            assert await file.pwrite(data, offset) == len(data)
            if rng.random() < 0.1:
                await file.fsync()
        if len(node) < offset:
            node.extend(bytes(offset - len(node)))
        node[offset : offset + len(data)] = data

    async def _cut(self) -> None:
        path = self._pick(bytearray)
        if path is None:
            return
        directory, name = self.model.parent(path)
        node = directory[name]
        assert isinstance(node, bytearray)
        size = self._rng.choice([0, self._rng.randrange(SIZE_MAX), len(node) // 2])
        await self.tree.truncate(path, size)
        if size < len(node):
            del node[size:]
        else:
            node.extend(bytes(size - len(node)))

    async def _make(self) -> None:
        path = self._fresh()
        directory, name = self.model.parent(path)
        if name not in directory:
            await self.tree.mkdir(path)
            directory[name] = {}

    async def _remove(self) -> None:
        found = self.model.walk()
        if not found:
            return
        path, node = self._rng.choice(found)
        directory, name = self.model.parent(path)
        if not isinstance(node, dict):
            await self.tree.unlink(path)
        elif node:
            await self._fails(errno.ENOTEMPTY, self.tree.rmdir(path))
            return
        else:
            await self.tree.rmdir(path)
        del directory[name]

    async def _fails(self, number: int, work: object) -> None:
        try:
            await work  # type: ignore[misc]
        except OSError as exc:
            if exc.errno != number:
                raise
        else:
            raise AssertionError(f"no {errno.errorcode[number]}")

    async def _rename(self) -> None:
        found = self.model.walk()
        if not found:
            return
        old, node = self._rng.choice(found)
        new = self._fresh() if self._rng.random() < 0.6 else self._rng.choice(found)[0]
        source, name = self.model.parent(old)
        target, new_name = self.model.parent(new)
        victim = target.get(new_name)
        if isinstance(node, dict) and (new + b"/").startswith(old + b"/"):
            if old != new:
                await self._fails(errno.EINVAL, self.tree.rename(old, new))
            return
        if isinstance(victim, dict):
            if not isinstance(node, dict):
                wrong = errno.ENOTEMPTY if (old + b"/").startswith(new + b"/") else errno.EISDIR
                await self._fails(wrong, self.tree.rename(old, new))
                return
            if victim:
                await self._fails(errno.ENOTEMPTY, self.tree.rename(old, new))
                return
        elif victim is not None and isinstance(node, dict):
            await self._fails(errno.ENOTDIR, self.tree.rename(old, new))
            return
        await self.tree.rename(old, new)
        if victim is not node:
            del source[name]
            target[new_name] = node

    async def _link(self) -> None:
        old, new = self._pick(bytearray), self._fresh()
        if old is None:
            return
        directory, name = self.model.parent(new)
        if name in directory:
            await self._fails(errno.EEXIST, self.tree.link(old, new))
            return
        await self.tree.link(old, new)
        source, old_name = self.model.parent(old)
        directory[name] = source[old_name]

    async def _read(self) -> None:
        path = self._pick(bytearray)
        if path is None:
            return
        directory, name = self.model.parent(path)
        node = directory[name]
        assert isinstance(node, bytearray)
        offset = self._rng.randrange(SIZE_MAX)
        async with await self.tree.open(path, os.O_RDONLY) as file:
            assert await file.pread(30_000, offset) == node[offset : offset + 30_000]

    async def compare(self) -> None:
        """Check that tree and model are the same."""
        nodes = self.model.walk()
        links = [id(node) for _, node in nodes]
        assert await self.tree.listdir() == sorted([*self.model.root, b"lost+found"])
        for path, node in nodes:
            st = await self.tree.lstat(path)
            if isinstance(node, dict):
                assert await self.tree.listdir(path) == sorted(node)
                assert st.nlink == 2 + sum(isinstance(child, dict) for child in node.values())
            else:
                assert st.nlink == links.count(id(node))
                assert await self.tree.read_file(path) == node


@pytest.mark.parametrize("block", [1024, 4096])
async def test_random(block: int, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 24 * MIB, "-N", "1024", block=block)
    worker = Worker(block)
    for _ in range(MOUNTS):
        async with mounted(image) as tree:
            worker.tree = tree
            await worker.compare()
            for _ in range(OPERATIONS // MOUNTS):
                await worker.step()
            await worker.compare()
