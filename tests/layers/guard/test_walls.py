"""Ways around a policy, each of which must end at a wall."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.layers.guard import EVERYTHING, NOTHING, GuardSettings, Rule, Verb
from syspuffs.layers.ops import FileServer
from syspuffs.native import sftp
from syspuffs.native.constants import FWRITE, READDIR_PLUS, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Newinfo, Vattr

from ...gateway.sftp.harness import MAKE, Wire
from ...support.sftp_end import SELF
from .harness import guarded_tree
from .test_verbs import DENIED, text

SECRETS = GuardSettings(
    rules=(
        Rule(b"/secret", deny=Verb.READ),
        Rule(b"/deep/in/secret", deny=Verb.READ | Verb.DELETE),
        Rule(b"/archive", deny=Verb.OVERWRITE | Verb.APPEND | Verb.DELETE),
    )
)
FILES = (
    (b"/secret/", b""),
    (b"/secret/f", b"secret"),
    (b"/secret/d/", b""),
    (b"/secret/d/f", b"secret"),
    (b"/deep/", b""),
    (b"/deep/in/", b""),
    (b"/deep/in/secret", b"secret"),
    (b"/deep/other", b""),
    (b"/archive/", b""),
    (b"/archive/f", b"kept"),
    (b"/pub/", b""),
    (b"/pub/f", b"public"),
)


async def refused_to_read(wire: Wire, path: bytes) -> bool:
    return await text(wire, sftp.open_, path, sftp.FXF_READ, sftp.Attrs()) == DENIED


async def test_nothing_is_read_by_moving_or_linking_it() -> None:
    async with guarded_tree(SECRETS, files=FILES) as tree, tree.client() as wire:
        for request in (sftp.rename, sftp.posix_rename, sftp.hardlink):
            for old, new in (
                (b"/secret/f", b"/pub/g"),
                (b"/secret/f", b"/pub/f"),
                (b"/secret/d/f", b"/g"),
                (b"/secret/../secret/f", b"/secret/../pub/g"),
                (b"/secret/d", b"/pub/d"),
                (b"/secret", b"/public"),
                (b"/deep", b"/flat"),
                (b"/deep/in", b"/deep/out"),
                (b"/deep/in", b"/in"),
                (b"/deep/in/secret", b"/deep/in/open"),
                (b"/archive/f", b"/pub/kept"),
                (b"/archive", b"/pub/archive"),
            ):
                assert await text(wire, request, old, new) != b"", (request, old, new)
        for path in (b"/secret/f", b"/secret/d/f", b"/deep/in/secret"):
            assert await refused_to_read(wire, path)
        # What leaves nothing open may be done.
        await wire.ask(sftp.posix_rename, b"/secret/f", b"/secret/d/g")
        await wire.ask(sftp.posix_rename, b"/secret/d", b"/secret/e")
        await wire.ask(sftp.posix_rename, b"/pub/f", b"/secret/f")
        assert await refused_to_read(wire, b"/secret/f")
        assert await refused_to_read(wire, b"/secret/e/g")
        await wire.ask(sftp.posix_rename, b"/deep/other", b"/pub/other")


async def test_links_lead_through_the_same_doors() -> None:
    async with guarded_tree(SECRETS, files=FILES) as tree, tree.client() as wire:
        for target, path in (
            (b"/secret/f", b"/pub/a"),
            (b"../secret", b"/pub/b"),
            (b"../../../secret/f", b"/pub/c"),
            (b"/", b"/pub/root"),
        ):
            await wire.ask(sftp.symlink, target, path)
        for path in (b"/pub/a", b"/pub/b/f", b"/pub/c", b"/pub/root/secret/f"):
            assert await refused_to_read(wire, path)
        assert await text(wire, sftp.setstat, b"/pub/root/archive/f", sftp.Attrs(size=0)) == DENIED
        # A link of the same name as the rule's directory is not that directory.
        await wire.ask(sftp.symlink, b"/archive", b"/pub/archive")
        assert await text(wire, sftp.remove, b"/pub/archive/f") == DENIED


async def test_an_open_handle_is_judged_by_where_its_file_is() -> None:
    async with guarded_tree(SECRETS, files=FILES) as tree, tree.client() as wire:
        handle = await wire.open(b"/pub/f", sftp.FXF_READ | sftp.FXF_WRITE)
        await wire.write(handle, 0, b"changed")
        await wire.ask(sftp.posix_rename, b"/pub/f", b"/archive/g")
        assert await text(wire, sftp.fsetstat, handle, sftp.Attrs(size=0)) == DENIED
        assert await wire.code(sftp.write, handle, 0, 1, payload=b"x") != sftp.FX_OK
        assert await wire.get(b"/archive/g") == b"changed"
        await wire.ask(sftp.close, handle)
        handle = await wire.open(b"/archive/f", sftp.FXF_READ)
        await wire.ask(sftp.mkdir, b"/pub/d")
        await wire.put(b"/pub/d/f", b"data")
        below = await wire.open(b"/pub/d/f", sftp.FXF_READ | sftp.FXF_WRITE)
        await wire.ask(sftp.posix_rename, b"/pub/d", b"/secret/x")  # a directory above it
        assert await wire.code(sftp.read, below, 0, 4) != sftp.FX_OK
        await wire.write(below, 0, b"DATA")
        for opened in (handle, below):
            await wire.ask(sftp.close, opened)


async def test_a_removed_file_stays_where_it_was() -> None:
    async with guarded_tree(SECRETS, files=FILES) as tree, tree.client() as wire:
        handle = await wire.open(b"/secret/f", sftp.FXF_WRITE)
        await wire.ask(sftp.remove, b"/secret/f")
        assert await wire.code(sftp.read, handle, 0, 4) != sftp.FX_OK
        await wire.put(b"/pub/again", b"")
        await wire.write(handle, 0, b"x")
        await wire.ask(sftp.close, handle)


UPLOADS = GuardSettings(
    allow=NOTHING,
    rules=(Rule(b"/in", Verb.CREATE), Rule(b"/log", Verb.CREATE | Verb.APPEND)),
)
DROPS = ((b"/in/", b""), (b"/in/old", b"old"), (b"/log/", b""))


async def test_what_was_made_is_written_to_once() -> None:
    async with guarded_tree(UPLOADS, files=DROPS) as tree, tree.client() as wire:
        handle = await wire.open(b"/in/new", MAKE)
        await wire.write(handle, 0, b"some")
        await wire.write(handle, 2, b"thing")
        await wire.ask(sftp.fsetstat, handle, sftp.Attrs(size=6))
        # Meanwhile nobody else gets in by the same right.
        for flags in (MAKE, sftp.FXF_WRITE, sftp.FXF_WRITE | sftp.FXF_APPEND):
            assert await text(wire, sftp.open_, b"/in/new", flags, sftp.Attrs()) == DENIED
        await wire.ask(sftp.close, handle)
        for flags in (MAKE, sftp.FXF_WRITE, sftp.FXF_WRITE | sftp.FXF_APPEND, sftp.FXF_READ):
            assert await text(wire, sftp.open_, b"/in/new", flags, sftp.Attrs()) == DENIED
        assert await text(wire, sftp.setstat, b"/in/new", sftp.Attrs(size=0)) == DENIED
        assert await text(wire, sftp.open_, b"/in/old", MAKE, sftp.Attrs()) == DENIED
        excl = MAKE | sftp.FXF_EXCL
        assert await text(wire, sftp.open_, b"/in/old", excl, sftp.Attrs()) == b"File exists"


async def test_an_appending_handle_does_not_keep_a_file_fresh() -> None:
    async with guarded_tree(UPLOADS, files=DROPS) as tree, tree.client() as wire:
        maker = await wire.open(b"/log/f", MAKE)
        await wire.write(maker, 0, b"first")
        other = await wire.open(b"/log/f", sftp.FXF_WRITE | sftp.FXF_APPEND)
        await wire.ask(sftp.close, maker)
        assert await text(wire, sftp.setstat, b"/log/f", sftp.Attrs(size=0)) == DENIED
        assert await text(wire, sftp.fsetstat, other, sftp.Attrs(size=0)) == DENIED
        await wire.write(other, 0, b"second")
        await wire.ask(sftp.close, other)


async def test_a_file_is_not_fresh_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with guarded_tree(UPLOADS, files=DROPS, seconds=1000) as tree:
        directory = await tree.find(b"/in")
        va = Vattr(Vtype.VREG, 0o644)
        for age, refused in ((59, False), (61, True)):
            name = tree.name(b"%d" % age)
            info = await tree.guard.create(directory, name, va)
            await trio.sleep(age)
            try:
                await tree.guard.open(info.cookie, FWRITE, SELF)
            except VfsError:
                assert refused
            else:
                assert not refused
                tree.guard.close(info.cookie, FWRITE, SELF)
            tree.guard.reclaim(info.cookie, 1)
        tree.guard.reclaim(directory, 1)


async def test_entries_and_file_handles_show_nothing_hidden() -> None:
    settings = GuardSettings(hidden=(b"h*",), rules=(Rule(b"/d", deny=Verb.LIST),))
    files = ((b"/d/", b""), (b"/d/f", b""), (b"/hidden", b""), (b"/seen", b""))
    async with guarded_tree(settings, files=files) as tree:
        root = tree.guard.kargs.root.cookie
        entries, is_end = await tree.guard.readdir(root, 0, 4096, READDIR_PLUS, SELF)
        assert is_end
        assert sorted(entry.name for entry in entries) == [b".", b"..", b"d", b"seen"]
        assert tree.guard.known == 3
        for entry in entries:
            if entry.newinfo is not None:
                tree.guard.reclaim(entry.newinfo.cookie, 1)
        assert tree.guard.known == 1
        directory = await tree.find(b"/d")
        with pytest.raises(VfsError, match="EACCES"):
            await tree.guard.readdir(directory, 0, 4096, 0, SELF)
        tree.guard.reclaim(directory, 1)


async def test_a_handle_of_an_unknown_node_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded_tree(SECRETS, files=FILES) as tree:
        cookie = await tree.counting.lookup(tree.guard.kargs.root.cookie, tree.name(b"pub"))

        async def fhtonode(self: FileServer, handle: bytes) -> Newinfo:
            return await self.lookup(self.kargs.root.cookie, tree.name(b"pub"))

        monkeypatch.setattr(type(tree.counting), "fhtonode", fhtonode)
        with pytest.raises(VfsError, match="ESTALE"):
            await tree.guard.fhtonode(b"")
        known = await tree.find(b"/pub")
        assert (await tree.guard.fhtonode(b"")).cookie == known
        tree.guard.reclaim(known, 2)
        tree.counting.reclaim(cookie.cookie, 1)


async def test_names_that_somebody_else_has_given() -> None:
    """A hard link that is there already gives what its own name gives, until both are known."""
    settings = GuardSettings(rules=(Rule(b"/secret", deny=Verb.READ),))
    async with guarded_tree(settings, files=FILES) as tree:
        below, root = tree.counting, tree.guard.kargs.root.cookie
        secret = (await below.lookup(root, tree.name(b"secret"))).cookie
        file = (await below.lookup(secret, tree.name(b"f"))).cookie
        await below.link(root, file, tree.name(b"also"))
        for cookie in (file, secret):
            below.reclaim(cookie, 1)
        also = await tree.find(b"/also")
        assert await tree.guard.read(also, 0, 6, 0, SELF) == b"secret"
        same = await tree.find(b"/secret/f")
        assert same == also
        with pytest.raises(VfsError, match="EACCES"):
            await tree.guard.read(also, 0, 6, 0, SELF)
        tree.guard.reclaim(also, 2)
        tree.guard.reclaim(await tree.find(b"/secret"), 2)


# Races. `hold` stops one operation of the server below before or after it is done.


class Hold:
    """Lets the first operation of a kind wait; `go` lets it go on."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.waits = trio.Event()
        self.go = trio.Event()

    async def __call__(self, op: str, args: tuple[Any, ...]) -> None:
        if op == self.kind and not self.waits.is_set():
            self.waits.set()
            await self.go.wait()


async def test_an_answer_older_than_a_rename_is_not_believed() -> None:
    """A lookup answers late, when what it found has been moved to where less is allowed."""
    async with guarded_tree(SECRETS, files=(*FILES, (b"/pub/d/", b""))) as tree:
        pub, secret = await tree.find(b"/pub"), await tree.find(b"/secret")
        found: list[Newinfo] = []

        async def look() -> None:
            found.append(await tree.guard.lookup(pub, tree.name(b"d")))

        for is_known in (True, False):
            d = (await tree.guard.lookup(pub, tree.name(b"d"))).cookie
            tree.counting.after = hold = Hold("lookup")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await hold.waits.wait()
                await tree.guard.rename(pub, d, tree.name(b"d"), secret, None, tree.name(b"m"))
                if not is_known:
                    tree.guard.reclaim(d, 1)
                hold.go.set()
            tree.counting.after = None
            if is_known:
                assert found.pop().cookie == d
                node = tree.guard._table.get(d)
                assert node is not None
                assert not tree.guard._table.rights(node) & Verb.READ
                tree.guard.reclaim(d, 1)
                # The next lookup knows better, and nothing of the doubt stays.
                assert (await tree.guard.lookup(secret, tree.name(b"m"))).cookie == d
                assert len(node.places) == 1
                assert not node.is_unsure
                tree.guard.reclaim(d, 2)
                back = (await tree.counting.lookup(secret, tree.name(b"m"))).cookie
                await tree.counting.rename(
                    secret, back, tree.name(b"m"), pub, None, tree.name(b"d")
                )
                tree.counting.reclaim(back, 1)
            else:
                assert not found.pop().cookie  # it was asked once more
        tree.guard.reclaim(pub, 1)
        tree.guard.reclaim(secret, 1)


async def test_a_rename_of_which_nothing_is_known() -> None:
    """It was cancelled, and may have happened or not: what both places allow counts."""
    async with guarded_tree(SECRETS, files=FILES) as tree:
        pub, secret = await tree.find(b"/pub"), await tree.find(b"/secret")
        f = await tree.find(b"/pub/f")
        tree.guard.reclaim(pub, 1)
        for is_done in (False, True):
            hold = Hold("rename")
            tree.counting.before, tree.counting.after = (None, hold) if is_done else (hold, None)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    tree.guard.rename,
                    *(pub, f, tree.name(b"f"), secret, None, tree.name(b"g")),
                )
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            tree.counting.before = tree.counting.after = None
            with pytest.raises(VfsError, match="EACCES"):
                await tree.guard.read(f, 0, 6, 0, SELF)
            if not is_done:
                assert (await tree.guard.lookup(pub, tree.name(b"f"))).cookie == f
                assert await tree.guard.read(f, 0, 6, 0, SELF) == b"public"
                tree.guard.reclaim(f, 1)
        assert not (await tree.guard.lookup(pub, tree.name(b"f"))).cookie
        with pytest.raises(VfsError, match="EACCES"):
            await tree.guard.read(f, 0, 6, 0, SELF)
        for cookie in (f, pub, secret):
            tree.guard.reclaim(cookie, 1)


async def test_a_server_below_that_answers_what_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lookups that lead upwards: nothing is known of such a path, so it leads nowhere."""
    async with guarded_tree(SECRETS, files=(*FILES, (b"/a/", b""), (b"/a/b/", b""))) as tree:
        root = tree.guard.kargs.root
        a, b = await tree.find(b"/a"), await tree.find(b"/a/b")
        tree.guard.reclaim(a, 1)
        true = tree.counting.lookup
        lies: dict[bytes, Cookie] = {b"root": root.cookie, b"a": a, b"b": b}

        async def lookup(opc: Cookie, cn: Any) -> Newinfo:
            if cn.name in lies and opc == b:
                cookie = lies[cn.name]
                if cookie == root.cookie:
                    return root
                return await true(*((root.cookie, tree.name(b"a")) if cookie == a else (a, cn)))
            return await true(opc, cn)

        monkeypatch.setattr(tree.counting, "lookup", lookup)
        for name in lies:
            with pytest.raises(VfsError, match="ESTALE"):
                await tree.guard.lookup(b, tree.name(name))
        for cookie in (b, a):
            tree.guard.reclaim(cookie, 1)


async def test_two_sessions_that_move_and_read() -> None:
    """Whatever the order: a file that was put where nobody reads is not read from then on."""
    async with (
        guarded_tree(SECRETS, files=FILES) as tree,
        tree.client() as mover,
        tree.client() as reader,
    ):
        for number in range(30):
            await mover.ask(sftp.mkdir, b"/pub/%d" % number)
            await mover.put(b"/pub/%d/f" % number, b"public")
            handle = await reader.open(b"/pub/%d/f" % number)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    mover.ask, sftp.posix_rename, b"/pub/%d" % number, b"/secret/m%d" % number
                )
                for _ in range(number % 5):
                    await trio.lowlevel.checkpoint()
                first = await reader.code(sftp.read, handle, 0, 6)
            assert first in (sftp.FX_OK, sftp.FX_PERMISSION_DENIED)
            assert await reader.code(sftp.read, handle, 0, 6) == sftp.FX_PERMISSION_DENIED
            assert await refused_to_read(reader, b"/secret/m%d/f" % number)
            await reader.ask(sftp.close, handle)


async def test_nodes_above_are_known_as_long_as_something_below_is() -> None:
    tree_depth = 30
    path = b""
    files: list[tuple[bytes, bytes]] = []
    for _ in range(tree_depth):
        path += b"/d"
        files.append((path + b"/", b""))
    settings = GuardSettings(rules=(Rule(b"/x", deny=Verb.READ),))
    async with guarded_tree(settings, files=(*files, (path + b"/f", b"data"))) as tree:
        cookies = [await tree.find(b"/d" * n) for n in range(1, tree_depth + 1)]
        file = await tree.find(path + b"/f")
        # Everything but the file is given back, and all of its path stays known.
        for depth, cookie in enumerate(cookies):
            tree.guard.reclaim(cookie, tree_depth - depth + 1)
        assert tree.guard.known == tree_depth + 2
        assert await tree.guard.read(file, 0, 4, 0, SELF) == b"data"
        root = tree.guard.kargs.root.cookie
        top = await tree.find(b"/d")
        await tree.guard.rename(root, top, tree.name(b"d"), root, None, tree.name(b"x"))
        tree.guard.reclaim(top, 1)
        with pytest.raises(VfsError, match="EACCES"):
            await tree.guard.read(file, 0, 4, 0, SELF)
        tree.guard.reclaim(file, 1)
        assert tree.guard.known == 1


async def test_everything_costs_no_more_lookups() -> None:
    """A guard asks the server below nothing of its own."""
    rules = (Rule(b"/*", EVERYTHING),)
    async with guarded_tree(GuardSettings(rules=rules), files=FILES) as tree:
        async with tree.client() as wire:
            await wire.names(b"/pub")
            before = tree.counting.calls.total()
            handle = await wire.open(b"/pub/f", sftp.FXF_READ | sftp.FXF_WRITE)
            await wire.write(handle, 0, b"x")
            await wire.read(handle, 0, 1)
            calls = tree.counting.calls.total() - before
            assert calls <= 5, tree.counting.calls  # lookups of two names, open, write, read
            await wire.ask(sftp.close, handle)
