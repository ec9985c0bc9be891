"""Names of directories that may be remembered, because the host tells when others move them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from syspuffs.gateway.sftp import View, exported
from syspuffs.gateway.sftp.paths import FOLLOW
from syspuffs.layers.joined import joined
from syspuffs.layers.local import libc, local_tree
from syspuffs.layers.local.watches import TTL, Watches
from syspuffs.native.errors import VfsError
from syspuffs.native.records import lookup_cn

from ..puffs.memserver import MemServer
from .harness import US, Tree, served


async def ttl(tree: Tree, name: str) -> int:
    info = await tree.server.lookup(tree.root, lookup_cn(os.fsencode(name), US))
    tree.took(info)
    return info.cn_ttl


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "f").touch()
    return tmp_path


async def test_nobody_remembers_who_does_not_ask(place: Path) -> None:
    with served(place) as tree:
        assert await ttl(tree, "d") == 0
        assert tree.server.names_hold()
        assert await ttl(tree, "d") == TTL
        assert await ttl(tree, "f") == 0
        assert await ttl(tree, "nothing") == 0


async def test_what_is_told(place: Path) -> None:
    with served(place) as tree:
        holds = tree.server.names_hold
        assert holds()
        d = await tree.walk("d")
        await tree.walk("d/e")
        (place / "d" / "new").touch()
        os.rename(place / "d" / "new", place / "d" / "newer")
        os.unlink(place / "d" / "newer")
        assert holds()  # none of which is about a name that leads to d or e
        for change in ("mv d x", "mv x d", "chmod 700 d", "mkdir n; mv -T n d/e", "rmdir d/e"):
            subprocess.run(change, shell=True, cwd=place, check=True)
            assert not holds(), change
            assert holds()
            if (place / "d" / "e").exists():
                await tree.walk("d/e")
        os.mkdir(place / "d" / "e")
        e = await tree.walk("d/e")
        os.rename(place / "d", place / "x")
        assert not holds()
        # Not after a second, but now: the directory is looked for at its place.
        with pytest.raises(VfsError) as caught:
            await tree.server.lookup(d, lookup_cn(b"e", US))
        assert caught.value.errno == errno.ESTALE
        assert await tree.walk("x/e") == e


async def test_watches_end_with_their_directories(place: Path) -> None:
    with served(place) as tree:
        assert tree.server.names_hold()
        await tree.walk("d/e")
        assert tree.server.statistics().watches == 3
        tree.forget_all()
        assert tree.server.statistics().watches == 1
        assert tree.server.names_hold()  # the ends of watches are no news
        await tree.walk("d/e")
        assert tree.server.statistics().watches == 3


async def test_moved_between_the_look_and_the_watch(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happened before the watch began is not told: the name is looked at once more."""
    add = libc.inotify_add_watch

    def moved(fd: int, path: bytes) -> int:
        os.rename(place / "d", place / "x")
        return add(fd, path)

    with served(place) as tree:
        assert tree.server.names_hold()
        monkeypatch.setattr(libc, "inotify_add_watch", moved)
        assert await ttl(tree, "d") == 0


async def test_more_directories_than_may_be_watched(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syspuffs.layers.local.watches.WATCHES_MAX", 2)
    with served(place) as tree:
        assert tree.server.names_hold()
        assert await ttl(tree, "d") == TTL
        e = await tree.server.lookup(await tree.walk("d"), lookup_cn(b"e", US))
        assert e.cn_ttl == 0
        tree.took(e)


def test_no_inotify_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user may have 128: then nothing is remembered, and nothing fails."""

    def refused() -> int:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(libc, "inotify_init", refused)
    watches = Watches()
    assert watches.hold()
    assert watches.hold()
    assert not watches.may_watch()
    watches.close()


async def test_lost_events(place: Path) -> None:
    """More than the host keeps for us: all is in doubt."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with served(place) as tree:
        assert tree.server.names_hold()
        d, e = await tree.walk("d"), await tree.walk("d/e")
        for number in range(limit // 2 + 2):
            os.chmod(place / "d", 0o700 | number & 1)
            os.chmod(place / "d" / "e", 0o700 | number & 1)
        os.rename(place / "d", place / "x")
        while not tree.server.names_hold():
            pass
        for cookie in (d, e):
            with pytest.raises(VfsError):
                await tree.entries(cookie)


async def test_sessions_see_what_other_programs_do(place: Path) -> None:
    """Through the SFTP end: the walk remembers, and never too long."""
    (place / "d" / "e" / "f").write_text("1")
    with local_tree(bytes(place)) as server:
        async with exported(server) as export:
            view = View(export, US)

            async def size(path: bytes) -> int | None:
                with await view.paths.find(path, None, FOLLOW) as found:
                    return (await view.attributes(found)).size

            assert await size(b"/d/e/f") == 1
            assert view.paths.place(b"/d/e/f") is not None
            script = "import os; os.rename('d/e', 'gone'); os.mkdir('d/e'); open('d/e/f', 'w')"
            subprocess.run([sys.executable, "-c", script], cwd=place, check=True)
            assert await size(b"/d/e/f") == 0
            assert await size(b"/gone/f") == 1
            os.rename(place / "gone", place.parent / f"{place.name}-outside")
            with pytest.raises(VfsError) as caught:
                await size(b"/gone/f")
            assert caught.value.errno == errno.ENOENT
        await server.unmount(0)


async def test_joined_trees_are_all_asked(place: Path) -> None:
    with local_tree(bytes(place)) as one, local_tree(bytes(place / "d")) as two:
        server = joined({b"/one": one, b"/two": two, b"/memory": MemServer()})
        assert server.names_hold()
        await one.lookup(one.kargs.root.cookie, lookup_cn(b"d", US))
        await two.lookup(two.kargs.root.cookie, lookup_cn(b"e", US))
        os.chmod(place / "d", 0o711)
        os.chmod(place / "d" / "e", 0o711)
        assert not server.names_hold()
        assert server.names_hold()
        await server.unmount(0)
        assert server.names_hold()
