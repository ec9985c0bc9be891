"""The trees of accounts: built when the first session comes, shared by all, gone after the last.

An account in use is a task of its own. Whatever happens to its trees ends in that task: it says so
in the log and ends the sessions of this account, and the next session builds everything anew. Other
accounts hear nothing of it.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

import trio

from ...layers.joined import joined
from ...layers.ops import FileServer
from ...native.constants import MNT_FORCE
from ...native.errors import VfsError
from ..assembly import served_ground
from ..failures import explain
from ..sftp import Export, exported
from ..stack import Stack, built, parse_served
from ..status import CommandError, Status
from .settings import Account, Settings, TreeSettings

BUILD_SECONDS: Final = 90.0
"""How long it may take to build the trees of an account; psshfs gives up before that."""
END_SECONDS: Final = 15.0
"""How long sessions that were cancelled may take: they close what is open, in 10 s at most."""
UNMOUNT_SECONDS: Final = 30.0
"""How long the trees may take to write out what was written last, and again to go."""
ANSWER_SECONDS: Final = 0.5
"""How long sessions go on that have no tree any more: what they asked for is answered."""
REST_SECONDS: Final = 1.0
"""How long an account is left alone whose trees could not be built."""

Guarded = Callable[[FileServer, Account], AbstractAsyncContextManager[FileServer]]
"""Puts the policy of an account over its trees."""

_log = logging.getLogger(__name__)


class AccountError(Exception):
    """An account cannot be served now. The text is for its clients: it tells nothing of insides."""


class ServedAccount:
    """One account in use. `run` is its task; everything else may be called at any time.

    `export` is there from when `ready` is set until the sessions have to end; `failure` says why it
    is not. A retired account serves those sessions that it has, and ends with the last.
    """

    def __init__(self, account: Account, guarded: Guarded, keep_seconds: float | None) -> None:
        self.account = account
        self.ready = trio.Event()
        self.export: Export | None = None
        self.failure: BaseException | None = None
        self.is_retired = False
        self.users = 0
        """Sessions, those among them that wait for the trees."""
        self._guarded = guarded
        self._keep_seconds = math.inf if keep_seconds is None else keep_seconds
        self._sessions: set[trio.CancelScope] = set()
        self._changed = trio.Event()
        self._sound = len(account.trees)
        self._scope = trio.CancelScope()
        self._is_given_up = False

    # For sessions.

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[Export]:
        """Keep the trees while the context lasts. It is cancelled when they end first.

        Errors: AccountError when there are none.
        """
        self.users += 1
        try:
            await self.ready.wait()
            if self.export is None:
                raise AccountError("the files of this account cannot be had now; try again later")
            with trio.CancelScope() as scope:
                self._sessions.add(scope)
                try:
                    yield self.export
                finally:
                    self._sessions.remove(scope)
        finally:
            self.users -= 1
            self._change()

    def retire(self) -> None:
        """Take no more sessions."""
        self.is_retired = True
        self._change()

    def end_sessions(self) -> None:
        """Cancel the sessions that there are; those that wait for the trees wait in vain."""
        for scope in self._sessions:
            scope.cancel()
        if not self.ready.is_set():
            self._is_given_up = True
            self._scope.cancel()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # The task.

    async def run(self) -> None:
        """Build the trees, keep them while they are needed, take them down; see `failure`."""
        try:
            self._scope.deadline = trio.current_time() + BUILD_SECONDS
            with self._scope:
                await self._live()
            if self._scope.cancelled_caught and not self._is_given_up:
                self._failed(CommandError(Status.UNREACHABLE, "its trees take too long"))
        except Exception as exc:
            self._failed(exc)
        finally:
            self.is_retired = True
            self.ready.set()

    async def _live(self) -> None:
        async with AsyncExitStack() as exits:
            stacks = {}
            for tree in self.account.trees:
                stacks[tree.path] = await exits.enter_async_context(self._built(tree))
            server = joined({path: stack.server for path, stack in stacks.items()})
            server = await exits.enter_async_context(self._guarded(server, self.account))
            exits.push_async_callback(self._unmount, server)
            export = await exits.enter_async_context(exported(server))
            exits.push_async_callback(self._let_sessions_end)
            self._scope.deadline = math.inf
            self.export = export
            self.ready.set()
            _log.info("account %s: its trees are there", self.account.name)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_export, export)
                for path, stack in stacks.items():
                    nursery.start_soon(self._watch, path, stack)
                await self._wait_needless()
                nursery.cancel_scope.cancel()
            # Each step below has its own bound; this one is for what the trees do at their end.
            bound = END_SECONDS + 2 * UNMOUNT_SECONDS
            self._scope.deadline = trio.current_time() + bound
        _log.info("account %s: its trees are gone", self.account.name)

    @asynccontextmanager
    async def _built(self, tree: TreeSettings) -> AsyncIterator[Stack]:
        elements = parse_served(tree.stack)
        ground = served_ground(elements, tree.special, tree.words, readonly=tree.readonly)
        async with built(elements, ground) as stack:
            for reason in stack.rdonly_reasons:
                self._warn(tree.path, f"served read-only: {reason}")
            yield stack

    async def _wait_needless(self) -> None:
        """Wait until nobody needs the trees. No session comes in between that and the return."""
        while self.users or not self.is_retired:
            patience = math.inf if self.users else self._keep_seconds
            with trio.move_on_after(patience) as scope:
                await self._changed.wait()
            if scope.cancelled_caught and not self.users:
                self.is_retired = True

    async def _watch(self, path: bytes, stack: Stack) -> None:
        """Retire when a tree has ended; sessions go on as long as there is another one."""
        self._warn(path, await stack.wait_broken())
        self.retire()
        self._sound -= 1
        if not self._sound:
            await trio.sleep(ANSWER_SECONDS)
            self.end_sessions()

    async def _watch_export(self, export: Export) -> None:
        """Retire and end the sessions when the trees want to end."""
        await export.unmount_asked.wait()
        _log.warning("account %s: its trees have ended", self.account.name)
        self.retire()
        await trio.sleep(ANSWER_SECONDS)
        self.end_sessions()

    async def _let_sessions_end(self) -> None:
        """Cancel the sessions that there are, and wait for them."""
        self.is_retired = True
        self.export = None
        self.end_sessions()
        with trio.move_on_after(END_SECONDS, shield=True) as scope:
            while self._sessions:
                await self._changed.wait()
        if scope.cancelled_caught:
            _log.error("account %s: %d sessions do not end", self.account.name, len(self._sessions))

    async def _unmount(self, server: FileServer) -> None:
        """Have everything written out; force it where that fails, or takes too long."""
        name = self.account.name
        with trio.move_on_after(UNMOUNT_SECONDS, shield=True) as scope:
            try:
                await server.unmount(0)
            except VfsError as exc:
                _log.error("account %s: what was written last may be lost: %s", name, exc)
                await server.unmount(MNT_FORCE)
        if scope.cancelled_caught:
            _log.error("account %s: what was written last may be lost: no answer", name)

    def _warn(self, path: bytes, text: str) -> None:
        shown = path.decode("utf-8", "backslashreplace")
        _log.warning("account %s: tree %s: %s", self.account.name, shown, text)

    def _failed(self, exc: BaseException) -> None:
        self.failure = exc
        known = explain(exc)
        if known is not None:
            _log.error("account %s: %s", self.account.name, known.message)
        else:
            _log.error("account %s: internal error", self.account.name, exc_info=exc)


class Accounts:
    """All accounts. Those in use have their tasks in `nursery`."""

    def __init__(self, nursery: trio.Nursery, settings: Settings, guarded: Guarded) -> None:
        self._nursery = nursery
        self._settings = settings
        self._guarded = guarded
        self._current: dict[str, ServedAccount] = {}
        """Those that take sessions, or rest."""
        self._running: set[ServedAccount] = set()
        self._sessions: Counter[str] = Counter()
        self._leaving = trio.lowlevel.ParkingLot()
        self._is_closed = False

    @property
    def sessions(self) -> Mapping[str, int]:
        """How many sessions each account has that has any."""
        return self._sessions

    @property
    def in_use(self) -> int:
        """How many accounts have their trees built, or being built."""
        return len(self._running)

    def update(self, settings: Settings) -> None:
        """Go on with other settings. Sessions of accounts that are gone end, others go on.

        An account whose trees or policy have changed serves its sessions with what they began
        with, and new ones with what is new.
        """
        self._settings = settings
        for served in list(self._running):
            account = settings.accounts.get(served.account.name)
            if account is None:
                served.retire()
                served.end_sessions()
            elif _is_other(account, served.account):
                served.retire()

    def served(self, account: Account) -> ServedAccount:
        """Return the account in use, from now on if need be."""
        served = self._current.get(account.name)
        if (
            served is None
            or _is_other(served.account, account)
            or (served.is_retired and served.failure is None)
        ):
            served = ServedAccount(account, self._guarded, self._settings.keep_seconds)
            self._current[account.name] = served
            self._running.add(served)
            self._nursery.start_soon(self._run, served)
        return served

    async def _run(self, served: ServedAccount) -> None:
        name = served.account.name
        try:
            await served.run()
            if served.failure is not None:
                await trio.sleep(REST_SECONDS)
        finally:
            self._running.discard(served)
            if self._current.get(name) is served:
                del self._current[name]

    @asynccontextmanager
    async def session(self, name: str) -> AsyncIterator[tuple[Account, Export]]:
        """Have a session of an account; it is cancelled when it has to end.

        Errors: AccountError.
        """
        account = self._settings.accounts.get(name)
        if self._is_closed:
            raise AccountError("the server is going down")
        if account is None:
            raise AccountError("this account is closed")
        if self._sessions[name] >= account.sessions_max:
            raise AccountError(f"{account.sessions_max} sessions of this account are open already")
        self._sessions[name] += 1
        try:
            async with self.served(account).entered() as export:
                yield account, export
        finally:
            self._sessions[name] -= 1
            if not self._sessions[name]:
                del self._sessions[name]
            self._leaving.unpark_all()

    async def close(self, seconds: float) -> None:
        """Let no further session in, end those that last longer than `seconds`, and wait for them.

        The trees go by themselves when nobody needs them any more.
        """
        self._is_closed = True
        for served in self._running:
            served.retire()
        with trio.move_on_after(seconds):
            await self._wait_quiet()
        for served in self._running:
            served.end_sessions()
        await self._wait_quiet()

    async def _wait_quiet(self) -> None:
        while self._sessions:
            await self._leaving.park()


def _is_other(one: Account, other: Account) -> bool:
    return (one.trees, one.guard) != (other.trees, other.guard)
