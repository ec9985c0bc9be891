"""What users and groups are called, for longnames and for users-groups-by-id@openssh.com."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from typing import Final

_KEPT: Final = 4096
"""Names that are kept. A client that asks for every number must not fill our memory."""


class Identities:
    """Names of the host's users and groups, asked of it once each.

    Asking may take its time (LDAP): who has many numbers to ask for yields between them.
    """

    def __init__(self) -> None:
        self._users: dict[int, bytes] = {}
        self._groups: dict[int, bytes] = {}

    def user(self, uid: int) -> bytes:
        """Return the name of a user, b"" for an unknown one."""
        name = self._users.get(uid)
        return self._ask(self._users, uid, _user_name) if name is None else name

    def group(self, gid: int) -> bytes:
        """Return the name of a group, b"" for an unknown one."""
        name = self._groups.get(gid)
        return self._ask(self._groups, gid, _group_name) if name is None else name

    def _ask(self, known: dict[int, bytes], number: int, ask: Callable[[int], str]) -> bytes:
        if len(known) >= _KEPT:
            known.clear()
        try:
            name = os.fsencode(ask(number))
        except (KeyError, OverflowError):
            name = b""
        known[number] = name
        return name


def _user_name(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name


def _group_name(gid: int) -> str:
    return grp.getgrgid(gid).gr_name
