"""What each verb is asked for, and what a read-only or hidden tree answers."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest

from syspuffs.layers.guard import EVERYTHING, NOTHING, GuardSettings, Rule, Verb
from syspuffs.native import sftp
from syspuffs.native.constants import FAPPEND, FWRITE, IO_APPEND, VEXEC, VREAD, VWRITE
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Vattr

from ...gateway.sftp.harness import MAKE, StatusReply, Wire
from ...support.sftp_end import SELF
from .harness import guarded_tree

FILES = ((b"/d/", b""), (b"/d/f", b"data"), (b"/d/g", b"more"), (b"/d/e/", b""))
DENIED = b"Permission denied"


async def text(wire: Wire, *args: object) -> bytes:
    """Return the text of the answer to a request; empty when it went well."""
    try:
        await wire.ask(*args)  # type: ignore[arg-type]
    except StatusReply as reply:
        return reply.text
    return b""


async def lists(wire: Wire) -> bytes:
    return await text(wire, sftp.opendir, b"/d")


async def reads(wire: Wire) -> bytes:
    return await text(wire, sftp.open_, b"/d/f", sftp.FXF_READ, sftp.Attrs())


async def creates(wire: Wire) -> bytes:
    return await text(wire, sftp.open_, b"/d/new", MAKE, sftp.Attrs())


async def overwrites(wire: Wire) -> bytes:
    return await text(wire, sftp.open_, b"/d/f", sftp.FXF_WRITE, sftp.Attrs())


async def cuts(wire: Wire) -> bytes:
    return await text(wire, sftp.setstat, b"/d/f", sftp.Attrs(size=0))


async def removes(wire: Wire) -> bytes:
    return await text(wire, sftp.remove, b"/d/f")


async def removes_directory(wire: Wire) -> bytes:
    return await text(wire, sftp.rmdir, b"/d/e")


async def replaces(wire: Wire) -> bytes:
    return await text(wire, sftp.posix_rename, b"/d/f", b"/d/g")


async def renames(wire: Wire) -> bytes:
    return await text(wire, sftp.rename, b"/d/f", b"/d/h")


async def posix_renames(wire: Wire) -> bytes:
    return await text(wire, sftp.posix_rename, b"/d/f", b"/d/h")


async def makes_directory(wire: Wire) -> bytes:
    return await text(wire, sftp.mkdir, b"/d/new")


async def makes_symlink(wire: Wire) -> bytes:
    return await text(wire, sftp.symlink, b"f", b"/d/link")


async def makes_hardlink(wire: Wire) -> bytes:
    said = await text(wire, sftp.hardlink, b"/d/f", b"/d/hard")
    return DENIED if said == b"Operation not permitted" else said


async def changes_mode(wire: Wire) -> bytes:
    return await text(wire, sftp.setstat, b"/d/f", sftp.Attrs(mode=0o600))


async def changes_owner(wire: Wire) -> bytes:
    return await text(wire, sftp.setstat, b"/d/f", sftp.Attrs(uid=SELF.uid, gid=SELF.gid))


async def changes_times(wire: Wire) -> bytes:
    return await text(wire, sftp.setstat, b"/d/f", sftp.Attrs(atime=1, mtime=1))


DOES: tuple[tuple[Callable[[Wire], Awaitable[bytes]], Verb], ...] = (
    (lists, Verb.LIST),
    (reads, Verb.READ),
    (creates, Verb.CREATE),
    (overwrites, Verb.OVERWRITE),
    (cuts, Verb.OVERWRITE),
    (removes, Verb.DELETE),
    (removes_directory, Verb.DELETE),
    (replaces, Verb.DELETE),
    (replaces, Verb.RENAME),
    (renames, Verb.RENAME),
    (posix_renames, Verb.RENAME),
    (makes_directory, Verb.MKDIR),
    (makes_symlink, Verb.LINK),
    (makes_hardlink, Verb.LINK),
    (makes_hardlink, Verb.RENAME),
    (makes_hardlink, Verb.DELETE),
    (changes_mode, Verb.CHMOD),
    (changes_owner, Verb.CHOWN),
    (changes_times, Verb.TIMES),
)
NEEDS: dict[Callable[[Wire], Awaitable[bytes]], Verb] = {}
for _does, _verb in DOES:
    NEEDS[_does] = NEEDS.get(_does, NOTHING) | _verb


@pytest.mark.parametrize(("does", "verb"), DOES, ids=lambda x: getattr(x, "__name__", None))
async def test_a_verb_that_is_missing(does: Callable[[Wire], Awaitable[bytes]], verb: Verb) -> None:
    settings = GuardSettings(rules=(Rule(b"/d", deny=verb),))
    async with guarded_tree(settings, files=FILES) as tree, tree.client() as wire:
        assert await does(wire) == DENIED


@pytest.mark.parametrize("does", NEEDS, ids=lambda does: does.__name__)
async def test_nothing_else_is_asked_for(does: Callable[[Wire], Awaitable[bytes]]) -> None:
    settings = GuardSettings(allow=NOTHING, rules=(Rule(b"/d", NEEDS[does]),))
    async with guarded_tree(settings, files=FILES) as tree, tree.client() as wire:
        assert await does(wire) == b""


@pytest.mark.parametrize("does", NEEDS, ids=lambda does: does.__name__)
async def test_readonly(does: Callable[[Wire], Awaitable[bytes]]) -> None:
    async with guarded_tree(GuardSettings(readonly=True), files=FILES) as tree:
        async with tree.client() as wire:
            expected = b"" if does in (lists, reads) else b"Read-only file system"
            assert await does(wire) == expected
            assert await wire.get(b"/d/f") == b"data"
            assert (await tree.guard.statvfs()).flag & 1


async def test_renaming_without_links_or_deleting() -> None:
    """RENAME is done with what is there: not by way of a link that may not be made or removed."""
    for verbs in (Verb.RENAME, Verb.RENAME | Verb.LINK, Verb.RENAME | Verb.DELETE):
        settings = GuardSettings(allow=verbs | Verb.LIST)
        async with guarded_tree(settings, files=FILES) as tree, tree.client() as wire:
            assert await renames(wire) == b""
            assert await wire.names(b"/d") == [b".", b"..", b"e", b"g", b"h"]
            assert await text(wire, sftp.rename, b"/d/h", b"/d/g") != b""
            assert await wire.names(b"/d") == [b".", b"..", b"e", b"g", b"h"]


async def test_links_and_removals_are_no_renames() -> None:
    settings = GuardSettings(rules=(Rule(b"/", deny=Verb.RENAME),))
    async with guarded_tree(settings, files=FILES) as tree, tree.client() as wire:
        assert await renames(wire) == DENIED
        assert await wire.names(b"/d") == [b".", b"..", b"e", b"f", b"g"]


async def test_appending() -> None:
    settings = GuardSettings(allow=Verb.APPEND | Verb.READ)
    append = sftp.FXF_WRITE | sftp.FXF_APPEND
    async with guarded_tree(settings, files=FILES) as tree, tree.client() as wire:
        handle = await wire.open(b"/d/f", append)
        await wire.write(handle, 0, b"+1")  # the offset counts for nothing
        await wire.write(handle, 0, b"+2")
        assert await wire.get(b"/d/f") == b"data+1+2"
        assert await text(wire, sftp.fsetstat, handle, sftp.Attrs(size=0)) == DENIED
        assert await text(wire, sftp.open_, b"/d/f", append | sftp.FXF_TRUNC, sftp.Attrs()) == (
            DENIED
        )
        assert await overwrites(wire) == DENIED
        assert await wire.get(b"/d/f") == b"data+1+2"
        await wire.ask(sftp.close, handle)
        # What comes by another front end than ours: the flag of each write counts.
        cookie = await tree.find(b"/d/f")
        await tree.guard.open(cookie, FWRITE | FAPPEND, SELF)
        with pytest.raises(VfsError, match="EACCES"):
            await tree.guard.write(cookie, 8, b"x", 0, SELF)
        await tree.guard.write(cookie, 0, b"+3", IO_APPEND, SELF)
        with pytest.raises(VfsError, match="EACCES"):
            await tree.guard.fallocate(cookie, 0, 100)
        with pytest.raises(VfsError, match="EACCES"):
            await tree.guard.fdiscard(cookie, 0, 4)
        tree.guard.close(cookie, FWRITE | FAPPEND, SELF)
        assert await wire.get(b"/d/f") == b"data+1+2+3"
        tree.guard.reclaim(cookie, 1)
        tree.guard.reclaim(await tree.find(b"/d"), 2)


async def test_access() -> None:
    settings = GuardSettings(
        allow=NOTHING, rules=(Rule(b"/d/f", Verb.READ), Rule(b"/d/g", Verb.APPEND))
    )
    async with guarded_tree(settings, files=FILES) as tree:
        directory = await tree.find(b"/d")
        f = (await tree.guard.lookup(directory, tree.name(b"f"))).cookie
        g = (await tree.guard.lookup(directory, tree.name(b"g"))).cookie
        access = tree.guard.access
        await access(f, VREAD, SELF)
        await access(g, VWRITE, SELF)
        await access(directory, VEXEC, SELF)
        for cookie, mode in ((f, VWRITE), (g, VREAD), (directory, VREAD), (directory, VWRITE)):
            with pytest.raises(VfsError) as caught:
                await access(cookie, mode, SELF)
            assert caught.value.errno == errno.EACCES
        for cookie in (f, g, directory):
            tree.guard.reclaim(cookie, 1)


async def test_setattr_does_all_or_nothing() -> None:
    settings = GuardSettings(allow=EVERYTHING & ~Verb.TIMES)
    async with guarded_tree(settings, files=FILES) as tree:
        directory = await tree.find(b"/d")
        f = (await tree.guard.lookup(directory, tree.name(b"f"))).cookie
        with pytest.raises(VfsError, match="EACCES"):
            await tree.guard.setattr(f, Vattr(mode=0o600, mtime=1), SELF)
        va, _ = await tree.guard.getattr(f, SELF)
        assert va.mode == 0o644
        with pytest.raises(VfsError, match="EACCES"):
            await tree.guard.setattr(f, Vattr(size=1, atime=1), SELF)
        for cookie in (f, directory):
            tree.guard.reclaim(cookie, 1)


async def test_hidden_names() -> None:
    files = (
        (b"/.git/", b""),
        (b"/.git/config", b"secret"),
        (b"/d/", b""),
        (b"/d/x.tmp", b"secret"),
        (b"/d/x", b"seen"),
        (b"/d/inner/", b""),
    )
    settings = GuardSettings(hidden=(b".git", b"*.tmp", b"/d/inner"))
    async with guarded_tree(settings, files=files) as tree, tree.client() as wire:
        assert await wire.names(b"/") == [b".", b"..", b"d"]
        assert await wire.names(b"/d") == [b".", b"..", b"x"]
        for path in (b"/.git", b"/.git/config", b"/d/x.tmp", b"/d/inner", b"/d/.git"):
            assert await text(wire, sftp.stat, path) == b"No such file or directory", path
            assert await text(wire, sftp.lstat, path) == b"No such file or directory", path
        # That something is there is not told by refusing to make it anew.
        for path in (b"/.git", b"/d/x.tmp", b"/d/y.tmp", b"/d/inner", b"/d/.git"):
            assert await text(wire, sftp.mkdir, path) == DENIED, path
            assert await text(wire, sftp.open_, path, MAKE, sftp.Attrs()) == DENIED, path
            assert await text(wire, sftp.symlink, b"x", path) == DENIED, path
            assert await text(wire, sftp.rename, b"/d/x", path) == DENIED, path
            assert await text(wire, sftp.posix_rename, b"/d/x", path) == DENIED, path
            for request in (sftp.remove, sftp.rmdir):
                assert await text(wire, request, path) == b"No such file or directory", path
        # What is hidden by its path does not come out when a directory above it is renamed.
        assert await text(wire, sftp.posix_rename, b"/d", b"/e") == DENIED
        # A link to it leads nowhere.
        await wire.ask(sftp.symlink, b"/.git/config", b"/d/link")
        assert await text(wire, sftp.open_, b"/d/link", sftp.FXF_READ, sftp.Attrs()) == (
            b"No such file or directory"
        )


async def test_many_hidden_names_in_a_row() -> None:
    files = tuple((b"/%04d.tmp" % number, b"") for number in range(700))
    async with guarded_tree(
        GuardSettings(hidden=(b"*.tmp",)), files=(*files, (b"/zz", b""))
    ) as tree:
        async with tree.client() as wire:
            assert await wire.names(b"/") == [b".", b"..", b"zz"]
