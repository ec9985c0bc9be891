"""One session, from its arrival to its end: who may have one, for how long, and what is said."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from ...native.errors import VfsError
from ...native.records import Cred
from ..audit import Recorder, Who
from ..sftp import Permitted, Session, View
from ..sftp.identities import Identities
from .accounts import AccountError, Accounts
from .arrivals import Arrival
from .front import SshFront
from .settings import Account

START_SECONDS: Final = 30.0
"""How long the walk to a key's own start directory may take."""
_GLANCES: Final = 8
"""How often, in the time for which a session may be idle, somebody looks whether it is."""

_log = logging.getLogger(__name__)


class Reception:
    """Takes arrivals and serves them. `take` is for the front, in a task for each."""

    def __init__(self, front: SshFront, accounts: Accounts, recorder: Recorder) -> None:
        self._front = front
        self._accounts = accounts
        self._recorder = recorder
        self._identities = Identities()
        self._live: set[Session] = set()
        self._run = f"{int(time.time()):x}"
        """Tells sessions of this run of the daemon from those of others, in the audit."""

    async def take(self, arrival: Arrival) -> None:
        """Serve a client until it leaves, or must; its descriptor is closed then."""
        who = _who(arrival)
        try:
            async with self._accounts.session(arrival.account) as (account, export):
                view = View(
                    export,
                    _cred(account),
                    start=account.start,
                    umask=account.umask,
                    user=os.fsencode(account.name),
                    identities=self._identities,
                )
                await self._serve(arrival, account, view, who)
        except AccountError as exc:
            _log.warning("%s: refused: %s", who, exc)
            self._front.refuse(arrival, str(exc))
        finally:
            trio.lowlevel.notify_closing(arrival.fd)
            os.close(arrival.fd)

    async def _serve(self, arrival: Arrival, account: Account, view: View, who: str) -> None:
        start = arrival.restrictions.start
        if start is not None:
            await _start_in(view, start, who)
        recorded = Who(
            f"{self._run}-{arrival.session}",
            account.name,
            arrival.source,
            arrival.login.method,
            arrival.login.version,
        )
        journal = self._recorder.journal(recorded, view)
        session = Session(
            view,
            arrival.fd,
            arrival.fd,
            permitted=Permitted(readonly=arrival.restrictions.is_read_only),
            journal=journal,
            label=who,
        )
        _log.info("%s: opened, %s", who, _described(arrival))
        cause = "ended by the gateway"
        with self._recorder.session(recorded, session, journal):
            try:
                with self._among_others(session):
                    cause = await _serve_within(session, account)
            finally:
                if journal is not None:
                    journal.cause = cause
                figures = session.statistics()
                _log.info(
                    "%s: closed (%s), %d requests, %d octets in, %d out",
                    who,
                    cause,
                    figures.requests,
                    figures.octets_received,
                    figures.octets_sent,
                )

    @contextmanager
    def _among_others(self, session: Session) -> Iterator[None]:
        """A session that is alone may keep the process to itself for moments."""
        self._live.add(session)
        self._share()
        try:
            yield
        finally:
            self._live.discard(session)
            self._share()

    def _share(self) -> None:
        is_alone = len(self._live) == 1
        for session in self._live:
            session.lingers = is_alone


async def _serve_within(session: Session, account: Account) -> str:
    """Serve until the client leaves, or may stay no longer; return why it has ended."""
    cause = ""
    async with trio.open_nursery() as nursery:

        def end(why: str) -> None:
            nonlocal cause
            cause = why
            nursery.cancel_scope.cancel()

        if account.session_seconds is not None:
            nursery.start_soon(_watch_age, account.session_seconds, end)
        if account.idle_seconds is not None:
            nursery.start_soon(_watch_idle, session, account.idle_seconds, end)
        await session.serve()
        end(session.cause or "the client has left")
    return cause


async def _start_in(view: View, start: bytes, who: str) -> None:
    shown = start.decode("utf-8", "backslashreplace")
    with trio.move_on_after(START_SECONDS) as scope:
        try:
            await view.start_in(start)
        except VfsError as exc:
            _log.error("%s: start directory %r: %s", who, shown, exc)
    if scope.cancelled_caught:
        _log.error("%s: start directory %r: no answer", who, shown)


async def _watch_age(seconds: float, end: Callable[[str], None]) -> None:
    await trio.sleep(seconds)
    end(f"open for {seconds:g} s, and may be no longer")


async def _watch_idle(session: Session, seconds: float, end: Callable[[str], None]) -> None:
    """End the session when it has neither asked nor got anything for `seconds`."""
    seen, since = session.statistics(), trio.current_time()
    while trio.current_time() - since < seconds:
        await trio.sleep(seconds / _GLANCES)
        now = session.statistics()
        if now.in_flight or now != seen:
            seen, since = now, trio.current_time()
    end(f"idle for {seconds:g} s")


def _cred(account: Account) -> Cred:
    """Return who asks the trees for an account: the same for all sessions, which share a memory."""
    if account.uid is None and account.gid is None:
        return Cred(os.geteuid(), os.getegid(), tuple(os.getgroups()), os.getpid())
    uid = os.geteuid() if account.uid is None else account.uid
    gid = os.getegid() if account.gid is None else account.gid
    return Cred(uid, gid, (), os.getpid())


def _who(arrival: Arrival) -> str:
    return f"session {arrival.session} of {arrival.account} from {arrival.source[0]}"


def _described(arrival: Arrival) -> str:
    login = arrival.login
    words = [login.method, login.fingerprint]
    if login.authority:
        words.append(f"by {login.authority} (id {login.key_id!r})")
    text = " ".join(filter(None, words))
    return f"{text}, {login.version or 'unnamed client'}"
