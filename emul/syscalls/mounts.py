"""System calls on file systems: mount, unmount, statvfs, sync, file handles."""

from __future__ import annotations

import os
import struct
from errno import EINVAL, ENOTDIR, ENXIO, ESTALE
from typing import TYPE_CHECKING, Final

from ...native.constants import MNT_WAIT, Vtype
from ...native.errors import VfsError
from ...native.records import Statvfs
from ..syncer import sync_all, vfs_sync
from ..vfs import FileSystem
from ..vnode import Vnode
from .opening import OpenCalls
from .proc import AT_FDCWD

if TYPE_CHECKING:
    from ..mount import Mount

_FSID: Final = struct.Struct("<Q")


class MountCalls(OpenCalls):
    """Calls that concern whole file systems."""

    async def mount(self, fs: FileSystem, path: bytes, *, rdonly: bool = False) -> Mount:
        """Mount `fs`, which is mounted nowhere yet, over a directory.

        Errors: EPERM (not root); ENOTDIR; what the file system says.
        """
        self._superuser()
        async with await self.lookup(path) as nd:
            if nd.vp.vtype != Vtype.VDIR:
                raise VfsError(ENOTDIR)
            return await self.kernel.mount(fs, rdonly=rdonly, covered=nd.vp)

    async def unmount(self, path: bytes, flags: int = 0) -> None:
        """Unmount what is mounted on `path`; nothing of it is lost (see `Kernel.unmount`).

        Errors: EPERM (not root); EINVAL (nothing is mounted there); EBUSY; what writing said.
        """
        self._superuser()
        async with await self.lookup(path) as nd:
            if not nd.vp.is_root:
                raise VfsError(EINVAL)
            mount = nd.vp.mount
        await self.kernel.unmount(mount, flags)

    async def statvfs(self, path: bytes, *, dirfd: int = AT_FDCWD) -> Statvfs:
        """Return the state of the file system in which `path` leads; `flag` has ST_RDONLY."""
        async with await self.lookup(path, dirfd) as nd:
            return await _statvfs(nd.vp)

    async def fstatvfs(self, fd: int) -> Statvfs:
        """Return the state of the file system of an open file. Errors: EBADF."""
        async with self.files.get(fd) as file:
            return await _statvfs(file.f_vp)

    async def sync(self) -> None:
        """Return when everything of the kernel is on its medium; errors are fsync's to tell."""
        await sync_all(self.kernel)

    async def syncfs(self, fd: int) -> None:
        """Return when everything of one file system is on its medium.

        Errors: EBADF; ENXIO (it was unmounted); what writing said.
        """
        async with self.files.get_open(fd) as file:
            if file.f_vp.is_dead:
                raise VfsError(ENXIO)
            await vfs_sync(file.f_vp.mount, MNT_WAIT)

    async def getfh(self, path: bytes) -> bytes:
        """Return the handle of what `path` names, of a link itself: a name that outlives names.

        Errors: EPERM (not root), EOPNOTSUPP (the file system has none).
        """
        self._superuser()
        async with await self.lookup(path, follow=False) as nd:
            vp = nd.vp
            return _FSID.pack(vp.mount.serial) + await vp.fs.vptofh(vp)

    async def fhopen(self, handle: bytes, flags: int) -> int:
        """Open what a handle names (O_CREAT is refused); return a descriptor as `open`.

        Errors: EPERM (not root); EINVAL; ESTALE (the file has gone, or its file system); as open.
        """
        self._superuser()
        if flags & os.O_CREAT or len(handle) < _FSID.size:
            raise VfsError(EINVAL)
        (fsid,) = _FSID.unpack_from(handle)
        for mount in self.kernel.mounts:
            if mount.serial == fsid:
                break
        else:
            raise VfsError(ESTALE)
        vp = await mount.fs.fhtovp(handle[_FSID.size :])
        return await self.open_vnode(vp, flags)


async def _statvfs(vp: Vnode) -> Statvfs:
    got = await vp.fs.statvfs()
    return got._replace(flag=got.flag | os.ST_RDONLY) if vp.mount.is_rdonly else got
