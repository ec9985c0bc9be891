"""From a node to the host's file: by the descriptor of its directory and its name there.

A directory's path descriptor is kept while it is of use, as many as `fds_max` in all; what has
none is opened anew from the nearest directory above that has one. Whatever is opened or looked at
by its name is compared with the node: another file there means that others have moved things, and
the answer is ESTALE, upon which a kernel looks the name up again. A kept descriptor goes where its
directory goes, out of the tree as well, so each is looked for at its place once a second (FRESH).

Descriptors that are returned are good until the next call of a method here; nothing that uses one
waits in between.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ELOOP, ENOENT, ENOTDIR, ESTALE
from typing import Final

from ...native.constants import Vtype
from ...native.errors import VfsError
from .attributes import failure, vtype_of
from .node import Node, NodeTable, key_of
from .watches import TTL, Watches

FDS_MAX: Final = 256
"""How many path descriptors are kept."""
FRESH: Final = 10**9
"""How long a directory is believed to be where it was last seen, ns."""

PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOVED: Final = frozenset((ENOENT, ENOTDIR, ELOOP))
"""What the host says when a name is not what it was."""


def proc(fd: int) -> bytes:
    """Return a path to what a descriptor holds on to, to a link itself if it is one."""
    return b"/proc/self/fd/%d" % fd


class Places:
    """The descriptors of one tree. `root` is the root's, and from now on ours."""

    def __init__(self, root: int, clock: Callable[[], int], fds_max: int = FDS_MAX) -> None:
        self.table = NodeTable(key_of(os.fstat(root)), self._dropped)
        self.table.root.fd = root
        self._clock = clock
        self._fds_max = fds_max
        self._kept: OrderedDict[Node, None] = OrderedDict()
        self.watches = Watches()

    def __len__(self) -> int:
        return len(self._kept)

    # Directories.

    def directory(self, node: Node) -> int:
        """Return a descriptor of a directory. Errors: ESTALE; those of the host on the way."""
        fd = node.fd
        if fd < 0 or not self._is_sure(node, self._clock()):
            return self._reach(node)
        if node.parent is not None:
            self._kept.move_to_end(node)
        return fd

    def _is_sure(self, node: Node, now: int) -> bool:
        """Tell whether a node's descriptor may be used as it is."""
        return node.checked > now - FRESH or node is self.table.root or node.is_removed

    def _reach(self, node: Node) -> int:
        """Go down to a directory from the nearest one that is certain."""
        now = self._clock()
        way = []
        at = node
        while at.fd < 0 or not self._is_sure(at, now):
            if at.parent is None:
                raise VfsError(ESTALE, "where the directory is now nobody knows")
            way.append(at)
            at = at.parent
        fd = at.fd
        for at in reversed(way):
            if at.fd >= 0:
                self.compare(at, self._look(at, fd))
                self._kept.move_to_end(at)
            else:
                self._keep(at, self._open(at, fd, PATH | os.O_DIRECTORY))
            at.checked = now
            fd = at.fd
        return fd

    @contextmanager
    def two(self, one: Node, other: Node) -> Iterator[tuple[int, int]]:
        """Give descriptors of two directories that are good until the end of the `with`."""
        fd = self.directory(one)
        if one is other:
            yield fd, fd
            return
        fd = os.dup(fd)  # reaching the other one may cost the first its descriptor
        try:
            yield fd, self.directory(other)
        finally:
            os.close(fd)

    def remembered_for(self, node: Node) -> int:
        """Return for how many ns the name of a directory that was found may be remembered."""
        watches, parent = self.watches, node.parent
        if watches.is_watched(node):
            return TTL
        if parent is None or not watches.may_watch():
            return 0
        if parent is self.table.root and not watches.is_watched(parent):
            watches.watch(parent, proc(parent.fd))
        if not watches.is_watched(parent):
            return 0  # it is there that the removal of the directory is told
        node.checked = 0
        watches.watch(node, proc(self.directory(node)))
        # Seen at its place when the watch had begun: whatever happens from now on is told.
        node.checked = 0
        self.directory(node)
        return TTL if watches.is_watched(node) else 0

    # Nodes of all types.

    def stat(self, node: Node) -> os.stat_result:
        """Return the attributes of a node. Errors: ESTALE; those of the host."""
        fd = self._at_hand(node)
        if fd >= 0:
            return os.fstat(fd)
        parent = self._parent(node)
        st = self._look(node, self.directory(parent))
        self.compare(node, st)
        return st

    @contextmanager
    def held(self, node: Node) -> Iterator[int]:
        """Give a descriptor of exactly this node, to be named by `proc` or for fstat and the like.

        Errors: as `stat`.
        """
        fd = self._at_hand(node)
        if fd >= 0:
            yield fd
            return
        fd = self.open(node, PATH)
        try:
            yield fd
        finally:
            os.close(fd)

    def open(self, node: Node, flags: int) -> int:
        """Return a new descriptor of exactly this node, no directory; it is the caller's.

        A name that has become a pipe's or a device's in the meantime does not make it wait.
        Errors: as `stat`.
        """
        fd = self._at_hand(node)
        if fd >= 0:
            return os.open(proc(fd), flags | os.O_CLOEXEC)
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        return self._open(node, self.directory(self._parent(node)), flags)

    def _at_hand(self, node: Node) -> int:
        """Return a descriptor that is there already, or that of a directory; -1 for none."""
        if node.vtype == Vtype.VDIR:
            return self.directory(node)
        if node.file is not None:
            return node.file.fd
        return node.fd

    def _parent(self, node: Node) -> Node:
        if node.parent is None:
            raise VfsError(ESTALE, "where the node is now nobody knows")
        return node.parent

    # Names that go.

    def hold(self, node: Node, directory: int, name: bytes) -> None:
        """See that `name` is the node's and hold on to it: the name is about to be removed.

        `removed` or `let_go` must follow. Errors: ESTALE when the name is another's; the host's.
        """
        if node.fd >= 0:
            self.compare(node, os.stat(name, dir_fd=directory, follow_symlinks=False))
            return
        fd = os.open(name, PATH, dir_fd=directory)
        try:
            self.compare(node, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        self._keep(node, fd)

    def removed(self, node: Node) -> None:
        """Note that we removed a name of a node, its last one or not: data stay until reclaim."""
        if node.vtype == Vtype.VDIR or os.fstat(node.fd).st_nlink == 0:
            self.table.gone(node)
        node.is_removed = True
        self.table.displace(node)

    def let_go(self, node: Node) -> None:
        """Undo `hold`: the name was not removed."""
        if node.vtype != Vtype.VDIR and not node.is_removed:
            self._drop(node)

    def moved(self, node: Node, parent: Node, name: bytes) -> None:
        """Note a node's place; what held on to it while it had none is not needed any more."""
        self.table.put(node, parent, name)
        if node.vtype != Vtype.VDIR and node.fd >= 0:
            self._drop(node)

    # Keeping and dropping.

    def close(self) -> None:
        """Close all descriptors."""
        self.watches.close()
        for node in list(self._kept):
            self._drop(node)
        root = self.table.root
        if root.fd >= 0:
            os.close(root.fd)
            root.fd = -1

    def _keep(self, node: Node, fd: int) -> None:
        node.fd = fd
        self._kept[node] = None
        if len(self._kept) > self._fds_max:
            self._drop(next(iter(self._kept)))

    def _drop(self, node: Node) -> None:
        if self._kept.pop(node, node) is None:
            os.close(node.fd)
            node.fd = -1

    def _dropped(self, node: Node) -> None:
        """Hear from the table that a node has gone."""
        self._drop(node)
        self.watches.forget(node)
        if node.file is not None:
            node.file.dispose()
            node.file = None

    # Looking and comparing.

    def _look(self, node: Node, directory: int) -> os.stat_result:
        try:
            return os.stat(node.name, dir_fd=directory, follow_symlinks=False)
        except OSError as exc:
            raise self._failed(node, exc) from None

    def _open(self, node: Node, directory: int, flags: int) -> int:
        try:
            fd = os.open(node.name, flags, dir_fd=directory)
        except OSError as exc:
            raise self._failed(node, exc) from None
        try:
            self.compare(node, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _failed(self, node: Node, exc: OSError) -> VfsError:
        if exc.errno not in _MOVED:
            return failure(exc)
        self._lose(node)
        return VfsError(ESTALE, "others have moved the node, or removed it")

    def compare(self, node: Node, st: os.stat_result) -> None:
        """See that it is the node that was looked at. Errors: ESTALE."""
        if key_of(st) != node.key or vtype_of(st) != node.vtype:
            self._lose(node)
            raise VfsError(ESTALE, "others have put something else there")

    def _lose(self, node: Node) -> None:
        self._drop(node)
        self.table.displace(node)


def open_root(path: bytes) -> int:
    """Return a path descriptor of the directory at `path`, links followed. Errors: the host's."""
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise failure(exc) from None
