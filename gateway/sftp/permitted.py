"""Which requests a session may make: sftp-server's -R, -P and -p, by the names that -Q lists."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from ...native import sftp_server as sftp


class RequestKind(NamedTuple):
    """One kind of request. `extension` is what announces it, if it is one."""

    name: str
    record: type[Any]
    changes: bool = False
    extension: bytes = b""


KINDS: Final = (
    RequestKind("open", sftp.Open),
    RequestKind("close", sftp.Close),
    RequestKind("read", sftp.Read),
    RequestKind("write", sftp.Write, True),
    RequestKind("lstat", sftp.Lstat),
    RequestKind("fstat", sftp.Fstat),
    RequestKind("setstat", sftp.Setstat, True),
    RequestKind("fsetstat", sftp.Fsetstat, True),
    RequestKind("opendir", sftp.Opendir),
    RequestKind("readdir", sftp.Readdir),
    RequestKind("remove", sftp.Remove, True),
    RequestKind("mkdir", sftp.Mkdir, True),
    RequestKind("rmdir", sftp.Rmdir, True),
    RequestKind("realpath", sftp.Realpath),
    RequestKind("stat", sftp.Stat),
    RequestKind("rename", sftp.Rename, True),
    RequestKind("readlink", sftp.Readlink),
    RequestKind("symlink", sftp.Symlink, True),
    RequestKind("posix-rename", sftp.PosixRename, True, sftp.EXT_POSIX_RENAME),
    RequestKind("statvfs", sftp.StatvfsRequest, False, sftp.EXT_STATVFS),
    RequestKind("fstatvfs", sftp.FstatvfsRequest, False, sftp.EXT_FSTATVFS),
    RequestKind("hardlink", sftp.Hardlink, True, sftp.EXT_HARDLINK),
    RequestKind("fsync", sftp.Fsync, True, sftp.EXT_FSYNC),
    RequestKind("lsetstat", sftp.Lsetstat, True, sftp.EXT_LSETSTAT),
    RequestKind("limits", sftp.LimitsRequest, False, sftp.EXT_LIMITS),
    RequestKind("expand-path", sftp.ExpandPath, False, sftp.EXT_EXPAND_PATH),
    RequestKind("copy-data", sftp.CopyData, True, sftp.EXT_COPY_DATA),
    RequestKind("home-directory", sftp.HomeDirectory, False, sftp.EXT_HOME_DIRECTORY),
    RequestKind("users-groups-by-id", sftp.UsersGroupsById, False, sftp.EXT_USERS_GROUPS),
)
"""All kinds, with the names and in the order of OpenSSH's `sftp-server -Q requests`."""

NAMES: Final = tuple(kind.name for kind in KINDS)

_OPENS_CHANGING: Final = sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_TRUNC


class Permitted:
    """The requests that a session may make.

    `readonly` takes away what changes anything, and opening for more than reading. `denied` takes
    away by name. `allowed`, where it is given, leaves nothing but what it names.
    """

    def __init__(
        self,
        *,
        readonly: bool = False,
        denied: Collection[str] = (),
        allowed: Collection[str] | None = None,
    ) -> None:
        self.readonly = readonly
        self.kinds = tuple(
            kind
            for kind in KINDS
            if not (readonly and kind.changes)
            and kind.name not in denied
            and (allowed is None or kind.name in allowed)
        )
        self._records = frozenset(kind.record for kind in self.kinds)

    @property
    def is_everything(self) -> bool:
        """Whether nothing is refused, so that nobody need ask."""
        return len(self.kinds) == len(KINDS) and not self.readonly

    @property
    def extensions(self) -> frozenset[bytes]:
        """The extensions among them."""
        return frozenset(kind.extension for kind in self.kinds if kind.extension)

    def permits(self, request: Any) -> bool:
        """Return whether a request may be made."""
        kind = type(request)
        if kind not in self._records:
            return False
        return not (self.readonly and kind is sftp.Open and request.pflags & _OPENS_CHANGING)
