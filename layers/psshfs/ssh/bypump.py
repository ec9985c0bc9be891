"""Streams carried by our own pump process: asyncssh on uvloop."""

from __future__ import annotations

import json
import logging
import socket as _socket
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from .carrier import LEAVE_TIME, SshOptions, Stream, make_pair
from .failure import Cause, ConnectError
from .target import Target

_log = logging.getLogger(__name__)

_STATUS_MAX = 1 << 16
"""Longest status line of the pump, octets."""


async def run_pump(target: Target, options: SshOptions) -> tuple[Stream, PumpWatch]:
    """Start the pump; it waits for the orders that `PumpWatch.start` gives."""
    ours, theirs = make_pair()
    status, their_status = _socket.socketpair()
    try:
        process = await trio.lowlevel.open_process(
            [
                # -P: a module of the same name in the current directory is none of ours.
                *(sys.executable, "-P", "-m", "syspuffs.layers.psshfs.ssh.pump"),
                *(str(theirs.fileno()), str(their_status.fileno())),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), their_status.fileno()),
        )
    except OSError as exc:
        ours.close()
        status.close()
        raise ConnectError(Cause.NOT_FOUND, f"cannot run {sys.executable}: {exc.strerror}") from exc
    except BaseException:
        ours.close()
        status.close()
        raise
    finally:
        theirs.close()
        their_status.close()
    status.setblocking(False)
    stream = Stream(ours, process, "asyncssh", target.host)
    watch = PumpWatch(stream, trio.socket.from_stdlib_socket(status), target, options)
    stream.open_channel = watch.open_channel
    return stream, watch


class PumpWatch:
    """Talks with the pump over the status channel: one JSON object a line, both ways."""

    def __init__(
        self,
        stream: Stream,
        status: trio.socket.SocketType,
        target: Target,
        options: SshOptions,
    ) -> None:
        self._stream = stream
        self._status = trio.SocketStream(status)
        self._buffer = bytearray()
        self._request = {
            "user": target.user,
            "host": target.host,
            "port": options.port,
            "config_file": options.config_file,
            "options": list(options.options),
            "compression": options.compression,
            "password": options.password,
            "subsystem": options.subsystem,
            "dead_after": options.dead_after,
        }

    async def start(self) -> None:
        """Hand the pump its orders and return when the server has granted the subsystem."""
        with suppress(trio.BrokenResourceError):  # it died: the status it left has the cause
            await self._status.send_all(json.dumps(self._request).encode() + b"\n")
        while (event := await self._receive()) is not None:
            if event.get("event") == "ready":
                self._stream.description = str(event.get("text"))
                self._stream.hold()
                return
        raise await self._conclude()

    @asynccontextmanager
    async def open_channel(self) -> AsyncIterator[_socket.socket]:
        """Have the pump open a further SFTP channel on its connection; give the stream's socket.

        It is entered at once: a server that grants no more channels ends the stream.
        Errors: `ConnectError` DIED when the pump has ended.
        """
        ours, theirs = make_pair()
        with ours:
            with theirs:
                rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", [theirs.fileno()]))
                try:
                    await self._status.socket.sendmsg([b"\n"], [rights])
                except (OSError, trio.ClosedResourceError) as exc:
                    raise ConnectError(Cause.DIED, f"no further channel: {exc}") from exc
            yield ours

    def close(self) -> None:
        """Close the status channel; harmless when called twice."""
        self._status.socket.close()

    async def run(self) -> None:
        """Watch until the pump has ended and the stream knows why."""
        while await self._receive() is not None:
            pass
        await self._conclude()

    async def _conclude(self) -> ConnectError:
        """Wait for the end of a pump that has closed its status channel."""
        await self._status.aclose()
        with trio.move_on_after(LEAVE_TIME):
            await self._stream.process.wait()
        await self._stream.terminate()
        status = self._stream.process.returncode
        assert status is not None
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        failure = ConnectError(
            Cause.DIED, f"connection to {self._stream.host} lost: its ssh process {how}"
        )
        self._stream.die(failure)
        return await self._stream.wait_death()

    async def _receive(self) -> dict[str, object] | None:
        """Give the next event, None at the end; notes and failures are dealt with here."""
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                data = await self._status.receive_some(_STATUS_MAX)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data or len(self._buffer) > _STATUS_MAX:
                return None
            self._buffer += data
        event: dict[str, object] = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        match event.get("event"):
            case "failed":
                failure = ConnectError(Cause(event["kind"]), str(event["text"]))
                if self._stream.failure is None:
                    self._stream.failure = failure
            case "note":
                _log.info("%s: %s", self._stream.host, event.get("text"))
        return event
