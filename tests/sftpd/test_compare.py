"""Ours and OpenSSH's sftp-server, request by request: the same answers, or a reason why not.

Both work on the same tree, ours by way of tmpfs in an emulated kernel. A step is one packet; what
is compared is the type of the answer and what it says, times and inode-like things left out.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import trio

from syspuffs.native import sftp
from syspuffs.native.errors import RemoteProtocolError

from ..gateway.sftp.harness import Wire, decoded, packet, served, string
from ..support.sshd import find_sftp_server

R: Final = sftp.FXF_READ
W: Final = sftp.FXF_WRITE
A: Final = sftp.FXF_APPEND
C: Final = sftp.FXF_CREAT
T: Final = sftp.FXF_TRUNC
X: Final = sftp.FXF_EXCL


class Step(NamedTuple):
    """One request: `make` gets an id, the paths' prefix and the handles kept so far.

    `keep` names the handle that comes of it. `why` says why the answers differ, where they do.
    """

    name: str
    make: Callable[[int, bytes, dict[str, bytes]], bytes]
    keep: str = ""
    why: str = ""


STEPS: list[Step] = []


def step(name: str, make: Callable[..., bytes], keep: str = "", why: str = "") -> None:
    STEPS.append(Step(name, make, keep, why))


def path(kind: str, name: bytes, *args: Any, why: str = "") -> None:
    """Add a request by one path."""
    encode = getattr(sftp, kind)
    words = " ".join(str(arg) for arg in args)
    step(f"{kind} {name!r} {words}", lambda i, p, h: encode(i, p + name, *args), why=why)


def two(kind: str, old: bytes, new: bytes, why: str = "") -> None:
    """Add a request by two paths."""
    encode = getattr(sftp, kind)
    step(f"{kind} {old!r} {new!r}", lambda i, p, h: encode(i, p + old, p + new), why=why)


def symlink(target: bytes, name: bytes) -> None:
    step(f"symlink {target!r} {name!r}", lambda i, p, h: sftp.symlink(i, target, p + name))


def opened(name: bytes, pflags: int, keep: str = "", mode: int | None = None) -> None:
    attrs = sftp.Attrs(mode=mode)
    made = f"open {name!r} {pflags:#x} {mode}"
    step(made, lambda i, p, h: sftp.open_(i, p + name, pflags, attrs), keep)


def handle(kind: str, keep: str, *args: Any, data: bytes = b"", why: str = "") -> None:
    """Add a request by a handle that was kept."""
    encode = getattr(sftp, kind)
    name = f"{kind} of {keep} {args}"
    step(name, lambda i, p, h: encode(i, h.get(keep, b"none"), *args) + data, why=why)


def raw(name: str, kind: int, body: bytes, why: str = "") -> None:
    step(name, lambda i, p, h: packet(kind, i, body), why=why)


def bad(kind: str, *args: Any, why: str = "") -> None:
    """Add a request by a handle that nobody gave."""
    encode = getattr(sftp, kind)
    step(f"{kind} of nothing", lambda i, p, h: encode(i, b"\0\0\0\x77", *args), why=why)


FAR: Final = (
    "no file of the host's file system reaches so far, and it does not let anybody seek there"
)
LAST_PIECE: Final = "OpenSSH answers OK whatever became of the last 64 KiB of a copy"
SUPERSET: Final = "OpenSSH has file descriptors only; nothing speaks against answering"

# Making and opening.
path("mkdir", b"/d")
path("mkdir", b"/d")
path("mkdir", b"/d/")
path("mkdir", b"/e", sftp.Attrs(mode=0o7700))
path("mkdir", b"/none/x")
path("mkdir", b"/.")
path("stat", b"/d")
path("lstat", b"/e")
opened(b"/f", W | C | T, "f")
opened(b"/f", W | C | X)
opened(b"/g", R | W | C, "g", 0o640)
opened(b"/s", R | W | C, "s", 0o4755)
opened(b"/ro", W | C, "ro", 0o444)
opened(b"/none", R)
opened(b"/none/x", W | C)
opened(b"/f/x", R)
opened(b"/f/", R)
opened(b"/new/", W | C)
opened(b"/d", W)
opened(b"/d", R | C)
opened(b"/d", R, "dir as file")
opened(b"/f", R, "reader")
opened(b"/f", 0, "nothing")
opened(b"/f", R | X, "excl")
opened(b"/l" + b"o" * 254 + b"ng", R | C)
for name in (b"/f", b"/g", b"/s", b"/ro"):
    path("stat", name)
# Data.
handle("write", "f", 0, 10, data=b"0123456789")
handle("write", "f", 20, 2, data=b"xy")
handle("write", "f", 5, 0)
handle("write", "f", 2**63 - 1, 1, data=b"x", why=FAR)
handle("read", "reader", 0, 100)
handle("read", "reader", 8, 4)
handle("read", "reader", 22, 1)
handle("read", "reader", 100, 1)
handle("read", "reader", 0, 0)
handle("read", "reader", 2**63 - 1, 1, why=FAR)
handle("read", "f", 0, 1)
handle("write", "reader", 0, 1, data=b"x")
handle("read", "nothing", 0, 3)
handle("read", "dir as file", 0, 10)
handle("write", "dir as file", 0, 1, data=b"x")
handle("fstat", "f")
handle("fstat", "dir as file")
handle("fsync", "f")
handle("fsync", "dir as file")
handle("fsetstat", "f", sftp.Attrs(size=5))
handle("fsetstat", "reader", sftp.Attrs(size=5))
handle("fsetstat", "f", sftp.Attrs(size=8, mode=0o100600, atime=10, mtime=20))
handle("fsetstat", "f", sftp.NO_ATTRS)
handle("fstat", "f")
opened(b"/log", W | C | A, "log")
handle("write", "log", 100, 3, data=b"one")
handle("write", "log", 0, 3, data=b"two")
handle("fstat", "log")
opened(b"/log", R | T, "cut")
handle("fstat", "cut")
# Copying.
handle("write", "g", 0, 26, data=b"abcdefghijklmnopqrstuvwxyz")
for args in ((0, 0, 0), (3, 5, 2), (20, 100, 30), (26, 0, 0), (26, 1, 0), (0, 2, 60)):
    step(
        f"copy_data {args}",
        lambda i, p, h, a=args: sftp.copy_data(i, h["g"], a[0], a[1], h["s"], a[2]),
        why=LAST_PIECE if args in ((20, 100, 30), (26, 1, 0)) else "",
    )
    handle("read", "s", 0, 100)
step("copy to itself", lambda i, p, h: sftp.copy_data(i, h["g"], 0, 0, h["g"], 50))
step(
    "copy from a writer",
    lambda i, p, h: sftp.copy_data(i, h["f"], 0, 1, h["s"], 0),
    why=LAST_PIECE,
)
step("copy from nothing", lambda i, p, h: sftp.copy_data(i, b"none", 0, 0, h["s"], 0))
# Closing.
for keep in ("nothing", "excl", "ro", "dir as file", "cut", "reader"):
    handle("close", keep)
handle("close", "reader")
handle("read", "reader", 0, 1)
# Links.
symlink(b"f", b"/l")
symlink(b"f", b"/l")
symlink(b"nowhere", b"/dangling")
symlink(b"d", b"/ld")
symlink(b"loop", b"/loop")
symlink(b"", b"/empty")
symlink(b"x", b"/trail/")
symlink(b"x", b"/none/x")
for name in (b"/l", b"/dangling", b"/loop", b"/ld", b"/ld/", b"/l/", b"/ld/.", b"/none", b"/f/x"):
    path("stat", name)
    path("lstat", name)
    path("readlink", name)
    path("realpath", name)
    path("opendir", name)
opened(b"/dangling", R)
opened(b"/dangling", W | C | X)
opened(b"/loop", R)
path("setstat", b"/l", sftp.Attrs(mode=0o644))
path("setstat", b"/dangling", sftp.Attrs(mode=0o644))
path("lsetstat", b"/l", sftp.Attrs(atime=5, mtime=6))
path("lsetstat", b"/l", sftp.Attrs(size=1))
path(
    "lsetstat",
    b"/l",
    sftp.Attrs(mode=0o600),
    why="EOPNOTSUPP is OP_UNSUPPORTED here; OpenSSH says so of ENOSYS alone",
)
path("lsetstat", b"/f", sftp.Attrs(mode=0o604))
path("lstat", b"/l")
path("lstat", b"/f")
two("hardlink", b"/f", b"/hard")
two("hardlink", b"/f", b"/hard")
two("hardlink", b"/none", b"/x")
two("hardlink", b"/d", b"/x")
two("hardlink", b"/l", b"/hardl")
two("hardlink", b"/f", b"/x/")
two("hardlink", b"/f", b"/none/x")
two("hardlink", b"/f/", b"/x")
path("lstat", b"/hardl")
# Attributes.
path("setstat", b"/f", sftp.Attrs(size=3))
path("setstat", b"/f", sftp.Attrs(size=100, mode=0o100755, atime=2**32 - 1, mtime=1))
path("setstat", b"/d", sftp.Attrs(size=1))
path("setstat", b"/d", sftp.Attrs(size=1, mode=0o711))
path("stat", b"/d")
path("setstat", b"/f", sftp.NO_ATTRS)
path("setstat", b"/none", sftp.NO_ATTRS, why="OpenSSH does nothing, and does not look either")
path("setstat", b"/f", sftp.Attrs(mode=0o6755))
path("stat", b"/f")
# Directories.
step("opendir /d", lambda i, p, h: sftp.opendir(i, p + b"/d"), "dir")
step("opendir /", lambda i, p, h: sftp.opendir(i, p + b"/"), "root")
handle("readdir", "root")
handle("readdir", "root")
handle("readdir", "dir")
handle("readdir", "dir")
handle("readdir", "f")
handle("fstat", "dir", why=SUPERSET)
handle("fstatvfs", "dir", why=SUPERSET)
handle("fsync", "dir", why=SUPERSET)
handle("read", "dir", 0, 1)
handle("fsetstat", "dir", sftp.Attrs(mode=0o700), why=SUPERSET)
handle("close", "dir")
handle("close", "dir")
handle("close", "root")
path("opendir", b"/f")
path("opendir", b"/none")
# Renaming.
two("rename", b"/f", b"/g")
two("rename", b"/f", b"/f")
two("rename", b"/f", b"/d")
two("rename", b"/f", b"/none/x")
two("rename", b"/none", b"/x")
two("rename", b"/f/", b"/x")
two("rename", b"/f", b"/d/f")
two("rename", b"/d/f", b"/f")
two("rename", b"/d", b"/e")
two("rename", b"/d", b"/d/d")
two("rename", b"/d", b"/dd")
two("rename", b"/dd", b"/d")
two("rename", b"/l", b"/l2")
two("rename", b"/l2", b"/l")
two("rename", b"/l", b"/f")
two(
    "rename",
    b"/ld",
    b"/dangling",
    why="OpenSSH looks through the link, finds nothing there and replaces it",
)
two("posix_rename", b"/f", b"/g")
two("posix_rename", b"/g", b"/g")
two("posix_rename", b"/g", b"/d")
two("posix_rename", b"/d", b"/g")
two("posix_rename", b"/d", b"/e")
two("posix_rename", b"/e", b"/e/x")
two("posix_rename", b"/none", b"/x")
two("posix_rename", b"/e/.", b"/x")
two("posix_rename", b"/g/", b"/x")
path("mkdir", b"/e/sub")
path("mkdir", b"/h")
two("posix_rename", b"/h", b"/e")
# Removing.
path("remove", b"/none")
path("remove", b"/e")
path("remove", b"/hard/")
path("remove", b"/hard")
path("remove", b"/hard")
path("remove", b"/g/x")
path("remove", b"/loop")
path("rmdir", b"/none")
path("rmdir", b"/g")
path("rmdir", b"/e")
path("rmdir", b"/e/sub/")
path("rmdir", b"/e/.")
path("rmdir", b"/l")
path("rmdir", b"/h")
# Paths.
for name in (b"/e/..", b"/./e//", b"/e/../g", b"/new", b"/new/x", b"/g/x", b"/new/", b"/e/new"):
    path("realpath", name)
    path("expand_path", name)
path("realpath", b"/" + b"n" * 256)
path("stat", b"/" + b"n" * 256)
path("stat", b"/" + b"x/" * 2048)
for kind in ("lstat", "stat", "opendir", "mkdir", "remove", "rmdir", "readlink", "statvfs"):
    step(f"{kind} of an empty path", lambda i, p, h, k=kind: getattr(sftp, k)(i, b""))
path("statvfs", b"/g")
path("statvfs", b"/none")
handle("fstatvfs", "g")
# Handles that nobody gave.
bad("close")
bad("read", 0, 1)
bad("write", 0, 0)
bad("fstat")
bad("fsetstat", sftp.NO_ATTRS)
bad("readdir")
bad("fsync")
bad("fstatvfs")
# What is no request of version 3.
raw("an unknown extension", sftp.FXP_EXTENDED, string(b"nobody@example.org"))
step("users and groups", lambda i, p, h: sftp.users_groups_by_id(i, [0, 4_000_000_000], [0, 1]))
step("limits", lambda i, p, h: sftp.limits(i))
step("home of nobody", lambda i, p, h: sftp.home_directory(i, b"no such user"))
step("path of nobody", lambda i, p, h: sftp.expand_path(i, b"~no-such-user/x"))
raw(
    "setstat with trailing octets",
    sftp.FXP_CLOSE,
    string(b"none") + b"behind",
)

ENDINGS: Final = {
    "a body that is too short": packet(sftp.FXP_STAT, 1, b"\0\0\0\x05/"),
    "NUL in a path": packet(sftp.FXP_STAT, 1, string(b"/a\0b")),
    "a handle that is no string": packet(sftp.FXP_CLOSE, 1, b"\xff\xff\xff\xff"),
    "half of an array of numbers": packet(
        200, 1, string(b"users-groups-by-id@openssh.com") + string(b"abc") + string(b"")
    ),
}
"""What makes OpenSSH's server end, and with it all that it was asked before."""


@asynccontextmanager
async def openssh(place: Path) -> AsyncIterator[Wire]:
    near, far = socket.socketpair()
    near.setblocking(False)
    process = subprocess.Popen(
        [find_sftp_server(), "-u", "022"],
        stdin=far.fileno(),
        stdout=far.fileno(),
        cwd=place,
        stderr=subprocess.DEVNULL,
    )
    with near:
        far.close()
        yield Wire(near)
    process.wait(timeout=10)


@asynccontextmanager
async def ours() -> AsyncIterator[Wire]:
    async with served() as tree, tree.client() as wire:
        yield wire


def shown(kind: int, body: bytes, prefix: bytes, encoded: bytes) -> Any:
    """Return what an answer says that both must say."""
    if kind == sftp.FXP_STATUS:
        return "status", sftp.decode_status(body)[0]
    if kind == sftp.FXP_HANDLE:
        return "handle"
    if kind == sftp.FXP_DATA:
        return bytes(decoded(kind, body))
    if kind == sftp.FXP_ATTRS:
        return _attrs(decoded(kind, body))
    if kind == sftp.FXP_NAME:
        entries = decoded(kind, body)
        names = {entry.name for entry in entries}
        if b"dangling" in names:  # the root: ".." is the root itself with us
            entries = [entry for entry in entries if entry.name != b".."]
        return sorted(_entry(entry, prefix) for entry in entries)
    name = encoded[13 : 13 + int.from_bytes(encoded[9:13], "big")]
    if name == sftp.EXT_LIMITS:
        return sftp.decode_limits(body)[:3]
    if name == sftp.EXT_USERS_GROUPS:
        return sftp.decode_users_groups(body)
    return "extended", len(body)


def _attrs(attrs: sftp.Attrs) -> Any:
    """Leave out the size of directories, and times that nobody has set."""
    mode = attrs.mode or 0
    times = tuple(t if t in (0, 1, 5, 6, 10, 20, 2**32 - 1) else None for t in attrs[4:])
    return attrs._replace(
        size=None if mode & 0o170000 == 0o040000 else attrs.size, atime=None, mtime=times[1]
    )


def _entry(entry: sftp.Name, prefix: bytes) -> Any:
    name = entry.name.removeprefix(prefix) or b"/"
    if entry.attrs == sftp.NO_ATTRS:
        return name, entry.longname.removeprefix(prefix) or b"/", None
    words = entry.longname.split()
    mode = entry.attrs.mode or 0
    is_dir = mode & 0o170000 == 0o040000
    # Number of links and size of a directory are each file system's own.
    line = [words[0], None if is_dir else words[1], *words[2:4], None if is_dir else words[4]]
    return name, [*line, words[-1]], _attrs(entry.attrs)


async def run(wire: Wire, prefix: bytes) -> list[Any]:
    """Make all requests, one after the other; return the answers."""
    handles: dict[str, bytes] = {}
    answers = []
    for number, (_, make, keep, _) in enumerate(STEPS):
        encoded = make(number, prefix, handles)
        await wire.send(encoded)
        with trio.fail_after(10):
            kind, answered, body = await wire.reply()
        assert answered == number
        if keep and kind == sftp.FXP_HANDLE:
            handles[keep] = sftp.decode_handle(body)
        answers.append(shown(kind, body, prefix, encoded))
    for handle in handles.values():
        await wire.code(sftp.close, handle)
    return answers


@pytest.mark.skipif(os.geteuid() != 0, reason="root is refused less; both must run as the same")
async def test_the_answers_are_openssh_s(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    async with openssh(tmp_path) as wire:
        await wire.greet()
        theirs_offered = wire.extensions
        theirs = await run(wire, bytes(tmp_path))
    async with ours() as wire:
        assert wire.extensions == theirs_offered
        our_own = await run(wire, b"")
    wrong = [
        f"{step.name}: OpenSSH {their}, ours {our}" + (f" ({step.why})" if step.why else "")
        for step, their, our in zip(STEPS, theirs, our_own, strict=True)
        if (their == our) == bool(step.why)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ENDINGS)
async def test_what_ends_openssh_does_not_end_us(tmp_path: Path, name: str) -> None:
    async with openssh(tmp_path) as wire:
        await wire.greet()
        await wire.send(ENDINGS[name])
        with pytest.raises((EOFError, trio.BrokenResourceError, RemoteProtocolError)):
            await wire.reply()
    async with ours() as wire:
        await wire.send(ENDINGS[name])
        kind, number, body = await wire.reply()
        assert (number, shown(kind, body, b"", b"")) == (1, ("status", sftp.FX_BAD_MESSAGE))


async def test_an_unknown_type_is_answered() -> None:
    """OpenSSH says nothing, and the client waits for ever; the draft asks for OP_UNSUPPORTED."""
    async with ours() as wire:
        await wire.send(packet(99, 5, struct.pack(">I", 7)), sftp.lstat(6, b"/"))
        kind, number, body = await wire.reply()
        assert number == 5
        assert shown(kind, body, b"", b"") == ("status", sftp.FX_OP_UNSUPPORTED)
        assert (await wire.reply())[1] == 6
