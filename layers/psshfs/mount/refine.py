"""Telling errors apart that one SFTP status stands for, by looking at the tree.

Each method takes the error that a server gave, looks (only where the status is
one that servers use for many errors), and returns the error to raise. What is
seen may be younger than the failure; where it does not explain it, the first
error stands.
"""

from __future__ import annotations

import errno
import stat
from typing import Final

from ....native import sftp
from ....native.errors import VfsError
from ....native.records import Statvfs
from ..tree.fetching import Batches, fetch_names
from ..wire.connection import Connection
from ..wire.errmap import StatusError
from ..wire.slot import ATTRS, STATVFS
from .session import Session

ST_RDONLY: Final = 1
"""Bit of the flags in a statvfs@openssh.com answer."""


class Refiner:
    """Looks at the server's tree through `connection`. Wire: only after a failure."""

    def __init__(self, connection: Connection, session: Session) -> None:
        self._connection = connection
        self.session = session

    async def _attrs(self, path: bytes) -> sftp.Attrs | None:
        try:
            return await self._connection.submit(ATTRS, sftp.lstat, path)
        except StatusError:
            return None

    async def _statvfs(self, path: bytes) -> Statvfs | None:
        if not self.session.statvfs:
            return None
        try:
            return await self._connection.submit(STATVFS, sftp.statvfs, path)
        except StatusError:
            return None

    async def _space(self, exc: StatusError, path: bytes, octets: int = 1) -> VfsError:
        """A change failed for no reason of names: look whether there is room to make one.

        OpenSSH has FAILURE for EROFS, ENOSPC and EDQUOT. statvfs shows the first two, and the quota
        of a tree that has a file system's size of its own (XFS projects, ZFS): ENOSPC. A user's
        quota nothing shows, and it stays EIO, but where the server's words name it (errmap.py).
        """
        state = await self._statvfs(path)
        if state is not None:
            if state.flag & ST_RDONLY:
                return VfsError(errno.EROFS, exc.detail)
            if state.blocks and state.bavail * state.frsize < octets:
                return VfsError(errno.ENOSPC, exc.detail)
            if state.files and not state.ffree:
                return VfsError(errno.ENOSPC, exc.detail)
        return exc

    def opened(self, exc: StatusError) -> VfsError:
        """Refine what open met: ENFILE when we have as many handles as the server has said."""
        limit = self.session.max_handles
        if exc.is_vague and limit and len(self._connection.handles) >= limit:
            return VfsError(errno.ENFILE, exc.detail)
        return exc

    async def made(self, exc: StatusError, parent: bytes, path: bytes) -> VfsError:
        """Refine what create, mkdir, symlink or link in `parent` met: mostly EEXIST."""
        if exc.code == sftp.FX_BAD_MESSAGE:
            # OpenSSH: ENAMETOOLONG or EINVAL. Nothing about making a name is invalid but its
            # length, and 255 octets, checked before, are too long for some file systems.
            return VfsError(errno.ENAMETOOLONG, exc.detail)
        if not exc.is_vague:
            return exc
        if await self._attrs(path) is not None:
            return VfsError(errno.EEXIST, exc.detail)
        error = await self._space(exc, parent)
        return self.opened(exc) if error is exc else error

    async def linked(self, exc: StatusError, source: bytes, parent: bytes, path: bytes) -> VfsError:
        """Refine what link met: as `made`, and EXDEV between file systems of the server."""
        if exc.code == sftp.FX_PERMISSION_DENIED:
            return exc
        error = await self.made(exc, parent, path)
        if error is exc and exc.is_vague and await self._is_cross_device(source, parent):
            return VfsError(errno.EXDEV, exc.detail)
        return error

    async def removed(self, exc: StatusError, parent: bytes, path: bytes) -> VfsError:
        """Refine what remove met: EISDIR when a directory has come to have the name."""
        if not exc.is_vague:
            return exc
        attrs = await self._attrs(path)
        if attrs is not None and attrs.mode is not None and stat.S_ISDIR(attrs.mode):
            return VfsError(errno.EISDIR, exc.detail)
        return await self._space(exc, parent, 0)

    async def rmdired(self, exc: StatusError, parent: bytes, path: bytes) -> VfsError:
        """Refine what rmdir met: ENOTEMPTY, mostly.

        OpenSSH answers NO_SUCH_FILE for ENOTDIR, so that one is looked at, too.
        """
        if exc.code == sftp.FX_NO_SUCH_FILE:
            attrs = await self._attrs(path)
            if attrs is not None and attrs.mode is not None and not stat.S_ISDIR(attrs.mode):
                return VfsError(errno.ENOTDIR, exc.detail)
            return exc
        if not exc.is_vague:
            return exc
        if await self.has_entries(path):
            return VfsError(errno.ENOTEMPTY, exc.detail)
        return await self._space(exc, parent, 0)

    async def has_entries(self, path: bytes) -> bool:
        """Tell whether the directory at `path` has entries but "." and ".."; False if unknown."""
        try:
            await fetch_names(self._connection, path, 1, found := Batches())
        except StatusError:
            return False
        return any(listed.names or listed.dropped for listed in found.listed)

    async def renamed(
        self,
        exc: StatusError,
        old: bytes,
        new: bytes,
        old_parent: bytes,
        new_parent: bytes,
    ) -> VfsError:
        """Refine what a rename of `old` to `new` met.

        OpenSSH: NO_SUCH_FILE is ENOENT or ENOTDIR, BAD_MESSAGE is EINVAL (into itself; names
        were measured before), FAILURE is ENOTEMPTY, EISDIR, EXDEV, EROFS, ENOSPC or EBUSY.
        """
        if exc.code == sftp.FX_BAD_MESSAGE:
            inside = new.startswith(old + b"/")
            return VfsError(errno.EINVAL if inside else errno.ENAMETOOLONG, exc.detail)
        if exc.code != sftp.FX_NO_SUCH_FILE and not exc.is_vague:
            return exc
        source = await self._attrs(old)
        target = await self._attrs(new)
        if source is None:
            return VfsError(errno.ENOENT, exc.detail)
        if target is not None and source.mode is not None and target.mode is not None:
            if stat.S_ISDIR(target.mode):
                if not stat.S_ISDIR(source.mode):
                    return VfsError(errno.EISDIR, exc.detail)
                if await self.has_entries(new):
                    return VfsError(errno.ENOTEMPTY, exc.detail)
            elif stat.S_ISDIR(source.mode):
                return VfsError(errno.ENOTDIR, exc.detail)
        if not exc.is_vague:
            return exc
        if await self._is_cross_device(old_parent, new_parent):
            return VfsError(errno.EXDEV, exc.detail)
        return await self._space(exc, new_parent, 0)

    async def _is_cross_device(self, one: bytes, other: bytes) -> bool:
        """Tell whether two paths are on file systems of different ids, as far as can be seen."""
        if one == other:
            return False
        first = await self._statvfs(one)
        second = await self._statvfs(other)
        return first is not None and second is not None and first.fsid != second.fsid

    async def written(self, exc: VfsError, path: bytes, octets: int) -> VfsError:
        """Refine what a write of `octets` met: ENOSPC or EROFS where that can be seen."""
        if isinstance(exc, StatusError) and exc.is_vague:
            return await self._space(exc, path, octets)
        return exc

    async def changed(self, exc: StatusError, path: bytes, *, by_owner: bool) -> VfsError:
        """Refine what setattr met. With `by_owner`, only the owner may do it: EPERM."""
        if exc.code == sftp.FX_PERMISSION_DENIED and by_owner:
            return VfsError(errno.EPERM, exc.detail)
        if exc.is_vague and exc.code == sftp.FX_FAILURE:
            return await self._space(exc, path)
        return exc
