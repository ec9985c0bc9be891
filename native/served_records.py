"""Requests of SFTP version 3 as a server gets them: a record for each kind.

Paths, handles and names are octets of their own; the data of WRITE are a view into the receive
buffer. Each record begins with the id that the reply must carry; INIT, which has none, does not.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .sftp_protocol import Attrs


class Init(NamedTuple):
    """Begin a session; `extensions` (name -> data) is what the client tells of itself."""

    version: int
    extensions: dict[bytes, bytes]


class Open(NamedTuple):
    """Open a file (FXF_*); `attrs` are for one that is created."""

    id: int
    path: bytes
    pflags: int
    attrs: Attrs


class Close(NamedTuple):
    """Close a handle."""

    id: int
    handle: bytes


class Read(NamedTuple):
    """Read up to `length` octets (any number of 32 bits)."""

    id: int
    handle: bytes
    offset: int
    length: int


class Write(NamedTuple):
    """Write `data`, a view into the receive buffer: good until that is used again."""

    id: int
    handle: bytes
    offset: int
    data: memoryview


class Lstat(NamedTuple):
    """Ask for attributes, not following a symbolic link."""

    id: int
    path: bytes


class Fstat(NamedTuple):
    """Ask for the attributes of an open file."""

    id: int
    handle: bytes


class Setstat(NamedTuple):
    """Change what is not None in `attrs`."""

    id: int
    path: bytes
    attrs: Attrs


class Fsetstat(NamedTuple):
    """Change attributes of an open file."""

    id: int
    handle: bytes
    attrs: Attrs


class Opendir(NamedTuple):
    """Open a directory."""

    id: int
    path: bytes


class Readdir(NamedTuple):
    """Read the next entries of a directory."""

    id: int
    handle: bytes


class Remove(NamedTuple):
    """Remove a name that is no directory."""

    id: int
    path: bytes


class Mkdir(NamedTuple):
    """Make a directory."""

    id: int
    path: bytes
    attrs: Attrs


class Rmdir(NamedTuple):
    """Remove an empty directory."""

    id: int
    path: bytes


class Realpath(NamedTuple):
    """Ask for the absolute path."""

    id: int
    path: bytes


class Stat(NamedTuple):
    """Ask for attributes, following symbolic links."""

    id: int
    path: bytes


class Rename(NamedTuple):
    """Rename; must fail when `new` exists."""

    id: int
    old: bytes
    new: bytes


class Readlink(NamedTuple):
    """Ask for the target of a symbolic link."""

    id: int
    path: bytes


class Symlink(NamedTuple):
    """Make a symbolic link at `linkpath`. The target comes first, as OpenSSH has it."""

    id: int
    target: bytes
    linkpath: bytes


class PosixRename(NamedTuple):
    """Rename, replacing `new` when it exists."""

    id: int
    old: bytes
    new: bytes


class Hardlink(NamedTuple):
    """Give the file `old` the further name `new`."""

    id: int
    old: bytes
    new: bytes


class StatvfsRequest(NamedTuple):
    """Ask for the state of the file system of a path."""

    id: int
    path: bytes


class FstatvfsRequest(NamedTuple):
    """Ask for the state of the file system of an open file."""

    id: int
    handle: bytes


class Fsync(NamedTuple):
    """Make written data stable."""

    id: int
    handle: bytes


class Lsetstat(NamedTuple):
    """Change attributes, of a symbolic link its own."""

    id: int
    path: bytes
    attrs: Attrs


class LimitsRequest(NamedTuple):
    """Ask for the server's limits."""

    id: int


class ExpandPath(NamedTuple):
    """Ask for the absolute path of one that may begin with a tilde."""

    id: int
    path: bytes


class CopyData(NamedTuple):
    """Copy from one open file to another; `length` (below 2**64) 0 means to the end."""

    id: int
    read_handle: bytes
    read_offset: int
    length: int
    write_handle: bytes
    write_offset: int


class HomeDirectory(NamedTuple):
    """Ask for the home directory of a user; empty: of the one who logged in."""

    id: int
    user: bytes


class UsersGroupsById(NamedTuple):
    """Ask for names of users and groups."""

    id: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]


class Unsupported(NamedTuple):
    """A packet that is no request of version 3, or an extension (`type` EXTENDED) unknown here."""

    id: int
    type: int
    extension: bytes


class Malformed(NamedTuple):
    """A packet whose body is none of its type; `reason` is for people. The id is right."""

    id: int
    type: int
    reason: str


Request: TypeAlias = (
    Init
    | Open
    | Close
    | Read
    | Write
    | Lstat
    | Fstat
    | Setstat
    | Fsetstat
    | Opendir
    | Readdir
    | Remove
    | Mkdir
    | Rmdir
    | Realpath
    | Stat
    | Rename
    | Readlink
    | Symlink
    | PosixRename
    | Hardlink
    | StatvfsRequest
    | FstatvfsRequest
    | Fsync
    | Lsetstat
    | LimitsRequest
    | ExpandPath
    | CopyData
    | HomeDirectory
    | UsersGroupsById
    | Unsupported
    | Malformed
)
