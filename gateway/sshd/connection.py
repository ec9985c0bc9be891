"""asyncssh's server connection, with bounds where it has none, and without what is not offered.

asyncssh takes packets of 256 KiB at most, but keeps what comes while it is busy, what it answers to
a client that does not read, and what it may not send during a key exchange, however much that is.
It counts no attempts to log in. The names of its methods with an underscore that stand here are
its insides, as of 2.24; tests/sshd would notice a change in each of them.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket, String

from .access import is_weak_signature
from .relay import READ_SIZE

if TYPE_CHECKING:
    from .door import Door

_log = logging.getLogger(__name__)

WINDOW: Final = 4 << 20
"""Octets a client may send ahead: what fills 100 MB/s at 40 ms, and what one session may hold."""
PACKET: Final = 1 << 18
"""Largest channel data we take, octets; OpenSSH packs as much as it has into one packet."""
_PACKET_MIN: Final = 4096
"""Smallest largest packet of a client: below, packets cost more than their data."""
_SLICE: Final = 1 << 15
"""Octets that asyncssh gets at once: it moves what is behind a packet for each one."""
BACKLOG_MAX: Final = 1 << 20
"""Octets that may wait while asyncssh is busy with a packet."""
UNSENT_HIGH: Final = 1 << 20
"""Octets above which the sessions of the connection send no more, until they are read."""
UNSENT_MAX: Final = 1 << 20
"""Octets that a client may leave unread above that, beside what its sessions had ready."""
DEFERRED_MAX: Final = 10000
"""Packets that may wait for the end of a key exchange."""
PATIENCE_SECONDS: Final = 0.5
"""How long a client may wait for us to begin the key exchange. All that were met begin at once."""
REQUESTS_MAX: Final = 64
"""Requests of a login, of whatever kind."""
_MSG_IGNORE: Final = 2
_MSG_KEXINIT: Final = 20
_TOO_MANY: Final = asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE


class Channel(asyncssh.SSHServerChannel[bytes]):
    """A session channel on which one subsystem can be had, and nothing else."""

    # asyncssh looks these up by name and refuses what is not callable.
    _process_pty_req_request = None  # type: ignore[assignment]
    _process_x11_req_request = None  # type: ignore[assignment]
    _process_auth_agent_req_at_openssh_dot_com_request = None  # type: ignore[assignment]
    _process_env_request = None  # type: ignore[assignment]
    _process_window_change_request = None  # type: ignore[assignment]
    _process_signal_request = None  # type: ignore[assignment]
    _process_break_request = None  # type: ignore[assignment]

    def process_open(
        self, send_chan: int, send_window: int, send_pktsize: int, session: Any
    ) -> None:
        """Open, unless the client wants its data in crumbs."""
        if send_pktsize < _PACKET_MIN:
            self.get_connection().remove_channel(self._recv_chan)  # type: ignore[arg-type]
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, f"packets of less than {_PACKET_MIN} octets"
            )
        super().process_open(send_chan, send_window, min(send_pktsize, PACKET), session)


class Connection(asyncssh.SSHServerConnection):
    """One client. `door` decides about it."""

    _process_direct_tcpip_open = None  # type: ignore[assignment]
    _process_direct_streamlocal_at_openssh_dot_com_open = None  # type: ignore[assignment]
    _process_forwarded_tcpip_open = None
    _process_forwarded_streamlocal_at_openssh_dot_com_open = None
    _process_tun_at_openssh_dot_com_open = None  # type: ignore[assignment]
    _process_x11_open = None
    _process_auth_agent_at_openssh_dot_com_open = None
    _process_tcpip_forward_global_request = None  # type: ignore[assignment]
    _process_cancel_tcpip_forward_global_request = None  # type: ignore[assignment]
    _process_streamlocal_forward_at_openssh_dot_com_global_request = None  # type: ignore[assignment]
    _process_cancel_streamlocal_forward_at_openssh_dot_com_global_request = None  # type: ignore[assignment]
    _process_hostkeys_prove_00_at_openssh_dot_com_global_request = None  # type: ignore[assignment]

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHServerConnectionOptions,
        door: Door,
    ) -> None:
        super().__init__(loop, options)
        # Signatures with SHA-1 count neither way.
        self._server_host_keys = self._server_host_keys.copy()
        self._server_host_keys.pop(b"ssh-rsa", None)
        self._server_host_key_algs = list(self._server_host_keys)
        self._protocol_factory = lambda: door
        self._door = door
        self._requests = 0
        self._is_clogged = False
        self._turn: asyncio.TimerHandle | None = None
        """Set while we hold our first key exchange message back."""
        self.octets_received = 0
        """Since the beginning; that it grows is proof of life."""

    # Which ciphers.

    def _send_kexinit(self) -> None:
        """Say what we have: the first time not before the client has, or takes too long to.

        Of the ciphers that both have, the client's order decides, and OpenSSH's begins with
        ChaCha20: in asyncssh three operations a packet in place of one. Who says last can leave out
        what it would rather not have: 128 in place of 91 MB/s, 690 in place of 377 files/s made.
        """
        if self._session_id or self._client_kexinit or self._turn is not None:
            super()._send_kexinit()
        else:
            self._turn = self._loop.call_later(PATIENCE_SECONDS, self._begin)

    def _begin(self) -> None:
        assert self._turn is not None
        self._turn.cancel()
        if self._transport is not None:
            super()._send_kexinit()
        self._turn = None

    async def _process_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Hear what the client has."""
        if self._turn is not None:
            with suppress(PacketDecodeError):  # asyncssh meets that, too
                self._choose_cipher(copy.copy(packet))
            self._begin()
        await super()._process_kexinit(pkttype, pktid, packet)

    def _choose_cipher(self, packet: SSHPacket) -> None:
        """Keep of our ciphers the first that the client has for both directions."""
        packet.get_bytes(16)
        packet.get_namelist(), packet.get_namelist()
        theirs = set(packet.get_namelist()).intersection(packet.get_namelist())
        if common := [cipher for cipher in self._enc_algs if cipher in theirs]:
            self._enc_algs = common[:1]

    _packet_handlers: ClassVar = {  # type: ignore[misc]
        **asyncssh.SSHServerConnection._packet_handlers,
        _MSG_KEXINIT: _process_kexinit,
    }

    # What comes.

    def data_received(self, data: bytes, datatype: asyncssh.DataType = None) -> None:
        """Take octets, in pieces that are cheap to take packets from."""
        self.octets_received += len(data)
        if not self._inpbuf or len(data) <= _SLICE:
            # One packet as the splitter found it, or little: `b"" + data` copies nothing.
            super().data_received(data, datatype)
        else:
            for at in range(0, len(data), _SLICE):
                super().data_received(data[at : at + _SLICE], datatype)
        if len(self._inpbuf) > BACKLOG_MAX:
            self.give_up("it sends while it has to wait")

    def give_up(self, reason: str) -> None:
        """End the connection at once, for the client does what no client does."""
        self.connection_lost(asyncssh.ProtocolError(reason))

    def ask_for_life(self) -> None:
        """Send something that has to be answered."""
        self.create_task(self._make_keepalive_request())

    def internal_error(self, exc_info: Any = None, error_logger: Any = None) -> None:
        """Note what nobody foresaw, once, and end the connection.

        What cannot be decoded is foreseen: asyncssh raises it here or there as it comes.
        """
        exc_info = exc_info or sys.exc_info()
        if isinstance(exc_info[1], ValueError):
            self.give_up(f"Malformed packet ({exc_info[1]})")
            return
        _log.error(
            "%s: asyncssh failed in a way that it must not", self._door.label, exc_info=exc_info
        )
        super().internal_error(exc_info, error_logger)

    # What leaves.

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Send, or keep for the end of a key exchange."""
        # asyncssh puts an IGNORE before each packet. That guards against guessing the
        # initialisation vector of CBC ciphers, and there are none here.
        if pkttype == _MSG_IGNORE:
            return
        super().send_packet(pkttype, *args, handler=handler)
        if self._deferred_packets:
            self._door.hold("keys")
            if len(self._deferred_packets) > DEFERRED_MAX:
                self.give_up("it asks on and on during a key exchange")

    def _send_deferred_packets(self) -> None:
        super()._send_deferred_packets()
        if not self._deferred_packets:
            self._door.release("keys")

    def _send(self, data: bytes) -> None:
        super()._send(data)
        if self._is_clogged and self._transport is not None:
            # What a session has in asyncssh's hands leaves when the client's window allows.
            ready = self._door.sessions_max * 2 * READ_SIZE
            if self._transport.get_write_buffer_size() > UNSENT_HIGH + UNSENT_MAX + ready:
                self.give_up("it asks on and on, and reads no answers")

    def pause_writing(self) -> None:
        """Hear from the transport that much is unsent."""
        self._is_clogged = True
        self._door.hold("transport")

    def resume_writing(self) -> None:
        """Hear from the transport that it is sent."""
        self._is_clogged = False
        self._door.release("transport")

    # Logging in.

    async def reload_config(self) -> None:
        """Read nothing anew: there is no file, and the options are the same for all users."""

    def choose_server_host_key(self, peer_host_key_algs: Sequence[bytes]) -> bool:
        """Choose a key, and let other connections choose other ways to sign with it."""
        chosen = super().choose_server_host_key(peer_host_key_algs)
        self._server_host_key = copy.copy(self._server_host_key)
        if self._server_host_key is not None:
            for algorithm in peer_host_key_algs:
                if self._server_host_keys.get(algorithm) is not None:
                    if algorithm != self._server_host_key.algorithm:
                        self._server_host_key.set_sig_algorithm(algorithm)
                    break
        return chosen

    async def _finish_userauth(self, begin_auth: bool, method: bytes, packet: SSHPacket) -> None:
        self._requests += 1
        if self._requests > REQUESTS_MAX:
            raise asyncssh.DisconnectError(_TOO_MANY, "Too many requests", "")
        if begin_auth and self._requests > 1:
            raise asyncssh.ProtocolError("The user name must not change")
        # paramiko asks for the service anew before each attempt, and sshd does not mind.
        self._next_service = b"ssh-userauth"
        await super()._finish_userauth(begin_auth, method, packet)

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Say no, or that there were too many of them."""
        if self._door.is_exhausted:
            raise asyncssh.DisconnectError(_TOO_MANY, "Too many authentication failures", "")
        super().send_userauth_failure(partial_success)

    async def validate_public_key(
        self, username: str, key_data: bytes, msg: bytes, signature: bytes
    ) -> bool:
        """Tell whether a key counts, and with `msg` also whether the client has it."""
        if msg and is_weak_signature(signature):
            key_data = b""  # no key at all: it is a failure as others are
        session_id = String(self._session_id)
        return await self._door.check_key(
            username,
            key_data,
            is_signed=bool(msg),
            proves=lambda key: key.verify(session_id + msg, signature),
        )

    # Sessions.

    def _process_session_open(self, packet: SSHPacket) -> Any:
        packet.check_end()
        if len(self._channels) >= self._door.sessions_max:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, "Too many sessions on this connection"
            )
        self._update_recv_pktlen(PACKET)
        channel = Channel(
            self,
            self._loop,
            allow_pty=False,
            line_editor=False,
            line_echo=False,
            line_history=0,
            max_line_length=0,
            encoding=None,
            errors="strict",
            window=WINDOW,
            max_pktsize=PACKET,
        )
        return channel, self._door.make_session(channel)
