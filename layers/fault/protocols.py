"""Protocols, as much as is needed to break them: where a message ends, what it is, how it fails.

Octets of a peer are hostile here as everywhere: what makes no sense is passed on as it is, for
the ends to deal with.
"""

from __future__ import annotations

import errno
import struct
from abc import ABC, abstractmethod
from typing import Final

from ...native import frames, sftp
from ...native.constants import FLAG_FAF, FLAG_RESPONSE, OPCLASS_MASK, OpClass, VfsOp, VnOp
from ...native.errors import ProtocolError
from ...native.fuse_protocol import Opcode
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
    sftp.FXP_OPEN: "open",
    sftp.FXP_CLOSE: "close",
    sftp.FXP_READ: "read",
    sftp.FXP_WRITE: "write",
    sftp.FXP_LSTAT: "getattr",
    sftp.FXP_FSTAT: "getattr",
    sftp.FXP_SETSTAT: "setattr",
    sftp.FXP_FSETSTAT: "setattr",
    sftp.FXP_OPENDIR: "open",
    sftp.FXP_READDIR: "readdir",
    sftp.FXP_REMOVE: "remove",
    sftp.FXP_MKDIR: "mkdir",
    sftp.FXP_RMDIR: "rmdir",
    sftp.FXP_REALPATH: "lookup",
    sftp.FXP_STAT: "getattr",
    sftp.FXP_RENAME: "rename",
    sftp.FXP_READLINK: "readlink",
    sftp.FXP_SYMLINK: "symlink",
}
_SFTP_EXTENSIONS: Final = {
    sftp.EXT_FSYNC: "fsync",
    sftp.EXT_POSIX_RENAME: "rename",
    sftp.EXT_HARDLINK: "link",
    sftp.EXT_STATVFS: "statvfs",
    sftp.EXT_FSTATVFS: "statvfs",
    sftp.EXT_LSETSTAT: "setattr",
}
_SFTP_STATUS: Final = struct.Struct(">IBIII")
_STATUS_OF: Final = {
    errno.ENOENT: sftp.FX_NO_SUCH_FILE,
    errno.EACCES: sftp.FX_PERMISSION_DENIED,
    errno.EPERM: sftp.FX_PERMISSION_DENIED,
    errno.EOPNOTSUPP: sftp.FX_OP_UNSUPPORTED,
}


class Sftp(Protocol):
    """SFTP version 3: packets of draft-ietf-secsh-filexfer-02, and OpenSSH's extensions."""

    def length(self, octets: bytes | bytearray) -> int | None:
        """See Protocol."""
        return 4 + int.from_bytes(octets[:4], "big") if len(octets) >= 4 else None

    def request(self, message: bytes | bytearray) -> str | None:
        """See Protocol."""
        if len(message) < 9:
            return None
        if message[4] == sftp.FXP_EXTENDED:
            size = int.from_bytes(message[9:13], "big")
            return _SFTP_EXTENSIONS.get(bytes(message[13 : 13 + min(size, 64)]))
        return _SFTP_REQUESTS.get(message[4])

    def refusal(self, message: bytes | bytearray, error: int) -> bytes:
        """See Protocol. The protocol knows four errors; the others are its plain failure."""
        text = b"fault"
        code = _STATUS_OF.get(error, sftp.FX_FAILURE)
        ident = int.from_bytes(message[5:9], "big")
        size = _SFTP_STATUS.size + len(text) + 4
        head = _SFTP_STATUS.pack(size - 4, sftp.FXP_STATUS, ident, code, len(text))
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
_FUSE_REQUESTS: Final[dict[int, str]] = {
    Opcode.LOOKUP: "lookup",
    Opcode.GETATTR: "getattr",
    Opcode.SETATTR: "setattr",
    Opcode.READLINK: "readlink",
    Opcode.SYMLINK: "symlink",
    Opcode.MKNOD: "mknod",
    Opcode.MKDIR: "mkdir",
    Opcode.UNLINK: "remove",
    Opcode.RMDIR: "rmdir",
    Opcode.RENAME: "rename",
    Opcode.LINK: "link",
    Opcode.OPEN: "open",
    Opcode.READ: "read",
    Opcode.WRITE: "write",
    Opcode.STATFS: "statvfs",
    Opcode.RELEASE: "close",
    Opcode.FSYNC: "fsync",
    Opcode.SETXATTR: "setextattr",
    Opcode.GETXATTR: "getextattr",
    Opcode.LISTXATTR: "listextattr",
    Opcode.REMOVEXATTR: "deleteextattr",
    Opcode.FLUSH: "fsync",
    Opcode.OPENDIR: "open",
    Opcode.READDIR: "readdir",
    Opcode.RELEASEDIR: "close",
    Opcode.FSYNCDIR: "fsync",
    Opcode.GETLK: "advlock",
    Opcode.SETLK: "advlock",
    Opcode.SETLKW: "advlock",
    Opcode.ACCESS: "access",
    Opcode.CREATE: "create",
    Opcode.POLL: "poll",
    Opcode.FALLOCATE: "fallocate",
    Opcode.READDIRPLUS: "readdir",
    Opcode.RENAME2: "rename",
    Opcode.LSEEK: "seek_data",
    Opcode.COPY_FILE_RANGE: "copy_file_range",
}


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
