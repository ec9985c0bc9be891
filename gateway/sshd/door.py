"""One client at the door: what it tries, what lets it in, and the sessions it then has."""

from __future__ import annotations

import asyncio
import logging
import socket as _socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncssh

from .access import Access, Grant, OfferedKey
from .connection import Channel, Connection
from .control import Closed, Connect, Failure, Login, Message, Opened
from .relay import READ_SIZE, SessionRelay
from .settings import PASSWORD, PUBLIC_KEY, SshSettings

if TYPE_CHECKING:
    from ...layers.psshfs.ssh.splitter import Splitter

_log = logging.getLogger(__name__)

SOCKET_BUFFER: Final = 1 << 20
"""Octets between us and the gateway, each way; large buffers spare wake-ups when data streams."""
_TEXT_MAX: Final = 200
_FOREIGN: Final = (
    asyncssh.ProtocolError,
    asyncssh.ProtocolNotSupported,
    asyncssh.MACError,
    asyncssh.CompressionError,
    asyncssh.IllegalUserName,
    asyncssh.ServiceNotAvailable,
)
"""How a connection ends with a peer that speaks no SSH, or a bad one."""


@dataclass(frozen=True, slots=True)
class House:
    """What a door needs of its process. `access` gives what counts at that moment."""

    settings: SshSettings
    access: Callable[[], Access]
    tell: Callable[..., bool]
    """Send the gateway a message, with a descriptor or without; False: it cannot be sent."""
    listen: Callable[[], None]
    """Read what the gateway has sent until now."""
    number: Callable[[], int]
    """Give the next session a number."""
    left: Callable[[Door], None]
    """Hear that the connection has ended."""


def printable(text: str) -> str:
    """Make text of a client fit for logs: printable ASCII, and not too much of it."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:_TEXT_MAX])


class Door(asyncssh.SSHServer):
    """Ends when the connection ends."""

    def __init__(self, house: House, arrival: Connect) -> None:
        self._house = house
        self._arrival = arrival
        self._connection: Connection | None = None
        self._splitter: Splitter | None = None
        self._is_split = False
        self._offered: Grant | None = None
        self._tries = 0
        self._has_failed = False
        self._holds: set[str] = set()
        self._beat: asyncio.TimerHandle | None = None
        self._missed = 0
        self._heard = -1
        self.grant: Grant | None = None
        """What let the client in, once it has."""
        self.sessions: dict[int, SftpSession] = {}
        self.label = f"{arrival.address} port {arrival.port}"
        self.sessions_max = house.settings.sessions_per_connection

    @property
    def number(self) -> int:
        """The gateway's number of the connection."""
        return self._arrival.connection

    def tell(self, message: Message, fd: int | None = None) -> bool:
        """Send the gateway a message; see `House.tell`."""
        return bool(self._house.tell(message, fd))

    def listen(self) -> None:
        """Read what the gateway has sent until now."""
        self._house.listen()

    def attach(self, splitter: Splitter) -> None:
        """Hear what stands between the transport and the connection."""
        self._splitter = splitter

    # Called by asyncssh.

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Begin."""
        assert isinstance(conn, Connection)
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and tell whether it ended badly."""
        if self._beat is not None:
            self._beat.cancel()
        if self._splitter is not None:
            self._splitter.before = self._splitter.after = None
        is_late = self.grant is None and "Login timeout" in str(exc or "")
        is_failure = self.grant is None and (
            self._has_failed or is_late or isinstance(exc, _FOREIGN)
        )
        reason = "" if exc is None else printable(getattr(exc, "reason", "") or str(exc))
        self.tell(Closed(self.number, is_failure, reason))
        self._house.left(self)

    def begin_auth(self, username: str) -> bool:
        """Everybody has to show who they are."""
        assert self._connection is not None
        if self._house.settings.banner:
            self._connection.send_auth_banner(self._house.settings.banner)
        return True

    def public_key_auth_supported(self) -> bool:
        """Keys count, for all users alike."""
        return True

    def password_auth_supported(self) -> bool:
        """Passwords count when anybody has one, for all users alike."""
        return self._house.access().offers_passwords

    def kbdint_auth_supported(self) -> bool:
        """No questions: a password is asked for as a password."""
        return False

    def auth_completed(self) -> None:
        """Go on after the login."""
        assert self._connection is not None
        grant = self.grant = self._offered
        if grant is None:  # nothing leads here but what `_allow` has allowed
            self._connection.give_up("it was let in by nothing")
            return
        info = self._connection.get_extra_info
        self.tell(
            Login(
                self.number,
                grant.account,
                printable(info("username") or ""),
                grant.method,
                grant.fingerprint,
                grant.authority,
                printable(grant.key_id),
                printable(info("client_version") or ""),
            )
        )
        if self._splitter is not None:
            self._splitter.before, self._splitter.after = self._begin_batch, self._end_batch
        self._set_beat()

    # Who is it?

    @property
    def is_exhausted(self) -> bool:
        """Whether the client has tried as often as it may."""
        return self._tries >= self._house.settings.max_auth_tries

    async def validate_password(self, username: str, password: str) -> bool:
        """Tell whether a password lets the client in."""
        self._try()
        access = self._house.access()
        grant = await access.no_sooner(
            username,
            lambda: access.by_password(
                username, password, self._arrival.address, self._arrival.port
            ),
        )
        return self._allow(grant, username, PASSWORD)

    async def check_key(
        self,
        username: str,
        blob: bytes,
        *,
        is_signed: bool,
        proves: Callable[[asyncssh.SSHKey], bool],
    ) -> bool:
        """Tell whether a key would let the client in, or, `is_signed`, whether it does."""
        self._try()
        access = self._house.access()

        async def ask() -> OfferedKey | None:
            offered = await access.by_key(
                username,
                blob,
                self._arrival.address,
                self._arrival.port,
                is_signed=is_signed,
            )
            if offered is not None and is_signed and not proves(offered.key):
                return None
            return offered

        offered = await access.no_sooner(username, ask)
        if offered is not None and not is_signed:
            self._tries -= 1  # no answer to that yet; `connection` bounds how often it may ask
            return True
        return self._allow(None if offered is None else offered.grant, username, PUBLIC_KEY)

    def _try(self) -> None:
        """Count an attempt before anything is done for it: a client need not wait for its end."""
        if self.is_exhausted:
            raise asyncssh.DisconnectError(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
                "Too many authentication failures",
                "",
            )
        self._tries += 1

    def _allow(self, grant: Grant | None, user: str, method: str) -> bool:
        self._offered = grant
        if grant is None:
            self._has_failed = True
            self.tell(Failure(self.number, printable(user), method))
        return grant is not None

    # Is it still there?

    def _set_beat(self) -> None:
        if seconds := self._house.settings.keepalive_seconds:
            self._beat = asyncio.get_running_loop().call_later(seconds, self._check_life)

    def _check_life(self) -> None:
        """Ask a client that was silent since the last time whether it lives.

        asyncssh would set a timer anew for each packet, a sixth of what a small packet costs.
        """
        assert self._connection is not None
        if self._connection.octets_received != self._heard:
            self._heard = self._connection.octets_received
            self._missed = 0
        elif self._missed >= self._house.settings.keepalive_count:
            self._connection.connection_lost(asyncssh.ConnectionLost("Client does not answer"))
            return
        else:
            self._missed += 1
            self._connection.ask_for_life()
        self._set_beat()

    # Its sessions.

    def make_session(self, channel: Channel) -> SftpSession:
        """Make what is behind a channel."""
        return SftpSession(self, channel)

    def open_stream(self, session: SftpSession) -> _socket.socket | None:
        """Make a stream for a session and hand its other end to the gateway; None: it cannot be."""
        assert self.grant is not None
        try:
            ours, theirs = _socket.socketpair()
        except OSError as exc:
            _log.error("%s: no stream for a session: %s", self.label, exc.strerror)
            return None
        with theirs:
            for end in (ours, theirs):
                end.setblocking(False)
                for option in (_socket.SO_SNDBUF, _socket.SO_RCVBUF):
                    end.setsockopt(_socket.SOL_SOCKET, option, SOCKET_BUFFER)
            session.number = self._house.number()
            start = self.grant.start
            opened = Opened(
                self.number,
                session.number,
                self.grant.is_read_only,
                None if start is None else start.decode("latin-1"),
            )
            if not self.tell(opened, theirs.fileno()):
                ours.close()
                return None
        self.sessions[session.number] = session
        return ours

    def hold(self, reason: str) -> None:
        """Let no session send until `release`; harmless when called twice."""
        if reason not in self._holds:
            self._holds.add(reason)
            for session in self.sessions.values():
                session.hold()

    def release(self, reason: str) -> None:
        """Take back a `hold`; harmless without one."""
        if reason in self._holds:
            self._holds.discard(reason)
            for session in list(self.sessions.values()):
                session.release()

    @property
    def holds(self) -> int:
        """How many reasons there are for which sessions may not send."""
        return len(self._holds)

    def _begin_batch(self) -> None:
        for session in self.sessions.values():
            session.begin_batch()

    def _end_batch(self) -> None:
        for session in list(self.sessions.values()):
            session.end_batch()
        assert self._splitter is not None
        if not self._is_split and self._connection is not None:
            received: str = self._connection.get_extra_info("recv_cipher") or ""
            if "gcm" in received:
                self._is_split = self._splitter.find_packets()

    def end(self, reason: str) -> None:
        """End the connection, and tell the client why."""
        if self._connection is not None:
            self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, reason)


class SftpSession(asyncssh.SSHServerSession[bytes]):
    """Ties asyncssh's callbacks of one channel to a relay."""

    def __init__(self, door: Door, channel: Channel) -> None:
        self._door = door
        self._channel = channel
        self._relay: SessionRelay | None = None
        self.number = 0
        self.farewell = ""
        """What the client is told when its stream ends."""

    def subsystem_requested(self, subsystem: str) -> bool:
        """Have the gateway serve it; there is one that it does."""
        if subsystem != "sftp":
            return False
        stream = self._door.open_stream(self)
        if stream is None:
            return False
        loop = asyncio.get_running_loop()
        self._relay = SessionRelay(loop, stream, self._channel, self._stream_ended)
        for _ in range(self._door.holds):
            self._relay.hold()
        self._channel.set_write_buffer_limits(READ_SIZE)
        return True

    def session_started(self) -> None:
        """Begin, after the client has been told that it may."""
        if self._relay is not None:
            self._relay.start()

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Pass on."""
        if self._relay is not None:
            self._relay.deliver(data)

    def eof_received(self) -> bool:
        """Pass on; what is still to be answered is."""
        if self._relay is not None:
            self._relay.finish()
        return True

    def pause_writing(self) -> None:
        """The client's window is full."""
        self.hold()

    def resume_writing(self) -> None:
        """The client's window is open again."""
        self.release()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._relay is not None:
            self._relay.stop()
            self._door.sessions.pop(self.number, None)

    def hold(self) -> None:
        """Send nothing until released as often."""
        if self._relay is not None:
            self._relay.hold()

    def release(self) -> None:
        """Take back one `hold`."""
        if self._relay is not None:
            self._relay.release()

    def begin_batch(self) -> None:
        """Say that more may come at once."""
        if self._relay is not None:
            self._relay.begin_batch()

    def end_batch(self) -> None:
        """Pass on what has come."""
        if self._relay is not None:
            self._relay.end_batch()

    def _stream_ended(self) -> None:
        self._door.listen()  # what the gateway said before it closed the stream is `farewell`
        if self.farewell and not self._channel.is_closing():
            text = self.farewell.encode()[:1000] + b"\r\n"
            self._channel.write(text, asyncssh.EXTENDED_DATA_STDERR)
        self._channel.exit(1 if self.farewell else 0)
