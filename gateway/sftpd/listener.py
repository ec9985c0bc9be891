"""Listening sockets: bound at once or not at all, and what comes in through them."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import Final

import trio

from .arrivals import Source

_log = logging.getLogger(__name__)

_BACKLOG: Final = 128
_BUSY: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""What says that we, not the client, have no room."""
_BUSY_SECONDS: Final = 0.5


class ListenError(Exception):
    """An address cannot be listened on; the text names it, and says why."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for all addresses of a host ("": all of this one).

    With port 0 all of them have the same free port. Errors: `ListenError`, and nothing is bound.
    """
    bound: list[socket.socket] = []
    name = f"{host or '*'} port {port}"
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, type_, proto, _, address in found:
            try:
                sock = socket.socket(family, type_ | socket.SOCK_NONBLOCK, proto)
            except OSError as exc:
                if exc.errno == errno.EAFNOSUPPORT and len(found) > 1:
                    continue  # a kernel without IPv6
                raise
            bound.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if not port and len(bound) > 1:
                address = (address[0], bound[0].getsockname()[1], *address[2:])
            sock.bind(address)
            sock.listen(_BACKLOG)
    except OSError as exc:
        for sock in bound:
            sock.close()
        raise ListenError(f"cannot listen on {name}: {exc.strerror or exc}") from exc
    return bound


def plain_source(address: tuple[str, int]) -> Source:
    """Return an address without scope, and an IPv4 address without the clothes of IPv6."""
    ip = ip_address(address[0].partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ip), address[1]


async def accept_all(
    listening: socket.socket,
    is_open: Callable[[], Awaitable[None]],
    come: Callable[[socket.socket, Source], None],
) -> None:
    """Accept clients until cancelled, or until the socket is closed.

    Each time `is_open` is awaited first. `come` owns the client's socket.
    """
    while True:
        await is_open()
        try:
            sock, address = listening.accept()
        except BlockingIOError:
            try:
                await trio.lowlevel.wait_readable(listening)
            except (trio.ClosedResourceError, OSError, ValueError):
                return
            continue
        except OSError as exc:
            if exc.errno == errno.EBADF:
                return
            if exc.errno in _BUSY:
                _log.error("cannot accept connections: %s", exc.strerror)
                await trio.sleep(_BUSY_SECONDS)
            # Anything else is an error of that client, who is gone (accept(2)).
            continue
        sock.setblocking(False)
        come(sock, plain_source(address))
        await trio.lowlevel.checkpoint()


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close listening sockets; who accepts from them notices."""
    for sock in sockets:
        if sock.fileno() >= 0:
            with suppress(OSError, RuntimeError):
                trio.lowlevel.notify_closing(sock)
            sock.close()
