"""What the gateway and an SSH process tell each other, over a SOCK_SEQPACKET pair.

A message is one JSON object in one packet, with at most one descriptor. The SSH process believes
the gateway, which made it; the gateway takes what comes from there for what it is: the word of a
process that parses what strangers send. What is no message at all ends the process.
"""

from __future__ import annotations

import array
import json
import os
import pickle
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from .settings import Credentials, SshSettings

MESSAGE_MAX: Final = 1 << 16
"""Longest message, octets."""
BEAT_SECONDS: Final = 10.0
"""How often the gateway asks an SSH process whether it lives."""


@dataclass(frozen=True, slots=True)
class Configure:
    """Gateway: go on with these orders. With a memory file of `encode_orders`."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Gateway: serve this client. With its socket."""

    connection: int
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Gateway: tell the client of a session why it ends; its socket is closed next."""

    session: int
    text: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Gateway: answer."""


@dataclass(frozen=True, slots=True)
class Ready:
    """SSH process: the orders are in force. `trouble` says why they are not, when they are not."""

    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Pong:
    """SSH process: here I am."""


@dataclass(frozen=True, slots=True)
class Login:
    """SSH process: a client has logged in."""

    connection: int
    account: str
    user: str
    method: str
    fingerprint: str
    authority: str
    key_id: str
    version: str


@dataclass(frozen=True, slots=True)
class Failure:
    """SSH process: an attempt to log in has failed."""

    connection: int
    user: str
    method: str


@dataclass(frozen=True, slots=True)
class Opened:
    """SSH process: a client that has logged in asks for SFTP. With the stream's other end.

    `session` is a number of that SSH process. `start`: directory, None for none; a path is
    octets, and here they are the first 256 characters.
    """

    connection: int
    session: int
    is_read_only: bool
    start: str | None


@dataclass(frozen=True, slots=True)
class Closed:
    """SSH process: a connection has ended. `is_failure`: in a way that costs the source."""

    connection: int
    is_failure: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """SSH process: something for the log. `level` is one of logging's numbers."""

    level: int
    text: str


Message = (
    Configure | Connect | Refuse | Ping | Ready | Pong | Login | Failure | Opened | Closed | Note
)
_TYPES: Final[Mapping[str, type[Any]]] = {
    type_.__name__: type_
    for type_ in (
        *(Configure, Connect, Refuse, Ping),
        *(Ready, Pong, Login, Failure, Opened, Closed, Note),
    )
}
_JSON: Final[Mapping[str, tuple[type, ...]]] = {
    "int": (int,),
    "str": (str,),
    "bool": (bool,),
    "str | None": (str, type(None)),
}


class BadMessage(Exception):
    """What came is no message."""


def send(sock: socket.socket, message: Message, fd: int | None = None) -> None:
    """Send a message; `fd` stays the caller's.

    Errors: BlockingIOError, nothing was sent; another OSError: the other end is gone.
    """
    data = json.dumps({"is": type(message).__name__, **asdict(message)}).encode()
    if fd is None:
        sock.send(data)
    else:
        rights = array.array("i", [fd])
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def receive(sock: socket.socket) -> tuple[Message, int | None] | None:
    """Take a message, with the descriptor that the caller owns from now on; None at the end.

    Errors: BlockingIOError, there is none; `BadMessage`, and the descriptors are closed.
    """
    try:
        data, fds, flags, _ = socket.recv_fds(sock, MESSAGE_MAX, 4)
    except ConnectionError:
        return None
    for fd in fds:
        os.set_inheritable(fd, False)
    if not data and not fds:
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(fds) > 1:
            raise BadMessage("it is too long, or has too many descriptors")
        return _decode(data), (fds[0] if fds else None)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _decode(data: bytes) -> Message:
    try:
        values: dict[str, object] = json.loads(data)
        type_ = _TYPES[str(values.pop("is"))]
        if values.keys() != {field.name for field in fields(type_)}:
            raise BadMessage(f"a {type_.__name__} has other fields")
        for field in fields(type_):
            if type(values[field.name]) not in _JSON[str(field.type)]:
                raise BadMessage(f"{type_.__name__}.{field.name} is of another type")
        message: Message = type_(**values)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as exc:
        raise BadMessage(f"{type(exc).__name__}: {exc}") from exc
    return message


@dataclass(frozen=True, slots=True)
class Orders:
    """All that an SSH process needs to know. `host_keys`: private keys, in OpenSSH's format."""

    settings: SshSettings
    accounts: Mapping[str, Credentials]
    host_keys: tuple[bytes, ...]
    secret: bytes
    """Makes what happens to unknown users the same each time, whichever process they ask."""


def encode_orders(orders: Orders) -> int:
    """Return a memory file with the orders; the caller owns it."""
    fd = os.memfd_create("orders", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        # Pickled, for it goes from us to a process that we made, and by no way that others have.
        pickle.dump(orders, file)
    return fd


def decode_orders(fd: int) -> Orders:
    """Read a memory file; it is closed."""
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        orders = pickle.load(file)
    assert isinstance(orders, Orders)
    return orders
