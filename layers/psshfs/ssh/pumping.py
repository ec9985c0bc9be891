"""What the pump process does: login, one SFTP channel, its octets to a socket and back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket as _socket
import time
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import asyncssh
import uvloop

from .failure import Cause, ConnectError
from .login import Login, Orders
from .relay import Relay
from .shortcut import Shortcut
from .terminal import Terminal

_WINDOW = 16 << 20
"""Octets the server may send ahead of us: bandwidth times delay of a fast long link."""
_PACKET = 1 << 18
"""Largest channel data we take, octets; OpenSSH packs as much as it has into one packet."""
_MSG_IGNORE = 2
_CHANNEL_TIME = 60
_CHANNELS_MAX = 8
"""Further channels that may be asked for by one message."""
_GOODBYE_TIME = 1.0
_SHOW_AFTER = 1.5
"""Seconds after which a person is shown that something goes on."""


class _Session(asyncssh.SSHClientSession[bytes]):
    """Ties asyncssh's callbacks to the relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.closed = asyncio.Event()
        self.reason: Exception | None = None
        self.ending = ""

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._relay.attach(chan)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype is None:
            self._relay.deliver(data)
        else:
            self.ending = data.decode(errors="replace").strip() or self.ending

    def pause_writing(self) -> None:
        self._relay.pause_writing()

    def resume_writing(self) -> None:
        self._relay.resume_writing()

    def exit_status_received(self, status: int) -> None:
        self.ending = self.ending or f"exit status {status}"

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.ending = f"signal {signal} {msg}".strip()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reason = exc
        self.closed.set()


class Pump:
    """The program: orders, login, channel, end."""

    def __init__(self, data: _socket.socket, status: _socket.socket) -> None:
        self._data = data
        self._status = status
        self._ended = asyncio.Event()
        self._channels: set[asyncio.Task[None]] = set()
        self._shortcut: Shortcut | None = None

    def tell(self, event: str, **fields: object) -> None:
        """Send an event; nobody listening any more is noticed elsewhere."""
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        with contextlib.suppress(OSError):
            self._status.sendall(line)

    def read_orders(self) -> Orders:
        """Wait for the orders; exits when none come."""
        line = b""
        while not line.endswith(b"\n"):
            part = self._status.recv(65536)
            if not part:
                raise SystemExit(1)
            line += part
        return Orders(**json.loads(line))

    async def run(self, orders: Orders) -> None:
        """Log in, pump until either side ends, and say why."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._status.fileno(), _leave)
        terminal = Terminal(self._status.fileno())
        relay = Relay(loop, self._data, self._ended.set)
        login = Login(orders, terminal, lambda text: self.tell("note", text=text))
        async with contextlib.AsyncExitStack() as stack:
            async with _shown_waiting(terminal, orders.host):
                connection = await login.connect(stack)
                session = await self._open_channel(connection, login, relay, orders.subsystem)
            self._detach()
            loop.remove_reader(self._status.fileno())
            loop.add_reader(self._status.fileno(), self._hear, connection, login, orders.subsystem)
            self.tell("ready", text=login.describe())
            guard = asyncio.ensure_future(_guard(connection, relay, *login.keepalive()))
            await self._wait_end(session)
            guard.cancel()
            if self._shortcut is not None:
                self._shortcut.remove(relay)
            relay.stop()
            if self._ended.is_set():
                connection.close()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(connection.wait_closed(), _GOODBYE_TIME)
                _leave()
            raise self._explain(session, login, relay)

    async def _open_channel(
        self,
        connection: asyncssh.SSHClientConnection,
        login: Login,
        relay: Relay,
        server: str,
    ) -> _Session:
        session = _Session(relay)
        try:
            channel = await _start_sftp(connection, login, session, server)
        except TimeoutError:
            raise ConnectError(
                Cause.UNREACHABLE,
                f"{login.name}: no answer to the request for sftp for {_CHANNEL_TIME} s; try again",
            ) from None
        except asyncssh.ChannelOpenError as exc:
            raise ConnectError(
                Cause.NO_SUBSYSTEM,
                f"{login.name}: the server offers no {server}"
                f"{'' if '/' in server else ' subsystem'} ({exc.reason}); "
                "ask its administrator for it",
            ) from exc
        self._shortcut = _quicken(connection, relay)
        if self._shortcut is not None:
            self._shortcut.add(channel, relay)
        relay.start()
        return session

    def _hear(self, connection: asyncssh.SSHClientConnection, login: Login, server: str) -> None:
        """Take what comes after the orders: one descriptor for each further channel, or the end."""
        data, fds, _, _ = _socket.recv_fds(self._status, 64, _CHANNELS_MAX)
        if not data:
            _leave()
        for fd in fds:
            task = asyncio.ensure_future(self._run_channel(fd, connection, login, server))
            self._channels.add(task)
            task.add_done_callback(self._channels.discard)

    async def _run_channel(
        self, fd: int, connection: asyncssh.SSHClientConnection, login: Login, server: str
    ) -> None:
        """Move one further channel until either side ends; one that is refused ends at once."""
        with _socket.socket(fileno=fd) as data:
            data.setblocking(False)
            ended = asyncio.Event()
            relay = Relay(asyncio.get_running_loop(), data, ended.set)
            session = _Session(relay)
            try:
                channel = await _start_sftp(connection, login, session, server)
            except (TimeoutError, asyncssh.Error, OSError) as exc:
                self.tell("note", text=f"no further channel: {exc or 'no answer'}")
                return
            if self._shortcut is not None:
                self._shortcut.add(channel, relay)
            relay.start()
            await _first(ended, session.closed)
            if self._shortcut is not None:
                self._shortcut.remove(relay)
            relay.stop()
            channel.close()

    async def _wait_end(self, session: _Session) -> None:
        await _first(self._ended, session.closed)

    def _explain(self, session: _Session, login: Login, relay: Relay) -> ConnectError:
        words = session.ending
        if session.reason is None and not relay.received:
            return ConnectError(
                Cause.NO_SUBSYSTEM,
                f"{login.name}: the server ended its sftp subsystem before the first answer"
                f"{f' ({words})' if words else ''}; ask its administrator for it",
            )
        reason = session.reason
        if isinstance(reason, asyncssh.DisconnectError):
            words = reason.reason
        elif reason is not None:
            words = str(reason)
        detail = f": {words}" if words else ""
        return ConnectError(Cause.DIED, f"connection to {login.name} lost{detail}")

    def _detach(self) -> None:
        """Leave the terminal: no ^C, no hang-up, and no descriptor that keeps it open."""
        with contextlib.suppress(PermissionError):  # we lead a group already
            os.setsid()
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)


async def _start_sftp(
    connection: asyncssh.SSHClientConnection, login: Login, session: _Session, server: str
) -> asyncssh.SSHClientChannel[bytes]:
    """Open a channel with the subsystem `server`, or the program, if it has a slash.

    Errors: TimeoutError and asyncssh's.
    """
    command, subsystem = (server, None) if "/" in server else (None, server)
    channel, _ = await asyncio.wait_for(
        connection.create_session(
            lambda: session,
            command=command,
            subsystem=subsystem,
            encoding=None,
            window=_WINDOW,
            max_pktsize=_PACKET,
            request_pty=False,
            **login.environment(),
        ),
        _CHANNEL_TIME,
    )
    return channel


async def _first(*events: asyncio.Event) -> None:
    """Wait for one of several events."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for wait in waiting:
        wait.cancel()


@contextlib.asynccontextmanager
async def _shown_waiting(terminal: Terminal, host: str) -> AsyncIterator[None]:
    """Show the person at the terminal that something goes on, when it takes long.

    While a question is open nothing else runs here, this neither.
    """

    async def show() -> None:
        begun = time.monotonic()
        while True:
            await asyncio.sleep(_SHOW_AFTER if time.monotonic() - begun < _SHOW_AFTER else 1)
            terminal.wait(f"connecting to {host}, {time.monotonic() - begun:.0f} s ...")

    showing = asyncio.ensure_future(show())
    try:
        yield
    finally:
        showing.cancel()
        terminal.wait("")


def _quicken(connection: asyncssh.SSHClientConnection, relay: Relay) -> Shortcut | None:
    """Spare what the ciphers in use do not need; return the short way that channels may take."""
    shortcut = None
    cipher: str = connection.get_extra_info("send_cipher")
    splitter = connection.get_extra_info("splitter")
    # Behind a jump host the splitter is that of the connection to the jump host.
    if splitter is not None and splitter.connection is connection:
        splitter.before, splitter.after = relay.begin_batch, relay.end_batch
        received: str = connection.get_extra_info("recv_cipher")
        if "gcm" in received and splitter.find_packets():
            shortcut = Shortcut.of(connection)
            if shortcut is not None:
                splitter.take = shortcut.take
    if not cipher.endswith("-cbc"):
        # asyncssh puts an IGNORE message before each packet. That guards against guessing the
        # initialisation vector of CBC ciphers; with others it is a second packet for nothing.
        send = connection.send_packet

        def send_packet(pkttype: int, *args: bytes, handler: Any = None) -> None:
            if pkttype != _MSG_IGNORE:
                send(pkttype, *args, handler=handler)

        setattr(connection, "send_packet", send_packet)  # noqa: B010 - mypy wants no assignment
    return shortcut


async def _guard(
    connection: asyncssh.SSHClientConnection, relay: Relay, interval: float, count: int
) -> None:
    """Have the server asked whether it lives, but only while it is silent.

    asyncssh sets a timer anew for each packet, which is a sixth of what a small packet costs;
    a server that sends needs no such proof.
    """
    seen = -1
    is_asked = True
    while interval:
        if relay.received != seen:
            seen = relay.received
            if is_asked:
                connection.set_keepalive(0)
                is_asked = False
        elif not is_asked:
            connection.set_keepalive(interval, count)
            is_asked = True
        await asyncio.sleep(interval)


def _leave() -> NoReturn:
    # Straight out: nobody is left to be told, and nothing of ours outlives the process.
    os._exit(0)


def run_pump(data: _socket.socket, status: _socket.socket) -> int:
    """Pump until the end, tell the cause of a bad one, and give the exit status."""
    pump = Pump(data, status)
    orders = pump.read_orders()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(pump.run(orders))
    except ConnectError as exc:
        failure = exc
    except Exception as exc:
        failure = ConnectError(Cause.DIED, f"{orders.host}: {type(exc).__name__}: {exc}")
    else:
        return 0
    pump.tell("failed", kind=failure.kind.value, text=failure.message)
    return 1
