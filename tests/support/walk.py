"""WalkTarget: the system calls of `Target` on a tree of nodes, by the rules of Linux's namei.

What the host kernel does for a mount (walking paths, following links, refusing
what no file system is asked for) is done here for the stacks that have no host
above them. A subclass says what the operations on one node are.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import wraps
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

import trio

from syspuffs.native.constants import FAPPEND, FREAD, FWRITE, NAME_MAX, PATH_MAX, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import (
    IFMT_TO_VTYPE,
    VATTR_NULL,
    VTYPE_TO_IFMT,
    Buffer,
    Cred,
    Vattr,
)

from .target import (
    UMASK,
    UTIME_NOW,
    UTIME_OMIT,
    DirEntry,
    DirStream,
    File,
    Stat,
    Target,
    fail,
)

MAX_LINKS = 40
OURSELVES: Final = Cred(os.geteuid(), os.getegid())
"""Who asks, when nobody else is named: as on a mount, whoever runs the tests."""
IO_SIZE = 1 << 18
"""Longest read or write that is asked of a node at once, octets: larger ones are split."""


class WalkNode(Protocol):
    """What the walk must know of a node."""

    @property
    def vtype(self) -> int: ...


N = TypeVar("N", bound=WalkNode)
T = TypeVar("T", bound="WalkTarget[WalkNode]")
P = ParamSpec("P")
R = TypeVar("R")


class RawEntry(NamedTuple):
    """One directory entry with the offset after it."""

    entry: DirEntry
    offset: int


class StaleNameError(Exception):
    """A name means another node than when it was walked to: walk again."""


def system_call(
    method: Callable[P, Coroutine[Any, Any, R]],
) -> Callable[P, Coroutine[Any, Any, R]]:
    """Let a method raise `OSError` where the file system says `VfsError`.

    As Linux does, a call that meets ESTALE is made once more; one that meets a stale name
    (no host keeps locks for it) as often as it takes.
    """

    @wraps(method)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        retry = True
        while True:
            try:
                return await method(*args, **kwargs)
            except StaleNameError:
                await trio.lowlevel.checkpoint()
            except VfsError as error:
                if error.errno == errno.ESTALE and retry:
                    retry = False
                    continue
                raise OSError(error.errno, os.strerror(error.errno), error.detail) from error

    return wrapper


def _ns(value: int) -> int | None:
    if value == UTIME_OMIT:
        return None
    return time.time_ns() if value == UTIME_NOW else value


def _components(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name]


class Found(Generic[N]):
    """The end of a walk: the directory, the last name, and the node if there is one.

    Holds a reference on both; as a context manager it gives them back.
    """

    def __init__(
        self,
        target: WalkTarget[N],
        parent: N,
        name: bytes,
        node: N | None,
        slash: bool,
        *,
        walked: bool = True,
    ) -> None:
        self._target = target
        self.parent = parent
        self.name = name
        self.node = node
        self.slash = slash
        self._walked = target.changes if walked else -1

    async def settle(self) -> None:
        """Look the last name up if that has not been done since the last change.

        For who has locked the parent. Errors: ENAMETOOLONG.
        """
        target = self._target
        if self._walked == target.changes:
            return
        before, self.node = self.node, None
        if before is not None:
            await target.put(before)
        self.node = await target.component(self.parent, self.name)
        self._walked = target.changes

    @property
    def special(self) -> bool:
        """Whether the last name is no name that could be made or removed."""
        return self.name in (b".", b"..")

    def there(self) -> N:
        """Return the node. Errors: ENOENT."""
        return fail(errno.ENOENT) if self.node is None else self.node

    def missing(self, *, directory: bool = False) -> None:
        """Check that a new node can be made here. Errors: EEXIST, ENOENT."""
        if self.node is not None:
            fail(errno.EEXIST)
        if self.slash and not directory:
            fail(errno.ENOENT)

    async def __aenter__(self) -> Found[N]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.node is not None:
            await self._target.put(self.node)
        await self._target.put(self.parent)


class WalkFile(File, Generic[N]):
    """An open node; owns a reference and one open of it."""

    def __init__(self, target: WalkTarget[N], node: N, mode: int) -> None:
        self._target = target
        self._node = node
        self._mode = mode
        self._closed = False

    def _need(self, mode: int) -> N:
        if self._closed or not self._mode & mode:
            fail(errno.EBADF)
        return self._node

    @system_call
    async def pread(self, length: int, offset: int) -> bytes:
        node = self._need(FREAD)
        if offset < 0:
            fail(errno.EINVAL)
        pieces = []
        while length:
            want = min(length, IO_SIZE)
            piece = bytes(await self._target.node_read(node, offset, want))
            assert len(piece) <= want, f"asked for {want} octets, got {len(piece)}"
            pieces.append(piece)
            if len(piece) < want:
                break
            offset += want
            length -= want
        return b"".join(pieces)

    @system_call
    async def pwrite(self, data: Buffer, offset: int) -> int:
        node = self._need(FWRITE)
        if offset < 0:
            fail(errno.EINVAL)
        append = bool(self._mode & FAPPEND)
        view = memoryview(data).cast("B")
        for start in range(0, len(view), IO_SIZE):
            piece = view[start : start + IO_SIZE]
            await self._target.node_write(node, offset + start, piece, append)
        return len(view)

    @system_call
    async def ftruncate(self, length: int) -> None:
        if self._closed:
            fail(errno.EBADF)
        if not self._mode & FWRITE or length < 0:
            fail(errno.EINVAL)
        await self._target.node_setattr(self._node, VATTR_NULL._replace(size=length))

    @system_call
    async def fsync(self) -> None:
        await self._target.node_fsync(self._need(FREAD | FWRITE), closing=False)

    @system_call
    async def fstat(self) -> Stat:
        return await self._target.node_stat(self._need(FREAD | FWRITE))

    @system_call
    async def close(self) -> None:
        if self._closed:
            fail(errno.EBADF)
        self._closed = True
        self._target.open_files -= 1
        with trio.CancelScope(shield=True):
            try:
                await self._target.node_fsync(self._node, closing=True)
            finally:
                await self._target.node_close(self._node, self._mode)
                await self._target.put(self._node)


class WalkDirStream(DirStream, Generic[N]):
    """An open directory; owns a reference and one open of it."""

    def __init__(self, target: WalkTarget[N], node: N) -> None:
        self._target = target
        self._node = node
        self._offset = 0
        self._end = False

    @system_call
    async def read(self) -> list[DirEntry]:
        if self._end:
            return []
        entries, self._end = await self._target.node_readdir(self._node, self._offset)
        if entries:
            self._offset = entries[-1].offset
        else:
            assert self._end, "no entries although more are promised"
        return [raw.entry for raw in entries]

    @system_call
    async def close(self) -> None:
        self._target.open_files -= 1
        with trio.CancelScope(shield=True):
            await self._target.node_close(self._node, FREAD)
            await self._target.put(self._node)


class WalkTarget(Target, Generic[N]):
    """The tree below `root`."""

    root: N
    open_files = 0
    changes = 0
    """Counts modifications of directories, begun or done."""

    @asynccontextmanager
    async def modifying(self, *places: Found[N]) -> AsyncIterator[None]:
        """Have the directories of `places` to oneself, and what was found in them up to date."""
        async with self.locked(*(place.parent for place in places)):
            for place in places:
                await place.settle()
            try:
                yield
            finally:
                self.changes += 1

    def locked(self, *parents: N) -> AbstractAsyncContextManager[None]:
        """Lock directories as the host does around modifications; here nobody does."""
        return nullcontext()

    # Operations on one node. What returns a node returns it with a reference for the caller.

    @abstractmethod
    def hold(self, node: N) -> N:
        """Take one more reference."""

    @abstractmethod
    async def put(self, node: N) -> None:
        """Give back a reference; not disturbed by cancellation."""

    @abstractmethod
    async def node_lookup(self, parent: N, name: bytes) -> N | None: ...

    @abstractmethod
    async def node_make(self, parent: N, name: bytes, va: Vattr) -> N: ...

    @abstractmethod
    async def node_symlink(self, parent: N, name: bytes, va: Vattr, target: bytes) -> N: ...

    @abstractmethod
    async def node_readlink(self, node: N) -> bytes: ...

    @abstractmethod
    async def node_remove(self, parent: N, node: N, name: bytes) -> None: ...

    @abstractmethod
    async def node_rmdir(self, parent: N, node: N, name: bytes) -> None: ...

    @abstractmethod
    async def node_link(self, parent: N, node: N, name: bytes) -> None: ...

    @abstractmethod
    async def node_rename(
        self, fdir: N, fnode: N, fname: bytes, tdir: N, tnode: N | None, tname: bytes
    ) -> None: ...

    @abstractmethod
    async def node_getattr(self, node: N) -> Vattr: ...

    @abstractmethod
    async def node_setattr(self, node: N, va: Vattr) -> None: ...

    @abstractmethod
    async def node_access(self, node: N, mode: int) -> None: ...

    @abstractmethod
    async def node_open(self, node: N, mode: int) -> None: ...

    @abstractmethod
    async def node_close(self, node: N, mode: int) -> None: ...

    @abstractmethod
    async def node_read(self, node: N, offset: int, length: int) -> Buffer: ...

    @abstractmethod
    async def node_write(self, node: N, offset: int, data: Buffer, append: bool) -> None: ...

    @abstractmethod
    async def node_fsync(self, node: N, *, closing: bool) -> None: ...

    @abstractmethod
    async def node_readdir(self, node: N, offset: int) -> tuple[list[RawEntry], bool]: ...

    async def node_stat(self, node: N) -> Stat:
        """Return attributes as stat(2) shows them."""
        va = await self.node_getattr(node)
        assert va.vtype == node.vtype, f"the type changed from {node.vtype} to {va.vtype}"
        assert va.mode is not None
        assert va.mode & ~0o7777 == 0, f"type bits in the mode {va.mode:o}"
        return Stat(
            VTYPE_TO_IFMT[Vtype(va.vtype)] | va.mode,
            va.fileid or 0,
            1 if va.nlink is None else va.nlink,
            va.uid or 0,
            va.gid or 0,
            va.rdev or 0,
            va.size or 0,
            (va.bytes or 0) // 512,
            va.atime or 0,
            va.mtime or 0,
            va.ctime or 0,
        )

    # The walk.

    async def namei(self, path: bytes, *, follow: bool, name: bool = False) -> Found[N]:
        """Walk `path`; the last component may be missing. `follow`: also a link at the end.

        `name`: the last name is meant, not what it stands for. It is not looked up yet (`settle`
        does that), and a slash behind it neither follows a link nor asks for a directory.
        """
        if len(path) >= PATH_MAX:
            fail(errno.ENAMETOOLONG)
        todo = _components(path)[::-1]
        slash = path.endswith(b"/")
        links = 0
        parent = self.hold(self.root)
        node: N | None = None
        try:
            while todo:
                last = todo.pop()
                if name and not todo:
                    return Found(self, parent, last, None, slash, walked=False)
                node = await self.component(parent, last)
                if node is None:
                    if todo:
                        fail(errno.ENOENT)
                    return Found(self, parent, last, None, slash)
                if node.vtype == Vtype.VLNK and (todo or follow or slash):
                    links += 1
                    if links > MAX_LINKS:
                        fail(errno.ELOOP)
                    text = await self.node_readlink(node)
                    await self.put(node)
                    node = None
                    todo += _components(text)[::-1]
                    slash = slash or text.endswith(b"/")
                    if text.startswith(b"/"):
                        await self.put(parent)
                        parent = self.hold(self.root)
                    continue
                if node.vtype != Vtype.VDIR and (todo or slash):
                    fail(errno.ENOTDIR)
                if not todo:
                    return Found(self, parent, last, node, slash)
                await self.put(parent)
                parent, node = node, None
            return Found(self, parent, b".", self.hold(parent), slash)
        except BaseException:
            if node is not None:
                await self.put(node)
            await self.put(parent)
            raise

    async def component(self, parent: N, name: bytes) -> N | None:
        """Return the node of one name, also of "." and "..", with a reference."""
        if name == b"." or (name == b".." and parent is self.root):
            return self.hold(parent)
        if len(name) > NAME_MAX:
            fail(errno.ENAMETOOLONG)
        return await self.node_lookup(parent, name)

    async def _dir(self, path: bytes) -> Found[N]:
        found = await self.namei(path, follow=True)
        if found.node is None or found.node.vtype != Vtype.VDIR:
            async with found:
                fail(errno.ENOENT if found.node is None else errno.ENOTDIR)
        return found

    # System calls.

    @system_call
    async def open(self, path: bytes, flags: int, mode: int = 0o666) -> File:
        access = flags & os.O_ACCMODE
        opening = FREAD if access != os.O_WRONLY else 0
        if access != os.O_RDONLY:
            opening |= FWRITE
        if flags & os.O_APPEND:
            opening |= FAPPEND
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

    async def _opened(self, node: N, mode: int, *, truncate: bool) -> WalkFile[N]:
        try:
            await self.node_open(node, mode)
        except BaseException:
            await self.put(node)
            raise
        self.open_files += 1
        file = WalkFile(self, node, mode)
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
            return WalkDirStream(self, node)

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

    async def verify(self) -> None:
        assert self.open_files == 0, f"the test left {self.open_files} files open"
