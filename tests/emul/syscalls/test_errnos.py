"""Every call on every kind of path, on the host and here: the same answer, the same errno.

What is done is small; that there are thousands of combinations is the point: of several errors
that apply, Linux says one, and so must we.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from operator import methodcaller
from pathlib import Path
from typing import Any, Final

import pytest

from syspuffs.emul.syscalls import UTIME_NOW, Process
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred

from ...support.expect import error_name
from ...support.target import UMASK
from ..caller import now
from .harness import booted, check_idle, tmpfs

USER: Final = 1001
GROUP: Final = 2001
LONG: Final = b"n" * 256

_libc = ctypes.CDLL(None, use_errno=True)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Let this thread do what it does to files as somebody else."""
    before = os.getgroups()
    if uid:
        os.setgroups([])
        _libc.setfsgid(gid)
        _libc.setfsuid(uid)
    try:
        yield
    finally:
        if uid:
            _libc.setfsuid(0)
            _libc.setfsgid(0)
            os.setgroups(before)


class Host:
    """The host's calls, with the names and arguments of `Process`."""

    def open(self, path: bytes, flags: int, mode: int = 0o666) -> str:
        fd = os.open(path, flags, mode)
        try:
            return "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        finally:
            os.close(fd)

    def stat(self, path: bytes) -> int:
        return stat.S_IFMT(os.stat(path).st_mode)

    def lstat(self, path: bytes) -> int:
        return stat.S_IFMT(os.lstat(path).st_mode)

    def access(self, path: bytes, mode: int) -> None:
        if _libc.faccessat(-100, path, mode, 0x200) < 0:  # AT_EACCESS
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def chdir(self, path: bytes) -> None:
        before = os.open(".", os.O_PATH)
        try:
            os.chdir(path)
        finally:
            os.fchdir(before)
            os.close(before)

    def chown(self, path: bytes, uid: int, gid: int, *, follow: bool = True) -> None:
        os.chown(path, uid, gid, follow_symlinks=follow)

    def touch(self, path: bytes) -> None:
        os.utime(path)

    def set_times(self, path: bytes) -> None:
        os.utime(path, ns=(10**18, 10**18))

    def link(self, old: bytes, new: bytes, *, follow: bool = False) -> None:
        os.link(old, new, follow_symlinks=follow)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class Emulated:
    """The same on a process, in one go."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def open(self, path: bytes, flags: int, mode: int = 0o666) -> str:
        fd = now(self.process.open(path, flags, mode))
        try:
            kind = now(self.process.fstat(fd)).st_mode
            return "directory" if stat.S_ISDIR(kind) else "file"
        finally:
            now(self.process.close(fd))

    def stat(self, path: bytes) -> int:
        return stat.S_IFMT(now(self.process.stat(path)).st_mode)

    def lstat(self, path: bytes) -> int:
        return stat.S_IFMT(now(self.process.lstat(path)).st_mode)

    def chdir(self, path: bytes) -> None:
        before = now(self.process.open(b".", os.O_PATH))
        try:
            now(self.process.chdir(path))
            now(self.process.fchdir(before))
        finally:
            now(self.process.close(before))

    def touch(self, path: bytes) -> None:
        now(self.process.utimensat(path, UTIME_NOW, UTIME_NOW))

    def set_times(self, path: bytes) -> None:
        now(self.process.utimensat(path, 10**18, 10**18))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.process, name)
        return lambda *args, **options: now(method(*args, **options))


def build(side: Any) -> None:
    """Make the tree, in the working directory, as root."""

    def write(path: bytes, mode: int = 0o644) -> None:
        side.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)

    for path, mode in (
        (b"d", 0o755),
        (b"d/e", 0o755),
        (b"e", 0o755),
        (b"u", 0o755),
        (b"u/root", 0o755),
        (b"u/dir", 0o755),
        (b"shut", 0o700),
        (b"shut/d", 0o777),
        (b"open", 0o777),
        (b"open/d", 0o755),
        (b"open/full", 0o777),
    ):
        side.mkdir(path, 0o777)
        side.chmod(path, mode)
    for path in (b"f", b"d/f", b"u/f", b"u/root/f", b"shut/f", b"open/f", b"open/full/f"):
        write(path)
    write(b"u/secret", 0o600)
    write(b"any")
    side.chmod(b"any", 0o666)
    for target, path in (
        (b"f", b"to-f"),
        (b"d", b"to-d"),
        (b"missing", b"to-missing"),
        (b"d/", b"to-d-slash"),
        (b"f/", b"to-f-slash"),
        (b"new/", b"to-new-slash"),
        (b".", b"to-dot"),
        (b"open/new", b"to-open-new"),
        (b"loop", b"loop"),
    ):
        side.symlink(target, path)
    side.mknod(b"socket", stat.S_IFSOCK | 0o644)
    if os.geteuid() == 0:
        for path in (b"u", b"u/f", b"u/dir"):
            side.chown(path, USER, GROUP)


PATHS: Final = [
    b"",
    b".",
    b"..",
    b"./",
    b"../",
    b"f",
    b"f/",
    b"f/.",
    b"f/..",
    b"f/x",
    b"f/x/y",
    b"d",
    b"d/",
    b"d/.",
    b"d/..",
    b"d/./",
    b"d/f",
    b"d/f/",
    b"d/e",
    b"d/e/",
    b"d/e/.",
    b"d/new",
    b"d/new/",
    b"e",
    b"e/",
    b"any",
    b"u",
    b"u/f",
    b"u/secret",
    b"u/root",
    b"u/root/f",
    b"u/root/new",
    b"u/dir",
    b"u/new",
    b"shut",
    b"shut/",
    b"shut/.",
    b"shut/..",
    b"shut/f",
    b"shut/d",
    b"shut/new",
    b"shut/f/x",
    b"open/f",
    b"open/d",
    b"open/full",
    b"open/new",
    b"open/new/",
    b"missing",
    b"missing/",
    b"missing/.",
    b"missing/x",
    b"to-f",
    b"to-f/",
    b"to-f/x",
    b"to-d",
    b"to-d/",
    b"to-d/f",
    b"to-d/..",
    b"to-missing",
    b"to-missing/",
    b"to-missing/x",
    b"to-d-slash",
    b"to-d-slash/f",
    b"to-f-slash",
    b"to-new-slash",
    b"to-dot",
    b"to-dot/f",
    b"to-open-new",
    b"loop",
    b"loop/x",
    b"socket",
    b"socket/",
    LONG,
    b"shut/" + LONG,
    b"missing/" + LONG,
    b"d/" + LONG + b"/x",
    b"./" * 2048,
]

OPENS: Final = [
    access | how
    for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
    for how in (
        0,
        os.O_TRUNC,
        os.O_CREAT,
        os.O_CREAT | os.O_TRUNC,
        os.O_CREAT | os.O_EXCL,
        os.O_CREAT | os.O_NOFOLLOW,
        os.O_NOFOLLOW,
        os.O_DIRECTORY,
        os.O_DIRECTORY | os.O_NOFOLLOW,
    )
] + [os.O_PATH, os.O_PATH | os.O_NOFOLLOW, os.O_PATH | os.O_DIRECTORY]

Call = tuple[str, bool, Callable[[Any], object]]
"""What it is, whether it changes something when it succeeds, and the call itself."""


def single_calls(path: bytes) -> Iterator[Call]:
    """Return all calls on one path."""
    is_missing = b"new" in path or b"missing" in path
    for flags in OPENS:
        changes = bool(flags & os.O_CREAT) and is_missing
        yield f"open {flags:#o}", changes, methodcaller("open", path, flags)
    for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK, 8):
        yield f"access {mode}", False, methodcaller("access", path, mode)
    for name in ("stat", "lstat", "readlink", "chdir", "touch", "set_times"):
        yield name, False, methodcaller(name, path)
    for uid, gid in ((-1, -1), (USER, -1), (-1, GROUP)):
        yield f"chown {uid} {gid}", False, methodcaller("chown", path, uid, gid)
    yield "lchown", False, methodcaller("chown", path, -1, -1, follow=False)
    for kind in (stat.S_IFREG, stat.S_IFSOCK, stat.S_IFDIR):
        yield f"mknod {kind:#o}", True, methodcaller("mknod", path, kind | 0o644)
    yield "mkdir", True, methodcaller("mkdir", path, 0o777)
    yield "rmdir", True, methodcaller("rmdir", path)
    yield "unlink", True, methodcaller("unlink", path)
    yield "truncate", True, methodcaller("truncate", path, 0)
    yield "chmod", True, methodcaller("chmod", path, 0o640)
    yield "symlink", True, methodcaller("symlink", b"t", path)


def outcome(call: Callable[[], object]) -> str:
    """Do it; return what it said, or the name of the errno."""
    try:
        got = call()
    except (OSError, VfsError) as error:
        return error_name(error.errno)
    return f"success: {got!r}"


class Pair:
    """The host's tree and the emulated one, rebuilt when one call has changed something."""

    def __init__(self, place: Path, uid: int, gid: int) -> None:
        self.top = place / "above" / "top"
        self.uid = uid
        self.gid = gid
        self.differences: list[str] = []
        self.count = 0
        self.rebuild()

    def rebuild(self) -> None:
        os.chdir("/")
        shutil.rmtree(self.top.parent, ignore_errors=True)
        self.top.mkdir(parents=True)
        os.chdir(self.top)
        build(Host())
        process = booted(tmpfs(uid=os.geteuid(), gid=os.getegid(), mode=0o755))
        for name in (b"above", b"above/top"):
            now(process.mkdir(name))
        now(process.chdir(b"/above/top"))
        process.setgid(os.getegid())
        process.setuid(os.geteuid())
        build(Emulated(process))
        process.cred = Cred(self.uid, self.gid, (), process.pid)
        self.emulated = Emulated(process)

    def compare(self, text: str, changes: bool, call: Callable[[Any], object]) -> None:
        """Do a call on both sides."""
        self.count += 1
        with as_user(self.uid, self.gid):
            want = outcome(lambda: call(Host()))
        got = outcome(lambda: call(self.emulated))
        check_idle(self.emulated.process)
        if want != got:
            self.differences.append(f"{text}: Linux says {want}, we say {got}")
        if changes and "success" in want + got:
            self.rebuild()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory for some thousand trees: in the host's memory, where it offers that."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture(params=["ourselves", pytest.param("user", marks=needs_root)])
def pair(
    request: pytest.FixtureRequest, place: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pair]:
    monkeypatch.chdir(place)
    assert os.umask(UMASK) == UMASK
    uid, gid = (USER, GROUP) if request.param == "user" else (os.geteuid(), os.getegid())
    pair = Pair(place, uid, gid)
    yield pair
    assert pair.count > 100
    assert not pair.differences, "\n".join(pair.differences)


def test_calls_on_one_path(pair: Pair) -> None:
    for path in PATHS:
        for text, changes, call in single_calls(path):
            pair.compare(f"{text} {path[:40]!r}", changes, call)


PAIRED: Final = [
    b"",
    b".",
    b"..",
    b"f",
    b"f/",
    b"f/.",
    b"f/x",
    b"d",
    b"d/",
    b"d/..",
    b"d/f",
    b"d/e",
    b"d/e/.",
    b"d/e/new",
    b"d/new/",
    b"e",
    b"e/new",
    b"u/f",
    b"u/dir",
    b"u/dir/new",
    b"u/root",
    b"u/root/f",
    b"u/new",
    b"shut/d",
    b"shut/new",
    b"open/f",
    b"open/d",
    b"open/full",
    b"open/new",
    b"missing",
    b"missing/",
    b"missing/x",
    b"to-f",
    b"to-f/",
    b"to-d",
    b"to-d/",
    b"to-d/f",
    b"to-missing",
    b"loop/x",
    LONG,
]


def test_rename(pair: Pair) -> None:
    for old, new in product(PAIRED, PAIRED):
        pair.compare(
            f"rename {old[:40]!r} to {new[:40]!r}",
            True,
            methodcaller("rename", old, new),
        )


def test_link(pair: Pair) -> None:
    # Others' files can only be linked where the host's administrator has allowed it.
    olds = PAIRED if pair.uid == 0 else [b"", b"u/f", b"u/dir", b"missing", b"f/x", b"shut/f", LONG]
    for old, new in product(olds, PAIRED):
        pair.compare(
            f"link {old[:40]!r} to {new[:40]!r}",
            True,
            methodcaller("link", old, new),
        )
