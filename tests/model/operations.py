"""Random operations, and how one of them is done on a target.

Few names and short paths on purpose: what is interesting happens where operations meet.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, Final

from hypothesis import strategies as st

from ..support.expect import error_name, pattern
from ..support.target import UTIME_NOW, UTIME_OMIT, File, Stat, Target

TOP: Final = b"top"
"""All happens below this directory: the root of a mount is not like other directories."""
NAMES: Final = [b"a", b"b", b"c", b"d"]
TOO_LONG: Final = b"n" * 256
SLOTS: Final = 3
SECOND: Final = 10**9
SET_TIME: Final = 1_500_000_000 * SECOND
"""Times that the operations set lie before this; all others are from now."""

Operation = tuple[Any, ...]
"""The name of an operation and its arguments."""

_name = st.sampled_from(NAMES)
_names = st.lists(_name, min_size=1, max_size=2).map(b"/".join)
_short = _names.map(lambda path: TOP + b"/" + path)
_path = st.one_of(
    _short,
    _short,
    _short,
    st.lists(_name, min_size=3, max_size=4).map(lambda names: b"/".join([TOP, *names])),
    _short.map(lambda path: path + b"/.."),
    _short.map(lambda path: path + b"/"),
    st.just(TOP + b"/."),
    _short.map(lambda path: path + b"/" + TOO_LONG),
)
_target = st.one_of(_names, _names.map(lambda path: b"../" + path), st.just(b"t" * 300))
_mode = st.sampled_from([0o644, 0o600, 0o755, 0o4711, 0o000 if os.geteuid() == 0 else 0o700])
_offset = st.one_of(st.integers(0, 20), st.sampled_from([4_095, 4_096, 65_536, 100_000]))
_length = st.one_of(st.integers(0, 20), st.sampled_from([4_096, 5_000, 70_000]))
_slot = st.integers(0, SLOTS - 1)
_seed = st.integers(0, 9)
_time = st.one_of(
    st.integers(1, 1_400_000_000).map(lambda seconds: seconds * SECOND),
    st.sampled_from([UTIME_NOW, UTIME_OMIT]),
)
_access = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
_creation = st.sampled_from(
    [
        0,
        os.O_CREAT,
        os.O_CREAT,
        os.O_CREAT | os.O_EXCL,
        os.O_CREAT | os.O_TRUNC,
        os.O_TRUNC,
        os.O_APPEND,
        os.O_CREAT | os.O_APPEND,
        os.O_NOFOLLOW,
    ]
)
_flags = st.tuples(_access, _creation).map(sum)


def _op(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.tuples(st.just(name), *arguments)


_COMMON: Final = [
    st.just(("pause",)),  # what an example shrinks to
    _op("write_file", _short, _length, _seed),
    _op("write_file", _short, _length, _seed),
    _op("read_file", _path),
    _op("open", _slot, _path, _flags, _mode),
    _op("open", _slot, _short, _flags, _mode),
    _op("close", _slot),
    _op("pread", _slot, _offset, _length),
    _op("pwrite", _slot, _offset, _length, _seed),
    _op("pwrite", _slot, _offset, _length, _seed),
    _op("ftruncate", _slot, _offset),
    _op("fsync", _slot),
    _op("fstat", _slot),
    _op("mkdir", _path, _mode),
    _op("mkdir", _short, st.just(0o755)),
    _op("rmdir", _path),
    _op("unlink", _path),
    _op("unlink", _short),
    _op("rename", _path, _path),
    _op("rename", _short, _short),
    _op("rename", _short, _short),
    _op("symlink", _target, _path),
    _op("readlink", _path),
    _op("stat", _path),
    _op("lstat", _path),
    _op("listdir", _path),
    _op("chmod", _short, _mode),
    _op("utimens", _short, _time, _time, st.booleans()),
    _op("truncate", _path, _offset),
]
_LINK: Final = [_op("link", _path, _path), _op("link", _short, _short)]
_CHOWN: Final = [_op("chown", _short, st.integers(-1, 5), st.integers(-1, 5), st.booleans())]
_SPECIAL: Final = [
    _op("mknod", _path, st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG]), _mode)
]


def operations(lacks: frozenset[str], longest: int) -> st.SearchStrategy[list[Operation]]:
    """Return a strategy for sequences that a stack which lacks `lacks` can follow."""
    possible = list(_COMMON)
    if "inode" not in lacks:
        possible += _LINK
    if "chown" not in lacks:
        possible += _CHOWN
    if "special" not in lacks:
        possible += _SPECIAL
    return st.lists(st.one_of(possible), min_size=longest // 2, max_size=longest)


class Looks:
    """Which attributes can be compared on a stack, and how."""

    def __init__(self, lacks: frozenset[str]) -> None:
        self._nlink = "nlink" not in lacks

    def of(self, got: Stat) -> tuple[object, ...]:
        """Return what two targets must agree on.

        Sizes and counts of directories are each file system's own business; times that nobody
        set are those of now, and two targets are never worked on in the same instant.
        """
        file = got.kind != stat.S_IFDIR
        return (
            stat.filemode(got.mode),
            got.uid,
            got.gid,
            got.size if file else None,
            got.nlink if file and self._nlink else None,
            got.mtime if got.mtime < SET_TIME else "now",
        )


class Side:
    """One of the two targets with its open files."""

    def __init__(self, target: Target, looks: Looks) -> None:
        self.target = target
        self._looks = looks
        self._files: dict[int, File] = {}

    async def do(self, operation: Operation) -> object:
        """Return the result of an operation in a form that can be compared."""
        try:
            return await self._do(operation)
        except OSError as error:
            # Linux' own choice between the two differs from one file system to the other.
            number = errno.ENOTEMPTY if error.errno == errno.EEXIST else error.errno
            if operation[0] == "rename":
                return error_name(number)
            return error_name(error.errno)

    async def close(self) -> None:
        """Close what is open."""
        for slot in list(self._files):
            await self._files.pop(slot).close()

    async def _do(self, operation: Operation) -> object:
        target = self.target
        match operation:
            case ("pause",):
                pass
            case ("write_file", path, length, seed):
                await target.write_file(path, pattern(length, seed))
            case ("read_file", path):
                return await target.read_file(path)
            case ("open", slot, path, flags, mode):
                await self._close(slot)
                self._files[slot] = await target.open(path, flags, mode)
                return "opened"
            case ("close", slot):
                await self._close(slot)
            case ("stat", path):
                return self._looks.of(await target.stat(path))
            case ("lstat", path):
                return self._looks.of(await target.lstat(path))
            case ("utimens", path, atime, mtime, follow):
                await target.utimens(path, atime, mtime, follow=follow)
            case ("chown", path, uid, gid, follow):
                await target.chown(path, uid, gid, follow=follow)
            case ("mknod", path, ifmt, mode):
                await target.mknod(path, ifmt | mode)
            case ("pread" | "pwrite" | "ftruncate" | "fsync" | "fstat", slot, *rest):
                file = self._files.get(slot)
                return "not open" if file is None else await self._on_file(file, operation[0], rest)
            case (name, *arguments):
                return await getattr(target, name)(*arguments)
        return None

    async def _on_file(self, file: File, name: str, rest: list[Any]) -> object:
        match name, rest:
            case "pread", [offset, length]:
                return await file.pread(length, offset)
            case "pwrite", [offset, length, seed]:
                return await file.pwrite(pattern(length, seed), offset)
            case "ftruncate", [length]:
                await file.ftruncate(length)
            case "fsync", []:
                await file.fsync()
            case "fstat", []:
                return self._looks.of(await file.fstat())
        return None

    async def _close(self, slot: int) -> None:
        file = self._files.pop(slot, None)
        if file is not None:
            await file.close()

    async def tree(self, path: bytes = b"") -> dict[bytes, object]:
        """Return everything there is below `path`: attributes and contents by name."""
        found: dict[bytes, object] = {}
        for name in await self.target.listdir(path):
            below = path + b"/" + name if path else name
            got = await self.target.lstat(below)
            looks = self._looks.of(got)
            if got.kind == stat.S_IFDIR:
                found[below] = looks
                found.update(await self.tree(below))
            elif got.kind == stat.S_IFREG:
                found[below] = looks, await self.target.read_file(below)
            elif got.kind == stat.S_IFLNK:
                found[below] = looks, await self.target.readlink(below)
            else:
                found[below] = looks
        return found
