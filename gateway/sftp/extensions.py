"""What OpenSSH's server offers beyond version 3, and the requests that ask about the session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from ...native import sftp_server as sftp
from .answers import DATA_MAX, PACKET_MAX, Handler, Reply
from .status import Refusal
from .turns import Turn
from .view import View

EXTENSIONS: Final = {
    sftp.EXT_POSIX_RENAME: b"1",
    sftp.EXT_STATVFS: b"2",
    sftp.EXT_FSTATVFS: b"2",
    sftp.EXT_HARDLINK: b"1",
    sftp.EXT_FSYNC: b"1",
    sftp.EXT_LSETSTAT: b"1",
    sftp.EXT_LIMITS: b"1",
    sftp.EXT_EXPAND_PATH: b"1",
    sftp.EXT_COPY_DATA: b"1",
    sftp.EXT_HOME_DIRECTORY: b"1",
    sftp.EXT_USERS_GROUPS: b"1",
}
"""Extension -> revision, in the order in which OpenSSH announces them."""

_IDS_AT_ONCE: Final = 64
"""Numbers whose names are asked for before others get their turn."""


class SessionRequests:
    """Answers the requests that concern neither a path nor a handle."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.handlers: dict[type[Any], Handler] = {
            sftp.LimitsRequest: self.limits,
            sftp.HomeDirectory: self.home_directory,
            sftp.UsersGroupsById: self.users_groups_by_id,
        }

    async def limits(self, turn: Turn, request: sftp.LimitsRequest) -> Reply:
        """Answer with what is taken at most."""
        limits = sftp.Limits(PACKET_MAX, DATA_MAX, DATA_MAX, self._view.handles.limit)
        return sftp.limits(request.id, limits)

    async def home_directory(self, turn: Turn, request: sftp.HomeDirectory) -> Reply:
        """Answer with where the user's own relative paths begin; others have no home here."""
        if request.user not in (b"", self._view.user):
            raise Refusal(sftp.FX_FAILURE, b"no such user")
        return sftp.path(request.id, self._view.paths.start or b"/")

    async def users_groups_by_id(self, turn: Turn, request: sftp.UsersGroupsById) -> Reply:
        """Answer with names of users and groups, empty for unknown ones."""
        identities = self._view.identities
        users = await self._names(identities.user, request.uids)
        groups = await self._names(identities.group, request.gids)
        reply = sftp.users_groups(request.id, users, groups)
        if len(reply) > PACKET_MAX:
            raise Refusal(sftp.FX_FAILURE, b"the names do not fit into one packet")
        return reply

    async def _names(self, ask: Callable[[int], bytes], numbers: Sequence[int]) -> list[bytes]:
        names: list[bytes] = []
        for at in range(0, len(numbers), _IDS_AT_ONCE):
            names += map(ask, numbers[at : at + _IDS_AT_ONCE])
            if len(names) < len(numbers):
                await trio.lowlevel.checkpoint()
        return names
