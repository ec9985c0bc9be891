"""Between the host's words and ours: attributes and credentials."""

from __future__ import annotations

import stat
from collections import OrderedDict
from os import getgroups
from time import monotonic
from typing import Final

from ...native.constants import Vtype
from ...native.device_replies import Attr
from ...native.device_requests import Request
from ...native.fuse_protocol import Valid
from ...native.records import VTYPE_TO_IFMT, Cred, Vattr
from ..words.options import HostOptions

_GROUPS_KEPT = 1024
_GROUPS_TTL = 1.0
"""How many processes' groups are kept, and for how many seconds: a process may change its own."""

# As plain numbers: arithmetic on members of an enumeration is slow.
_IFMT: Final[dict[int | None, int]] = {int(v): int(ifmt) for v, ifmt in VTYPE_TO_IFMT.items()}
_MODE, _UID, _GID, _SIZE, _ATIME, _MTIME = map(
    int, (Valid.MODE, Valid.UID, Valid.GID, Valid.SIZE, Valid.ATIME, Valid.MTIME)
)


class Attributes:
    """Makes the host's attributes out of ours, by the options of the mount."""

    def __init__(self, options: HostOptions) -> None:
        self._uid = options.uid
        self._gid = options.gid
        self._modes = dict[int, int]()
        """What is shown as permissions, for the types that are not shown as they are."""
        for vtype in VTYPE_TO_IFMT:
            mask = {Vtype.VREG: options.fmask, Vtype.VDIR: options.dmask}.get(Vtype(vtype))
            mask = options.umask if mask is None else mask
            if mask is not None:
                self._modes[vtype] = 0o777 & ~mask

    @property
    def page_owner(self) -> tuple[int, int] | None:
        """Uid and gid that all files have (-1: their own), None where permissions are another
        matter than what the server says, too."""
        if self._modes:
            return None
        return -1 if self._uid is None else self._uid, -1 if self._gid is None else self._gid

    def attr(self, ino: int, va: Vattr) -> Attr:
        """Return the attributes of node `ino` as the host has them."""
        (
            vtype,
            mode,
            nlink,
            uid,
            gid,
            _,
            _,
            size,
            blocksize,
            atime,
            mtime,
            ctime,
            _,
            _,
            _,
            rdev,
            occupied,
        ) = va
        size = size or 0
        mtime = mtime or 0
        mode = mode or 0
        if self._modes:
            mode = self._modes.get(vtype or 0, mode)
        return (
            ino,
            size,
            (size if occupied is None else occupied) + 511 >> 9,
            mtime if atime is None else atime,
            mtime,
            mtime if ctime is None else ctime,
            _IFMT.get(vtype, 0) | mode,
            1 if nlink is None else nlink,
            (uid or 0) if self._uid is None else self._uid,
            (gid or 0) if self._gid is None else self._gid,
            rdev or 0,
            blocksize or 4096,
        )


def changes(valid: int, size: int, atime: int, mtime: int, mode: int, uid: int, gid: int) -> Vattr:
    """Return what a SETATTR of the host asks for; None is "leave it".

    Where "now" is asked for the host has put in what it takes for that.
    """
    return Vattr(
        mode=stat.S_IMODE(mode) if valid & _MODE else None,
        uid=uid if valid & _UID else None,
        gid=gid if valid & _GID else None,
        size=size if valid & _SIZE else None,
        atime=atime if valid & _ATIME else None,
        mtime=mtime if valid & _MTIME else None,
    )


def groups_of(pid: int) -> tuple[int, ...]:
    """Return the further groups of a process; none when it has gone or cannot be seen from here."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Groups:"):
                    return tuple(sorted(map(int, line.split()[1:])))
    except OSError:
        pass
    return ()


class Creds:
    """Makes credentials out of requests.

    FUSE sends user, group and process but no further groups. Without allow_other only
    processes of the mounting user get here, and they have our own groups as a rule; with it
    the groups are read from /proc, once a second for each process.
    """

    def __init__(self, options: HostOptions) -> None:
        self._others = options.allow_other or options.allow_root
        self._own_groups = tuple(getgroups())
        self._groups: OrderedDict[tuple[int, int, int], tuple[float, tuple[int, ...]]]
        self._groups = OrderedDict()

    def cred(self, request: Request) -> Cred:
        """Return the credentials of a request's caller."""
        _, _, _, uid, gid, pid, _ = request
        if not self._others or uid == 0:
            return Cred(uid, gid, self._own_groups, pid)
        return Cred(uid, gid, self._groups_of(pid, uid, gid), pid)

    def _groups_of(self, pid: int, uid: int, gid: int) -> tuple[int, ...]:
        key = (pid, uid, gid)
        now = monotonic()
        known = self._groups.get(key)
        if known is not None and now - known[0] < _GROUPS_TTL:
            return known[1]
        groups = groups_of(pid)  # none in another name space: its gid only
        self._groups[key] = (now, groups)
        self._groups.move_to_end(key)
        if len(self._groups) > _GROUPS_KEPT:
            self._groups.popitem(last=False)
        return groups
