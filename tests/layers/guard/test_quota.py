"""Quota: never more than is allowed, never less than is there, and the ledger that remembers it."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.layers.guard import GuardSettings, LedgerError, Usage, guarded
from syspuffs.layers.guard.scan import count_usage
from syspuffs.native import sftp
from syspuffs.native.constants import FWRITE, IO_APPEND
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Vattr

from ...gateway.sftp.harness import MAKE, StatusReply, Wire
from ...support.sftp_end import SELF
from .harness import Guarded, guarded_tree
from .test_verbs import text
from .test_walls import Hold

FULL = b"Disk quota exceeded"
FILES = ((b"/d/", b""), (b"/d/f", b"x" * 100), (b"/g", b"y" * 50))


def quota(octets: int | None = 1000, files: int | None = None) -> GuardSettings:
    return GuardSettings(quota_octets=octets, quota_files=files)


async def is_exact(tree: Guarded) -> bool:
    """Whether the ledger says what a count says."""
    return tree.guard.usage == await count_usage(tree.counting, 100_000)


async def test_what_takes_and_what_gives() -> None:
    async with guarded_tree(quota(), files=FILES) as tree, tree.client() as wire:
        assert tree.guard.usage == Usage(150, 3)
        await wire.put(b"/h", b"z" * 300)
        assert tree.guard.usage == Usage(450, 4)
        await wire.put(b"/h", b"z" * 10)  # cut, then written
        assert tree.guard.usage == Usage(160, 4)
        handle = await wire.open(b"/h", sftp.FXF_WRITE)
        await wire.write(handle, 5, b"z" * 5)  # nothing new
        assert tree.guard.usage == Usage(160, 4)
        await wire.write(handle, 495, b"z" * 5)  # a hole counts
        assert tree.guard.usage == Usage(650, 4)
        await wire.ask(sftp.fsetstat, handle, sftp.Attrs(size=600))
        assert tree.guard.usage == Usage(750, 4)
        await wire.ask(sftp.fsetstat, handle, sftp.Attrs(size=100))
        assert tree.guard.usage == Usage(250, 4)
        await wire.ask(sftp.close, handle)
        await wire.ask(sftp.posix_rename, b"/h", b"/d/f")
        assert tree.guard.usage == Usage(150, 3)
        await wire.ask(sftp.mkdir, b"/e")
        await wire.ask(sftp.symlink, b"g", b"/l")
        assert tree.guard.usage == Usage(150, 5)
        for request, path in ((sftp.rmdir, b"/e"), (sftp.remove, b"/l"), (sftp.remove, b"/d/f")):
            await wire.ask(request, path)
        assert tree.guard.usage == Usage(50, 2)
        await wire.ask(sftp.rename, b"/g", b"/d/g")  # not by way of a link
        assert tree.guard.usage == Usage(50, 2)
        assert await is_exact(tree)


async def test_where_it_ends() -> None:
    async with guarded_tree(quota(200, 4), files=FILES) as tree, tree.client() as wire:
        handle = await wire.open(b"/g", sftp.FXF_WRITE)
        await wire.write(handle, 50, b"y" * 50)
        assert await text(wire, sftp.fsetstat, handle, sftp.Attrs(size=101)) == FULL
        with pytest.raises(StatusReply) as caught:
            await wire.write(handle, 100, b"y")
        assert caught.value.text == FULL
        await wire.write(handle, 0, b"Y" * 100)  # there is room for what is there
        await wire.ask(sftp.close, handle)
        append = await wire.open(b"/g", sftp.FXF_WRITE | sftp.FXF_APPEND)
        with pytest.raises(StatusReply):
            await wire.write(append, 0, b"y")
        await wire.ask(sftp.close, append)
        await wire.put(b"/empty", b"")
        for request in (sftp.mkdir, sftp.symlink):
            args = (b"/one-more",) if request is sftp.mkdir else (b"x", b"/one-more")
            assert await text(wire, request, *args) == FULL
        assert await text(wire, sftp.open_, b"/one-more", MAKE, sftp.Attrs()) == FULL
        await wire.ask(sftp.remove, b"/empty")
        await wire.ask(sftp.mkdir, b"/one-more")
        state = await tree.guard.statvfs()
        assert state.bavail == 0
        assert (state.files, state.favail) == (4, 0)
        assert await is_exact(tree)


async def test_no_hard_links() -> None:
    async with guarded_tree(quota(), files=FILES) as tree, tree.client() as wire:
        assert await text(wire, sftp.hardlink, b"/g", b"/h") == b"Operation not permitted"
        assert await is_exact(tree)


async def test_a_file_without_a_name_counts_until_it_is_closed() -> None:
    async with guarded_tree(quota(400), files=FILES) as tree, tree.client() as wire:
        handles = []
        for number in range(3):
            name = b"/t%d" % number
            handle = await wire.open(name, MAKE)
            code = await wire.code(sftp.write, handle, 0, 100, payload=b"t" * 100)
            assert (code == sftp.FX_OK) == (number < 2)
            await wire.ask(sftp.remove, name)
            handles.append(handle)
        assert tree.guard.usage == Usage(350, 3)
        with pytest.raises(StatusReply):
            await wire.write(handles[0], 100, b"t" * 51)
        await wire.write(handles[0], 100, b"t" * 50)
        for handle in handles:
            await wire.ask(sftp.close, handle)
        assert tree.guard.usage == Usage(150, 3)


async def test_writes_at_once_reserve_first() -> None:
    """Ten writes want the last room at the same time; two of them get it."""
    async with guarded_tree(quota(350), files=FILES) as tree, tree.client() as wire:
        for number in range(10):
            await wire.put(b"/%d" % number, b"")
        cookies = [await tree.find(b"/%d" % number) for number in range(10)]
        waiting = trio.Event()
        done: list[bool] = []

        async def before(op: str, args: tuple[object, ...]) -> None:
            if op == "write":
                await waiting.wait()

        async def write(cookie: int) -> None:
            try:
                await tree.guard.write(cookie, 0, b"w" * 100, 0, SELF)  # type: ignore[arg-type]
            except VfsError:
                done.append(False)
            else:
                done.append(True)

        tree.counting.before = before
        async with trio.open_nursery() as nursery:
            for cookie in cookies:
                nursery.start_soon(write, cookie)
            await wait_all_tasks_blocked()
            assert done.count(False) == 8
            waiting.set()
        assert done.count(True) == 2
        tree.counting.before = None
        for cookie in cookies:
            tree.guard.reclaim(cookie, 1)
        assert await is_exact(tree)


@pytest.mark.parametrize("is_done", [False, True])
async def test_a_write_that_is_cancelled(is_done: bool) -> None:
    async with guarded_tree(quota(), files=FILES) as tree:
        g = await tree.find(b"/g")
        hold = Hold("write")
        tree.counting.before, tree.counting.after = (None, hold) if is_done else (hold, None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.guard.write, g, 50, b"w" * 100, 0, SELF)
            await hold.waits.wait()
            assert tree.guard.usage == Usage(250, 3)
            nursery.cancel_scope.cancel()
        assert tree.guard.usage == Usage(250 if is_done else 150, 3)
        tree.counting.before = tree.counting.after = None
        tree.guard.reclaim(g, 1)
        assert await is_exact(tree)


async def test_a_write_that_fails_gives_back_what_it_did_not_use() -> None:
    async with guarded_tree(quota(), files=FILES) as tree:
        g = await tree.find(b"/g")

        async def before(op: str, args: tuple[object, ...]) -> None:
            if op == "write":
                raise VfsError(5)

        tree.counting.before = before
        with pytest.raises(VfsError):
            await tree.guard.write(g, 50, b"w" * 100, IO_APPEND, SELF)
        tree.counting.before = None
        assert tree.guard.usage == Usage(150, 3)
        tree.guard.reclaim(g, 1)


async def test_a_cut_while_a_write_is_under_way() -> None:
    for cut_first in (True, False):
        async with guarded_tree(quota(), files=FILES) as tree:
            g = await tree.find(b"/g")
            tree.counting.before = hold = Hold("setattr" if cut_first else "write")
            async with trio.open_nursery() as nursery:
                if cut_first:
                    nursery.start_soon(tree.guard.setattr, g, Vattr(size=0), SELF)
                    await hold.waits.wait()
                    await tree.guard.write(g, 0, b"w" * 200, 0, SELF)
                else:
                    nursery.start_soon(tree.guard.write, g, 0, b"w" * 200, 0, SELF)
                    await hold.waits.wait()
                    await tree.guard.setattr(g, Vattr(size=0), SELF)
                hold.go.set()
            tree.counting.before = None
            tree.guard.reclaim(g, 1)
            assert await is_exact(tree)


async def test_a_name_is_given_back_once() -> None:
    """A removal and a rename over the same name at once."""
    async with guarded_tree(quota(), files=FILES) as tree:
        root = tree.guard.kargs.root.cookie
        g, f = await tree.find(b"/g"), await tree.find(b"/d/f")
        d = (await tree.guard.lookup(root, tree.name(b"d"))).cookie
        tree.counting.before = hold = Hold("remove")
        async with trio.open_nursery() as nursery:

            async def remove() -> None:
                with pytest.raises(VfsError):
                    await tree.guard.remove(root, g, tree.name(b"g"))

            nursery.start_soon(remove)
            await hold.waits.wait()
            await tree.guard.rename(d, f, tree.name(b"f"), root, g, tree.name(b"g"))
            hold.go.set()
        assert tree.guard.usage == Usage(100, 2)
        for cookie, count in ((g, 1), (f, 1), (d, 2)):
            tree.guard.reclaim(cookie, count)
        assert await is_exact(tree)


async def test_at_random_from_a_seed() -> None:
    random = Random(6)
    async with (
        guarded_tree(quota(3000, 12), files=FILES) as tree,
        tree.client() as one,
        tree.client() as two,
    ):

        async def work(wire: Wire) -> None:
            for _ in range(150):
                a, b = (b"/d/%d" % random.randrange(8) for _ in range(2))
                try:
                    match random.randrange(6):
                        case 0 | 1:
                            await wire.put(a, b"p" * random.randrange(700))
                        case 2:
                            await wire.ask(sftp.posix_rename, a, b)
                        case 3:
                            await wire.ask(sftp.remove, a)
                        case 4:
                            await wire.ask(sftp.setstat, a, sftp.Attrs(size=random.randrange(900)))
                        case 5:
                            handle = await wire.open(a, sftp.FXF_WRITE | sftp.FXF_APPEND)
                            await wire.write(handle, 0, b"a" * random.randrange(300))
                            await wire.ask(sftp.close, handle)
                except StatusReply:
                    pass
                usage = tree.guard.usage
                assert usage is not None
                assert usage.octets <= 3000
                assert usage.files <= 12

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, one)
            nursery.start_soon(work, two)
        # Handles that a failed write has left open are closed with the sessions.
        for wire in (one, two):
            await wire.ask(sftp.stat, b"/")
        assert tree.guard.usage is not None
        counted = await count_usage(tree.counting, 1000)
        assert tree.guard.usage.files == counted.files
        assert tree.guard.usage.octets >= counted.octets


async def test_the_ledger_is_believed_when_it_was_closed(tmp_path: Path) -> None:
    file = tmp_path / "alice.quota"
    async with guarded_tree(quota(), files=FILES, ledger_file=file) as tree:
        assert json.loads(file.read_text())["clean"] is False
        async with tree.client() as wire:
            await wire.put(b"/h", b"z" * 7)
    assert json.loads(file.read_text()) == {"version": 1, "clean": True, "octets": 157, "files": 4}
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    for said, believed in (
        ('{"version": 1, "clean": true, "octets": 3, "files": 1}', Usage(3, 1)),
        ('{"version": 1, "clean": false, "octets": 3, "files": 1}', None),
        ('{"version": 2, "clean": true, "octets": 3, "files": 1}', None),
        ('{"version": 1, "clean": true, "octets": -3, "files": 1}', None),
        ('{"version": 1, "clean": true, "octets": true, "files": 1}', None),
        ("[]", None),
        ("{", None),
        ("", None),
    ):
        file.write_text(said)
        async with guarded_tree(quota(), files=FILES, ledger_file=file) as tree:
            assert tree.guard.usage == (believed or Usage(150, 3)), said


async def test_what_nobody_knows_is_counted_anew(tmp_path: Path) -> None:
    file = tmp_path / "quota"
    async with guarded_tree(quota(), files=FILES, ledger_file=file) as tree:
        root = tree.guard.kargs.root.cookie
        tree.counting.after = hold = Hold("create")
        async with trio.open_nursery() as nursery:
            va = Vattr(1, 0o644)
            nursery.start_soon(tree.guard.create, root, tree.name(b"h"), va)
            await hold.waits.wait()
            nursery.cancel_scope.cancel()
        tree.counting.after = None
        assert tree.guard.usage == Usage(150, 4)
        made = (await tree.counting.lookup(root, tree.name(b"h"))).cookie
        tree.counting.reclaim(made, 1)
        tree.counting.below.reclaim(made, 1)  # that of the answer which nobody got
    assert json.loads(file.read_text())["clean"] is False


async def test_counting_has_a_bound_and_tells_its_errors(tmp_path: Path) -> None:
    settings = GuardSettings(quota_files=10, scan_max=2)
    async with guarded_tree(GuardSettings(), files=FILES) as tree:
        with pytest.raises(LedgerError, match="more than 2 files"):
            async with guarded(tree.counting, settings):
                pass
        with pytest.raises(LedgerError, match=r"nowhere/quota: No such file"):
            async with guarded(tree.counting, quota(), ledger_file=tmp_path / "nowhere" / "quota"):
                pass

        async def before(op: str, args: tuple[object, ...]) -> None:
            if op == "readdir":
                raise VfsError(5)

        tree.counting.before = before
        with pytest.raises(LedgerError, match="EIO"):
            await count_usage(tree.counting, 100)
        tree.counting.before = None


async def test_a_file_with_two_names_counts_once() -> None:
    async with guarded_tree(GuardSettings(), files=FILES) as tree, tree.client() as wire:
        await wire.ask(sftp.hardlink, b"/g", b"/d/g")
        async with guarded(tree.counting, quota()) as guard:
            assert guard.usage == Usage(150, 3)
            root = guard.kargs.root.cookie
            g = (await guard.lookup(root, tree.name(b"g"))).cookie
            await guard.remove(root, g, tree.name(b"g"))
            assert guard.usage == Usage(150, 3)
            guard.reclaim(g, 1)
        await wire.ask(sftp.remove, b"/d/g")


async def test_an_open_that_fails_is_no_open() -> None:
    async with guarded_tree(quota(), files=FILES) as tree:
        g = await tree.find(b"/g")

        async def before(op: str, args: tuple[object, ...]) -> None:
            raise VfsError(5)

        tree.counting.before = before
        with pytest.raises(VfsError):
            await tree.guard.open(g, FWRITE, SELF)
        tree.counting.before = None
        root = tree.guard.kargs.root.cookie
        await tree.guard.remove(root, g, tree.name(b"g"))
        assert tree.guard.usage == Usage(100, 2)
        tree.guard.reclaim(g, 1)
