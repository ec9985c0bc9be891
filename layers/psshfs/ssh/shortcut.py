"""The short way of channel data through an asyncssh connection whose cipher is AES-GCM.

An SFTP request is one small packet of channel data, and asyncssh puts 60 calls and six copies
between a packet and its data: a good half of what the pump costs besides its system calls. Here
each way is one function. All other packets, and data at moments when they are not as they mostly
are (a key exchange, a full window, a reader that is held back), go through asyncssh as before; what
was decrypted already is kept for it.

The names with an underscore are asyncssh's insides, as of 2.24: `of` gives no shortcut where
one is missing, and each key exchange is noticed by the new cipher that it leaves.
"""

from __future__ import annotations

import os
import time
from struct import Struct
from typing import Any, Final

from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .relay import Relay

_MSG_CHANNEL_DATA: Final = 94
_HEAD: Final = 10
"""Octets before the data: length of the padding, type, channel, length of the data."""
_BLOCK: Final = 16
_SMALL: Final = 16384
"""Data up to this length are copied: a view costs as much."""
_head: Final = Struct(">BBII")
_COUNT: Final = (1 << 64) - 1

_INSIDES: Final = frozenset(
    {
        *("_auth_complete", "_compressor", "_decompressor", "_inpbuf", "_keepalive_timer"),
        *("_kex_complete", "_max_recv_pktlen", "_recv_encryption", "_recv_handler", "_recv_seq"),
        *("_rekey_bytes", "_rekey_bytes_sent", "_rekey_seconds", "_rekey_time"),
        *("_send_encryption", "_send_seq", "_transport"),
    }
)
_CHANNEL_INSIDES: Final = frozenset(
    {
        *("_init_recv_window", "_recv_chan", "_recv_paused", "_recv_state", "_recv_window"),
        *("_send_buf", "_send_chan", "_send_pktsize", "_send_state", "_send_window"),
    }
)


class _Gcm:
    """In place of asyncssh's GCMEncryption, whose key is set up for each packet anew.

    `early` is what was decrypted of a packet that asyncssh is about to ask for.
    """

    def __init__(self, encryption: Any) -> None:
        cipher = encryption._cipher
        self._aead = AESGCM(cipher._key)
        self._salt: bytes = cipher._iv[:4]
        self._count = int.from_bytes(cipher._iv[4:], "big")
        self.early: bytes | None = None

    def seal(self, header: bytes, packet: bytes) -> bytes:
        """Return what goes over the wire behind `header`, the tag included."""
        count = self._count
        self._count = count + 1 & _COUNT
        return self._aead.encrypt(self._salt + count.to_bytes(8, "big"), packet, header)

    def open(self, header: bytes | memoryview, sealed: bytes | memoryview) -> bytes:
        """Return a packet. Errors: InvalidTag, and then it counts as not tried."""
        count = self._count
        packet = self._aead.decrypt(self._salt + count.to_bytes(8, "big"), sealed, header)
        self._count = count + 1 & _COUNT
        return packet

    # What asyncssh calls.

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        """Return what is to be sent, and nothing behind it."""
        return header + self.seal(header, packet), b""

    def decrypt_header(self, seq: int, first_block: bytes, header_len: int) -> tuple[bytes, bytes]:
        """Return the first block, and the length, which stands in clear."""
        return first_block, first_block[:header_len]

    def decrypt_packet(
        self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes
    ) -> bytes | None:
        """Return a packet, None for one that was changed on its way."""
        if (early := self.early) is not None:
            self.early = None
            return early
        try:
            return self.open(first[:header_len], b"".join((first[header_len:], rest, mac)))
        except InvalidTag:
            return None


class Shortcut:
    """The short way for the channels of one connection that were added."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._out: Any = None
        self._in: Any = None
        self._channels: dict[int, tuple[Any, Relay]] = {}

    @staticmethod
    def of(connection: Any) -> Shortcut | None:
        """Return a shortcut for a connection that receives by AES-GCM, None for an asyncssh with
        other insides."""
        inside = vars(connection)
        if not inside.keys() >= _INSIDES or not hasattr(connection, "_send"):
            return None
        gcm = inside["_recv_encryption"]
        if type(gcm) is not GCMEncryption or not vars(gcm._cipher).keys() >= {"_key", "_iv"}:
            return None
        return Shortcut(connection)

    def add(self, channel: Any, relay: Relay) -> None:
        """Give the data of an open channel to `relay`, and have it send by us."""
        if vars(channel).keys() >= _CHANNEL_INSIDES:
            self._channels[channel._recv_chan] = channel, relay
            relay.attach(_Short(self, channel))

    def remove(self, relay: Relay) -> None:
        """Leave a channel that ends to asyncssh."""
        for number, (_, other) in list(self._channels.items()):
            if other is relay:
                del self._channels[number]

    # What comes.

    def take(self, packet: memoryview) -> bool:
        """Take a whole packet as it came; False: it is asyncssh's, with what was decrypted of it.

        Before any packet is given there must be nothing that asyncssh has not dealt with.
        """
        connection = self._connection
        gcm = connection._recv_encryption
        if gcm is not self._in:
            if type(gcm) is not GCMEncryption:
                return False
            gcm = connection._recv_encryption = self._in = _Gcm(gcm)
        if (
            connection._inpbuf
            or connection._recv_handler != connection._recv_pkthdr
            or connection._decompressor
            or connection._keepalive_timer is not None
            or not connection._auth_complete
            or len(packet) > connection._max_recv_pktlen
        ):
            return False
        try:
            plain = gcm.open(packet[:4], packet[4:])
        except InvalidTag:
            return False  # asyncssh will find out, too, and knows what to say
        gcm.early = plain
        if len(plain) < _HEAD:
            return False
        padding, kind, number, length = _head.unpack_from(plain)
        if kind != _MSG_CHANNEL_DATA or number not in self._channels:
            return False
        channel, relay = self._channels[number]
        if (
            padding < 4
            or not length
            or _HEAD + length + padding != len(plain)
            or channel._recv_state != "open"
            or channel._send_state != "open"
            or channel._recv_paused
            or length > channel._recv_window
            or 2 * (channel._recv_window - length) < channel._init_recv_window
        ):
            return False
        gcm.early = None
        connection._recv_seq = connection._recv_seq + 1 & 0xFFFFFFFF
        channel._recv_window -= length
        if length > _SMALL:
            relay.deliver(memoryview(plain)[_HEAD : _HEAD + length])
        else:
            relay.deliver(plain[_HEAD : _HEAD + length])
        return True

    # What leaves.

    def send(self, channel: Any, data: bytes) -> bool:
        """Send data; False, with nothing sent, when that is asyncssh's business now."""
        connection = self._connection
        gcm = connection._send_encryption
        if gcm is not self._out:
            if type(gcm) is not GCMEncryption:
                return False
            gcm = connection._send_encryption = self._out = _Gcm(gcm)
        total = len(data)
        if (
            channel._send_buf
            or channel._send_state != "open"
            or total > channel._send_window
            or not connection._kex_complete
            or not connection._auth_complete
            or connection._compressor
            or connection._transport is None
            or connection._rekey_bytes_sent + total >= connection._rekey_bytes
            or (connection._rekey_seconds and time.monotonic() >= connection._rekey_time)
        ):
            return False
        at = 0
        while at < total:
            piece = data[at : at + channel._send_pktsize]
            length = len(piece)
            padding = -(_HEAD + length) % _BLOCK
            if padding < 4:
                padding += _BLOCK
            head = _head.pack(padding, _MSG_CHANNEL_DATA, channel._send_chan, length)
            packet = b"".join((head, piece, os.urandom(padding)))
            header = len(packet).to_bytes(4, "big")
            connection._send(header + gcm.seal(header, packet))
            connection._send_seq = connection._send_seq + 1 & 0xFFFFFFFF
            connection._rekey_bytes_sent += len(packet)
            channel._send_window -= length
            at += length
        return True


class _Short:
    """A channel as a relay sees it, whose data take the short way where there is one."""

    def __init__(self, shortcut: Shortcut, channel: Any) -> None:
        self._send = shortcut.send
        self._channel = channel
        self.pause_reading = channel.pause_reading
        self.resume_reading = channel.resume_reading

    def write(self, data: bytes) -> None:
        """See relay.Channel."""
        if not self._send(self._channel, data):
            self._channel.write(data)
