"""SFTP attributes <-> vattr, with the translation of user and group ids."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, Final

from ....native import sftp
from ....native.constants import Vtype
from ....native.errors import VfsError
from ....native.packed import BLOCKSIZE, NOBODY, unpack
from ....native.records import IFMT_TO_VTYPE, VTYPE_TO_IFMT, Vattr
from ..options import PsshfsOptions
from .idmap import PENDING, tables

if TYPE_CHECKING:
    from .listing import Entry

SECOND: Final = 10**9
SIZE_MAX: Final = (1 << 63) - 1
"""Last octet that Linux can speak of."""
IFMT: Final = 0o170000
"""The type bits of a mode."""
TIME_MAX: Final = 0xFFFFFFFF
"""Last second that version 3 can say."""


def vtype_of(attrs: sftp.Attrs) -> Vtype | None:
    """Return the type of a node, None where the server did not say it.

    Some leave out the mode, some its type bits. A type that we do not know is a regular file:
    the server will say what can be done with it.
    """
    mode = attrs.mode
    if mode is None or not mode & IFMT:
        return None
    return IFMT_TO_VTYPE.get(mode & IFMT, Vtype.VREG)


def with_vtype(attrs: sftp.Attrs, vtype: int) -> sftp.Attrs:
    """Return attributes with the type that the server left out, and with permissions for the
    owner alone where it left those out, too."""
    mode = attrs.mode
    if mode is None:
        mode = 0o700 if vtype == Vtype.VDIR else 0o600
    return attrs._replace(mode=VTYPE_TO_IFMT[Vtype(vtype)] | mode & 0o7777)


class Translator:
    """Turns attributes into vattrs and back for one mount.

    Ids go through `users` and `groups`, in both directions; None: they pass unchanged. `home` is
    owner and group of the login directory, where the options ask for them.
    """

    def __init__(
        self, options: PsshfsOptions, home: tuple[int | None, int | None] = (None, None)
    ) -> None:
        self.users, self.groups = tables(options, home)

    def vattr(self, attrs: sftp.Attrs, fileid: int, nlink: int) -> Vattr:
        """Return `attrs` as a vattr. What the server left out is filled in: a regular file of
        nobody's with mode 0600, no octets, 1970.
        """
        size, uid, gid, mode, atime, mtime = attrs
        if mode is None:
            mode = stat.S_IFREG | 0o600
        if uid is None:
            uid = NOBODY
        elif self.users is not None:
            uid = self.users[uid]
        if gid is None:
            gid = NOBODY
        elif self.groups is not None:
            gid = self.groups[gid]
        size = min(size or 0, SIZE_MAX)  # the wire has 64 bits, a file offset 63
        modified = (mtime or 0) * SECOND
        return Vattr(
            IFMT_TO_VTYPE.get(mode & IFMT, Vtype.VREG),
            mode & 0o7777,
            nlink,
            uid,
            gid,
            None,
            fileid,
            size,
            BLOCKSIZE,
            (atime or 0) * SECOND,
            modified,
            modified,  # there is no ctime in version 3
            None,
            None,
            None,
            0,
            None,  # version 3 has no word for what it occupies
        )

    def unpacked(self, entry: Entry) -> Vattr:
        """Return the attributes of an entry, which must be known, as a vattr."""
        assert entry.packed is not None
        return unpack(entry.packed, entry.fileid, self.users, self.groups)

    def attrs(self, va: Vattr, now: Vattr | None) -> sftp.Attrs:
        """Return what SETSTAT needs for the changes in `va`.

        SFTP has user and group together, and both times together: what `va` leaves out of a
        pair is taken from `now`, the present attributes, which must be there then.
        Errors: EPERM for an id without a counterpart; EINVAL for a time that version 3 cannot say
        (before 1970, after 2106).
        """
        uid, gid, atime, mtime = va.uid, va.gid, va.atime, va.mtime
        if uid is not None or gid is not None:
            assert now is not None or (uid is not None and gid is not None)
            uid = now.uid if uid is None and now is not None else uid
            gid = now.gid if gid is None and now is not None else gid
            if uid is not None and self.users is not None:
                uid = self.users.far(uid)
            if gid is not None and self.groups is not None:
                gid = self.groups.far(gid)
        if atime is not None or mtime is not None:
            assert now is not None or (atime is not None and mtime is not None)
            atime = now.atime if atime is None and now is not None else atime
            mtime = now.mtime if mtime is None and now is not None else mtime
        return sftp.Attrs(
            size=va.size,
            uid=uid,
            gid=gid,
            mode=None if va.mode is None else va.mode & 0o7777,
            atime=_seconds(atime),
            mtime=_seconds(mtime),
        )

    def settled(self, va: Vattr) -> Vattr:
        """Return `va` with the owner and group that were not known yet when it was made."""
        if va.uid is not None and va.uid >= PENDING and self.users is not None:
            va = va._replace(uid=self.users[va.uid - PENDING])
        if va.gid is not None and va.gid >= PENDING and self.groups is not None:
            va = va._replace(gid=self.groups[va.gid - PENDING])
        return va

    @staticmethod
    def needs_present(va: Vattr) -> bool:
        """Tell whether `attrs` needs the present attributes to fill a pair."""
        return (va.uid is None) != (va.gid is None) or (va.atime is None) != (va.mtime is None)


def _seconds(time: int | None) -> int | None:
    if time is None:
        return None
    seconds = time // SECOND
    if not 0 <= seconds <= TIME_MAX:
        raise VfsError(errno.EINVAL, f"SFTP version 3 cannot say the time {seconds}")
    return seconds


def initial_attrs(va: Vattr, default: int) -> sftp.Attrs:
    """Return the attributes with which a node is made: the mode alone, for owner and times
    are the server's to set."""
    return sftp.Attrs(mode=(default if va.mode is None else va.mode) & 0o7777)
