"""What a name may be: any octets but NUL and '/', at most 255 of them."""

from __future__ import annotations

import errno
import os

import pytest

from ..support.capabilities import needs
from ..support.expect import raises
from ..support.target import Target

NAMES = [
    b" ",
    b" leading and trailing ",
    b"new\nline",
    b"tab\there",
    b"carriage\rreturn",
    b"\\backslash\\",
    b"\"quotes\" and 'others'",
    b"*?[a-z]{b,c}",
    b"-rf",
    b"~",
    b"$HOME",
    b"`id`",
    b"a;b|c&d",
    b"#comment",
    b".hidden",
    b"...",
    b"..a",
    b". .",
    b":",
    b"%s%n%00",
    b"caf\xc3\xa9",
    b"latin1 \xe9\xff\xfe",
    b"\x80",
    b"\xc0\xaf",
    b"\xf0\x9f\x90\xa1",
    b"\x01\x02\x1b[31m\x7f",
    b"NUL",
    b"desktop.ini",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_name(fs: Target, name: bytes) -> None:
    await fs.write_file(name, b"as " + name)
    assert await fs.listdir() == [name]
    assert await fs.read_file(name) == b"as " + name
    await fs.rename(name, b"plain")
    await fs.rename(b"plain", name)
    await fs.symlink(name, b"link")
    assert await fs.readlink(b"link") == name
    assert await fs.read_file(b"link") == b"as " + name
    await fs.unlink(name)
    await fs.mkdir(name)
    await fs.write_file(name + b"/" + name, b"")
    assert await fs.listdir(name) == [name]


@needs("long_names")
async def test_all_octets(fs: Target) -> None:
    octets = bytes(octet for octet in range(1, 256) if octet != ord("/"))
    await fs.write_file(octets, b"x")
    assert await fs.listdir() == [octets]
    assert await fs.read_file(octets) == b"x"


async def test_names_together(fs: Target) -> None:
    for name in NAMES:
        await fs.mkdir(name)
    assert await fs.listdir() == sorted(NAMES)


@needs("long_names")
async def test_longest(fs: Target) -> None:
    name = b"n" * 255
    await fs.write_file(name, b"x")
    assert await fs.read_file(name) == b"x"
    await fs.rename(name, b"m" * 255)
    await fs.link(b"m" * 255, name)
    await fs.unlink(name)
    await fs.unlink(b"m" * 255)
    await fs.mkdir(name)
    await fs.symlink(b"x", b"l" * 255)
    assert await fs.listdir() == [b"l" * 255, name]
    await fs.rmdir(name)


async def test_too_long(fs: Target) -> None:
    name = b"n" * 256
    with raises(errno.ENAMETOOLONG):
        await fs.stat(name)
    with raises(errno.ENAMETOOLONG):
        await fs.open(name, os.O_CREAT | os.O_WRONLY)
    with raises(errno.ENAMETOOLONG):
        await fs.open(name, os.O_RDONLY)
    with raises(errno.ENAMETOOLONG):
        await fs.mkdir(name)
    with raises(errno.ENAMETOOLONG):
        await fs.symlink(b"x", name)
    with raises(errno.ENAMETOOLONG):
        await fs.unlink(name)
    with raises(errno.ENAMETOOLONG):
        await fs.rmdir(name)
    with raises(errno.ENAMETOOLONG):
        await fs.stat(name + b"/below")
    assert await fs.listdir() == []


async def test_long_path(fs: Target) -> None:
    """A path of more than a thousand octets, as programs make them."""
    path = b"d" * 200
    await fs.mkdir(path)
    for _ in range(5):
        path += b"/" + b"d" * 200
        await fs.mkdir(path)
    await fs.write_file(path + b"/f", b"far down")
    assert await fs.read_file(path + b"/f") == b"far down"


async def test_path_too_long(fs: Target) -> None:
    with raises(errno.ENAMETOOLONG):
        await fs.stat(b"d/" * 2_100)
