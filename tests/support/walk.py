"""WalkTarget: the system calls of `Target` on a tree of nodes, refusing what Linux refuses."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fcntl import F_UNLCK

from syspuffs.native.constants import FAPPEND, FREAD, FWRITE, PATH_MAX, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import IFMT_TO_VTYPE, VATTR_NULL, Vattr

from .descriptors import NodeDirStream, NodeFile, NodeLocker
from .nodes import Found, N, NodeTarget, system_call
from .target import UMASK, UTIME_NOW, UTIME_OMIT, DirStream, File, Locker, Stat, fail


def _ns(value: int) -> int | None:
    if value == UTIME_OMIT:
        return None
    return time.time_ns() if value == UTIME_NOW else value


def opening_mode(flags: int) -> int:
    """Return FREAD, FWRITE and FAPPEND for the flags of open(2)."""
    access = flags & os.O_ACCMODE
    mode = FREAD if access != os.O_WRONLY else 0
    if access != os.O_RDONLY:
        mode |= FWRITE
    return mode | FAPPEND if flags & os.O_APPEND else mode


class WalkTarget(NodeTarget[N]):
    """The tree below `root`, for programs."""

    @system_call
    async def open(self, path: bytes, flags: int, mode: int = 0o666) -> File:
        access = flags & os.O_ACCMODE
        opening = opening_mode(flags)
        exclusive = flags & os.O_CREAT and flags & os.O_EXCL
        if flags & os.O_CREAT and path.endswith(b"/"):
            async with await self.namei(path, follow=False, name=True) as found:
                if not found.special:
                    fail(errno.EISDIR)  # whatever is there, if anything
        while True:
            follow = not (exclusive or flags & os.O_NOFOLLOW)
            async with await self.namei(path, follow=follow) as found:
                node = found.node
                if flags & os.O_CREAT:
                    if found.slash or (found.special and not exclusive):
                        fail(errno.EISDIR)
                    if node is None:
                        va = Vattr(vtype=Vtype.VREG, mode=mode & 0o7777 & ~UMASK)
                        try:
                            async with self.modifying(found):
                                if found.node is not None:
                                    raise VfsError(errno.EEXIST)
                                node = await self.node_make(found.parent, found.name, va)
                        except VfsError as error:
                            if error.errno == errno.EEXIST and not exclusive:
                                continue  # somebody was faster: open what is there now
                            raise
                        return await self._opened(node, opening, truncate=False)
                    if exclusive:
                        fail(errno.EEXIST)
                node = found.there()
                if node.vtype == Vtype.VLNK:
                    fail(errno.ELOOP)
                if node.vtype == Vtype.VDIR:
                    if access != os.O_RDONLY or flags & (os.O_CREAT | os.O_TRUNC):
                        fail(errno.EISDIR)
                elif flags & os.O_DIRECTORY:
                    fail(errno.ENOTDIR)
                elif node.vtype != Vtype.VREG:
                    fail(errno.ENXIO)  # devices and fifos are the host kernel's business
                truncate = bool(flags & os.O_TRUNC)  # Linux does so also for reading
                return await self._opened(self.hold(node), opening, truncate=truncate)

    async def _opened(self, node: N, mode: int, *, truncate: bool) -> NodeFile[N]:
        try:
            await self.node_open(node, mode)
        except BaseException:
            await self.put(node)
            raise
        self.open_files += 1
        file = NodeFile(self, node, mode)
        if truncate:
            try:
                await self.node_setattr(node, VATTR_NULL._replace(size=0))
            except BaseException:
                await file.close()
                raise
        return file

    @system_call
    async def opendir(self, path: bytes) -> DirStream:
        async with await self._dir(path) as found:
            node = self.hold(found.there())
            try:
                await self.node_open(node, FREAD)
            except BaseException:
                await self.put(node)
                raise
            self.open_files += 1
            return NodeDirStream(self, node)

    @system_call
    async def getfh(self, path: bytes) -> bytes:
        async with await self.namei(path, follow=False) as found:
            return await self.node_handle(found.there())

    @system_call
    async def fhopen(self, handle: bytes, flags: int) -> File:
        node = await self.node_of_handle(handle)
        return await self._opened(node, opening_mode(flags), truncate=bool(flags & os.O_TRUNC))

    @asynccontextmanager
    async def locker(self, path: bytes) -> AsyncIterator[Locker]:
        async with await self.namei(path, follow=True) as found:
            node = found.there()
            await self.node_open(node, FREAD | FWRITE)
            locker = NodeLocker(self, node)
            try:
                yield locker
            finally:
                await locker.setlk(F_UNLCK, 0, 0)
                await self.node_close(node, FREAD | FWRITE)

    @system_call
    async def stat(self, path: bytes) -> Stat:
        async with await self.namei(path, follow=True) as found:
            return await self.node_stat(found.there())

    @system_call
    async def lstat(self, path: bytes) -> Stat:
        async with await self.namei(path, follow=False) as found:
            return await self.node_stat(found.there())

    @system_call
    async def access(self, path: bytes, mode: int) -> bool:
        async with await self.namei(path, follow=True) as found:
            try:
                await self.node_access(found.there(), mode)
            except VfsError as error:
                if error.errno in (errno.EACCES, errno.EROFS):
                    return False
                raise
            return True

    @system_call
    async def mkdir(self, path: bytes, mode: int = 0o777) -> None:
        async with await self.namei(path, follow=False, name=True) as found, self.modifying(found):
            found.missing(directory=True)
            va = Vattr(vtype=Vtype.VDIR, mode=mode & 0o1777 & ~UMASK)
            await self.put(await self.node_make(found.parent, found.name, va))

    @system_call
    async def mknod(self, path: bytes, mode: int, rdev: int = 0) -> None:
        async with await self.namei(path, follow=False, name=True) as found, self.modifying(found):
            found.missing()
            vtype = IFMT_TO_VTYPE.get(stat.S_IFMT(mode) or stat.S_IFREG)
            if vtype in (None, Vtype.VDIR, Vtype.VLNK):
                fail(errno.EPERM if vtype == Vtype.VDIR else errno.EINVAL)
            device = vtype in (Vtype.VBLK, Vtype.VCHR)
            va = Vattr(vtype=vtype, mode=mode & 0o7777 & ~UMASK, rdev=rdev if device else None)
            await self.put(await self.node_make(found.parent, found.name, va))

    @system_call
    async def symlink(self, target: bytes, path: bytes) -> None:
        if not target:
            fail(errno.ENOENT)
        if len(target) >= PATH_MAX:
            fail(errno.ENAMETOOLONG)
        async with await self.namei(path, follow=False, name=True) as found, self.modifying(found):
            found.missing()
            va = Vattr(vtype=Vtype.VLNK, mode=0o777)
            await self.put(await self.node_symlink(found.parent, found.name, va, target))

    @system_call
    async def readlink(self, path: bytes) -> bytes:
        async with await self.namei(path, follow=False) as found:
            node = found.there()
            if node.vtype != Vtype.VLNK:
                fail(errno.EINVAL)
            return await self.node_readlink(node)

    @system_call
    async def rmdir(self, path: bytes) -> None:
        async with await self.namei(path, follow=False, name=True) as found, self.modifying(found):
            node = found.there()
            if node is self.root:
                fail(errno.EBUSY)
            if found.special:
                fail(errno.EINVAL if found.name == b"." else errno.ENOTEMPTY)
            if node.vtype != Vtype.VDIR:
                fail(errno.ENOTDIR)
            await self.node_rmdir(found.parent, node, found.name)

    @system_call
    async def unlink(self, path: bytes) -> None:
        async with await self.namei(path, follow=False, name=True) as found, self.modifying(found):
            node = found.there()
            if node.vtype == Vtype.VDIR:
                fail(errno.EISDIR)
            if found.slash:
                fail(errno.ENOTDIR)
            await self.node_remove(found.parent, node, found.name)

    @system_call
    async def link(self, old: bytes, new: bytes) -> None:
        async with await self.namei(old, follow=False) as source:
            node = source.there()
            async with (
                await self.namei(new, follow=False, name=True) as place,
                self.modifying(place),
            ):
                place.missing()
                if node.vtype == Vtype.VDIR:
                    fail(errno.EPERM)
                await self.node_link(place.parent, node, place.name)

    @system_call
    async def rename(self, old: bytes, new: bytes) -> None:
        async with (
            await self.namei(old, follow=False, name=True) as source,
            await self.namei(new, follow=False, name=True) as place,
        ):
            if source.special or place.special:
                fail(errno.EBUSY)
            async with self.locked(source.parent, place.parent):
                await source.settle()
                source.there()
                await place.settle()
                await self._rename(source, place)
                self.changes += 1

    async def _rename(self, source: Found[N], place: Found[N]) -> None:
        """Rename what was looked up. Entry: both directories locked."""
        node, victim = source.there(), place.node
        if node.vtype != Vtype.VDIR and (source.slash or place.slash):
            fail(errno.ENOTDIR)
        if victim is node:
            return
        if victim is not None:
            if node.vtype == Vtype.VDIR and victim.vtype != Vtype.VDIR:
                await self._refuse_subtree(node, place.parent)
                fail(errno.ENOTDIR)
            if node.vtype != Vtype.VDIR and victim.vtype == Vtype.VDIR:
                await self._refuse_ancestor(victim, source.parent)
                fail(errno.EISDIR)
        await self.node_rename(source.parent, node, source.name, place.parent, victim, place.name)

    async def _is_below(self, node: N, top: N) -> bool:
        """Return whether `node` is `top` or below it, by the names ".."."""
        node = self.hold(node)
        try:
            while node is not self.root:
                if node is top:
                    return True
                up = await self.node_lookup(node, b"..")
                assert up is not None, "a directory without '..'"
                await self.put(node)
                node = up
            return node is top
        finally:
            await self.put(node)

    async def _refuse_subtree(self, node: N, parent: N) -> None:
        if await self._is_below(parent, node):
            fail(errno.EINVAL)

    async def _refuse_ancestor(self, victim: N, parent: N) -> None:
        if await self._is_below(parent, victim):
            fail(errno.ENOTEMPTY)

    @system_call
    async def chmod(self, path: bytes, mode: int) -> None:
        async with await self.namei(path, follow=True) as found:
            await self.node_setattr(found.there(), Vattr(mode=mode & 0o7777))

    @system_call
    async def chown(self, path: bytes, uid: int, gid: int, *, follow: bool = True) -> None:
        async with await self.namei(path, follow=follow) as found:
            va = Vattr(uid=None if uid == -1 else uid, gid=None if gid == -1 else gid)
            await self.node_setattr(found.there(), va)

    @system_call
    async def utimens(self, path: bytes, atime: int, mtime: int, *, follow: bool = True) -> None:
        va = Vattr(atime=_ns(atime), mtime=_ns(mtime))
        if va == VATTR_NULL:
            return  # Linux does not even look whether the file exists
        async with await self.namei(path, follow=follow) as found:
            await self.node_setattr(found.there(), va)

    @system_call
    async def truncate(self, path: bytes, length: int) -> None:
        if length < 0:
            fail(errno.EINVAL)
        async with await self.namei(path, follow=True) as found:
            node = found.there()
            if node.vtype != Vtype.VREG:
                fail(errno.EISDIR if node.vtype == Vtype.VDIR else errno.EINVAL)
            await self.node_setattr(node, VATTR_NULL._replace(size=length))
