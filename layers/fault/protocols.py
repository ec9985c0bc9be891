"""Protocols, as much as is needed to break them: where a message ends, what it is, how it fails.

Octets of a peer are hostile here as everywhere: what makes no sense is passed on as it is, for
the ends to deal with.
"""

from __future__ import annotations

import errno
import struct
from abc import ABC, abstractmethod
from typing import Final

from ...native import frames
from ...native.constants import FLAG_FAF, FLAG_RESPONSE, OPCLASS_MASK, OpClass, VfsOp, VnOp
from ...native.errors import ProtocolError
from ..operations import BY_NAME

MESSAGE_MAX: Final = 4 * 1024 * 1024
"""Longest message that is looked at, octets."""


class Protocol(ABC):
    """One protocol. `has_boundaries`: the carrier keeps messages apart by itself."""

    has_boundaries = False

    @abstractmethod
    def length(self, octets: bytes | bytearray) -> int | None:
        """Return the length of the message that begins here; None when that is not to be seen."""

    @abstractmethod
    def request(self, message: bytes | bytearray) -> str | None:
        """Return the operation that a request asks for, as in ops.py; None for what is none."""

    @abstractmethod
    def refusal(self, message: bytes | bytearray, error: int) -> bytes:
        """Return the answer to a request that says it failed."""

    @abstractmethod
    def number(self, message: bytes | bytearray) -> int:
        """Return the number by which a request and its answer find each other."""

    @abstractmethod
    def answered(self, message: bytes | bytearray) -> int | None:
        """Return the number of the request that a message answers; None for what is no answer."""

    @abstractmethod
    def shortened(self, message: bytes, size: int) -> bytes:
        """Return a read or write for `size` octets at most; what makes no sense as it is."""


_FRAME: Final = struct.Struct("<IHHQQiIiIII")


class Frames(Protocol):
    """puffs frames (native/frames.py)."""

    def length(self, octets: bytes | bytearray) -> int | None:
        """See Protocol."""
        return int.from_bytes(octets[:4], "little") if len(octets) >= 4 else None

    def request(self, message: bytes | bytearray) -> str | None:
        """See Protocol."""
        if len(message) < _FRAME.size:
            return None
        _, opclass, optype, *_ = _FRAME.unpack_from(message)
        if opclass & (FLAG_RESPONSE | FLAG_FAF):
            return None
        try:
            if opclass & OPCLASS_MASK == OpClass.VN:
                name = VnOp(optype).name.lower()
            elif opclass & OPCLASS_MASK == OpClass.VFS:
                name = VfsOp(optype).name.lower()
            else:
                return None
        except ValueError:
            return None
        name = {"fhtovp": "fhtonode", "vptofh": "nodetofh"}.get(name, name)
        return name if name in BY_NAME else None

    def refusal(self, message: bytes | bytearray, error: int) -> bytes:
        """See Protocol."""
        _, opclass, optype, ident, cookie, *_ = _FRAME.unpack_from(message)
        head = (_FRAME.size, opclass | FLAG_RESPONSE, optype, ident, cookie, error)
        return _FRAME.pack(*head, 0, 0, 0, 0, 0)

    def number(self, message: bytes | bytearray) -> int:
        """See Protocol."""
        return int.from_bytes(message[8:16], "little")

    def answered(self, message: bytes | bytearray) -> int | None:
        """See Protocol."""
        is_answer = len(message) >= _FRAME.size and message[4] & FLAG_RESPONSE
        return self.number(message) if is_answer else None

    def shortened(self, message: bytes, size: int) -> bytes:
        """See Protocol."""
        try:
            header, args = frames.decode_request(message)
        except ProtocolError:
            return message
        offset, what, *rest = args
        if isinstance(what, int):  # a read: how much is wanted
            args, data = (offset, min(what, size), *rest), b""
        else:
            data = bytes(what[:size])
            args = (offset, data, *rest)
        head = frames.encode_request(*header[1:5], args, buflen=header.buflen, pid=header.pid)
        return head + data


_SFTP_REQUESTS: Final = {
    3: "open",
    4: "close",
    5: "read",
    6: "write",
    7: "getattr",
    8: "getattr",
    9: "setattr",
    10: "setattr",
    11: "open",
    12: "readdir",
    13: "remove",
    14: "mkdir",
    15: "rmdir",
    16: "lookup",
    17: "getattr",
    18: "rename",
    19: "readlink",
    20: "symlink",
}
_SFTP_EXTENDED: Final = 200
_SFTP_EXTENSIONS: Final = {
    b"fsync@openssh.com": "fsync",
    b"posix-rename@openssh.com": "rename",
    b"hardlink@openssh.com": "link",
    b"statvfs@openssh.com": "statvfs",
    b"fstatvfs@openssh.com": "statvfs",
    b"lsetstat@openssh.com": "setattr",
}
_SFTP_STATUS: Final = struct.Struct(">IBIII")
_STATUS_OF: Final = {errno.ENOENT: 2, errno.EACCES: 3, errno.EPERM: 3, errno.EOPNOTSUPP: 8}
_FAILURE: Final = 4


class Sftp(Protocol):
    """SFTP version 3: packets of draft-ietf-secsh-filexfer-02, and OpenSSH's extensions."""

    def length(self, octets: bytes | bytearray) -> int | None:
        """See Protocol."""
        return 4 + int.from_bytes(octets[:4], "big") if len(octets) >= 4 else None

    def request(self, message: bytes | bytearray) -> str | None:
        """See Protocol."""
        if len(message) < 9:
            return None
        if message[4] == _SFTP_EXTENDED:
            size = int.from_bytes(message[9:13], "big")
            return _SFTP_EXTENSIONS.get(bytes(message[13 : 13 + min(size, 64)]))
        return _SFTP_REQUESTS.get(message[4])

    def refusal(self, message: bytes | bytearray, error: int) -> bytes:
        """See Protocol. The protocol knows four errors; the others are its plain failure."""
        text = b"fault"
        code = _STATUS_OF.get(error, _FAILURE)
        ident = int.from_bytes(message[5:9], "big")
        size = _SFTP_STATUS.size + len(text) + 4
        head = _SFTP_STATUS.pack(size - 4, 101, ident, code, len(text))
        return head + text + bytes(4)

    def number(self, message: bytes | bytearray) -> int:
        """See Protocol."""
        return int.from_bytes(message[5:9], "big")

    def answered(self, message: bytes | bytearray) -> int | None:
        """See Protocol."""
        return self.number(message) if len(message) >= 9 and message[4] > 100 else None

    def shortened(self, message: bytes, size: int) -> bytes:
        """See Protocol."""
        at = 13 + int.from_bytes(message[9:13], "big") + 8  # behind handle and offset
        if at + 4 > len(message):
            return message
        size = min(size, int.from_bytes(message[at : at + 4], "big"))
        data = message[at + 4 : at + 4 + size]  # none in a read
        body = message[4:at] + size.to_bytes(4, "big") + data
        return len(body).to_bytes(4, "big") + body


_FUSE_IN: Final = struct.Struct("<IIQ")
_FUSE_OUT: Final = struct.Struct("<IiQ")
_FUSE_SIZE_AT: Final = 56
"""Where reads and writes have their size: behind the head, the handle and the offset."""
_FUSE_REQUESTS: Final = dict(
    (
        (1, "lookup"),
        (3, "getattr"),
        (4, "setattr"),
        (5, "readlink"),
        (6, "symlink"),
        (8, "mknod"),
        (9, "mkdir"),
        (10, "remove"),
        (11, "rmdir"),
        (12, "rename"),
        (13, "link"),
        (14, "open"),
        (15, "read"),
        (16, "write"),
        (17, "statvfs"),
        (18, "close"),
        (20, "fsync"),
        (21, "setextattr"),
        (22, "getextattr"),
        (23, "listextattr"),
        (24, "deleteextattr"),
        (25, "fsync"),
        (27, "open"),
        (28, "readdir"),
        (29, "close"),
        (30, "fsync"),
        (31, "advlock"),
        (32, "advlock"),
        (33, "advlock"),
        (34, "access"),
        (35, "create"),
        (40, "poll"),
        (43, "fallocate"),
        (44, "readdir"),
        (45, "rename"),
        (46, "seek"),
    )
)


class Fuse(Protocol):
    """Messages of /dev/fuse (linux/fuse.h), one a datagram."""

    has_boundaries = True

    def length(self, octets: bytes | bytearray) -> int | None:
        """See Protocol."""
        return len(octets)

    def request(self, message: bytes | bytearray) -> str | None:
        """See Protocol."""
        if len(message) < 40:
            return None
        return _FUSE_REQUESTS.get(_FUSE_IN.unpack_from(message)[1])

    def refusal(self, message: bytes | bytearray, error: int) -> bytes:
        """See Protocol."""
        return _FUSE_OUT.pack(_FUSE_OUT.size, -error, self.number(message))

    def number(self, message: bytes | bytearray) -> int:
        """See Protocol."""
        return int.from_bytes(message[8:16], "little")

    def answered(self, message: bytes | bytearray) -> int | None:
        """See Protocol. What a server says unasked has the number 0."""
        return self.number(message) or None if len(message) >= _FUSE_OUT.size else None

    def shortened(self, message: bytes, size: int) -> bytes:
        """See Protocol."""
        if len(message) < _FUSE_SIZE_AT + 24:
            return message
        size = min(size, int.from_bytes(message[_FUSE_SIZE_AT : _FUSE_SIZE_AT + 4], "little"))
        data_at = _FUSE_SIZE_AT + 24  # of a write; a read ends there
        body = message[4:_FUSE_SIZE_AT] + size.to_bytes(4, "little")
        body += message[_FUSE_SIZE_AT + 4 : data_at] + message[data_at : data_at + size]
        return (len(body) + 4).to_bytes(4, "little") + body
