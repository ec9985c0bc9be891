"""Symbolic links of the server: which targets are shown, and how.

The host follows a link from the directory that the link is in. A server that answers READLINK
as it likes could send a program of ours anywhere on this machine: to read what is there (and
write it back to the server), or to write what the server wants (CVE-2026-47187 of sshfs). So by
default no target leads out of the mounted tree.

What leads inside is decided by the text alone where it can be: ".." counts for one directory up
only at the beginning of a target. Behind a name it may be another matter, for the name may be a
link itself; there, and with absolute targets that do not begin with our root, the server is asked
by REALPATH, and its answer is held to the same rule: a lying server can lead to another file of
its own, never out.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from ....native import sftp
from ....native.constants import Vtype
from ....native.errors import VfsError
from ....native.packed import pack, vtype
from ....native.records import Cookie, Cred
from ..options import Symlinks
from ..tree.attributes import vtype_of
from ..tree.fetching import Batches, Sink
from ..tree.node import DirectoryNode
from ..wire.connection import Connection
from ..wire.errmap import StatusError
from ..wire.slot import ATTRS, ONE_NAME, Slot
from .looking import LookOperations
from .readdir import ReaddirOperations


class SymlinkOperations(LookOperations, ReaddirOperations):
    """The part of the server that shows symbolic links."""

    def __init__(self, connection: Connection, *args: Any, **kwargs: Any) -> None:
        super().__init__(connection, *args, **kwargs)
        if self.options.symlinks is Symlinks.FOLLOW:
            _follow(connection)

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        """Return the target as `PsshfsOptions.symlinks` has it. Errors: EPERM for one that leads
        out of the tree. Wire: REALPATH, one round trip more, where the text does not say it all.
        """
        target = await super().readlink(opc, cred)
        directory = self.table.node(opc).parent
        if directory is None:
            raise VfsError(errno.ESTALE)
        options = self.options
        if options.symlinks is Symlinks.RAW:
            if options.transform_symlinks and target.startswith(b"/"):
                return relative(target, self.table.path(directory))
            return target
        if options.symlinks is Symlinks.CONTAIN:
            if target.startswith(b"/") or b".." in target.split(b"/"):
                raise VfsError(errno.EPERM, "an absolute link, or one with '..'")
            return target
        return await self._rewritten(directory, target)

    async def _rewritten(self, directory: DirectoryNode, target: bytes) -> bytes:
        depth = _depth(directory)
        if not target.startswith(b"/") and _stays(target, depth):
            return target
        root = self.session.root
        inside = _below(target, root)
        if inside is not None and _stays(inside, 0):
            return b"../" * depth + inside or b"."
        path = target
        if not target.startswith(b"/"):
            path = self.table.path(directory) + b"/" + target
        try:
            real = await self.connection.submit(ONE_NAME, sftp.realpath, path)
        except StatusError:
            real = b""
        inside = _below(real, root)
        if inside is None or not _stays(inside, 0) or b"\0" in inside:
            raise VfsError(errno.EPERM, "a link out of the mounted tree")
        return b"../" * depth + inside or b"."

    async def _fetch_names(self, directory: DirectoryNode, sink: Sink) -> None:
        """Follow the links in a listing, where that was asked for: all at once, one round trip.
        Those that lead nowhere stay links."""
        if self.options.symlinks is not Symlinks.FOLLOW:
            await super()._fetch_names(directory, sink)
            return
        path = self.table.path(directory)
        found = Batches()
        await super()._fetch_names(directory, found)
        asked: list[tuple[list[bytes | None], int, Slot[sftp.Attrs]]] = []
        for listed in found.listed:
            for number, packed in enumerate(listed.packed):
                if packed is None or vtype(packed) == Vtype.VLNK:
                    if self.connection.is_congested:
                        await self.connection.room()
                    whole = path.rstrip(b"/") + b"/" + listed.names[number]
                    slot = self.connection.submit(ATTRS, sftp.stat, whole)
                    asked.append((listed.packed, number, slot))
        for column, number, slot in asked:
            try:
                attrs = await slot
            except StatusError:
                continue
            column[number] = None if vtype_of(attrs) is None else pack(attrs, 1)
        for listed in found.listed:
            sink.take(listed)


def _follow(connection: Connection) -> None:
    """From now on ask for what a link leads to wherever its own attributes would be asked for."""
    submit_slot = connection.submit_slot  # all requests go through it

    def following(slot: Slot[Any], encode: Callable[..., bytes], *args: Any, **words: Any) -> None:
        submit_slot(slot, sftp.stat if encode is sftp.lstat else encode, *args, **words)

    # On this object alone: nobody else should pay for the question.
    setattr(connection, "submit_slot", following)  # noqa: B010 - mypy wants no assignment


def _depth(directory: DirectoryNode) -> int:
    """Return how many directories lie above `directory` in the tree."""
    depth = 0
    node = directory
    while node.parent is not None:
        node = node.parent
        depth += 1
    return depth


def _stays(target: bytes, depth: int) -> bool:
    """Tell whether a relative target stays in the tree whatever its names are."""
    named = False
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if named or depth < 0:
                return False
        elif part not in (b"", b"."):
            named = True
    return True


def _below(path: bytes, root: bytes) -> bytes | None:
    """Return the absolute `path` relative to `root` (no '/' at its end); None: it is not in it."""
    if path == root or path == root + b"/":
        return b""
    if not path.startswith(root + b"/"):
        return None
    return path[len(root) + 1 :].lstrip(b"/")


def relative(target: bytes, directory: bytes) -> bytes:
    """Return an absolute target as it is seen from `directory`, both paths of the server, by their
    texts alone: what sshfs's transform_symlinks does."""
    wanted = [part for part in target.split(b"/") if part not in (b"", b".")]
    here = [part for part in directory.split(b"/") if part]
    shared = 0
    for one, other in zip(wanted, here, strict=False):
        if one != other or one == b"..":
            break
        shared += 1
    return b"/".join([b".."] * (len(here) - shared) + wanted[shared:]) or b"."
