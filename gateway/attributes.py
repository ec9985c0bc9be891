"""Between the host's words and ours: attributes, credentials, file-system state, errors."""

from __future__ import annotations

import stat
from collections import OrderedDict
from os import getgroups
from time import monotonic

import pyfuse3

from ..native.constants import Vtype
from ..native.records import VTYPE_TO_IFMT, Cred, Statvfs, Vattr
from .options import HostOptions

_GROUPS_KEPT = 1024
_GROUPS_TTL = 1.0
"""How many processes' groups are kept, and for how many seconds: a process may change its own."""


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

    def entry(self, ino: int, va: Vattr, va_ttl: int, cn_ttl: int = 0) -> pyfuse3.EntryAttributes:
        """Return the attributes of node `ino`; time-outs are ns."""
        out = pyfuse3.EntryAttributes()
        out.st_ino = pyfuse3.InodeT(ino)
        out.attr_timeout = va_ttl / 1e9
        out.entry_timeout = cn_ttl / 1e9
        vtype = va.vtype or 0
        out.st_mode = pyfuse3.ModeT(
            VTYPE_TO_IFMT.get(vtype, 0)  # type: ignore[call-overload]
            | (self._modes.get(vtype, va.mode or 0) if self._modes else va.mode or 0)
        )
        out.st_nlink = 1 if va.nlink is None else va.nlink
        out.st_uid = (va.uid or 0) if self._uid is None else self._uid
        out.st_gid = (va.gid or 0) if self._gid is None else self._gid
        out.st_rdev = va.rdev or 0
        size = va.size or 0
        out.st_size = size
        out.st_blocks = (size if va.bytes is None else va.bytes) + 511 >> 9
        out.st_blksize = va.blocksize or 4096
        mtime = va.mtime or 0
        out.st_mtime_ns = mtime
        out.st_atime_ns = mtime if va.atime is None else va.atime
        out.st_ctime_ns = mtime if va.ctime is None else va.ctime
        return out


def changes(attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> Vattr:
    """Return what a SETATTR of the host asks for; None is "leave it"."""
    return Vattr(
        mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size=attr.st_size if fields.update_size else None,
        atime=attr.st_atime_ns if fields.update_atime else None,
        mtime=attr.st_mtime_ns if fields.update_mtime else None,
    )


def statvfs_data(state: Statvfs) -> pyfuse3.StatvfsData:
    """Return the host's form of a file system's state."""
    out = pyfuse3.StatvfsData()
    out.f_bsize = state.bsize
    out.f_frsize = state.frsize
    out.f_blocks = state.blocks
    out.f_bfree = state.bfree
    out.f_bavail = state.bavail
    out.f_files = state.files
    out.f_ffree = state.ffree
    out.f_favail = state.favail
    out.f_namemax = state.namemax
    return out


class Creds:
    """Makes credentials out of request contexts.

    FUSE sends user, group and process but no further groups. Without allow_other only
    processes of the mounting user get here, and they have our own groups as a rule; with it
    the groups are read from /proc, once a second for each process.
    """

    def __init__(self, options: HostOptions) -> None:
        self._others = options.allow_other or options.allow_root
        self._own_groups = tuple(getgroups())
        self._groups: OrderedDict[tuple[int, int, int], tuple[float, tuple[int, ...]]]
        self._groups = OrderedDict()

    def cred(self, ctx: pyfuse3.RequestContext) -> Cred:
        """Return the credentials of a request's caller."""
        uid = ctx.uid
        if not self._others or uid == 0:
            return Cred(uid, ctx.gid, self._own_groups, ctx.pid)
        return Cred(uid, ctx.gid, self._groups_of(ctx.pid, uid, ctx.gid), ctx.pid)

    def _groups_of(self, pid: int, uid: int, gid: int) -> tuple[int, ...]:
        key = (pid, uid, gid)
        now = monotonic()
        known = self._groups.get(key)
        if known is not None and now - known[0] < _GROUPS_TTL:
            return known[1]
        try:
            groups = tuple(sorted(pyfuse3.get_sup_groups(pid)))
        except (OSError, RuntimeError):
            groups = ()  # the process is gone, or lives in another name space: its gid only
        self._groups[key] = (now, groups)
        self._groups.move_to_end(key)
        if len(self._groups) > _GROUPS_KEPT:
            self._groups.popitem(last=False)
        return groups
