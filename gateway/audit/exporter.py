"""Figures over HTTP: one page, for one scraper, on a loopback port. Nothing else is served.

The connection is closed after each answer. Who is slow, or talks nonsense, is cut off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import h11
import trio

_log = logging.getLogger(__name__)

_CONNECTIONS_MAX: Final = 8
"""Connections at once; Prometheus needs one."""
_SECONDS: Final = 10.0
"""How long one connection may last."""
_HEAD_MAX: Final = 8192
"""Octets of a request's head."""
_CHUNK: Final = 4096


async def serve_page(
    listener: trio.SocketListener, path: str, content_type: str, page: Callable[[], bytes]
) -> None:
    """Answer GET of `path` with what `page` returns, until cancelled. Owns the listener."""
    limit = trio.CapacityLimiter(_CONNECTIONS_MAX)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            limit.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await trio.aclose_forcefully(stream)
            return
        try:
            with trio.move_on_after(_SECONDS):
                async with stream:
                    await _answer(stream, path, content_type, page)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the scraper has left
        finally:
            limit.release_on_behalf_of(stream)

    await trio.serve_listeners(serve, [listener])


async def _answer(
    stream: trio.SocketStream, path: str, content_type: str, page: Callable[[], bytes]
) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_MAX)
    kind, is_head = "text/plain", False
    try:
        request = await _request(stream, connection)
    except h11.RemoteProtocolError as exc:
        _log.info("a scraper broke the protocol: %s", exc)
        status, body = exc.error_status_hint, b"Bad request\n"
    else:
        if request is None:
            return
        is_head = request.method == b"HEAD"
        if request.target.partition(b"?")[0] != path.encode():
            status, body = 404, b"Not found\n"
        elif request.method not in (b"GET", b"HEAD"):
            status, body = 405, b"Method not allowed\n"
        else:
            status, body, kind = 200, page(), content_type
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    answer = connection.send(h11.Response(status_code=status, headers=headers))
    if not is_head:
        answer += connection.send(h11.Data(data=body))
    await stream.send_all(answer + connection.send(h11.EndOfMessage()))


async def _request(stream: trio.SocketStream, connection: h11.Connection) -> h11.Request | None:
    """Return the head of a request, None for who leaves without one; its body is not read."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_CHUNK))
        elif isinstance(event, h11.Request):
            return event
        else:
            return None
