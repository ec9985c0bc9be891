"""Each request, on files in memory: what it does, and what it answers when it cannot."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.sftp.attributes import attrs_of
from syspuffs.native import sftp
from syspuffs.native.constants import Vtype
from syspuffs.native.records import Cred, Vattr

from .harness import BOTH, MAKE, ROOT, Served, StatusReply, Wire, served

NO_SUCH_FILE = sftp.FX_NO_SUCH_FILE
FAILURE = sftp.FX_FAILURE
BAD = sftp.FX_BAD_MESSAGE
DENIED = sftp.FX_PERMISSION_DENIED


async def test_version_announces_what_openssh_announces() -> None:
    async with served() as tree, tree.client() as wire:
        assert list(wire.extensions.items()) == [
            (b"posix-rename@openssh.com", b"1"),
            (b"statvfs@openssh.com", b"2"),
            (b"fstatvfs@openssh.com", b"2"),
            (b"hardlink@openssh.com", b"1"),
            (b"fsync@openssh.com", b"1"),
            (b"lsetstat@openssh.com", b"1"),
            (b"limits@openssh.com", b"1"),
            (b"expand-path@openssh.com", b"1"),
            (b"copy-data", b"1"),
            (b"home-directory", b"1"),
            (b"users-groups-by-id@openssh.com", b"1"),
        ]


async def test_write_read_and_the_end_of_the_file() -> None:
    async with served() as tree, tree.client() as wire:
        handle = await wire.open(b"/f", BOTH)
        assert await wire.code(sftp.read, handle, 0, 100) == sftp.FX_EOF
        await wire.write(handle, 0, b"0123456789")
        assert await wire.read(handle, 2, 3) == b"234"
        assert await wire.read(handle, 7, 100) == b"789"
        assert await wire.code(sftp.read, handle, 10, 1) == sftp.FX_EOF
        assert await wire.code(sftp.read, handle, 2**63 - 1, 1) == sftp.FX_EOF
        assert await wire.read(handle, 0, 0) == b""
        assert await wire.read(handle, 100, 0) == b""
        await wire.write(handle, 20, b"x")
        assert await wire.read(handle, 8, 100) == b"89" + bytes(10) + b"x"
        await wire.write(handle, 5, b"")
        attrs = await wire.ask(sftp.fstat, handle)
        assert attrs.size == 21
        await wire.ask(sftp.close, handle)


async def test_a_read_brings_no_more_than_the_limit_says() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.put(b"/f", bytes(300_000))
        handle = await wire.open(b"/f")
        limits = sftp.decode_limits(await wire.ask(sftp.limits))
        assert limits == (262_144, 261_120, 261_120, 1024)
        assert len(await wire.read(handle, 0, 2**32 - 1)) == 261_120
        await wire.ask(sftp.close, handle)


async def test_appended_data_go_to_the_end() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.put(b"/f", b"one")
        one = await wire.open(b"/f", sftp.FXF_WRITE | sftp.FXF_APPEND)
        two = await wire.open(b"/f", sftp.FXF_WRITE | sftp.FXF_APPEND)
        await wire.write(one, 0, b" two")
        await wire.write(two, 1, b" three")
        await wire.write(one, 2**40, b" four")
        for handle in (one, two):
            await wire.ask(sftp.close, handle)
        assert await wire.get(b"/f") == b"one two three four"


@pytest.mark.parametrize(
    ("pflags", "there", "not_there"),
    [
        (sftp.FXF_READ, b"old", NO_SUCH_FILE),
        (0, b"old", NO_SUCH_FILE),
        (sftp.FXF_WRITE, b"old", NO_SUCH_FILE),
        (sftp.FXF_WRITE | sftp.FXF_TRUNC, b"", NO_SUCH_FILE),
        (sftp.FXF_READ | sftp.FXF_TRUNC, b"", NO_SUCH_FILE),
        (sftp.FXF_WRITE | sftp.FXF_CREAT, b"old", b""),
        (sftp.FXF_READ | sftp.FXF_CREAT, b"old", b""),
        (MAKE, b"", b""),
        (sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_EXCL, FAILURE, b""),
        (sftp.FXF_WRITE | sftp.FXF_EXCL, b"old", NO_SUCH_FILE),
    ],
)
async def test_open_flags(pflags: int, there: bytes | int, not_there: bytes | int) -> None:
    async with served() as tree, tree.client() as wire:
        await wire.put(b"/there", b"old")
        for path, wanted in ((b"/there", there), (b"/new", not_there)):
            if isinstance(wanted, int):
                assert await wire.code(sftp.open_, path, pflags) == wanted
                continue
            await wire.ask(sftp.close, await wire.open(path, pflags))
            assert await wire.get(path) == wanted


async def test_open_modes_and_umask() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.put(b"/plain", b"")
        await wire.put(b"/given", b"x", 0o4777)
        await wire.put(b"/closed", b"y", 0o444)  # written to by who made it
        for path, mode in ((b"/plain", 0o644), (b"/given", 0o4755), (b"/closed", 0o444)):
            assert (await wire.ask(sftp.stat, path)).mode == stat.S_IFREG | mode
        await wire.ask(sftp.mkdir, b"/d", sftp.Attrs(mode=0o7777))
        assert (await wire.ask(sftp.stat, b"/d")).mode == stat.S_IFDIR | 0o1755
        await wire.ask(sftp.mkdir, b"/e")
        assert (await wire.ask(sftp.stat, b"/e")).mode == stat.S_IFDIR | 0o755


async def test_a_handle_does_what_it_was_opened_for() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.put(b"/f", b"abc")
        reader = await wire.open(b"/f", sftp.FXF_READ)
        writer = await wire.open(b"/f", sftp.FXF_WRITE)
        assert await wire.code(sftp.write, reader, 0, 1, payload=b"x") == NO_SUCH_FILE
        assert await wire.code(sftp.read, writer, 0, 1) == NO_SUCH_FILE
        assert await wire.code(sftp.fsetstat, reader, sftp.Attrs(size=1)) == BAD
        assert await wire.code(sftp.fsetstat, writer, sftp.Attrs(size=1)) == sftp.FX_OK
        assert await wire.code(sftp.readdir, reader) == FAILURE
        for handle in (reader, writer):
            await wire.ask(sftp.close, handle)
        assert await wire.get(b"/f") == b"a"


async def test_a_directory_can_be_opened_for_reading() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/d")
        handle = await wire.open(b"/d")
        assert stat.S_ISDIR((await wire.ask(sftp.fstat, handle)).mode)
        assert await wire.code(sftp.read, handle, 0, 10) == FAILURE
        await wire.ask(sftp.fsync, handle)
        await wire.ask(sftp.close, handle)
        for pflags in (sftp.FXF_WRITE, sftp.FXF_READ | sftp.FXF_CREAT, sftp.FXF_TRUNC):
            assert await wire.code(sftp.open_, b"/d", pflags) == FAILURE
            assert await wire.code(sftp.open_, b"/", pflags) == FAILURE
        assert await wire.code(sftp.opendir, b"/d") == sftp.FX_OK
        assert await wire.code(sftp.open_, b"/new/", MAKE) == FAILURE


async def test_names_that_are_not_there() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.put(b"/f", b"")
        by_path: list[tuple[Any, ...]] = [
            *((ask,) for ask in (sftp.stat, sftp.lstat, sftp.opendir, sftp.remove, sftp.rmdir)),
            *((ask,) for ask in (sftp.readlink, sftp.statvfs)),
            (sftp.open_, sftp.FXF_READ),
            (sftp.setstat, sftp.Attrs(mode=0)),
            (sftp.lsetstat, sftp.Attrs(mode=0)),
        ]
        for path in (b"/none", b"/none/x", b"/f/x", b""):
            for ask, *args in by_path:
                assert await wire.code(ask, path, *args) == NO_SUCH_FILE, (ask, path)
        for ask in (sftp.rename, sftp.posix_rename, sftp.hardlink):
            assert await wire.code(ask, b"/none", b"/x") == NO_SUCH_FILE
        assert await wire.code(sftp.symlink, b"t", b"/none/x") == NO_SUCH_FILE
        assert await wire.code(sftp.mkdir, b"/none/x") == NO_SUCH_FILE
        assert await wire.code(sftp.opendir, b"/f") == NO_SUCH_FILE  # ENOTDIR, as OpenSSH has it


async def test_names_that_are_too_long() -> None:
    async with served() as tree, tree.client() as wire:
        for path in (b"/" + b"n" * 256, b"/x" * 2048, b"a" * 4096):
            for ask in (sftp.stat, sftp.lstat, sftp.mkdir, sftp.remove, sftp.realpath):
                assert await wire.code(ask, path) == BAD, ask
        await wire.ask(sftp.mkdir, b"/" + b"n" * 255)
        assert await wire.code(sftp.symlink, b"t" * 4096, b"/l") == BAD
        await wire.ask(sftp.symlink, b"t" * 4095, b"/l")


async def test_text_of_a_status_is_that_of_strerror() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/d")
        await wire.put(b"/d/f", b"")
        for ask, args, text in (
            (sftp.stat, (b"/none",), b"No such file or directory"),
            (sftp.mkdir, (b"/d",), b"File exists"),
            (sftp.rmdir, (b"/d",), b"Directory not empty"),
            (sftp.rmdir, (b"/d/f",), b"Not a directory"),
            (sftp.remove, (b"/d",), b"Is a directory"),
            (sftp.close, (b"nonsense",), b"Invalid handle"),
        ):
            with pytest.raises(StatusReply) as caught:
                await wire.ask(ask, *args)
            assert caught.value.text == text


async def test_remove_and_rmdir() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/d")
        await wire.put(b"/d/f", b"")
        await wire.ask(sftp.symlink, b"f", b"/d/l")
        assert await wire.code(sftp.rmdir, b"/d") == FAILURE
        assert await wire.code(sftp.remove, b"/d") == FAILURE
        assert await wire.code(sftp.remove, b"/d/f/") == NO_SUCH_FILE
        await wire.ask(sftp.remove, b"/d/l")
        await wire.ask(sftp.remove, b"/d/f")
        await wire.ask(sftp.rmdir, b"/d/")
        assert await wire.names(b"/") == [b".", b".."]
        assert await wire.code(sftp.rmdir, b"/") == FAILURE
        assert await wire.code(sftp.rmdir, b"/.") == FAILURE


async def test_what_is_open_outlives_its_name() -> None:
    async with served() as tree, tree.client() as wire:
        handle = await wire.open(b"/f", BOTH)
        await wire.write(handle, 0, b"still here")
        await wire.ask(sftp.remove, b"/f")
        assert await wire.read(handle, 0, 100) == b"still here"
        assert (await wire.ask(sftp.fstat, handle)).size == 10
        await wire.ask(sftp.close, handle)


async def test_space_of_a_removed_file_is_free_at_once() -> None:
    async with served(TmpFs(size_limit=1 << 20)) as tree, tree.client() as wire:
        for _ in range(5):
            await wire.put(b"/f", bytes(900_000))
            await wire.ask(sftp.remove, b"/f")
            await wire.put(b"/g", bytes(900_000))
            await wire.ask(sftp.posix_rename, b"/g", b"/f")
            await wire.ask(sftp.remove, b"/f")
        handle = await wire.open(b"/f", MAKE)
        await wire.ask(sftp.fsetstat, handle, sftp.Attrs(size=0))
        for at in range(5):
            await wire.write(handle, at * 200_000, bytes(200_000))
        with pytest.raises(StatusReply) as caught:
            await wire.write(handle, 1_000_000, bytes(200_000))
        assert (caught.value.code, caught.value.text) == (FAILURE, b"No space left on device")
        await wire.ask(sftp.close, handle)


async def test_rename_does_not_replace() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.put(b"/a", b"a")
        await wire.put(b"/b", b"b")
        await wire.ask(sftp.mkdir, b"/d")
        await wire.ask(sftp.mkdir, b"/e")
        await wire.ask(sftp.symlink, b"nowhere", b"/l")
        for old, new in ((b"/a", b"/b"), (b"/a", b"/a"), (b"/a", b"/d"), (b"/d", b"/e")):
            assert await wire.code(sftp.rename, old, new) == FAILURE
        assert await wire.code(sftp.rename, b"/a", b"/l") == FAILURE
        await wire.ask(sftp.rename, b"/a", b"/d/a")
        await wire.ask(sftp.rename, b"/l", b"/d/l")
        await wire.ask(sftp.rename, b"/d", b"/e/d")
        assert await wire.names(b"/e/d") == [b".", b"..", b"a", b"l"]
        assert await wire.get(b"/e/d/a") == b"a"
        assert await wire.code(sftp.rename, b"/e", b"/e/d/e") == BAD
        assert await wire.code(sftp.rename, b"/e/d/a/", b"/x") == NO_SUCH_FILE


async def test_posix_rename_replaces() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.put(b"/a", b"a")
        await wire.put(b"/b", b"b")
        await wire.ask(sftp.mkdir, b"/d")
        await wire.ask(sftp.mkdir, b"/e")
        await wire.ask(sftp.posix_rename, b"/a", b"/b")
        assert await wire.get(b"/b") == b"a"
        await wire.ask(sftp.posix_rename, b"/b", b"/b")
        await wire.ask(sftp.posix_rename, b"/d", b"/e")
        assert await wire.code(sftp.posix_rename, b"/b", b"/e") == FAILURE  # EISDIR
        assert await wire.code(sftp.posix_rename, b"/e", b"/b") == NO_SUCH_FILE  # ENOTDIR
        await wire.put(b"/e/f", b"")
        await wire.ask(sftp.mkdir, b"/g")
        assert await wire.code(sftp.posix_rename, b"/g", b"/e") == FAILURE  # ENOTEMPTY
        assert await wire.code(sftp.posix_rename, b"/e", b"/e/f/x") == NO_SUCH_FILE
        assert await wire.code(sftp.posix_rename, b"/", b"/x") == FAILURE


async def test_hard_links() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.put(b"/a", b"one")
        await wire.ask(sftp.hardlink, b"/a", b"/b")
        handle = await wire.open(b"/b", sftp.FXF_WRITE)
        await wire.write(handle, 3, b" two")
        await wire.ask(sftp.close, handle)
        assert await wire.get(b"/a") == b"one two"
        listed = {entry.name: entry for entry in await wire.entries(b"/")}
        assert listed[b"a"].longname.split()[1] == b"2"
        assert await wire.code(sftp.hardlink, b"/a", b"/b") == FAILURE
        assert await wire.code(sftp.hardlink, b"/a", b"/c/") == NO_SUCH_FILE
        await wire.ask(sftp.mkdir, b"/d")
        assert await wire.code(sftp.hardlink, b"/d", b"/e") == DENIED
        await wire.ask(sftp.symlink, b"/a", b"/l")
        await wire.ask(sftp.hardlink, b"/l", b"/m")
        assert await wire.ask(sftp.readlink, b"/m") is not None
        assert stat.S_ISLNK((await wire.ask(sftp.lstat, b"/m")).mode)


async def test_links_have_their_target_first() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.ask(sftp.symlink, b"some/where \xff", b"/l")
        (name,) = await wire.ask(sftp.readlink, b"/l")
        assert name.name == b"some/where \xff"
        assert await wire.code(sftp.readlink, b"/") == BAD
        assert await wire.code(sftp.symlink, b"", b"/m") == NO_SUCH_FILE
        assert await wire.code(sftp.symlink, b"x", b"/l") == FAILURE
        assert await wire.code(sftp.symlink, b"x", b"/m/") == NO_SUCH_FILE
        assert await wire.code(sftp.symlink, b"x", b"/l/") == FAILURE
        assert await wire.code(sftp.stat, b"/l") == NO_SUCH_FILE
        attrs = await wire.ask(sftp.lstat, b"/l")
        assert stat.S_ISLNK(attrs.mode)
        assert attrs.size == 12


async def test_setstat_and_lsetstat() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.put(b"/f", b"0123456789")
        await wire.ask(sftp.symlink, b"f", b"/l")
        times = sftp.Attrs(atime=1, mtime=2**32 - 1)
        await wire.ask(sftp.setstat, b"/l", times._replace(size=3, mode=0o100640))
        got = await wire.ask(sftp.lstat, b"/f")
        assert (got.size, got.mode, got.atime) == (3, 0o100640, 1)
        assert got.mtime == 2**32 - 1
        await wire.ask(sftp.lsetstat, b"/l", sftp.Attrs(atime=7, mtime=8))
        got = await wire.ask(sftp.lstat, b"/l")
        assert (got.atime, got.mtime) == (7, 8)
        assert (await wire.ask(sftp.stat, b"/l")).atime == 1
        assert await wire.code(sftp.lsetstat, b"/f", sftp.Attrs(size=1)) == BAD
        assert (
            await wire.code(sftp.lsetstat, b"/l", sftp.Attrs(mode=0o600, atime=9, mtime=9))
            == sftp.FX_OP_UNSUPPORTED
        )
        assert (await wire.ask(sftp.lstat, b"/l")).atime == 9
        await wire.ask(sftp.setstat, b"/f", sftp.Attrs())
        assert await wire.code(sftp.setstat, b"/", sftp.Attrs(size=0)) == FAILURE


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
async def test_setstat_goes_on_after_a_failure() -> None:
    async with served() as tree:
        async with tree.client() as wire:
            await wire.put(b"/f", b"0123456789")
            await wire.ask(sftp.setstat, b"/f", sftp.Attrs(uid=1234, gid=1234))
            await wire.ask(sftp.setstat, b"/", sftp.Attrs(mode=0o777))
        async with tree.client(cred=Cred(1234, 1234)) as wire:
            attrs = sftp.Attrs(size=4, uid=0, gid=0, mode=0o600, atime=5, mtime=6)
            assert await wire.code(sftp.setstat, b"/f", attrs) == DENIED
            got = await wire.ask(sftp.stat, b"/f")
            assert got == attrs._replace(uid=1234, gid=1234, mode=0o100600)
            # A new owner takes set-id bits away that were given just before.
            attrs = sftp.Attrs(uid=1234, gid=1234, mode=0o4755)
            await wire.ask(sftp.setstat, b"/f", attrs)
            assert (await wire.ask(sftp.stat, b"/f")).mode == 0o100755


async def test_permissions_are_those_of_the_user() -> None:
    async with served() as tree:
        async with tree.client(cred=Cred(0, 0)) as wire:
            await wire.ask(sftp.mkdir, b"/closed", sftp.Attrs(mode=0o700))
            await wire.put(b"/closed/f", b"")
            await wire.put(b"/secret", b"", 0o600)
        async with tree.client(cred=Cred(77, 77)) as wire:
            assert await wire.code(sftp.stat, b"/closed/f") == DENIED
            assert await wire.code(sftp.opendir, b"/closed") == DENIED
            assert await wire.code(sftp.open_, b"/secret", sftp.FXF_READ) == DENIED
            assert await wire.code(sftp.mkdir, b"/new") == DENIED
            assert await wire.code(sftp.remove, b"/secret") == DENIED
            assert await wire.code(sftp.setstat, b"/secret", sftp.Attrs(mode=0o666)) == DENIED
            assert (await wire.ask(sftp.stat, b"/secret")).mode == 0o100600


async def test_a_directory_that_is_closed_is_closed_to_others_who_were_in_it() -> None:
    async with served() as tree:
        async with tree.client(cred=Cred(0, 0)) as root, tree.client(cred=Cred(77, 77)) as user:
            await root.ask(sftp.mkdir, b"/d")
            await root.ask(sftp.mkdir, b"/d/e")
            await root.put(b"/d/e/f", b"")
            await user.ask(sftp.stat, b"/d/e/f")
            await root.ask(sftp.setstat, b"/d", sftp.Attrs(mode=0o700))
            assert await user.code(sftp.stat, b"/d/e/f") == DENIED


async def test_a_tree_that_is_mounted_read_only() -> None:
    async with served(rdonly=True) as tree, tree.client() as wire:
        for ask, args in (
            (sftp.mkdir, (b"/d",)),
            (sftp.open_, (b"/f", MAKE)),
            (sftp.symlink, (b"t", b"/l")),
            (sftp.setstat, (b"/", sftp.Attrs(mode=0o700))),
        ):
            assert await wire.code(ask, *args) == DENIED


async def test_realpath_and_its_relatives() -> None:
    async with served() as tree, tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/home")
        await wire.ask(sftp.mkdir, b"/home/me")
        await wire.put(b"/home/f", b"")
        await wire.ask(sftp.symlink, b"/home/me", b"/l")
        async with tree.client(start=b"/home") as other:
            for path, wanted in (
                (b".", b"/home"),
                (b"", b"/home"),
                (b"me", b"/home/me"),
                (b"me/..", b"/home"),
                (b"../..", b"/"),
                (b"/", b"/"),
                (b"//home///me//", b"/home/me"),
                (b"/l", b"/home/me"),
                (b"/l/..", b"/home"),
                (b"new", b"/home/new"),
                (b"/home/./f", b"/home/f"),
            ):
                (name,) = await other.ask(sftp.realpath, path)
                assert name == sftp.Name(wanted, wanted, sftp.NO_ATTRS)
                if path:
                    (name,) = await other.ask(sftp.expand_path, path)
                    assert name.name == wanted
            for path in (b"new/x", b"f/x", b"new/"):
                assert await other.code(sftp.realpath, path) == NO_SUCH_FILE
            for path, wanted in (
                (b"~", b"/home"),
                (b"~/me", b"/home/me"),
                (b"~me/me", b"/home/me"),
            ):
                (name,) = await other.ask(sftp.expand_path, path)
                assert name.name == wanted
            assert await other.code(sftp.expand_path, b"~nobody/x") == NO_SUCH_FILE
            for user in (b"", b"me"):
                (name,) = await other.ask(sftp.home_directory, user)
                assert name.name == b"/home"
            assert await other.code(sftp.home_directory, b"nobody") == FAILURE
            assert (await other.ask(sftp.stat, b"f")).size == 0


async def test_state_of_the_file_system() -> None:
    async with served(TmpFs(size_limit=1 << 20)) as tree, tree.client() as wire:
        handle = await wire.open(b"/f", BOTH)
        by_path = sftp.decode_statvfs(await wire.ask(sftp.statvfs, b"/"))
        by_handle = sftp.decode_statvfs(await wire.ask(sftp.fstatvfs, handle))
        assert by_path == by_handle
        assert by_path.blocks * by_path.frsize == 1 << 20
        assert await wire.code(sftp.fstatvfs, b"none") == FAILURE
        await wire.ask(sftp.close, handle)


async def test_copy_data() -> None:
    async with served() as tree, tree.client() as wire:
        data = bytes(range(256)) * 4000
        await wire.put(b"/from", data)
        source = await wire.open(b"/from")
        target = await wire.open(b"/to", BOTH)
        await wire.ask(sftp.copy_data, source, 0, 0, target, 0)
        assert await wire.get(b"/to") == data
        await wire.ask(sftp.copy_data, source, 10, 20, target, 5)
        assert (await wire.get(b"/to"))[:30] == data[:5] + data[10:30] + data[25:30]
        assert await wire.code(sftp.copy_data, source, 0, 2**63 - 1, target, 0) == sftp.FX_EOF
        assert await wire.code(sftp.copy_data, source, 0, 1, source, 0) == FAILURE
        assert await wire.code(sftp.copy_data, b"none", 0, 1, target, 0) == FAILURE
        again = await wire.open(b"/from", sftp.FXF_WRITE)
        assert await wire.code(sftp.copy_data, source, 0, 1, again, 0) == FAILURE
        appender = await wire.open(b"/log", MAKE | sftp.FXF_APPEND)
        for _ in range(2):
            await wire.ask(sftp.copy_data, source, 0, 3, appender, 0)
        assert await wire.get(b"/log") == data[:3] * 2
        for handle in (source, target, again, appender):
            await wire.ask(sftp.close, handle)


async def test_names_of_users_and_groups() -> None:
    async with served() as tree, tree.client() as wire:
        answer = await wire.ask(sftp.users_groups_by_id, [0, 4_294_967_294, 0], [0])
        users, groups = sftp.decode_users_groups(answer)
        assert (users, groups) == ([b"root", b"", b"root"], [b"root"])
        many = await wire.ask(sftp.users_groups_by_id, range(1000, 6000), range(2000))
        users, groups = sftp.decode_users_groups(many)
        assert (len(users), len(groups)) == (5000, 2000)


async def test_fsync_reaches_the_file_server() -> None:
    async with served() as tree, tree.client() as wire:
        handle = await wire.open(b"/f", BOTH)
        await wire.write(handle, 0, b"x")
        before = tree.counting.calls["fsync"]
        await wire.ask(sftp.fsync, handle)
        await wire.ask(sftp.close, handle)  # clean: nothing to be flushed
        assert tree.counting.calls["fsync"] == before + 1
        assert await wire.code(sftp.fsync, handle) == NO_SUCH_FILE


async def _fill(wire: Wire, count: int) -> set[bytes]:
    for number in range(count):
        await wire.put(b"/d/%d" % number, bytes(number % 7))
    return {b"%d" % number for number in range(count)}


async def test_a_listing_comes_in_batches_with_attributes(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/d")
        wanted = await _fill(wire, 700)
        handle = await wire.ask(sftp.opendir, b"/d")
        batches = []
        while True:
            number = wire.number()
            await wire.send(sftp.readdir(number, handle))
            kind, _, body = await wire.reply()
            if kind == sftp.FXP_STATUS:
                break
            assert len(body) < 34_000  # what every client must take
            batches.append(sftp.decode_name(body))
        assert await wire.code(sftp.readdir, handle) == sftp.FX_EOF
        await wire.ask(sftp.close, handle)
        assert len(batches) < 5
        names = [entry.name for batch in batches for entry in batch]
        assert len(names) == len(set(names)) == 702
        assert set(names) == wanted | {b".", b".."}
        for batch in batches:
            for entry in batch:
                if entry.name not in (b".", b".."):
                    assert entry.attrs == await wire.ask(sftp.lstat, b"/d/" + entry.name)


async def test_dot_and_dotdot_show_the_right_directories(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/a")
        await wire.ask(sftp.mkdir, b"/a/b")
        for path, mode in ((b"/", 0o711), (b"/a", 0o722), (b"/a/b", 0o733)):
            await wire.ask(sftp.setstat, path, sftp.Attrs(mode=mode))
        for path, own, above in (
            (b"/", 0o711, 0o711),
            (b"/a", 0o722, 0o711),
            (b"/a/b/", 0o733, 0o722),
            (b"/a/b/.", 0o733, 0o722),
            (b"/a/b/..", 0o722, 0o711),
        ):
            listed = {entry.name: entry.attrs.mode for entry in await wire.entries(path)}
            assert listed[b"."] == stat.S_IFDIR | own
            assert listed[b".."] == stat.S_IFDIR | above, path


async def test_longnames_are_those_of_ls(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.put(b"/f", b"12345", 0o640)
        await wire.ask(sftp.setstat, b"/f", sftp.Attrs(atime=0, mtime=86_400 * 365))
        await wire.ask(sftp.symlink, b"f", b"/l")
        listed = {entry.name: entry.longname for entry in await wire.entries(b"/")}
        assert listed[b"f"].startswith(b"-rw-r-----")
        assert listed[b"f"].split()[4:] == [b"5", b"Jan", b"1", b"1971", b"f"]
        assert listed[b"l"].startswith(b"lrwxrwxrwx")
        assert b":" in listed[b"l"]


async def test_a_directory_that_changes_while_it_is_read(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/d")
        wanted = await _fill(wire, 900)
        handle = await wire.ask(sftp.opendir, b"/d")
        seen = [entry.name for entry in await wire.ask(sftp.readdir, handle)]
        for name in sorted(wanted)[::2]:
            await wire.ask(sftp.remove, b"/d/" + name)
        left = set(sorted(wanted)[1::2])
        while True:
            try:
                seen += [entry.name for entry in await wire.ask(sftp.readdir, handle)]
            except StatusReply:
                break
        await wire.ask(sftp.close, handle)
        assert len(seen) == len(set(seen))
        assert left <= set(seen)


def test_attributes_that_the_wire_cannot_carry() -> None:
    full = Vattr(Vtype.VREG, 0o644, 1, 1, 2, size=3, atime=-5, mtime=2**33 * 10**9)
    assert attrs_of(full) == sftp.Attrs(3, 1, 2, 0o100644, 0, 2**32 - 1)
    assert attrs_of(Vattr(Vtype.VDIR)) == sftp.Attrs(mode=stat.S_IFDIR)
    assert attrs_of(Vattr(mode=0o7, uid=1, size=2)) == sftp.Attrs(size=2)
    assert attrs_of(Vattr(Vtype.VREG, 0, mtime=5 * 10**9)) == sftp.Attrs(
        mode=stat.S_IFREG, atime=5, mtime=5
    )
