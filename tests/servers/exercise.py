"""What a program does with files, by psshfs, held against the files behind the SFTP server."""

from __future__ import annotations

import errno
import os
import random
import stat
from pathlib import Path

from syspuffs.layers.psshfs import Psshfs
from syspuffs.native.constants import FREAD, FSYNC_CLOSE, FWRITE, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Newinfo, Vattr, lookup_cn

from ..layers.psshfs.harness import CRED, list_all, look, make, mkdir, names_of, read_file, root_of

BIG = 1_500_000
MANY = 250


async def code(call: object) -> int:
    """Return the errno of an operation that must fail."""
    try:
        await call  # type: ignore[misc]
    except VfsError as exc:
        return exc.errno
    raise AssertionError("it worked")


async def write(server: Psshfs, cookie: Cookie, offset: int, data: bytes) -> None:
    await server.open(cookie, FWRITE, CRED)
    await server.write(cookie, offset, data, 0, CRED)
    await server.fsync(cookie, FSYNC_CLOSE, 0, 0, CRED)
    server.close(cookie, FWRITE, CRED)


async def read(server: Psshfs, cookie: Cookie) -> bytes:
    await server.open(cookie, FREAD, CRED)
    data = await read_file(server, cookie)
    server.close(cookie, FREAD, CRED)
    return data


async def rename(server: Psshfs, old: bytes, new: bytes) -> None:
    root = root_of(server)
    info = await look(server, old)
    there = await server.lookup(root, lookup_cn(new, CRED))
    await server.rename(
        root,
        info.cookie,
        lookup_cn(old, CRED),
        root,
        there.cookie or None,
        lookup_cn(new, CRED),
    )


async def remove(server: Psshfs, name: bytes) -> None:
    info = await look(server, name)
    await server.remove(root_of(server), info.cookie, lookup_cn(name, CRED))


async def contents(server: Psshfs, origin: Path, rng: random.Random) -> None:
    """Files are made, written here and there, cut and read."""
    big = rng.randbytes(BIG)
    info = await make(server, b"big", big)
    assert (origin / "big").read_bytes() == big
    assert await read(server, info.cookie) == big
    for _ in range(5):
        at, piece = rng.randrange(BIG), rng.randbytes(rng.randrange(1, 70_000))
        big = big[:at] + piece + big[at + len(piece) :]
        await write(server, info.cookie, at, piece)
    assert (origin / "big").read_bytes() == big
    await server.setattr(info.cookie, Vattr(size=1000), CRED)
    assert (origin / "big").read_bytes() == big[:1000]
    await write(server, info.cookie, 2000, b"behind a hole")
    assert (origin / "big").read_bytes() == big[:1000] + bytes(1000) + b"behind a hole"
    assert await read(server, info.cookie) == big[:1000] + bytes(1000) + b"behind a hole"
    assert (await server.getattr(info.cookie, CRED))[0].size == 2013


async def names(server: Psshfs, origin: Path) -> None:
    """Names are made, moved, listed and removed, with the errors of POSIX."""
    root = root_of(server)
    await make(server, b"one", b"1")
    await make(server, b"two", b"2")
    again = server.create(root, lookup_cn(b"one", CRED), Vattr(vtype=Vtype.VREG, mode=0o644))
    assert await code(again) == errno.EEXIST
    await rename(server, b"one", b"two")
    assert not (origin / "one").exists()
    assert (origin / "two").read_bytes() == b"1"
    assert (await server.lookup(root, lookup_cn(b"one", CRED))).cookie == 0
    directory = await mkdir(server, b"dir")
    assert await code(mkdir(server, b"dir")) == errno.EEXIST
    await make(server, b"in", directory=directory.cookie)
    rmdir = server.rmdir(root, directory.cookie, lookup_cn(b"dir", CRED))
    assert await code(rmdir) == errno.ENOTEMPTY
    await rename(server, b"dir", b"Dir\xc3\xa4 with, space")
    inner = await look(server, b"Dir\xc3\xa4 with, space/in")
    await server.remove(directory.cookie, inner.cookie, lookup_cn(b"in", CRED))
    await server.rmdir(root, directory.cookie, lookup_cn(b"Dir\xc3\xa4 with, space", CRED))
    many = await mkdir(server, b"many")
    wanted = [f"{number:04}" for number in range(MANY)]
    for name in wanted:
        (origin / "many" / name).touch()
    await server.forget()
    entries = await list_all(server, many.cookie)
    assert sorted(names_of(entries)) == [name.encode() for name in wanted]


async def attributes(server: Psshfs, origin: Path, *, follows: bool) -> None:
    """Modes and times; a link's target; a hard link, where the server has them.

    `follows`: the server tells of a link's target where it should tell of the link.
    """
    info: Newinfo = await make(server, b"file", b"data", mode=0o640)
    assert stat.S_IMODE((origin / "file").stat().st_mode) == 0o640
    await server.setattr(info.cookie, Vattr(mode=0o604), CRED)
    when = 1_234_567_890 * 10**9
    await server.setattr(info.cookie, Vattr(atime=when, mtime=when), CRED)
    state = (origin / "file").stat()
    assert (stat.S_IMODE(state.st_mode), state.st_mtime_ns) == (0o604, when)
    va, _ = await server.getattr(info.cookie, CRED)
    assert (va.mode, va.mtime, va.uid, va.size) == (0o604, when, os.geteuid(), 4)
    root = root_of(server)
    link = await server.symlink(
        root, lookup_cn(b"link", CRED), Vattr(vtype=Vtype.VLNK, mode=0o777), b"file"
    )
    assert os.readlink(origin / "link") == "file"
    if follows:
        assert link.vtype == Vtype.VREG
    else:
        assert await server.readlink(link.cookie, CRED) == b"file"
    await remove(server, b"link")
    assert not (origin / "link").is_symlink()
    assert (origin / "file").exists()
    other = server.link(root, info.cookie, lookup_cn(b"other", CRED))
    if server.session.hardlink:
        await other
        assert (origin / "other").samefile(origin / "file")
    else:
        assert await code(other) == errno.EPERM
    state_of = await server.statvfs()
    assert bool(state_of.blocks) == server.session.statvfs


async def at_random(server: Psshfs, origin: Path, rng: random.Random, steps: int = 80) -> None:
    """Random changes; then the tree is what a dictionary says."""
    files: dict[bytes, bytes] = {}
    pool = [b"r%d" % number for number in range(8)]
    for _ in range(steps):
        name, other = rng.choice(pool), rng.choice(pool)
        action = rng.choice(["write", "write", "remove", "rename", "read"])
        if action == "write":
            data = rng.randbytes(rng.randrange(3000))
            if name in files:
                info = await look(server, name)
                await server.setattr(info.cookie, Vattr(size=0), CRED)
                await write(server, info.cookie, 0, data or b"x")
                files[name] = data or b"x"
            else:
                await make(server, name, data)
                files[name] = data
        elif name not in files:
            assert (await server.lookup(root_of(server), lookup_cn(name, CRED))).cookie == 0
        elif action == "remove":
            await remove(server, name)
            del files[name]
        elif action == "rename" and other != name:
            await rename(server, name, other)
            files[other] = files.pop(name)
        else:
            assert await read(server, (await look(server, name)).cookie) == files[name]
    there = {name: (origin / os.fsdecode(name)).read_bytes() for name in files}
    assert there == files
    assert {os.fsencode(path.name) for path in origin.glob("r*")} == set(files)
