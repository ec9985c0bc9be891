"""Requests by path that look at what is there, and those that change its attributes."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EINVAL, ENOENT, EOPNOTSUPP
from typing import Any

from ...native import sftp_server as sftp
from ...native.constants import Vtype
from ...native.errors import VfsError
from ...native.records import Vattr
from .answers import Handler, Reply, success
from .attributes import SECOND, attrs_of
from .nodes import Node
from .paths import FOLLOW, STAY
from .status import Refusal
from .turns import Turn
from .view import View


class LookRequests:
    """Answers the requests of one session that look at a path, or change attributes there."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._server = view.server
        self._export = view.export
        self._find = view.paths.find
        self._cred = view.cred
        self.handlers: dict[type[Any], Handler] = {
            sftp.Stat: self.stat,
            sftp.Lstat: self.lstat,
            sftp.Setstat: self.setstat,
            sftp.Lsetstat: self.lsetstat,
            sftp.Readlink: self.readlink,
            sftp.Realpath: self.realpath,
            sftp.ExpandPath: self.expand_path,
            sftp.StatvfsRequest: self.statvfs,
        }

    # Looking.

    async def lstat(self, turn: Turn, request: sftp.Lstat) -> Reply:
        """Answer with the attributes of what the path names."""
        with await self._find(request.path, turn, STAY) as found:
            info = found.info
            if info is not None and info.va is not None and not found.slash:
                return sftp.attrs(request.id, attrs_of(info.va))
            return sftp.attrs(request.id, attrs_of(await self._view.attributes(found)))

    async def stat(self, turn: Turn, request: sftp.Stat) -> Reply:
        """The same, following links."""
        with await self._find(request.path, turn, FOLLOW) as found:
            return sftp.attrs(request.id, attrs_of(await self._view.attributes(found)))

    async def readlink(self, turn: Turn, request: sftp.Readlink) -> Reply:
        """Answer with a link's target as it is stored. Errors: EINVAL for what is no link."""
        with await self._find(request.path, turn, STAY) as found:
            node = found.there()
            if node.vtype != Vtype.VLNK:
                raise VfsError(EINVAL)
            return sftp.path(request.id, await self._server.readlink(node.cookie, self._cred))

    async def realpath(self, turn: Turn, request: sftp.Realpath) -> Reply:
        """Answer with the canonical path. The last name need not exist, the others must."""
        return await self._canonical(turn, request.id, request.path or b".")

    async def expand_path(self, turn: Turn, request: sftp.ExpandPath) -> Reply:
        """The same; "~" and the user's own "~user" stand for the start."""
        path = request.path or b"."
        if path.startswith(b"~"):
            user, slash, rest = path[1:].partition(b"/")
            if user not in (b"", self._view.user):
                raise Refusal(sftp.FX_NO_SUCH_FILE, b"no such user")
            path = (self._view.paths.start or b"/") + slash + rest
        return await self._canonical(turn, request.id, path)

    async def _canonical(self, turn: Turn, id: int, path: bytes) -> Reply:
        with await self._find(path, turn, FOLLOW) as found:
            if found.slash and found.node is None:
                raise VfsError(ENOENT)
            return sftp.path(id, found.path)

    async def statvfs(self, turn: Turn, request: sftp.StatvfsRequest) -> Reply:
        """Answer with the state of the file system."""
        with await self._find(request.path, turn, FOLLOW) as found:
            cookie = found.there().cookie
            return sftp.statvfs(request.id, await self._server.statvfs_at(cookie))

    # Changing attributes.

    async def setstat(self, turn: Turn, request: sftp.Setstat) -> Reply:
        """Change attributes, following links."""
        with await self._find(request.path, turn, FOLLOW) as found:
            await self.change(found.there(), request.attrs)
        return success(request.id)

    async def lsetstat(self, turn: Turn, request: sftp.Lsetstat) -> Reply:
        """Change attributes, a link's own where the path ends in one.

        Errors: EINVAL for a size, as OpenSSH has it; EOPNOTSUPP for the mode of a link.
        """
        if request.attrs.size is not None:
            raise VfsError(EINVAL)
        with await self._find(request.path, turn, STAY) as found:
            node = found.there()
            attrs = request.attrs
            if node.vtype == Vtype.VLNK and attrs.mode is not None:
                # The rest is done all the same, as OpenSSH does.
                await self.change(node, attrs._replace(mode=None))
                raise VfsError(EOPNOTSUPP)
            await self.change(node, attrs)
        return success(request.id)

    async def change(self, node: Node, attrs: sftp.Attrs) -> None:
        """Change what is given in `attrs`, as OpenSSH does: size, mode, times and owner, each tried
        although another failed; the last error is told.

        All at once where the result is the same: a new owner takes away set-id bits that were
        given in the same request before it.
        """
        changes = list(_changes(attrs))
        if not changes:
            return
        if len(changes) > 1 and not (attrs.uid is not None and (attrs.mode or 0) & 0o6000):
            together = Vattr(**{key: value for change in changes for key, value in change.items()})
            try:
                await self._change(node, together)
                return
            except VfsError:
                pass  # which of them failed shows below
        error: VfsError | None = None
        for change in changes:
            try:
                await self._change(node, Vattr(**change))
            except VfsError as exc:
                error = exc
        if error is not None:
            raise error

    async def _change(self, node: Node, va: Vattr) -> None:
        try:
            await self._server.setattr(node.cookie, va, self._cred)
        finally:
            if node.vtype == Vtype.VDIR and (va.mode is not None or va.uid is not None):
                self._export.names_changed()  # others may search it now


def _changes(attrs: sftp.Attrs) -> Iterator[dict[str, int | None]]:
    """Yield the changes that are asked for, one by one, in OpenSSH's order."""
    if attrs.size is not None:
        yield {"size": attrs.size}
    if attrs.mode is not None:
        yield {"mode": attrs.mode & 0o7777}
    if attrs.mtime is not None and attrs.atime is not None:
        yield {"atime": attrs.atime * SECOND, "mtime": attrs.mtime * SECOND}
    if attrs.uid is not None:
        yield {"uid": attrs.uid, "gid": attrs.gid}
