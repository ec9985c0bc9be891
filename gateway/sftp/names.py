"""Requests by path that make, link, remove and rename."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from errno import (
    EBUSY,
    EEXIST,
    EINVAL,
    EISDIR,
    EMLINK,
    ENAMETOOLONG,
    ENOENT,
    ENOSYS,
    ENOTDIR,
    ENOTEMPTY,
    EOPNOTSUPP,
    EPERM,
    ESTALE,
    EXDEV,
)
from typing import Any, Final

from ...native import sftp_server as sftp
from ...native.constants import PATH_MAX, NameiOp, Vtype
from ...native.errors import VfsError
from ...native.records import Componentname, Cookie, Newinfo, Vattr
from .answers import Handler, Reply, success
from .nodes import Node
from .order import ALTER, TOUCH, Name, Part
from .paths import BARE, NAME, STAY, Found
from .turns import Turn
from .view import View

_TRIES: Final = 3
"""How often a name is looked up anew that somebody else is moving."""

_NO_LINK: Final = frozenset((EOPNOTSUPP, ENOSYS, EXDEV, EPERM, EMLINK))
"""Errors of link that say that this file cannot have a second name there; OpenSSH's list, and
EMLINK."""


class NameRequests:
    """Answers the requests of one session that change names."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._server = view.server
        self._export = view.export
        self._find = view.paths.find
        self._cred = view.cred
        self.handlers: dict[type[Any], Handler] = {
            sftp.Mkdir: self.mkdir,
            sftp.Rmdir: self.rmdir,
            sftp.Remove: self.remove,
            sftp.Symlink: self.symlink,
            sftp.Rename: self.rename,
            sftp.PosixRename: self.posix_rename,
            sftp.Hardlink: self.hardlink,
        }

    # Making.

    async def mkdir(self, turn: Turn, request: sftp.Mkdir) -> Reply:
        """Make a directory."""
        mode = 0o777 if request.attrs.mode is None else request.attrs.mode
        va = Vattr(Vtype.VDIR, mode & 0o1777 & ~self._view.umask)
        with await self._find(request.path, turn, BARE) as found:
            await self._make(found, lambda opc, cn: self._server.mkdir(opc, cn, va))
        return success(request.id)

    async def symlink(self, turn: Turn, request: sftp.Symlink) -> Reply:
        """Make a link to a target, which is stored as it is."""
        target = request.target
        if not target:
            raise VfsError(ENOENT)
        if len(target) >= PATH_MAX:
            raise VfsError(ENAMETOOLONG)
        va = Vattr(Vtype.VLNK, 0o777)
        with await self._find(request.linkpath, turn, BARE) as found:
            await self._refuse_slash(found)
            await self._make(found, lambda opc, cn: self._server.symlink(opc, cn, va, target))
        return success(request.id)

    async def _make(
        self, found: Found, make: Callable[[Cookie, Componentname], Awaitable[Newinfo]]
    ) -> None:
        if found.parent is None:
            raise VfsError(EEXIST)
        cn = self._view.paths.componentname(found.name, NameiOp.CREATE)
        try:
            self._view.nodes.give_back(await make(found.parent.cookie, cn))
        finally:
            self._export.name_changed(found.parent, found.name)

    async def _refuse_slash(self, found: Found) -> None:
        """Refuse a new name with a slash behind it for what is no directory: EEXIST or ENOENT."""
        if found.slash and found.parent is not None:
            cn = self._view.paths.componentname(found.name)
            info = await self._server.lookup(found.parent.cookie, cn)
            if info.cookie:
                self._view.nodes.give_back(info)
            raise VfsError(EEXIST if info.cookie else ENOENT)

    async def hardlink(self, turn: Turn, request: sftp.Hardlink) -> Reply:
        """Give a file one more name; a link gets it itself, it is not followed."""
        with (
            await self._find(request.old, None, STAY) as source,
            await self._find(request.new, None, BARE) as place,
        ):
            node = source.there()
            await self._refuse_slash(place)
            if place.parent is None:
                raise VfsError(EEXIST)
            if node.vtype == Vtype.VDIR:
                raise VfsError(EPERM)
            turn.narrow((*_entry(place), *_entry(source)))
            await self._link(place, node)
        return success(request.id)

    async def _link(self, place: Found, node: Node) -> None:
        assert place.parent is not None
        cn = self._view.paths.componentname(place.name, NameiOp.CREATE)
        try:
            await self._server.link(place.parent.cookie, node.cookie, cn)
        finally:
            self._export.name_changed(place.parent, place.name)

    # Removing and renaming. A name is looked up for its cookie, and somebody in another session
    # may move it before it is used: then it is looked up again.

    async def remove(self, turn: Turn, request: sftp.Remove) -> Reply:
        """Remove a name of what is no directory."""
        await self._again(lambda: self._remove(turn, request.path))
        return success(request.id)

    async def _remove(self, turn: Turn, path: bytes) -> bool:
        with await self._find(path, turn, NAME) as found:
            if found.parent is None:
                raise VfsError(EISDIR)
            node = found.there()
            if node.vtype == Vtype.VDIR:
                raise VfsError(EISDIR)
            if not await self._remove_name(found, node):
                return False
            self._view.nodes.gone(node)
            return True

    async def _remove_name(self, found: Found, node: Node) -> bool:
        """Remove the name of what is no directory; return whether it was that node's name."""
        assert found.parent is not None
        cn = self._view.paths.componentname(found.name, NameiOp.DELETE)
        try:
            return not await _is_moved(self._server.remove(found.parent.cookie, node.cookie, cn))
        finally:
            self._export.name_changed(found.parent, found.name)

    async def rmdir(self, turn: Turn, request: sftp.Rmdir) -> Reply:
        """Remove an empty directory."""
        await self._again(lambda: self._rmdir(request.path))
        return success(request.id)

    async def _rmdir(self, path: bytes) -> bool:
        with await self._find(path, None, NAME) as found:
            if found.parent is None:
                if found.node is self._view.root:
                    raise VfsError(EBUSY)
                raise VfsError(EINVAL if found.name == b"." else ENOTEMPTY)
            node = found.there()
            if node.vtype != Vtype.VDIR:
                raise VfsError(ENOTDIR)
            cn = self._view.paths.componentname(found.name, NameiOp.DELETE)
            try:
                if await _is_moved(self._server.rmdir(found.parent.cookie, node.cookie, cn)):
                    return False
            except VfsError:
                raise
            except BaseException:
                self._export.names_changed()  # it may be gone
                raise
            finally:
                self._export.name_changed(found.parent, found.name)
            self._export.directory_removed(node)
            return True

    async def posix_rename(self, turn: Turn, request: sftp.PosixRename) -> Reply:
        """Rename, replacing what is there."""
        await self._again(lambda: self._rename(turn, request.old, request.new))
        return success(request.id)

    async def rename(self, turn: Turn, request: sftp.Rename) -> Reply:
        """Rename, and fail when the new name exists.

        As OpenSSH does, a file gets its new name before it loses the old one: nobody else's file
        can come in between and be replaced. What cannot have two names is renamed if nothing is
        there at the moment.
        """
        if not await self._move_file(turn, request.old, request.new):
            await self._again(lambda: self._rename(turn, request.old, request.new, replace=False))
        return success(request.id)

    async def _move_file(self, turn: Turn, old: bytes, new: bytes) -> bool:
        """Rename a file by way of a second name; return False where that cannot be done."""
        with (
            await self._find(old, None, NAME) as source,
            await self._find(new, None, NAME) as place,
        ):
            node = source.there()
            if node.vtype != Vtype.VREG or source.parent is None:
                return False
            if place.node is not None or place.parent is None:
                raise VfsError(EEXIST)
            if place.slash:
                raise VfsError(ENOTDIR)
            turn.narrow((*_entry(source), *_entry(place)))
            try:
                await self._link(place, node)
            except VfsError as exc:
                if exc.errno in _NO_LINK:
                    return False
                raise
            if not await self._remove_name(source, node):
                await self._remove_name(place, node)
                raise VfsError(ENOENT)
            return True

    async def _rename(self, turn: Turn, old: bytes, new: bytes, *, replace: bool = True) -> bool:
        with (
            await self._find(old, None, NAME) as source,
            await self._find(new, None, NAME) as place,
        ):
            node = source.node
            if node is None:
                raise VfsError(ENOENT)
            if source.parent is None or place.parent is None:
                raise VfsError(EBUSY)
            victim = place.node
            is_directory = node.vtype == Vtype.VDIR
            if not is_directory and (source.slash or place.slash):
                raise VfsError(ENOTDIR)
            if victim is not None:
                if not replace:
                    raise VfsError(EEXIST)
                if victim is node:
                    return True
                if is_directory != (victim.vtype == Vtype.VDIR):
                    raise VfsError(ENOTDIR if is_directory else EISDIR)
            if not is_directory:
                turn.narrow((*_entry(source), *_entry(place)))
            name = self._view.paths.componentname
            try:
                if await _is_moved(
                    self._server.rename(
                        source.parent.cookie,
                        node.cookie,
                        name(source.name, NameiOp.DELETE),
                        place.parent.cookie,
                        None if victim is None else victim.cookie,
                        name(place.name, NameiOp.RENAME),
                    )
                ):
                    return False
            finally:
                self._export.name_changed(source.parent, source.name)
                self._export.name_changed(place.parent, place.name)
                if is_directory:
                    self._view.nodes.displace(node)
                    self._export.names_changed()
            if victim is not None:
                self._view.nodes.gone(victim)
            return True

    async def _again(self, attempt: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(_TRIES):
            if await attempt():
                return
        raise VfsError(ENOENT)


def _entry(found: Found) -> tuple[Part, ...]:
    """Return what a change of a name touches."""
    assert found.parent is not None
    return Part(Name(found.parent, found.name), ALTER), Part(found.parent, TOUCH)


async def _is_moved(operation: Awaitable[Any]) -> bool:
    """Run an operation on a name and its node; return whether the two have parted meanwhile."""
    try:
        await operation
    except VfsError as exc:
        if exc.errno in (ENOENT, ESTALE):
            return True
        raise
    return False
