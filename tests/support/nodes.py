"""NodeTarget: walking paths over a tree of nodes, by the rules of Linux's namei.

What the host kernel does for a mount before it asks the file system (splitting paths,
following links, locking directories) is done here for the stacks that have no host
above them. A subclass says what the operations on one node are.
"""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from copy import copy
from functools import wraps
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

import trio

from syspuffs.native.constants import NAME_MAX, PATH_MAX, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import VTYPE_TO_IFMT, Buffer, Cred, Flock, Vattr

from .target import DirEntry, Stat, Target, fail

MAX_LINKS: Final = 40
OURSELVES: Final = Cred(os.geteuid(), os.getegid())
"""Who asks, when nobody else is named: as on a mount, whoever runs the tests."""


class WalkNode(Protocol):
    """What the walk must know of a node."""

    @property
    def vtype(self) -> int: ...


N = TypeVar("N", bound=WalkNode)
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


def _components(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name]


class Found(Generic[N]):
    """The end of a walk: the directory, the last name, and the node if there is one.

    Holds a reference on both; as a context manager it gives them back.
    """

    def __init__(
        self,
        target: NodeTarget[N],
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


class NodeTarget(Target, Generic[N]):
    """The tree below `root`."""

    root: N
    cwd: N | None = None
    """Where relative paths begin; the root, unless it is another directory."""
    cred: Cred
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
    async def node_handle(self, node: N) -> bytes: ...

    @abstractmethod
    async def node_of_handle(self, handle: bytes) -> N: ...

    @abstractmethod
    async def node_advlock(self, node: N, owner: int, op: int, flock: Flock) -> Flock: ...

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
        start = self.root if self.cwd is None or path.startswith(b"/") else self.cwd
        parent = self.hold(start)
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
                    if not todo:
                        slash = slash or text.endswith(b"/")
                    todo += _components(text)[::-1]
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

    @asynccontextmanager
    async def at(self, path: bytes) -> AsyncIterator[Target]:
        there = copy(self)
        there.open_files = 0
        async with await self._dir(path) as found:
            there.cwd = found.there()
            yield there
            assert there.open_files == 0, f"left {there.open_files} files open"

    @asynccontextmanager
    async def as_user(self, uid: int, gid: int) -> AsyncIterator[Target]:
        user = copy(self)
        user.open_files = 0
        user.cred = Cred(uid, gid)
        yield user
        assert user.open_files == 0, f"left {user.open_files} files open"

    async def verify(self) -> None:
        assert self.open_files == 0, f"the test left {self.open_files} files open"
