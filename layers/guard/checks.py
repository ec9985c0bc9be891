"""The questions that a guard asks before it lets an operation pass."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EACCES, ENOENT, EROFS, ESTALE
from typing import Final, NamedTuple

import trio

from ...native.errors import VfsError
from ...native.records import Cookie, Newinfo
from ..bandwidth import Bucket
from ..ops import FileServer
from .ledger import Ledger
from .nodes import Node, NodeTable
from .policy import SEEN, Policy, State
from .quota import Quota
from .settings import GuardSettings, Verb

FRESH_SECONDS: Final = 60.0
"""How long after a file was made it can be opened by right of having been made."""

_CREATE: Final = int(Verb.CREATE)
_OVERWRITE: Final = int(Verb.OVERWRITE)


class Asked(NamedTuple):
    """When something was asked: how many renames and removals there had been."""

    moves: int
    removals: int


class Checks(FileServer):
    """What the operations of a guard have in common.

    Each check raises, first match wins: ESTALE for a cookie that nobody gave out, ENOENT for what
    is hidden, EROFS for a change where nothing may change, EACCES for a verb that is not allowed.
    """

    def __init__(
        self, server: FileServer, settings: GuardSettings, ledger: Ledger | None = None
    ) -> None:
        self._server = server
        self._readonly = settings.readonly
        self._policy = Policy(settings)
        self._table = NodeTable(server, server.kargs.root, self._policy)
        self._quota = None if ledger is None else Quota(server, ledger)
        up, down = settings.upload_rate, settings.download_rate
        self._up = None if up is None else Bucket(up)
        self._down = None if down is None else Bucket(down)

    def _node(self, cookie: Cookie) -> Node:
        node = self._table.get(cookie)
        if node is None:
            raise VfsError(ESTALE)
        return node

    def _rights(self, node: Node) -> int:
        """Return what is allowed at a node. Errors: ENOENT for a hidden one."""
        rights = self._table.rights(node)
        if not rights & SEEN:
            raise VfsError(ENOENT)
        return rights

    def _see(self, cookie: Cookie) -> Node:
        """Return a node that may be looked at."""
        node = self._node(cookie)
        self._rights(node)
        return node

    def _look(self, cookie: Cookie, verb: int) -> Node:
        """Return a node at which `verb`, which changes nothing, is allowed."""
        node = self._node(cookie)
        if not self._rights(node) & verb:
            raise VfsError(EACCES)
        return node

    def _alter(self, cookie: Cookie, verbs: int) -> Node:
        """Return a node at which all of `verbs` are allowed."""
        node = self._node(cookie)
        rights = self._rights(node)
        self._writable()
        if verbs & ~rights:
            raise VfsError(EACCES)
        return node

    def _writable(self) -> None:
        if self._readonly:
            raise VfsError(EROFS)

    def _place(self, cookie: Cookie, name: bytes, verbs: int) -> tuple[Node, list[State]]:
        """Return a directory and the states of a name in it at which all of `verbs` are allowed.

        A hidden name gives EACCES here: whether something has it is not told.
        """
        directory = self._see(cookie)
        self._writable()
        states = self._table.states_at(directory, name)
        self._allowed(states, verbs | SEEN)
        return directory, states

    def _allowed(self, states: Iterable[State], verbs: int) -> None:
        if any(verbs & ~state.rights for state in states):
            raise VfsError(EACCES)

    def _narrow(self, node: Node, old: Iterable[State], new: Iterable[State]) -> None:
        """Return if nothing more is allowed at `new`, and below, than at `old` and at `node`."""
        widens = self._policy.widens
        held = {*old, *self._table.states(node)}
        if any(widens(was, will) for was in held for will in new):
            raise VfsError(EACCES)

    # Files that were made a moment ago.

    def _take_freshness(self, node: Node, mode: int) -> bool:
        """Return whether the one open that a new file allows its maker is this one."""
        born, node.born = node.born, None
        if born is None or node.fresh_mode or trio.current_time() - born > FRESH_SECONDS:
            return False
        node.fresh_mode = mode
        return True

    def _is_written_fresh(self, node: Node, rights: int) -> bool:
        """Return whether a file is still being written to by who made it, and may be."""
        return bool(node.fresh_mode and rights & _CREATE)

    def _may_overwrite(self, node: Node, rights: int) -> bool:
        return bool(rights & _OVERWRITE) or self._is_written_fresh(node, rights)

    # Taking in what the file server answers.

    def _asked(self) -> Asked:
        """Return when something is asked, for `_take`."""
        return Asked(self._table.moves, 0 if self._quota is None else self._quota.removals)

    def _take(self, directory: Node, name: bytes, info: Newinfo, asked: Asked) -> bool:
        """Take in the answer that a name leads to a node; False, and given back, for one that
        cannot be, or may be older than a rename."""
        table = self._table
        if info.cookie == table.root.cookie:
            return False
        node = table.absorb(info)
        if directory.entries.get(name) is node and not node.is_unsure:
            return True
        if not table.learn(directory, name, node, asked.moves):
            table.reclaim(node, 1)
            return False
        if 0 < node.given_at <= asked.removals and self._quota is not None:
            self._quota.found(node, info)
        return True
