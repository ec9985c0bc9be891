"""Packed attributes: what a directory's listing keeps of each file, and pages of such entries.

A mount knows a million files, most of them from listings alone. Of such a file its attributes stay
in the form in which they came (packed.h): 64 octets with Python's head, a fifth of a `Vattr` with
its numbers. They become one when somebody asks.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from struct import Struct
from typing import Any, Final, NamedTuple, overload

from ._codec import lib
from .constants import Vtype
from .records import IFMT_TO_VTYPE, VTYPE_TO_IFMT, Cookie, Dirent, Newinfo, Vattr
from .sftp_protocol import Attrs

PACKED_LEN: Final = lib.PACKED_LEN
NOBODY: Final = 65534
"""Who owns what belongs to none that we know."""
BLOCKSIZE: Final = 4096
_IFMT: Final = 0o170000
_SECOND: Final = 10**9
_NO_OWNER: Final = lib.PACKED_NO_OWNER
_TYPE: Final = 15
WHAT: Final = PACKED_LEN - 1
"""Place of the octet with the type."""
_LAYOUT: Final = Struct("<QIIIIIHB")
_new: Any = tuple.__new__


def vtype(packed: bytes) -> int:
    """Return the type, 0 where it was not said."""
    return packed[WHAT] & _TYPE


def size(packed: bytes) -> int:
    """Return the size, octets."""
    return int.from_bytes(packed[:8], "little")


def mtime(packed: bytes) -> int:
    """Return the time of the last change of the data, ns."""
    return int.from_bytes(packed[20:24], "little") * _SECOND


def pack(attrs: Attrs, nlink: int) -> bytes:
    """Pack attributes that have a type; what else is left out is nobody's, with mode 0600, no
    octets, 1970."""
    mode = stat.S_IFREG | 0o600 if attrs.mode is None else attrs.mode
    kind = IFMT_TO_VTYPE.get(mode & _IFMT, Vtype.VREG)
    mode = VTYPE_TO_IFMT[kind] | mode & 0o7777
    what = int(kind)
    uid, gid = attrs.uid, attrs.gid
    if uid is None or gid is None:
        uid = gid = NOBODY
        what |= _NO_OWNER
    times = attrs.atime or 0, attrs.mtime or 0
    return _LAYOUT.pack(attrs.size or 0, uid, gid, *times, nlink, mode, what)


def unpack(
    packed: bytes,
    fileid: int,
    users: Mapping[int, int] | None = None,
    groups: Mapping[int, int] | None = None,
) -> Vattr:
    """Return packed attributes as a vattr; owner and group go through `users` and `groups`."""
    octets, uid, gid, atime, modified, nlink, mode, what = _LAYOUT.unpack(packed)
    if not what & _NO_OWNER:
        if users is not None:
            uid = users[uid]
        if groups is not None:
            gid = groups[gid]
    modified *= _SECOND
    return _new(  # type: ignore[no-any-return]
        Vattr,
        (
            what & _TYPE,
            mode & 0o7777,
            nlink,
            uid,
            gid,
            None,
            fileid,
            octets,
            BLOCKSIZE,
            atime * _SECOND,
            modified,
            modified,  # there is no ctime in version 3
            None,
            None,
            None,
            0,
            None,  # version 3 has no word for what it occupies
        ),
    )


class Files(NamedTuple):
    """Entries of a page, by columns. The cookie of each is its file id."""

    names: Sequence[bytes]
    fileids: Sequence[int]
    offsets: Sequence[int]
    packed: Sequence[bytes]


class Page(Sequence[Dirent]):
    """Answer of readdir with READDIR_PLUS, of which replies to the host are marshalled as a whole.

    `dots` are the entries "." and "..", or what of them belongs there; `files` follow them. The
    time-outs, in ns, are those of all; owners and groups go through `users` and `groups`. Each
    entry becomes a Dirent when it is asked for.
    """

    __slots__ = ("attr_ttl", "dots", "entry_ttl", "files", "groups", "users")

    def __init__(
        self,
        dots: Sequence[Dirent],
        files: Files,
        entry_ttl: int,
        attr_ttl: int,
        users: Mapping[int, int] | None = None,
        groups: Mapping[int, int] | None = None,
    ) -> None:
        self.dots = dots
        self.files = files
        self.entry_ttl = entry_ttl
        self.attr_ttl = attr_ttl
        self.users = users
        self.groups = groups

    def __len__(self) -> int:
        return len(self.dots) + len(self.files.names)

    @overload
    def __getitem__(self, at: int) -> Dirent: ...

    @overload
    def __getitem__(self, at: slice) -> list[Dirent]: ...

    def __getitem__(self, at: int | slice) -> Dirent | list[Dirent]:
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        if at < 0:
            at += len(self)
        dots = len(self.dots)
        if 0 <= at < dots:
            return self.dots[at]
        at -= dots
        if at < 0:
            raise IndexError("page index out of range")
        names, fileids, offsets, packed = self.files
        fileid = fileids[at]
        va = unpack(packed[at], fileid, self.users, self.groups)
        kind = vtype(packed[at])
        info = Newinfo(Cookie(fileid), kind, va.size or 0, 0, va, self.attr_ttl, self.entry_ttl)
        return Dirent(fileid, kind, names[at], offsets[at], info)

    def __iter__(self) -> Iterator[Dirent]:
        for at in range(len(self)):
            yield self[at]
