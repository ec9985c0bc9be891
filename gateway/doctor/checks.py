"""Looking at a server, with requests that change nothing."""

from __future__ import annotations

import os
import pwd
import statistics
from pathlib import PurePosixPath
from typing import Final

import trio

from ...layers.psshfs import Psshfs, StatusError
from ...layers.psshfs.tree.idmap import NAMES_OF_IDS
from ...layers.psshfs.wire.slot import ATTRS, DATA, HANDLE, NAMES, ONE_NAME, STATUS, Slot
from ...native import sftp
from ...native.errors import VfsError
from .findings import Finding, Tell, Verdict

_TRIPS: Final = 20
"""Questions for the round trip, one after the other."""
_READ_MAX: Final = 16 << 20
"""Octets read at most to measure the bandwidth."""
_READ_MIN: Final = 1 << 20
"""A file must have so much to say anything about it."""
_SECONDS: Final = 3.0
"""For so long data are read at most."""
_IN_FLIGHT: Final = 64
_LISTED: Final = 2000
"""Names looked at for a file and a link that say something."""

_EXTENSIONS: Final = (
    (sftp.EXT_LIMITS, b"1", "packets of 32 KiB are used: slow on a long link"),
    (sftp.EXT_POSIX_RENAME, b"1", "a rename over a file is done in three steps, not in one"),
    (sftp.EXT_STATVFS, b"2", "df shows nothing; 'disk full' is told as a plain failure"),
    (sftp.EXT_HARDLINK, b"1", "no hard links can be made"),
    (sftp.EXT_FSYNC, b"1", "fsync waits for the server, not for its disk"),
    (sftp.EXT_LSETSTAT, b"1", "times and owners of symbolic links cannot be set"),
    (sftp.EXT_USERS_GROUPS, b"1", "idmap=name does not work; idmap=file does"),
    (sftp.EXT_COPY_DATA, b"1", "copies within the server go through here"),
    (sftp.EXT_HOME_DIRECTORY, b"1", "nothing: the login directory is asked for otherwise"),
    (sftp.EXT_EXPAND_PATH, b"1", "nothing: '~' is not used"),
)
"""Extension, the revision that is known here, and what is so without it."""


async def examine(server: Psshfs, tell: Tell) -> None:
    """Look at the server behind a mounted tree. Errors: those of a connection that ends."""
    _limits(server, tell)
    _extensions(server, tell)
    await _round_trip(server, tell)
    await _space(server, tell)
    await _owners(server, tell)
    names = await _listing(server)
    await _links(server, names, tell)
    await _bandwidth(server, names, tell)


def _limits(server: Psshfs, tell: Tell) -> None:
    session = server.session
    handles = f", {session.max_handles} open files" if session.max_handles else ""
    text = f"READ {session.max_read >> 10} KiB, WRITE {session.max_write >> 10} KiB{handles}"
    tell(Finding("packets", Verdict.TELLS, text, session.max_read))


def _extensions(server: Psshfs, tell: Tell) -> None:
    there = server.session.extensions
    for name, revision, without in _EXTENSIONS:
        topic = name.decode().partition("@")[0]
        found = there.get(name)
        if found == revision:
            tell(Finding(topic, Verdict.WORKS, "announced"))
        elif found is None:
            tell(Finding(topic, Verdict.LACKS, without))
        else:
            shown = found[:40].decode(errors="replace")
            text = f"revision {shown} is not the known {revision.decode()}: {without}"
            tell(Finding(topic, Verdict.LACKS, text))
    others = sorted(set(there) - {name for name, _, _ in _EXTENSIONS} - {sftp.EXT_FSTATVFS})
    if others:
        shown = ", ".join(name[:60].decode(errors="replace") for name in others[:20])
        tell(Finding("others", Verdict.TELLS, f"announced and not used: {shown}"))


async def _round_trip(server: Psshfs, tell: Tell) -> None:
    root = server.session.root or b"/"
    times = []
    for _ in range(_TRIPS):
        start = trio.current_time()
        await server.connection.submit(ATTRS, sftp.stat, root)
        times.append(trio.current_time() - start)
    middle, least = statistics.median(times) * 1e3, min(times) * 1e3
    text = f"{middle:.1f} ms in the middle, {least:.1f} ms at best, of {_TRIPS}"
    tell(Finding("round trip", Verdict.TELLS, text, middle))


async def _space(server: Psshfs, tell: Tell) -> None:
    if not server.session.statvfs:
        return
    try:
        state = await server.statvfs()
    except VfsError as exc:
        tell(Finding("space", Verdict.FAILS, f"statvfs is announced and fails: {exc}"))
        return
    free, whole = state.bavail * state.frsize, state.blocks * state.frsize
    text = f"{free / 1e9:.1f} of {whole / 1e9:.1f} GB free"
    if state.flag & 1:
        text += ", read-only"
    tell(Finding("space", Verdict.TELLS, text, free))


async def _owners(server: Psshfs, tell: Tell) -> None:
    """Say who owns the tree there, and who that is here."""
    attrs = await server.connection.submit(ATTRS, sftp.stat, server.session.root or b"/")
    uid, gid = attrs.uid, attrs.gid
    if uid is None or gid is None:
        tell(Finding("owners", Verdict.LACKS, "the server tells no owners: all is nobody's"))
        return
    theirs = ""
    if server.session.users_groups:
        try:
            users, groups = await server.connection.submit(
                NAMES_OF_IDS, sftp.users_groups_by_id, [uid], [gid]
            )
        except StatusError as exc:
            tell(Finding("owners", Verdict.FAILS, f"it announces names and refuses: {exc}"))
            users, groups = [], []
        if users and groups:
            theirs = f" ({users[0].decode(errors='replace')}, {groups[0].decode(errors='replace')})"
    try:
        ours = pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        ours = "nobody that is known"
    advice = ""
    if uid != os.geteuid():
        advice = f"; if that is you, idmap=user or remote_uid={uid}"
    text = f"the directory is {uid}:{gid}{theirs}'s, here {uid} is {ours}{advice}"
    tell(Finding("owners", Verdict.TELLS, text, uid))


async def _listing(server: Psshfs) -> list[sftp.Name]:
    """Return the first names of the directory."""
    connection = server.connection
    names: list[sftp.Name] = []
    try:
        handle = await connection.submit(HANDLE, sftp.opendir, server.session.root or b"/")
    except StatusError:
        return names
    try:
        while len(names) < _LISTED:
            more = await connection.submit(NAMES, sftp.readdir, handle)
            if not more:
                break
            names += more
    except StatusError:
        pass  # what was listed will do
    finally:
        connection.close_handle(handle)
    return names


def _path(server: Psshfs, name: bytes) -> bytes:
    return server.session.root + b"/" + name


async def _links(server: Psshfs, names: list[sftp.Name], tell: Tell) -> None:
    """Look whether LSTAT tells of links themselves, at one that is there."""
    link = next((n for n in names if n.longname[:1] == b"l" and b"/" not in n.name), None)
    if link is None:
        return
    connection = server.connection
    path = _path(server, link.name)
    try:
        attrs = await connection.submit(ATTRS, sftp.lstat, path)
        await connection.submit(ONE_NAME, sftp.readlink, path)
    except StatusError as exc:
        tell(Finding("links", Verdict.FAILS, f"a symbolic link cannot be looked at: {exc}"))
        return
    if attrs.mode is not None and attrs.mode & 0o170000 != 0o120000:
        text = "LSTAT tells of what a link leads to: links look like that, as with symlinks=follow"
        tell(Finding("links", Verdict.FAILS, text))
    else:
        tell(Finding("links", Verdict.WORKS, "symbolic links are told from what they lead to"))


async def _bandwidth(server: Psshfs, names: list[sftp.Name], tell: Tell) -> None:
    """Read from the largest file of the directory."""
    files = [n for n in names if (n.attrs.mode or 0) & 0o170000 == 0o100000 and b"/" not in n.name]
    for name in sorted(files, key=lambda n: n.attrs.size or 0, reverse=True)[:3]:
        size = name.attrs.size or 0
        if size < _READ_MIN:
            break
        try:
            handle = await server.connection.submit(
                HANDLE, sftp.open_, _path(server, name.name), sftp.FXF_READ
            )
        except StatusError:
            continue  # perhaps another's
        try:
            octets, seconds = await read_through(server, handle, min(size, _READ_MAX))
        finally:
            server.connection.close_handle(handle)
        shown = PurePosixPath(os.fsdecode(name.name)).name
        told_bandwidth("reading", octets, seconds, tell, f" of {shown}")
        return
    text = "no file of 1 MiB in this directory; --write measures with one of its own"
    tell(Finding("reading", Verdict.TELLS, text))


def told_bandwidth(topic: str, octets: int, seconds: float, tell: Tell, what: str = "") -> None:
    """Say how fast `octets` went."""
    rate = octets / max(seconds, 1e-6) / 1e6
    text = f"{rate:.1f} MB/s: {octets / 1e6:.1f} MB{what} in {seconds:.2f} s, one connection"
    tell(Finding(topic, Verdict.TELLS, text, rate))


async def read_through(server: Psshfs, handle: bytes, size: int) -> tuple[int, float]:
    """Read a file from its beginning, many requests at once; return octets and seconds."""
    connection, step = server.connection, server.session.max_read
    start = trio.current_time()
    asked, octets = 0, 0
    slots: list[Slot[memoryview | bytes | None]] = []
    while octets < size and trio.current_time() - start < _SECONDS:
        while asked < size and len(slots) < _IN_FLIGHT:
            slot = Slot(connection, DATA)
            slot.asked = min(step, size - asked)
            connection.submit_slot(slot, sftp.read, handle, asked, slot.asked)
            slots.append(slot)
            asked += slot.asked
        data = await slots.pop(0)
        if data is None:
            break
        octets += len(data)
        if not slots and asked >= size:
            break
    for slot in slots:
        slot.abandon()
    return octets, trio.current_time() - start


async def write_through(server: Psshfs, handle: bytes, data: bytes) -> float:
    """Write `data` to a file from its beginning, many requests at once; return seconds."""
    connection, step = server.connection, server.session.max_write
    start = trio.current_time()
    slots: list[Slot[None]] = []
    for offset in range(0, len(data), step):
        piece = memoryview(data)[offset : offset + step]
        slot = Slot(connection, STATUS)
        connection.submit_slot(slot, sftp.write, handle, offset, len(piece), payload=piece)
        slots.append(slot)
        if len(slots) >= _IN_FLIGHT:
            await slots.pop(0)
    for slot in slots:
        await slot
    return trio.current_time() - start
