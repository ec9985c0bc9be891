"""The control socket of a mount: who may ask, how much, and for how long.

Only the user whose mount it is, and root: the socket lies in a directory of his own, is his alone
(0600), and the kernel says who has connected. Nothing here waits for a layer of the stack, so that
a mount whose server is silent still says so. What cannot be set up is logged: no mount fails for
want of a control socket.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from .ends import End
from .places import own_directory, short_name
from .protocol import QUESTION_MAX, ControlError, decode_question, encode_answer, encode_error

if TYPE_CHECKING:
    from ...layers.fault import Rules
    from .joints import Joints
    from .measuring import Measuring

_log = logging.getLogger(__name__)

_CONNECTIONS_MAX: Final = 16
"""Connections at once; `top` keeps one."""
_IDLE_SECONDS: Final = 60.0
"""How long a connection may ask nothing, or not take its answer."""
_CHUNK: Final = 65536


@dataclass
class Living:
    """A mount as its control socket knows it.

    `nursery` is the mount's, for layers that come while it lives. `rules` are what is to go wrong,
    where the mount was made for it. `is_part`: frames go to another process, which has made the
    mount. `began` is seconds since 1970. `notes` are for people: where figures are to be had.
    """

    mountpoint: str
    end: End
    nursery: trio.Nursery
    program: str
    rules: Rules | None = None
    is_part: bool = False
    began: float = field(default_factory=time.time)
    notes: dict[str, str] = field(default_factory=dict)

    @functools.cached_property
    def joints(self) -> Joints:
        """The layers that have come while it lives; made when the first one comes."""
        from .joints import Joints

        return Joints(self.end, self.nursery)


class Looking(ExitStack):
    """What lives as long as who asks stays connected."""

    measuring: Measuring | None = None


async def serve_control(living: Living) -> None:
    """Answer questions about `living` until cancelled. Never raises but Cancelled."""
    try:
        async with _listener() as listener:
            await _accept(living, listener)
    except OSError as exc:
        _log.warning("there is no control socket for %s: %s", living.mountpoint, exc)
    except Exception:
        _log.exception("the control socket of %s has ended", living.mountpoint)


@asynccontextmanager
async def _listener() -> AsyncIterator[socket.socket]:
    """Yield a listening socket called by our process id; whatever had that name is dead.

    It gets the name when it listens: who is refused there knows that nobody will ever listen.
    """
    path = own_directory() / str(os.getpid())
    unready = path.with_name(f".{path.name}")
    unready.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with listener:
        before = os.umask(0o177)
        try:
            with short_name(unready) as name:
                listener.bind(name)
        finally:
            os.umask(before)
        try:
            listener.listen(_CONNECTIONS_MAX)
            unready.rename(path)
            yield listener
        finally:
            _unlink(path)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        _log.info("%s stays: %s", path, exc.strerror)


async def _accept(living: Living, listener: socket.socket) -> None:
    limit = trio.CapacityLimiter(_CONNECTIONS_MAX)
    waiting = trio.socket.from_stdlib_socket(listener)
    async with trio.open_nursery() as nursery:
        while True:
            # A turn first: who comes when all are taken waits in the queue of the socket.
            turn = object()
            await limit.acquire_on_behalf_of(turn)
            try:
                connection, _ = await waiting.accept()
            except OSError as exc:
                limit.release_on_behalf_of(turn)
                _log.info("nobody can ask about %s now: %s", living.mountpoint, exc)
                await trio.sleep(1)
                continue
            nursery.start_soon(_connected, living, connection, limit, turn)


async def _connected(
    living: Living, connection: trio.socket.SocketType, limit: trio.CapacityLimiter, turn: object
) -> None:
    try:
        async with trio.SocketStream(connection) as stream:
            uid = _peer_uid(connection)
            if uid not in (0, os.geteuid()):
                _log.warning("user %d asks about %s and gets no answer", uid, living.mountpoint)
                return
            with Looking() as looking:
                await _answer_all(living, stream, looking)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # who asked has gone
    except Exception:
        _log.exception("a question about %s has met a bug", living.mountpoint)
    finally:
        limit.release_on_behalf_of(turn)


def _peer_uid(connection: trio.socket.SocketType) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    return int(uid)


async def _answer_all(living: Living, stream: trio.SocketStream, looking: Looking) -> None:
    """Answer one question after the other; what is made for who asks lives in `looking`."""
    # Not before somebody asks: a mount that nobody looks into does not pay for it.
    from .commands import answer

    rest = bytearray()
    while True:
        with trio.move_on_after(_IDLE_SECONDS) as scope:
            line = await _line(stream, rest)
        if scope.cancelled_caught or line is None:
            return
        try:
            question = decode_question(line)
            reply = encode_answer(await answer(living, question.ask, question.args, looking))
        except ControlError as exc:
            reply = encode_error(str(exc))
        with trio.move_on_after(_IDLE_SECONDS) as scope:
            await stream.send_all(reply)
        if scope.cancelled_caught:
            return


async def _line(stream: trio.SocketStream, rest: bytearray) -> bytes | None:
    """Return the next line, None at the end. What is longer than QUESTION_MAX ends it as well."""
    searched = 0
    while True:
        at = rest.find(b"\n", searched)
        if 0 <= at < QUESTION_MAX:
            line = bytes(rest[:at])
            del rest[: at + 1]
            return line
        searched = len(rest)
        if searched >= QUESTION_MAX:
            return None
        more = await stream.receive_some(_CHUNK)
        if not more:
            return None
        rest += more
