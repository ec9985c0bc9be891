"""What symbolic links of the server look like; none that a hostile server sends leads out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from syspuffs.layers.psshfs import Psshfs, PsshfsOptions
from syspuffs.layers.psshfs.operations.symlinks import relative
from syspuffs.layers.psshfs.options import Symlinks
from syspuffs.native.constants import FREAD, READDIR_PLUS, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import lookup_cn

from .harness import CRED, look, mounted, read_file, root_of

CONTAIN = PsshfsOptions(symlinks=Symlinks.CONTAIN)
FOLLOW = PsshfsOptions(symlinks=Symlinks.FOLLOW)
RAW = PsshfsOptions(symlinks=Symlinks.RAW)
TRANSFORM = PsshfsOptions(symlinks=Symlinks.RAW, transform_symlinks=True)
REFUSED = None


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree to mount, with a link to it beside it and a file that is not in it."""
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("in")
    (tmp_path / "secret").write_text("out")
    (tmp_path / "alias").symlink_to("root")
    (root / "a" / "here").symlink_to(".")
    (root / "a" / "up").symlink_to("..")
    (root / "down").symlink_to("a/b")
    return root


async def shown(server: Psshfs, path: bytes) -> bytes | None:
    """Return what a link looks like; None: refused."""
    info = await look(server, path)
    try:
        return await server.readlink(info.cookie, CRED)
    except VfsError as exc:
        return None if exc.errno == errno.EPERM else b"?"


@pytest.mark.parametrize(
    ("target", "default", "strict"),
    [
        ("file", b"file", b"file"),
        ("nothing/at/all", b"nothing/at/all", b"nothing/at/all"),
        ("./file", b"./file", b"./file"),
        ("../b/file", b"../b/file", REFUSED),
        ("../../a", b"../../a", REFUSED),
        ("../..", b"../..", REFUSED),
        ("../../..", REFUSED, REFUSED),
        ("../../../secret", REFUSED, REFUSED),
        (".//../../../secret", REFUSED, REFUSED),
        ("/etc/passwd", REFUSED, REFUSED),
        ("/", REFUSED, REFUSED),
        ("//etc", REFUSED, REFUSED),
        ("{root}/a/b/file", b"../../a/b/file", REFUSED),
        ("{root}/not there", b"../../not there", REFUSED),
        ("{root}", b"../../", REFUSED),
        ("{root}/", b"../../", REFUSED),
        ("{root}x", REFUSED, REFUSED),
        ("{root}/../secret", REFUSED, REFUSED),
        ("{root}//a", b"../../a", REFUSED),
        ("{alias}/a/b/file", b"../../a/b/file", REFUSED),
        ("{alias}/../secret", REFUSED, REFUSED),
        # ".." behind a name that is a link: the text lies, the server knows.
        ("../here/here/here/../../../../secret", REFUSED, REFUSED),
        ("../up/../secret", REFUSED, REFUSED),
        ("../../down/../b/file", b"../../a/b/file", REFUSED),
        ("../b/../b/file", b"../../a/b/file", REFUSED),
    ],
)
async def test_links_from_two_directories_below(
    tree: Path, target: str, default: bytes | None, strict: bytes | None
) -> None:
    text = target.format(root=tree, alias=tree.parent / "alias")
    (tree / "a" / "b" / "link").symlink_to(text)
    async with mounted(tree) as server:
        assert await shown(server, b"a/b/link") == default
    async with mounted(tree, options=CONTAIN) as server:
        assert await shown(server, b"a/b/link") == strict
    async with mounted(tree, options=RAW) as server:
        assert await shown(server, b"a/b/link") == os.fsencode(text)


async def test_what_is_rewritten_leads_there(tree: Path) -> None:
    """Followed as the host follows it, by names in the tree."""
    (tree / "a" / "link").symlink_to(f"{tree}/a/b/file")
    async with mounted(tree) as server:
        target = await shown(server, b"a/link")
        assert target is not None
        path = os.path.normpath(b"a/" + target)
        assert (await look(server, path)).size == 2


async def test_a_moved_link_counts_from_where_it_is(tree: Path) -> None:
    (tree / "a" / "b" / "link").symlink_to("../../a")
    async with mounted(tree) as server:
        a = await look(server, b"a")
        b = await look(server, b"a/b")
        link = await look(server, b"a/b/link")
        assert await server.readlink(link.cookie, CRED) == b"../../a"
        name = lookup_cn(b"link", CRED)
        await server.rename(b.cookie, link.cookie, name, a.cookie, None, name)
        with pytest.raises(VfsError) as caught:
            await server.readlink(link.cookie, CRED)
        assert caught.value.errno == errno.EPERM


async def test_out_and_in_again(tree: Path) -> None:
    (tree / "link").symlink_to("../root/a")
    async with mounted(tree) as server:
        assert await shown(server, b"link") == b"a"


async def test_the_root_of_the_server_is_all(tmp_path: Path) -> None:
    """Mounted at '/', each absolute link leads inside."""
    (tmp_path / "link").symlink_to("/etc/../etc/passwd")
    async with mounted(Path("/")) as server:
        target = await shown(server, os.fsencode(tmp_path)[1:] + b"/link")
        assert target == b"../" * (len(tmp_path.parts) - 1) + b"etc/passwd"


async def test_followed_at_the_server(tree: Path) -> None:
    (tree / "out").symlink_to("../secret")
    (tree / "gone").symlink_to("nothing")
    (tree / "loop").symlink_to("loop")
    async with mounted(tree, options=FOLLOW) as server:
        root = root_of(server)
        entries, is_end = await server.readdir(root, 0, 1 << 20, READDIR_PLUS, CRED)
        assert is_end
        types = {entry.name: entry.vtype for entry in entries}
        assert types[b"out"] == Vtype.VREG
        assert types[b"down"] == Vtype.VDIR
        assert types[b"gone"] == types[b"loop"] == Vtype.VLNK
        info = await look(server, b"out")
        assert (info.vtype, info.size) == (Vtype.VREG, 3)
        assert (await look(server, b"down/file")).size == 2
        assert (await server.getattr(info.cookie, CRED))[0].vtype == Vtype.VREG
    async with mounted(tree, options=FOLLOW) as server:
        assert (await look(server, b"down/file")).size == 2
        info = await look(server, b"out")
        await server.forget()
        assert (await server.getattr(info.cookie, CRED))[0].size == 3
        await server.open(info.cookie, FREAD, CRED)
        assert await read_file(server, info.cookie) == b"out"
        server.close(info.cookie, FREAD, CRED)


async def test_transformed_by_the_text_alone(tree: Path) -> None:
    (tree / "a" / "link").symlink_to("/etc/passwd")
    async with mounted(tree, options=TRANSFORM) as server:
        assert await shown(server, b"a/link") == relative(b"/etc/passwd", bytes(tree / "a"))
        assert await shown(server, b"down") == b"a/b"


@pytest.mark.parametrize(
    ("target", "directory", "wanted"),
    [
        (b"/foo/blub", b"/foo/bar", b"../blub"),
        (b"/foo/bar", b"/foo/bar", b"."),
        (b"/foo/bar/x/y", b"/foo/bar", b"x/y"),
        (b"/x", b"/", b"x"),
        (b"/", b"/a/b", b"../.."),
        (b"//foo//blub/", b"/foo/bar", b"../blub"),
    ],
)
def test_relative(target: bytes, directory: bytes, wanted: bytes) -> None:
    assert relative(target, directory) == wanted
