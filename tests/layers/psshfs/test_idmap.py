"""Whose files these are: ids of the server and of this machine, both ways."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from syspuffs.gateway.status import CommandError
from syspuffs.gateway.words.idfiles import group_ids, user_ids
from syspuffs.layers.psshfs import Psshfs, PsshfsOptions
from syspuffs.layers.psshfs.options import Idmap
from syspuffs.native import sftp
from syspuffs.native.constants import READDIR_PLUS
from syspuffs.native.errors import VfsError
from syspuffs.native.packed import NOBODY
from syspuffs.native.records import Vattr

from .harness import CRED, VERSION, look, mounted, packet, root_of, scripted, status, string

BY_NAME = PsshfsOptions(idmap=Idmap.NAME, cache_timeout_ns=0)
ME, MINE = os.geteuid(), os.getegid()

THEIR_USERS = {500: b"daemon", 501: b"stranger", 502: b"bin", 503: b"\xff\x00", 1: b"daemon"}
"""What a server calls its users: some it calls what this machine calls others."""
THEIR_GROUPS = {600: b"daemon", 601: b"strangers", 2: b"bin"}
DAEMON, BIN = 1, 2
"""Ids that Debian has had since 1993."""


class Server:
    """A server with a few files, which remembers what it was told of owners."""

    def __init__(self, *, offers: bool = True, refuses: bool = False, lies: bool = False) -> None:
        self.files = {b"/d": (500, 600), b"/s": (501, 601), b"/b": (502, 2), b"/x": (503, 77)}
        self.questions: list[tuple[int, int]] = []
        self.refuses = refuses
        self.lies = lies
        self.version = VERSION
        if offers:
            body = struct.pack(">BI", sftp.FXP_VERSION, 3) + string(sftp.EXT_USERS_GROUPS)
            body += string(b"1")
            self.version = struct.pack(">I", len(body)) + body

    def attrs(self, path: bytes) -> bytes:
        return struct.pack(">IQIIIII", 15, 0, *self.files[path], 0o100644, 1000, 1000)

    def __call__(self, kind: int, number: int, body: bytes) -> bytes:
        path = body[4 : 4 + struct.unpack_from(">I", body)[0]]
        if kind == sftp.FXP_LSTAT:
            if path not in self.files:
                return status(number, sftp.FX_NO_SUCH_FILE)
            return packet(sftp.FXP_ATTRS, number, self.attrs(path))
        if kind == sftp.FXP_SETSTAT:
            uid, gid = struct.unpack_from(">II", body, 8 + len(path))
            self.files[path] = (uid, gid)
            return status(number, sftp.FX_OK)
        if kind == sftp.FXP_OPENDIR:
            return packet(sftp.FXP_HANDLE, number, string(b"h"))
        if kind == sftp.FXP_READDIR and not self.listed:
            self.listed = True
            entries = [
                string(path[1:]) + string(b"-rw-r--r-- 1 ") + self.attrs(path)
                for path in self.files
            ]
            names = struct.pack(">I", len(entries)) + b"".join(entries)
            return packet(sftp.FXP_NAME, number, names)
        if kind == sftp.FXP_EXTENDED:
            assert path == sftp.EXT_USERS_GROUPS
            return self._names(number, body[4 + len(path) :])
        return status(number, sftp.FX_EOF if kind == sftp.FXP_READDIR else sftp.FX_OK)

    listed = False

    def _names(self, number: int, body: bytes) -> bytes:
        size = struct.unpack_from(">I", body)[0]
        users = struct.unpack_from(f">{size // 4}I", body, 4)
        size2 = struct.unpack_from(">I", body, 4 + size)[0]
        groups = struct.unpack_from(f">{size2 // 4}I", body, 8 + size)
        self.questions.append((len(users), len(groups)))
        if self.refuses:
            return status(number, sftp.FX_FAILURE)
        answer = [
            b"".join(string(names.get(one, b"")) for one in asked)
            for asked, names in ((users, THEIR_USERS), (groups, THEIR_GROUPS))
        ]
        if self.lies:
            answer[0] += string(b"daemon") * 3
        return packet(sftp.FXP_EXTENDED_REPLY, number, b"".join(map(string, answer)))


async def owner(server: Psshfs, name: bytes) -> tuple[int | None, int | None]:
    info = await look(server, name)
    va, _ = await server.getattr(info.cookie, CRED)
    return va.uid, va.gid


async def test_names_of_the_server_are_those_of_this_machine() -> None:
    peer = Server()
    async with scripted(peer, options=BY_NAME, version=peer.version) as (server, _):
        assert await owner(server, b"d") == (DAEMON, DAEMON)
        assert await owner(server, b"s") == (NOBODY, NOBODY)
        assert await owner(server, b"b") == (BIN, BIN)
        assert await owner(server, b"x") == (NOBODY, NOBODY)
        asked = len(peer.questions)
        assert await owner(server, b"d") == (DAEMON, DAEMON)
        assert len(peer.questions) == asked, "each id is asked for once"


async def test_a_listing_asks_once() -> None:
    peer = Server()
    options = PsshfsOptions(idmap=Idmap.NAME)
    async with scripted(peer, options=options, version=peer.version) as (server, _):
        entries, _ = await server.readdir(root_of(server), 0, 1 << 20, READDIR_PLUS, CRED)
        found = {
            entry.name: (entry.newinfo.va.uid, entry.newinfo.va.gid)
            for entry in entries
            if entry.newinfo is not None and entry.newinfo.va is not None
        }
        assert found == {
            b"d": (DAEMON, DAEMON),
            b"s": (NOBODY, NOBODY),
            b"b": (BIN, BIN),
            b"x": (NOBODY, NOBODY),
        }
        assert peer.questions == [(5, 5)], "all at once, the owner of the root among them"
        info = await look(server, b"d")
        assert info.va is not None
        assert info.va.uid == DAEMON


async def test_given_away_by_name() -> None:
    """To an owner that was seen; to one whose id is the same there; to no other."""
    peer = Server()
    async with scripted(peer, options=BY_NAME, version=peer.version) as (server, _):
        await owner(server, b"d")
        b = await look(server, b"b")
        va, _ = await server.setattr(b.cookie, Vattr(uid=DAEMON), CRED)
        assert (va.uid, va.gid) == (DAEMON, BIN)
        assert peer.files[b"/b"] == (500, 2)
        va, _ = await server.setattr(b.cookie, Vattr(gid=DAEMON), CRED)
        assert peer.files[b"/b"] == (500, 600)
        with pytest.raises(VfsError) as caught:
            await server.setattr(b.cookie, Vattr(uid=31337), CRED)
        assert caught.value.errno == errno.EPERM
        assert peer.files[b"/b"] == (500, 600)


@pytest.mark.parametrize("how", ["not offered", "refuses", "lies"])
async def test_a_server_without_names(how: str) -> None:
    """All are nobody's, or with leave pass as they are."""
    for ignore, wanted in ((False, (NOBODY, NOBODY)), (True, (500, 600))):
        peer = Server(offers=how != "not offered", refuses=how == "refuses", lies=how == "lies")
        options = BY_NAME if not ignore else PsshfsOptions(idmap=Idmap.NAME, nomap_ignore=True)
        async with scripted(peer, options=options, version=peer.version) as (server, _):
            assert await owner(server, b"d") == wanted


async def test_by_tables() -> None:
    for ignore in (False, True):
        peer = Server()
        options = PsshfsOptions(
            idmap=Idmap.FILE,
            uids={500: 7000, 502: 7002},
            gids={600: 8000},
            nomap_ignore=ignore,
            cache_timeout_ns=0,
        )
        async with scripted(peer, options=options) as (server, _):
            assert await owner(server, b"d") == (7000, 8000)
            assert await owner(server, b"s") == ((501, 601) if ignore else (NOBODY, NOBODY))
            d = await look(server, b"d")
            await server.setattr(d.cookie, Vattr(uid=7002), CRED)
            assert peer.files[b"/d"] == (502, 600)
            if ignore:
                await server.setattr(d.cookie, Vattr(uid=9), CRED)
                assert peer.files[b"/d"] == (9, 600)
            else:
                with pytest.raises(VfsError):
                    await server.setattr(d.cookie, Vattr(uid=9), CRED)
                assert peer.files[b"/d"] == (502, 600)


async def test_the_owner_of_the_login_directory_is_me() -> None:
    """The scripted server's login directory is root's; whoever runs this test owns it here."""
    peer = Server()
    peer.files[b"/mine"] = (0, 0)
    async with scripted(peer, options=PsshfsOptions(idmap=Idmap.USER)) as (server, _):
        assert await owner(server, b"mine") == (ME, MINE)
        assert await owner(server, b"d") == (500, 600)


async def test_new_files_are_shown_as_mine(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=PsshfsOptions(idmap=Idmap.NAME)) as server:
        (tmp_path / "file").touch()
        assert await owner(server, b"file") == (ME, MINE)


# The files.


def test_files_by_name_or_number(tmp_path: Path) -> None:
    file = tmp_path / "uids"
    file.write_text("# comment\n\ndaemon:500\n 7000:501\nno-such-user-here:502\nbin:x:503:9:::\n")
    assert user_ids(str(file)) == {500: DAEMON, 501: 7000, 503: BIN}
    assert group_ids(str(file)) == {500: DAEMON, 501: 7000, 503: BIN}
    assert user_ids(None) == {}


@pytest.mark.parametrize(
    "line", ["daemon", "daemon:", "daemon:me", ":5", "daemon:-1", "a:99999999999"]
)
def test_files_that_make_no_sense(tmp_path: Path, line: str) -> None:
    file = tmp_path / "uids"
    file.write_text(f"daemon:1\n{line}\n")
    with pytest.raises(CommandError, match=r"line 2 is no name:remote_id"):
        user_ids(str(file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        group_ids(f"{tmp_path}/none")
