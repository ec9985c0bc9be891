"""Paths: what they lead to, and that none leads out of the root."""

from __future__ import annotations

import socket
import stat
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.sftp import Session, View, exported
from syspuffs.layers.p2k import p2k_over
from syspuffs.native import sftp
from syspuffs.native.constants import FlushOp
from syspuffs.native.records import Componentname, Cookie, Cred, Newinfo, lookup_cn

from ...support.sftp_end import SELF
from .harness import Counting, Served, StatusReply, Wire

NO_SUCH_FILE = sftp.FX_NO_SUCH_FILE


async def real(wire: Wire, path: bytes) -> bytes:
    (name,) = await wire.ask(sftp.realpath, path)
    assert isinstance(name, sftp.Name)
    return name.name


async def test_dots_and_slashes(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/a")
        await wire.ask(sftp.mkdir, b"a/b")
        await wire.put(b"/a/b/f", b"f")
        for path in (b"/a/b/f", b"a/b/f", b"//a///b/f", b"/a/./b/../b/f", b"/../../a/b/f"):
            assert await real(wire, path) == b"/a/b/f"
            assert (await wire.ask(sftp.stat, path)).size == 1
        for path in (b"/a/b/f/", b"/a/b/f/.", b"/a/b/f/..", b"/a/none/..", b"/a/b/f/../f"):
            assert await wire.code(sftp.stat, path) == NO_SUCH_FILE, path
        for path in (b"/", b"/..", b"/.", b"..", b".", b"//", b"/a/..", b"/a/../.."):
            assert await real(wire, path) == b"/"


async def test_links_stay_in_the_root(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/in")
        await wire.ask(sftp.mkdir, b"/in/deep")
        await wire.put(b"/in/deep/f", b"f")
        for target, path, leads_to in (
            (b"/in", b"/absolute", b"/in"),
            (b"../../../../in", b"/in/deep/up", b"/in"),
            (b"/", b"/in/root", b"/"),
            (b"..", b"/in/deep/parent", b"/in"),
            (b"absolute/deep", b"/chain", b"/in/deep"),
            (b"deep/", b"/in/slash", b"/in/deep"),
            (b".", b"/in/dot", b"/in"),
        ):
            await wire.ask(sftp.symlink, target, path)
            assert await real(wire, path) == leads_to
            assert await real(wire, path + b"/") == leads_to
            assert await real(wire, path + b"/..") == leads_to.rpartition(b"/")[0] or b"/"
        assert await real(wire, b"/in/deep/up/deep/parent/root/chain/f") == b"/in/deep/f"
        assert await wire.get(b"/absolute/deep/up/slash/f") == b"f"


async def test_links_in_the_last_place(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/d")
        await wire.ask(sftp.symlink, b"d", b"/l")
        await wire.ask(sftp.symlink, b"new", b"/dangling")
        assert stat.S_ISLNK((await wire.ask(sftp.lstat, b"/l")).mode)
        assert stat.S_ISDIR((await wire.ask(sftp.lstat, b"/l/")).mode)
        assert stat.S_ISDIR((await wire.ask(sftp.stat, b"/l")).mode)
        assert await wire.code(sftp.rmdir, b"/l") == NO_SUCH_FILE  # ENOTDIR
        assert await wire.code(sftp.rmdir, b"/l/") == NO_SUCH_FILE
        assert await wire.code(sftp.remove, b"/l/") == NO_SUCH_FILE
        assert await wire.code(sftp.mkdir, b"/dangling") == sftp.FX_FAILURE
        await wire.put(b"/dangling", b"made through the link")
        assert await wire.get(b"/new") == b"made through the link"
        assert await wire.code(sftp.open_, b"/dangling", sftp.FXF_CREAT | sftp.FXF_EXCL) == (
            sftp.FX_FAILURE
        )
        await wire.ask(sftp.remove, b"/l")
        assert await wire.names(b"/") == [b".", b"..", b"d", b"dangling", b"new"]


async def test_circles_and_long_chains_of_links(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.ask(sftp.symlink, b"b", b"/a")
        await wire.ask(sftp.symlink, b"a", b"/b")
        await wire.ask(sftp.symlink, b"self/x", b"/self")
        for path in (b"/a", b"/a/", b"/a/x", b"/self"):
            with pytest.raises(StatusReply) as caught:
                await wire.ask(sftp.stat, path)
            assert caught.value.text == b"Too many levels of symbolic links"
        await wire.put(b"/0", b"end")
        for number in range(1, 42):
            await wire.ask(sftp.symlink, b"%d" % (number - 1), b"/%d" % number)
        assert await wire.get(b"/40") == b"end"
        assert await wire.code(sftp.stat, b"/41") == NO_SUCH_FILE
        # Links that grow the path without an end.
        await wire.ask(sftp.symlink, b"grow/" + b"x/" * 2000, b"/grow")
        assert await wire.code(sftp.stat, b"/grow") == NO_SUCH_FILE


async def test_remembered_directories_save_lookups(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/a")
        await wire.ask(sftp.mkdir, b"/a/b")
        await wire.ask(sftp.mkdir, b"/a/b/c")
        await wire.put(b"/a/b/c/f", b"")
        await wire.put(b"/a/b/c/g", b"")
        await wire.ask(sftp.lstat, b"/a/b/c/f")
        before = tree.counting.calls["lookup"]
        for _ in range(10):
            await wire.ask(sftp.lstat, b"/a/b/c/f")
            await wire.ask(sftp.mkdir, b"/a/b/c/d")
            assert await wire.code(sftp.stat, b"/a/b/c/none") == NO_SUCH_FILE
            await wire.ask(sftp.rmdir, b"/a/b/c/d")
        assert tree.counting.calls["lookup"] - before == 2 * 10  # none, and what is removed


async def test_names_are_forgotten_when_anybody_changes_them(tree: Served) -> None:
    async with tree.client() as one, tree.client(cred=Cred(0, 0)) as two:
        for client, other in ((one, two), (two, one)):
            await client.put(b"/a", b"a")
            await client.put(b"/b", b"bb")
            for wire in (client, other):
                assert (await wire.ask(sftp.lstat, b"/a")).size == 1
                assert (await wire.ask(sftp.lstat, b"/b")).size == 2
            await client.ask(sftp.posix_rename, b"/b", b"/a")
            for wire in (client, other):
                assert (await wire.ask(sftp.lstat, b"/a")).size == 2
                assert await wire.code(sftp.lstat, b"/b") == NO_SUCH_FILE
            await client.ask(sftp.rename, b"/a", b"/b")
            await client.ask(sftp.symlink, b"b", b"/a")
            for wire in (client, other):
                assert (await wire.ask(sftp.lstat, b"/a")).size == 1
                assert (await wire.ask(sftp.stat, b"/a")).size == 2
            await client.ask(sftp.remove, b"/a")
            await client.ask(sftp.hardlink, b"/b", b"/a")
            for wire in (client, other):
                assert (await wire.ask(sftp.lstat, b"/a")).size == 2
            await client.ask(sftp.remove, b"/a")
            await client.ask(sftp.remove, b"/b")
            for wire in (client, other):
                assert await wire.code(sftp.lstat, b"/a") == NO_SUCH_FILE


async def test_what_was_asked_before_a_change_is_not_remembered_after(tree: Served) -> None:
    """A look-up that is answered late, when another session has moved the name meanwhile."""
    async with tree.client() as one, tree.client(cred=Cred(0, 0)) as two:
        await one.put(b"/f", b"old")
        await one.ask(sftp.mkdir, b"/d")
        await one.put(b"/d/f", b"old")
        released = trio.Event()

        async def hold(op: str, args: Any) -> None:
            if op == "lookup" and args[1].cred == Cred(0, 0):
                await released.wait()

        tree.counting.after = hold
        await two.send(sftp.stat(1, b"/f"), sftp.stat(2, b"/d/f"))
        await wait_all_tasks_blocked()
        await one.put(b"/new", b"newer")
        await one.ask(sftp.posix_rename, b"/new", b"/f")
        await one.ask(sftp.posix_rename, b"/d", b"/e")
        await one.ask(sftp.mkdir, b"/d")
        await one.put(b"/d/f", b"newest")
        released.set()
        await two.replies(2)
        tree.counting.after = None
        assert (await two.ask(sftp.stat, b"/f")).size == 5
        assert (await two.ask(sftp.stat, b"/d/f")).size == 6


async def test_what_was_remembered_is_forgotten_when_directories_move(tree: Served) -> None:
    async with tree.client() as one, tree.client() as two:
        for path in (b"/a", b"/a/b", b"/a/b/c"):
            await one.ask(sftp.mkdir, path)
        await one.put(b"/a/b/c/f", b"first")
        await two.ask(sftp.stat, b"/a/b/c/f")
        await one.ask(sftp.posix_rename, b"/a/b", b"/moved")
        assert await two.code(sftp.stat, b"/a/b/c/f") == NO_SUCH_FILE
        assert await two.get(b"/moved/c/f") == b"first"
        await one.ask(sftp.mkdir, b"/a/b")
        await one.ask(sftp.mkdir, b"/a/b/c")
        await one.put(b"/a/b/c/f", b"second")
        assert await two.get(b"/a/b/c/f") == b"second"
        await one.ask(sftp.remove, b"/a/b/c/f")
        await one.ask(sftp.rmdir, b"/a/b/c")
        assert await two.code(sftp.stat, b"/a/b/c/f") == NO_SUCH_FILE
        await one.ask(sftp.symlink, b"/moved/c", b"/a/b/c")
        assert await two.get(b"/a/b/c/f") == b"first"
        # ".." of an open directory that was moved.
        handle = await two.ask(sftp.opendir, b"/moved/c")
        await one.ask(sftp.mkdir, b"/top")
        await one.ask(sftp.posix_rename, b"/moved/c", b"/top/c")
        assert len(await two.ask(sftp.readdir, handle)) == 3
        await two.ask(sftp.close, handle)


async def test_the_file_server_says_that_names_changed(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/a")
        await wire.put(b"/a/f", b"")
        await wire.ask(sftp.stat, b"/a/f")
        before = tree.counting.calls["lookup"]
        await tree.export.flush(FlushOp.INVAL_ATTR_NODE, Cookie(1))
        await wire.ask(sftp.stat, b"/a/f")
        assert tree.counting.calls["lookup"] == before
        await tree.export.flush(FlushOp.INVAL_NAMECACHE_ALL, Cookie(0))
        await wire.ask(sftp.stat, b"/a/f")
        assert tree.counting.calls["lookup"] == before + 2


async def test_many_directories_are_remembered_within_bounds(tree: Served) -> None:
    async with tree.client() as wire:
        for number in range(400):
            await wire.ask(sftp.mkdir, b"/%d" % number)
            await wire.put(b"/%d/f" % number, b"")
        for number in range(400):
            await wire.ask(sftp.stat, b"/%d/f" % number)
        assert len(tree.export.remembered(SELF, tree.export.nodes.root)) <= 256


async def test_nodes_that_nobody_uses_are_kept_within_bounds(tree: Served) -> None:
    async with tree.client() as wire:
        for number in range(1500):
            await wire.put(b"/%d" % number, b"")
        assert len(tree.export.nodes) <= 1100


class Liar(Counting):
    """Answers lookups with whatever `lies` says, by name."""

    def __init__(self, below: Any) -> None:
        super().__init__(below)
        self.lies: dict[bytes, Any] = {}
        self.asked: list[tuple[int, bytes]] = []

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        self.asked.append((opc, cn.name))
        if cn.name in self.lies:
            cn = cn._replace(name=self.lies[cn.name])
            return self._found(await self.below.lookup(self.kargs.root.cookie, cn))
        return await super().lookup(opc, cn)


async def test_a_session_below_a_directory_never_leaves_it(tree: Served) -> None:
    """Whatever the client says, whatever links say, whatever others move."""
    export = tree.export
    async with tree.client() as outside:
        await outside.put(b"/secret", b"not yours")
        await outside.ask(sftp.mkdir, b"/jail")
        await outside.ask(sftp.mkdir, b"/jail/d")
        await outside.ask(sftp.mkdir, b"/jail/d/e")
        await outside.put(b"/jail/mine", b"mine")
        await outside.ask(sftp.symlink, b"/secret", b"/jail/absolute")
        await outside.ask(sftp.symlink, b"../../../secret", b"/jail/d/relative")
        info = await tree.counting.lookup(export.nodes.root.cookie, lookup_cn(b"jail", SELF))
        root = export.nodes.absorb(info)
        view = View(export, SELF, root=root, user=b"me")
        near, far = socket.socketpair()
        far.setblocking(False)
        near.setblocking(False)
        session = Session(view, far.fileno(), far.fileno())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.serve)
            wire = Wire(near)
            await wire.greet()
            assert await wire.names(b"/") == [b".", b"..", b"absolute", b"d", b"mine"]
            for path in (
                b"/secret",
                b"../secret",
                b"/../secret",
                b"/d/../../secret",
                b"/d/e/../../../../secret",
                b"absolute",
                b"d/relative",
                b"/jail/mine",
                b"/./.././../secret",
            ):
                assert await wire.code(sftp.stat, path) == NO_SUCH_FILE, path
                assert await wire.code(sftp.open_, path, sftp.FXF_READ) == NO_SUCH_FILE, path
                assert await wire.code(sftp.remove, path) in (NO_SUCH_FILE, sftp.FX_OK)
            assert await real(wire, b"../../..") == b"/"
            # What ".." shows in the root is the root, not what is above it.
            listed = {entry.name: entry.attrs for entry in await wire.entries(b"/")}
            assert listed[b".."] == listed[b"."]
            # A directory that leaves the root takes nobody along.
            handle = await wire.ask(sftp.opendir, b"/d/e")
            await outside.ask(sftp.posix_rename, b"/jail/d/e", b"/e")
            assert await wire.code(sftp.stat, b"/d/e/../../secret") == NO_SUCH_FILE
            listed = {entry.name: entry.attrs for entry in await wire.ask(sftp.readdir, handle)}
            assert set(listed) == {b".", b".."}
            await wire.ask(sftp.close, handle)
            for old, new in ((b"/mine", b"/../stolen"), (b"/mine", b"/d/../../stolen")):
                await wire.ask(sftp.posix_rename, old, new)
                await wire.ask(sftp.posix_rename, b"/stolen", old)
            await wire.stream.aclose()
        far.close()
        export.nodes.unpin(root)
        assert await outside.names(b"/") == [b".", b"..", b"e", b"jail", b"secret"]


async def test_dotdot_is_never_asked_of_a_file_server() -> None:
    async with p2k_over(TmpFs()) as server:
        liar = Liar(server)
        async with exported(liar) as export:
            tree = Served(liar, export)
            async with tree.client() as wire:
                for path in (b"/a", b"/a/b", b"/top"):
                    await wire.ask(sftp.mkdir, path)
                await wire.put(b"/a/b/f", b"f")
                await wire.ask(sftp.symlink, b"../../a/b/f", b"/a/b/l")
                assert await wire.get(b"/a/../a/b/../b/l") == b"f"
                assert all(name != b".." for _, name in liar.asked)
                # A file server that answers with the directory itself, or with the root.
                liar.lies = {b"again": b"a", b"up": b"top"}
                assert (await wire.ask(sftp.stat, b"/a/again/again/again/b/f")).size == 1
                assert await real(wire, b"/a/again/../..") == b"/"
                for _ in range(3):
                    assert await real(wire, b"/a/again/again/up/up") == b"/a/again/again/up/up"
        liar.settled()
        await server.unmount(0)


async def test_names_of_a_listing_that_lead_elsewhere_are_dropped(
    tree: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tree.counting.below
    readdir = below.readdir

    async def lying(*args: Any) -> Any:
        entries, is_end = await readdir(*args)
        entry = next(entry for entry in entries if entry.name == b"f")
        bad = [entry._replace(name=name, newinfo=None) for name in (b"../x", b"a\0b", b"")]
        info = await below.lookup(tree.counting.kargs.root.cookie, lookup_cn(b"f", SELF))
        return [entry._replace(name=b"/etc", newinfo=info), *bad, *entries], is_end

    monkeypatch.setattr(below, "readdir", lying)
    async with tree.client() as wire:
        await wire.put(b"/f", b"")
        assert await wire.names(b"/") == [b".", b"..", b"f"]
