"""User and group ids of the server and those of this machine: which is which.

`Ids` is one such table, for users or for groups. `FarNames` fills two of them by names: the
server is asked what it calls ids that were not seen before (users-groups-by-id@openssh.com), and
this machine what number it has for such a name. An id that waits for its name is carried as a
number that no id can be (`PENDING` and above) and never leaves the file server.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from ....native import sftp
from ....native.errors import VfsError
from ....native.packed import NOBODY
from ..options import Idmap, PsshfsOptions
from ..wire.connection import Connection
from ..wire.errmap import StatusError
from ..wire.slot import Answer

PENDING: Final = 1 << 32
_ASKED_MAX: Final = 256
"""Ids in one question; OpenSSH takes more, but a packet must not become long."""
_KNOWN_MAX: Final = 4096
"""Ids in one table: a server that makes them up must not fill our memory."""

NAMES_OF_IDS: Final = Answer(sftp.FXP_EXTENDED_REPLY, sftp.decode_users_groups)


class Ids(dict[int, int]):
    """The server's id -> ours; with `strict`, one that is not there is nobody's, else itself."""

    def __init__(self, known: Mapping[int, int], *, strict: bool, asks: bool = False) -> None:
        super().__init__(known)
        self.unknown: set[int] = set()
        """Ids of the server whose names shall be asked for."""
        self._strict = strict
        self._asks = asks
        self._near = {ours: theirs for theirs, ours in reversed(list(known.items()))}

    def __missing__(self, far: int) -> int:
        if self._asks and len(self) < _KNOWN_MAX:
            self.unknown.add(far)
            return PENDING + far
        return NOBODY if self._strict else far

    def far(self, near: int) -> int:
        """Return the server's id for one of ours. Errors: EPERM where there is none."""
        if near >= PENDING:
            return near - PENDING
        found: int | None = self._near.get(near)
        if found is not None:
            return found
        if self._strict:
            raise VfsError(errno.EPERM, f"the server has no id for {near} of this machine")
        return near

    def has(self, near: int) -> bool:
        """Tell whether the server has an id for one of ours, as far as is known."""
        return near in self._near

    def learn(self, far: int, near: int | None) -> None:
        """Take in what an id of the server is here; None: nobody, or with leave, the same."""
        self.unknown.discard(far)
        if near is not None:
            self._near.setdefault(near, far)
        else:
            near = NOBODY if self._strict else far
        self[far] = near


def tables(
    options: PsshfsOptions, home: tuple[int | None, int | None]
) -> tuple[Ids | None, Ids | None]:
    """Return the tables for users and for groups; None where ids pass as they are.

    `home`: owner and group of the login directory.
    """
    users = dict(options.uids) if options.idmap is Idmap.FILE else {}
    groups = dict(options.gids) if options.idmap is Idmap.FILE else {}
    own = (
        (users, options.uid, home[0], os.geteuid()),
        (groups, options.gid, home[1], os.getegid()),
    )
    for table, given, found, near in own:
        far = found if given is None and options.idmap is Idmap.USER else given
        if far is not None:
            table[far] = near
    asks = options.idmap is Idmap.NAME
    strict = options.idmap in (Idmap.FILE, Idmap.NAME) and not options.nomap_ignore
    if strict or asks:
        return Ids(users, strict=strict, asks=asks), Ids(groups, strict=strict, asks=asks)
    return Ids(users, strict=False) if users else None, (
        Ids(groups, strict=False) if groups else None
    )


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _user(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name


def _group(gid: int) -> str:
    return grp.getgrgid(gid).gr_name


class FarNames:
    """Asks the server for the names of ids. One question at a time; others wait for it."""

    def __init__(self, users: Ids, groups: Ids, *, offered: bool) -> None:
        self._users = users
        self._groups = groups
        self._offered = offered
        self._lock = trio.Lock()

    @property
    def is_owed(self) -> bool:
        """Whether ids were seen whose names are not known yet."""
        return bool(self._users.unknown or self._groups.unknown)

    async def ask(self, connection: Connection) -> None:
        """Learn all names that are owed. Errors: those of a connection that has ended."""
        async with self._lock:
            while self.is_owed:
                users = sorted(self._users.unknown)[:_ASKED_MAX]
                groups = sorted(self._groups.unknown)[:_ASKED_MAX]
                named = await self._names(connection, users, groups)
                # In a thread: a directory service may be asked, and take its time.
                found = await trio.to_thread.run_sync(
                    _find_here, _printable(named[0]), _printable(named[1])
                )
                for ids, asked, near in zip(
                    (self._users, self._groups), (users, groups), found, strict=True
                ):
                    for far, one in zip(asked, near, strict=True):
                        ids.learn(far, one)

    async def find_far(self, connection: Connection, uid: int | None, gid: int | None) -> None:
        """Learn whether the server calls our ids what we call them: then they are its, too.

        Version 3 has no question for the id of a name; other names are known once they were seen.
        """
        users = [] if uid is None or self._users.has(uid) else [uid]
        groups = [] if gid is None or self._groups.has(gid) else [gid]
        if not users and not groups:
            return
        named = await self._names(connection, users, groups)
        ours = await trio.to_thread.run_sync(_name_here, users, groups)
        for ids, asked, theirs, own in zip(
            (self._users, self._groups), (users, groups), named, ours, strict=True
        ):
            if asked and own[0] is not None and theirs[0] == os.fsencode(own[0]):
                ids.learn(asked[0], asked[0])

    async def _names(
        self, connection: Connection, users: Sequence[int], groups: Sequence[int]
    ) -> tuple[list[bytes], list[bytes]]:
        if self._offered:
            try:
                named = await connection.submit(
                    NAMES_OF_IDS, sftp.users_groups_by_id, users, groups
                )
            except StatusError:
                pass  # announced and refused: as if it were not there
            else:
                if (len(named[0]), len(named[1])) == (len(users), len(groups)):
                    return named
        return [b""] * len(users), [b""] * len(groups)


def _printable(names: Sequence[bytes]) -> list[str | None]:
    """Return names that may be looked up; a peer may say anything."""
    return [
        name.decode() if name and len(name) < 256 and name.isascii() and b"\0" not in name else None
        for name in names
    ]


def _find_here(
    users: Sequence[str | None], groups: Sequence[str | None]
) -> tuple[list[int | None], list[int | None]]:
    return [_or_none(_uid, name) for name in users], [_or_none(_gid, name) for name in groups]


def _name_here(
    users: Sequence[int], groups: Sequence[int]
) -> tuple[list[str | None], list[str | None]]:
    def one(find: Callable[[int], str], number: int) -> str | None:
        try:
            return find(number)
        except KeyError:
            return None

    return [one(_user, uid) for uid in users], [one(_group, gid) for gid in groups]


def _or_none(find: Callable[[str], int], name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return find(name)
    except (KeyError, ValueError):
        return None
