"""SFTP handles that outlive the connection on which they were given."""

from __future__ import annotations

import errno
from typing import Any

from ....native import sftp
from ....native.errors import VfsError


class Handle(bytes):
    """What the server called a file or directory when it opened it; itself for all of its life.

    It is compared as an object: two connections give the same octets to different files. `wire` is
    what the server calls it now. `error`, once set, is the errno of all requests by it: what it
    stood for is out of reach for good. `path` and `pflags` are those of its OPEN, with which it
    is opened again where no node says better; `pflags` is 0 for a directory's. `age` is how often
    the connection had been lost when `wire` was given: from another age, it may be another file's.
    """

    __hash__ = object.__hash__
    wire: bytes
    path: bytes
    pflags: int
    error: int
    age: int

    @classmethod
    def of(cls, wire: bytes, path: bytes, pflags: int, age: int) -> Handle:
        """Make the handle of an answer to OPEN or OPENDIR."""
        handle = cls(wire)
        handle.wire = wire
        handle.path = path
        handle.pflags = pflags & (sftp.FXF_READ | sftp.FXF_WRITE)
        handle.error = 0
        handle.age = age
        return handle

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


def translated(args: tuple[Any, ...], age: int) -> tuple[Any, ...]:
    """Return a request's arguments with what the server calls their handle now, at `age`.

    Errors: that of the handle; ESTALE for one that was closed before the last loss.
    """
    if args and type(args[0]) is Handle:
        handle = args[0]
        if handle.error or handle.age != age:
            raise VfsError(handle.error or errno.ESTALE, "the file could not be opened again")
        return (handle.wire, *args[1:])
    return args
