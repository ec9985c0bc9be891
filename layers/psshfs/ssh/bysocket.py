"""Streams that need no program: a TCP port, a vsock, or two descriptors that we were given.

Whoever listens there speaks SFTP itself, and nobody is asked who he is.
"""

from __future__ import annotations

import os
import socket as _socket
import stat
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

import trio

from .carrier import Stream, make_pair
from .failure import Cause, ConnectError
from .target import Target

_CONNECT_TIME: Final = 30.0
"""Seconds for a connection to come about, as ConnectTimeout has it for ssh."""
_PIECE: Final = 1 << 18
"""Octets moved at once between descriptors and our socket."""


async def reach_port(target: Target, port: int, dead_after: float) -> tuple[Stream, SocketWatch]:
    """Connect to a TCP port of the host, which is left when nothing comes through for `dead_after`
    seconds. Errors: `ConnectError` UNKNOWN_HOST, REFUSED, UNREACHABLE."""
    host = target.host or "localhost"
    place = f"{host} port {port}"
    try:
        found = await trio.socket.getaddrinfo(host, port, type=_socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise ConnectError(
            Cause.UNKNOWN_HOST, f"{host}: no such host ({exc}); check the name"
        ) from exc
    failure: ConnectError | None = None
    for family, kind, protocol, _, address in found:
        sock = trio.socket.socket(family, kind, protocol)
        try:
            stream, watch = await _connected(sock, sock.connect(address), place, host)
        except ConnectError as exc:
            failure = failure or exc
        else:
            _notice_death(stream.socket, dead_after)
            return stream, watch
    assert failure is not None
    raise failure


def _notice_death(sock: _socket.socket, dead_after: float) -> None:
    """Have TCP ask a silent peer whether it is there, as ssh does with ServerAliveInterval."""
    interval = max(1, int(dead_after / 4))
    tcp = _socket.IPPROTO_TCP
    sock.setsockopt(tcp, _socket.TCP_NODELAY, 1)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    sock.setsockopt(tcp, _socket.TCP_KEEPIDLE, interval)
    sock.setsockopt(tcp, _socket.TCP_KEEPINTVL, interval)
    # Counts for what was sent and not acknowledged, too, and in place of TCP_KEEPCNT.
    sock.setsockopt(tcp, _socket.TCP_USER_TIMEOUT, int(dead_after * 1000))


async def reach_vsock(address: tuple[int, int]) -> tuple[Stream, SocketWatch]:
    """Connect to a vsock: `address` is context id and port. Errors: as `reach_port`."""
    place = f"vsock {address[0]}:{address[1]}"
    try:
        sock = trio.socket.socket(_socket.AF_VSOCK, _socket.SOCK_STREAM)
    except OSError as exc:
        raise ConnectError(Cause.UNREACHABLE, f"{place}: {exc.strerror}; no vsock here") from exc
    # trio knows no addresses of this family, and the kernel answers for it at once or not at all.
    connecting = trio.to_thread.run_sync(_connect, sock.fileno(), address, abandon_on_cancel=False)
    return await _connected(sock, connecting, place, place)


def _connect(fileno: int, address: tuple[int, int]) -> None:
    with _socket.socket(fileno=os.dup(fileno)) as sock:
        sock.settimeout(_CONNECT_TIME)
        sock.connect(address)
        sock.settimeout(0)


async def _connected(
    sock: trio.socket.SocketType, connecting: Coroutine[Any, Any, None], place: str, host: str
) -> tuple[Stream, SocketWatch]:
    try:
        with trio.fail_after(_CONNECT_TIME + 1):
            await connecting
    except trio.TooSlowError:
        sock.close()
        raise ConnectError(
            Cause.UNREACHABLE, f"{place}: no answer; check the address and the network"
        ) from None
    except OSError as exc:
        sock.close()
        cause = Cause.REFUSED if isinstance(exc, ConnectionRefusedError) else Cause.UNREACHABLE
        reason = exc.strerror or exc
        raise ConnectError(cause, f"{place}: {reason}; does an SFTP server listen there?") from exc
    except BaseException:
        sock.close()
        raise
    plain = _socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    return Stream(plain, None, place, host), SocketWatch()


def take_descriptors(target: Target, descriptors: tuple[int, int]) -> tuple[Stream, SocketWatch]:
    """Speak over two descriptors, one to read from and one to write to, which become the stream's.

    One socket behind both is used as it is; pipes get a relay. Errors: `ConnectError` BAD_CONFIG
    for a terminal.
    """
    host = target.host or "localhost"
    what = "standard input and output"
    source, sink = descriptors
    if any(os.isatty(descriptor) for descriptor in descriptors):
        raise ConnectError(
            Cause.BAD_CONFIG, f"passive: {what} lead to a terminal; connect an SFTP server to them"
        )
    one, other = os.fstat(source), os.fstat(sink)
    if stat.S_ISSOCK(one.st_mode) and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino):
        os.close(sink)
        sock = _socket.socket(fileno=source)
        sock.setblocking(False)
        return Stream(sock, None, what, host), SocketWatch()
    ours, theirs = make_pair()
    return Stream(ours, None, what, host), RelayWatch(source, sink, theirs)


class SocketWatch:
    """Watches nothing: the end of the socket says it all."""

    async def start(self) -> None:
        """Return at once: there is no login."""

    async def run(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """Hold nothing."""


class RelayWatch(SocketWatch):
    """Moves octets between two descriptors and a socket, until either side ends."""

    def __init__(self, source: int, sink: int, sock: _socket.socket) -> None:
        self._source = trio.lowlevel.FdStream(source)
        self._sink = trio.lowlevel.FdStream(sink)
        sock.setblocking(False)
        self._socket = trio.SocketStream(trio.socket.from_stdlib_socket(sock))

    async def run(self) -> None:
        """Move octets until both directions have ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._move_in)
            nursery.start_soon(self._move_out)

    async def _move_in(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self._source.receive_some(_PIECE):
                await self._socket.send_all(data)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._socket.send_eof()

    async def _move_out(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self._socket.receive_some(_PIECE):
                await self._sink.send_all(data)
        # The server hears that we have left, though its other descriptor may stay open.
        await self._sink.aclose()

    def close(self) -> None:
        """Close the descriptors; harmless when called twice."""
        self._socket.socket.close()
        for stream in (self._source, self._sink):
            if stream.fileno() >= 0:
                stream.close()
