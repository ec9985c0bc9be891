"""Attributes as SFTP version 3 has them, made of ours, and the lines that `ls -l` would print."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from typing import Any, Final

from ...native.constants import Vtype
from ...native.records import VTYPE_TO_IFMT, Vattr
from ...native.sftp_server import Attrs
from .identities import Identities

SECOND: Final = 10**9
_TIME_MAX: Final = 2**32 - 1
_new: Any = tuple.__new__
_IFMT: Final = [VTYPE_TO_IFMT.get(Vtype(number), 0) for number in range(len(Vtype))]
"""Type of a vnode -> the type bits of a mode, as a list."""


def attrs_of(va: Vattr) -> Attrs:
    """Return the wire's form of `va`. What the file server does not know is left out.

    Times before 1970 and after 2106 become the nearest that the wire can carry: OpenSSH takes
    them modulo 2**32, which turns 1969 into 2106.
    """
    uid, gid = va[3], va[4]
    try:
        accessed, modified = va[9] // SECOND, va[10] // SECOND  # type: ignore[operator]
        mode = va[1] | _IFMT[va[0]]  # type: ignore[operator,index]
    except TypeError:
        return _partial(va)
    is_timely = 0 <= accessed <= _TIME_MAX and 0 <= modified <= _TIME_MAX
    if uid is None or gid is None or not is_timely:
        return _partial(va)
    return _new(Attrs, (va[7], uid, gid, mode, accessed, modified))  # type: ignore[no-any-return]


def _partial(va: Vattr) -> Attrs:
    """Do the same where something is missing or out of range. Pairs go together on the wire."""
    mode = None
    if va.vtype is not None:
        mode = _IFMT[va.vtype] | (va.mode or 0)
    has_owner = va.uid is not None and va.gid is not None
    mtime = va.mtime
    atime = mtime if va.atime is None else va.atime
    return Attrs(
        size=va.size,
        uid=va.uid if has_owner else None,
        gid=va.gid if has_owner else None,
        mode=mode,
        atime=None if mtime is None else _seconds(atime),
        mtime=None if mtime is None else _seconds(mtime),
    )


def _seconds(ns: int | None) -> int:
    return min(max((ns or 0) // SECOND, 0), _TIME_MAX)


_HALF_YEAR: Final = 365 * 24 * 60 * 60 // 2
_KEPT: Final = 4096
"""Texts of modes and of times that are kept; more than these and all are forgotten."""


class Longnames:
    """Makes the longname of a NAME entry: what `ls -l` shows, as OpenSSH lays it out.

    Users and groups are called what `identities` calls them. `clock` gives seconds since 1970:
    times more than half a year before it show the year in place of the hour.
    """

    def __init__(self, identities: Identities, clock: Callable[[], float] = time.time) -> None:
        self._identities = identities
        self._clock = clock
        self._modes: dict[int, bytes] = {}
        self._times: dict[int, bytes] = {}
        self._recent = 0

    def begin(self) -> None:
        """Note the time, for the lines of one reply."""
        recent = int(self._clock()) - _HALF_YEAR
        if recent // 60 != self._recent // 60:
            self._times.clear()
            self._recent = recent

    def line(self, name: bytes, attrs: Attrs, nlink: int | None) -> bytes:
        """Return the line for a file called `name`."""
        size, uid, gid, mode, _, mtime = attrs
        identities = self._identities
        return b"%b %3d %-8b %-8b %8d %b %b" % (
            self._mode(mode or 0),
            1 if nlink is None else nlink,
            b"?" if uid is None else identities.user(uid) or b"%d" % uid,
            b"?" if gid is None else identities.group(gid) or b"%d" % gid,
            size or 0,
            self._time(mtime or 0),
            name,
        )

    def _mode(self, mode: int) -> bytes:
        text = self._modes.get(mode)
        if text is None:
            if len(self._modes) >= _KEPT:
                self._modes.clear()
            # The blank is where BSD's strmode has a mark for access lists.
            text = self._modes[mode] = stat.filemode(mode).encode() + b" "
        return text

    def _time(self, seconds: int) -> bytes:
        minute = seconds // 60
        text = self._times.get(minute)
        if text is None:
            if len(self._times) >= _KEPT:
                self._times.clear()
            form = "%b %e %H:%M" if seconds > self._recent else "%b %e  %Y"
            local = time.localtime(seconds)
            text = self._times[minute] = time.strftime(form, local).encode()
        return text
