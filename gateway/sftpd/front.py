"""The SSH front: listens, lets SSH processes find out who comes, and hands sessions over."""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EACCES
from itertools import count
from typing import Final

import trio

from ..sshd.control import (
    BadMessage,
    Closed,
    Connect,
    Failure,
    Login,
    Message,
    Opened,
    Orders,
    Refuse,
    encode_orders,
)
from ..sshd.settings import METHODS, Credentials, SshSettings
from .arrivals import Arrival, Attempt, FrontStatistics, LoginFacts, Restrictions, Source
from .gate import Gate
from .hostkeys import HostKey, HostKeyError, load_host_keys
from .listener import ListenError, accept_all, bind, close_all
from .workers import Worker, keep_worker

_log = logging.getLogger(__name__)

READY_SECONDS: Final = 30.0
"""How long the first SSH process may take to take clients."""
WORKERS_MAX: Final = 4
"""SSH processes, unless told otherwise: more of them feed no faster a gateway of one thread."""
_FAREWELLS: Final = {
    "penalty": b"Not allowed at this time\r\n",
    "source": b"Too many connections from your address\r\n",
}
_FAREWELL: Final = b"Too many connections; try again later\r\n"
_TEXT_MAX: Final = 1000

Take = Callable[[Arrival], Awaitable[None]]


class FrontError(Exception):
    """The front cannot be as it is asked to be; the text is for whoever wrote the settings."""


@dataclass(slots=True)
class _Client:
    """A connection. `login`: None until it has logged in."""

    worker: Worker
    source: Source
    account: str = ""
    user: str = ""
    login: LoginFacts | None = None
    sessions: set[int] = field(default_factory=set)
    """Numbers that its worker gave to sessions."""


class SshFront:
    """Everything between the listening sockets and the sessions' byte streams.

    In this order: `open` (as root if need be: binds, and reads or makes the host keys), `serve`
    (with the rights that are left), `aclose`. A front serves once.

    `take` is called in a task of its own for each arrival and owns its descriptor from then on,
    cancelled or not. When it returns or raises (logged), the session is over; it is cancelled with
    `serve`. An exception that is no Exception ends the front.
    """

    def __init__(
        self,
        settings: SshSettings,
        accounts: Mapping[str, Credentials],
        *,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.on_attempt: Callable[[Attempt], None] | None = None
        """Hears of each attempt to log in."""
        self._settings = settings
        self._accounts = dict(accounts)
        self._keys: list[HostKey] = []
        self._secret = secrets.token_bytes(32)
        self._gate = Gate(settings, trio.current_time, dice)
        self._sockets: dict[tuple[str, int], list[socket.socket]] = {}
        self._is_accepting = True
        self._workers: list[Worker] = []
        self._ready = trio.Event()
        self._clients: dict[int, _Client] = {}
        self._sessions: dict[int, tuple[Worker, int]] = {}
        self._connection_numbers = count(1)
        self._session_numbers = count(1)
        self._take: Take | None = None
        self._nursery: trio.Nursery | None = None
        self._updating = trio.Lock()
        self._trouble = ""
        self._accepted = 0
        self._begun = 0
        self._deaths = 0
        self._logins: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()

    # Life.

    async def open(self) -> None:
        """Bind the listening sockets and load the host keys, making one if there is none.

        Errors: `FrontError`, whose text says what is wrong and what to do; nothing is bound then.
        """
        self._keys = self._load_keys(self._settings)
        self._sockets = _bind_more(self._settings, {})

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, with the ports that were free."""
        return [sock.getsockname()[:2] for sockets in self._sockets.values() for sock in sockets]

    @property
    def fingerprints(self) -> list[tuple[str, str]]:
        """The host keys: type and "SHA256:..."."""
        return [(key.type, key.fingerprint) for key in self._keys]

    async def serve(
        self,
        take: Take,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Let clients in until cancelled; started when the first SSH process can take one.

        Errors: `FrontError`, when SSH cannot be set up as it is asked to be.
        """
        self._take = take
        size = self._settings.workers or min(os.cpu_count() or 1, WORKERS_MAX)
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(size):
                    nursery.start_soon(self._keep_worker, nursery.cancel_scope)
                with trio.move_on_after(READY_SECONDS):
                    await self._wait_ready()
                if any(worker.is_ready for worker in self._workers):
                    self._nursery = nursery
                    for sockets in self._sockets.values():
                        self._accept_from(sockets)
                    task_status.started()
                else:
                    self._trouble = self._trouble or "no SSH process starts; the log says why"
                    nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            await self.aclose()
        if self._trouble:
            raise FrontError(f"SSH cannot be set up: {self._trouble}")

    async def _keep_worker(self, scope: trio.CancelScope) -> None:
        self._trouble = await keep_worker(self, self._encode_orders, self._change_worker)
        scope.cancel()

    def stop_listening(self) -> None:
        """Let nobody in any more; connections and sessions go on."""
        self._is_accepting = False
        for sockets in self._sockets.values():
            close_all(sockets)
        self._sockets.clear()

    async def aclose(self) -> None:
        """Close the listening sockets; the SSH processes end when `serve` is cancelled."""
        self.stop_listening()

    async def update(self, settings: SshSettings, accounts: Mapping[str, Credentials]) -> None:
        """Go on with other settings, or change nothing.

        New connections see all of it; those that are there keep what they agreed on, and the
        accounts count for their next attempt to log in. Connections of accounts that are gone
        are ended. Addresses that stay keep their sockets, and so does the number of SSH processes.
        Errors: `FrontError`.
        """
        async with self._updating:
            keys = self._load_keys(settings)
            bound = _bind_more(settings, self._sockets)
            new = {address: s for address, s in bound.items() if address not in self._sockets}
            old = self._settings, self._accounts, self._keys
            self._settings, self._accounts, self._keys = settings, dict(accounts), keys
            try:
                trouble = await self._configure_all()
                if trouble:
                    self._settings, self._accounts, self._keys = old
                    await self._configure_all()
                    raise FrontError(f"SSH cannot be set up: {trouble}")
            except BaseException:
                self._settings, self._accounts, self._keys = old
                for sockets in new.values():
                    close_all(sockets)
                raise
            self._gate.update(settings)
            for address in self._sockets.keys() - bound.keys():
                close_all(self._sockets[address])
            self._sockets = bound if self._is_accepting else {}
            for sockets in new.values():
                if self._is_accepting:
                    self._accept_from(sockets)
                else:
                    close_all(sockets)

    def _load_keys(self, settings: SshSettings) -> list[HostKey]:
        try:
            return load_host_keys(settings.host_keys, settings.state)
        except HostKeyError as exc:
            cause = exc.__cause__
            if isinstance(cause, OSError) and cause.errno == EACCES and self._keys:
                if settings.host_keys == self._settings.host_keys:
                    return self._keys  # read as root, which we are not any more
            raise FrontError(str(exc)) from exc

    def _encode_orders(self) -> int:
        return encode_orders(
            Orders(
                self._settings,
                self._accounts,
                tuple(key.private for key in self._keys),
                self._secret,
            )
        )

    async def _configure_all(self) -> str:
        """Give all SSH processes their orders, and return why one does not obey, or nothing."""
        orders = self._encode_orders()
        try:
            troubles = [await worker.configure(orders) for worker in list(self._workers)]
        finally:
            os.close(orders)
        return next(filter(None, troubles), "")

    # Clients.

    def _accept_from(self, sockets: list[socket.socket]) -> None:
        assert self._nursery is not None
        for sock in sockets:
            self._nursery.start_soon(accept_all, sock, self._wait_ready, self._come)

    async def _wait_ready(self) -> None:
        """Wait until there is an SSH process that takes clients; until then they queue up."""
        while not any(worker.is_ready for worker in self._workers):
            await self._ready.wait()

    def _come(self, sock: socket.socket, source: Source) -> None:
        """Let a client in, or not."""
        self._accepted += 1
        with sock:
            reason = self._gate.refusal(source[0])
            if reason:
                _log.info("%s port %d is not let in: %s", *source, reason)
                with suppress(OSError):
                    sock.send(_FAREWELLS.get(reason, _FAREWELL))
                return
            number = next(self._connection_numbers)
            message = Connect(number, *source)
            ready = [worker for worker in self._workers if worker.is_ready]
            for worker in sorted(ready, key=lambda worker: len(worker.connections)):
                if worker.send(message, sock.fileno()):
                    self._gate.enter(number, source[0])
                    self._clients[number] = _Client(worker, source)
                    worker.connections.add(number)
                    return

    # What SSH processes say.

    def _change_worker(self, old: Worker | None, new: Worker) -> None:
        if old is not None:
            self._workers.remove(old)
        self._workers.append(new)

    def ready(self, worker: Worker) -> None:
        """Hear that a process takes clients."""
        self._ready.set()
        self._ready = trio.Event()

    def died(self, worker: Worker) -> None:
        """Hear that a process is gone. Who had not logged in there may be who killed it."""
        self._deaths += 1
        for number in worker.connections:
            client = self._clients.pop(number)
            self._gate.leave(number, is_failure=client.login is None)

    def heard(self, worker: Worker, message: Message, fd: int | None) -> None:
        """Hear a message; owns the descriptor. Errors: BadMessage."""
        try:
            if not isinstance(message, Login | Failure | Opened | Closed):
                raise BadMessage(f"a {type(message).__name__}")
            client = self._clients.get(message.connection)
            if client is None or client.worker is not worker:
                raise BadMessage(f"there is no connection {message.connection} of it")
            match message:
                case Login():
                    self._log_in(client, message)
                case Failure():
                    self._note_failure(client, message)
                case Closed():
                    self._close(client, message)
                case Opened():
                    fd = self._open(client, message, fd)
        finally:
            if fd is not None:
                os.close(fd)

    def _log_in(self, client: _Client, message: Login) -> None:
        if client.login is not None or message.method not in METHODS:
            raise BadMessage("a second login of one connection, or by no method")
        client.account, client.user = message.account, message.user
        client.login = LoginFacts(
            message.method,
            message.fingerprint,
            message.authority,
            message.key_id,
            message.version,
        )
        self._gate.log_in(message.connection)
        self._logins[message.method] += 1
        _log.info(
            "%s logged in as account %s from %s port %d by %s %s",
            *(message.user, message.account, *client.source, message.method, message.fingerprint),
        )
        if self.on_attempt is not None:
            who = message.user, message.account, client.source
            self.on_attempt(Attempt(True, *who, message.method, message.fingerprint))

    def _note_failure(self, client: _Client, message: Failure) -> None:
        if message.method not in METHODS:
            raise BadMessage("a failure by no method")
        self._failures[message.method] += 1
        _log.info(
            "failed %s for user %s from %s port %d",
            *(message.method, message.user, *client.source),
        )
        if self.on_attempt is not None:
            self.on_attempt(Attempt(False, message.user, "", client.source, message.method))

    def _close(self, client: _Client, message: Closed) -> None:
        number = message.connection
        del self._clients[number]
        client.worker.connections.discard(number)
        self._gate.leave(number, is_failure=message.is_failure and client.login is None)
        _log.info(
            "connection of %s port %d ended%s",
            *(*client.source, f": {message.reason}" if message.reason else ""),
        )

    def _open(self, client: _Client, message: Opened, fd: int | None) -> int | None:
        """Hand a session over; return the descriptor if nobody takes it."""
        if client.login is None or fd is None or message.session in client.sessions:
            raise BadMessage("a session of nobody, without a stream, or twice")
        if client.account not in self._accounts or self._nursery is None:
            return fd
        client.sessions.add(message.session)
        start = None if message.start is None else message.start.encode("latin-1")
        number = next(self._session_numbers)
        arrival = Arrival(
            client.account,
            client.user,
            client.source,
            client.login,
            Restrictions(message.is_read_only, start),
            message.connection,
            number,
            fd,
        )
        self._begun += 1
        self._sessions[number] = client.worker, message.session
        self._nursery.start_soon(self._serve_arrival, arrival, client)
        return None

    async def _serve_arrival(self, arrival: Arrival, client: _Client) -> None:
        assert self._take is not None
        try:
            await self._take(arrival)
        except Exception:
            _log.exception("session %d failed in a way that it must not", arrival.session)
        finally:
            _, theirs = self._sessions.pop(arrival.session)
            client.sessions.discard(theirs)

    def refuse(self, arrival: Arrival, text: str) -> None:
        """Have the client told why its session ends, on its standard error, before `fd` is closed.

        To be called while the descriptor is open; without it the session just ends.
        """
        worker, session = self._sessions[arrival.session]
        worker.send(Refuse(session, text[:_TEXT_MAX]))

    def statistics(self) -> FrontStatistics:
        """Return the figures of now."""
        return FrontStatistics(
            accepted=self._accepted,
            refused=dict(self._gate.refused),
            logins=dict(self._logins),
            failures=dict(self._failures),
            sessions_begun=self._begun,
            deaths=self._deaths,
            connections=self._gate.connections,
            startups=self._gate.startups,
            sessions=len(self._sessions),
            penalised=self._gate.penalised,
            workers=sum(worker.is_ready for worker in self._workers),
        )


def _bind_more(
    settings: SshSettings, bound: Mapping[tuple[str, int], list[socket.socket]]
) -> dict[tuple[str, int], list[socket.socket]]:
    """Return sockets for all addresses, those of `bound` where they are. Errors: `FrontError`."""
    sockets: dict[tuple[str, int], list[socket.socket]] = {}
    try:
        for address in settings.listen:
            sockets[address] = bound.get(address) or bind(*address)
    except ListenError as exc:
        for address, found in sockets.items():
            if address not in bound:
                close_all(found)
        raise FrontError(str(exc)) from exc
    return sockets
