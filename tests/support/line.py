"""A network between a client and a server on this machine, with the weather that a test asks for.

    with Line(sshd.port, round_trip=0.2) as line:
        ... sshd.options_by(line.port) ...
        line.cut()

The line is a process of its own (`python -m tests.support.line`), so that neither side waits for
the other's interpreter. Octets keep their order and arrive half a round trip after they were
sent; with a rate they leave one after the other, behind a queue of bounded length. What cannot
be in flight or in the queue waits with its sender, as with TCP's windows.

`Line` may be steered from trio too: a command is answered within a millisecond or so and waits for
nobody but the line.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple

_CHUNK: Final = 1 << 18
_FLIGHT: Final = 64 << 20
"""Octets on their way in one direction of one connection; 320 MB/s at 200 ms."""
_QUEUE: Final = 1 << 19
"""Octets that wait before a line with a rate: 40 ms at 100 Mbit/s, as a home router has."""
_PATIENCE: Final = 10.0

Side = Literal["client", "server"]


class Traffic(NamedTuple):
    """What the line has carried: connections ever and now, octets from client and server."""

    accepted: int
    alive: int
    from_client: int
    from_server: int


class Line:
    """A line to `port` on the loopback; `with` starts and ends it. `Line.port` is its near end.

    `round_trip` is seconds, `rate` octets a second each way (None: as fast as it goes). The weather
    is for all connections together and lasts until it is changed. Errors: RuntimeError when
    the line's process has died.
    """

    def __init__(self, port: int, *, round_trip: float = 0.0, rate: float | None = None) -> None:
        self.port = 0
        self._far = port
        self._round_trip = round_trip
        self._rate = rate
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Line:
        root = Path(__file__).resolve().parents[2]
        words = [str(self._far), str(self._round_trip), str(self._rate or 0)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.line", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        try:
            self.port = int(self._ask("port"))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the line and all its connections; harmless when called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_PATIENCE)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def _ask(self, command: str, *args: object) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([command, *args]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError("the line has died")
        return json.loads(answer)

    def tune(self, *, round_trip: float | None = None, rate: float | None = None) -> None:
        """Change delay or rate of what is sent from now on; a rate of 0 is none."""
        self._ask("tune", round_trip, rate)

    def cut(self, *, how: Literal["reset", "end"] = "reset") -> int:
        """End all connections, with what is on its way; return how many there were.

        "reset": both sides get an RST; "end": both sides read the end, as of a peer that closed.
        """
        return int(self._ask("cut", how))

    def refuse(self, *, on: bool = True) -> None:
        """Refuse connections from now on (ECONNREFUSED), or accept them again at the same port.

        Those that there are stay.
        """
        self._ask("refuse", on)

    def hold(self, *, on: bool = True) -> None:
        """Let nothing through either way, or everything again, in order and without loss.

        That is what a cable does that is pulled and put back within TCP's patience: senders fill
        their buffers and hear nothing; who connects gets no answer.
        """
        self._ask("hold", on)

    def swallow(self, *, on: bool = True) -> None:
        """Take everything from both sides and lose it, connections kept; a black hole.

        Afterwards the connections that have lost octets go on without them, so they are broken for
        any protocol; new ones are whole.
        """
        self._ask("swallow", on)

    def half_close(self, side: Side) -> int:
        """Let `side` read the end of every connection, while it can still send.

        The other side is not heard any more.
        """
        return int(self._ask("half_close", side))

    def inject(self, side: Side, octets: bytes) -> int:
        """Put octets into what `side` reads, between what was on its way and what comes."""
        return int(self._ask("inject", side, octets.hex()))

    def traffic(self) -> Traffic:
        """Return what has been carried until now."""
        return Traffic(*self._ask("traffic"))


# The line itself.


class _Way:
    """One direction of a connection.

    `queue` holds (when it is due, octets): octets are a view, or b"" for the end.
    """

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.queue: deque[tuple[float, memoryview]] = deque()
        self.flight = 0
        self.free_at = 0.0
        self.is_read_to_end = False
        self.is_ended = False
        self.is_blocked = False

    def put(self, octets: bytes, weather: _Weather, now: float) -> None:
        """Send octets off; b"" is the end."""
        leaves = max(now, self.free_at)
        if weather.rate:
            leaves += len(octets) / weather.rate
            self.free_at = leaves
        self.queue.append((leaves + weather.delay, memoryview(octets)))
        self.flight += len(octets)

    def has_room(self, weather: _Weather, now: float) -> bool:
        """Tell whether more may be read from the source."""
        if self.is_read_to_end:
            return False
        if weather.rate and (self.free_at - now) * weather.rate > _QUEUE:
            return False
        return self.flight < _FLIGHT

    def deliver(self, now: float) -> None:
        """Write what is due. Errors: OSError when the sink is gone."""
        queue = self.queue
        self.is_blocked = False
        while queue and queue[0][0] <= now:
            due, octets = queue[0]
            if octets:
                try:
                    sent = self.sink.send(octets)
                except BlockingIOError:
                    self.is_blocked = True
                    return
                self.flight -= sent
                if sent < len(octets):
                    queue[0] = due, octets[sent:]
                    continue
            elif not self.is_ended:
                self.end()
            queue.popleft()

    def end(self) -> None:
        """Let the sink read the end."""
        self.is_ended = True
        with suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)


class _Weather:
    """What is the same for all connections; `delay` is one way, seconds."""

    def __init__(self, delay: float, rate: float) -> None:
        self.delay = delay
        self.rate = rate
        self.holds = False
        self.swallows = False


class _Pair:
    """A connection: the two sockets and the two ways between them."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.up = _Way(near, far)
        self.down = _Way(far, near)
        self.interest = {near.fileno(): 0, far.fileno(): 0}

    def towards(self, side: str) -> _Way:
        return self.down if side == "client" else self.up


class _Carrier:
    """The loop of the line's process."""

    def __init__(self, far: int, weather: _Weather) -> None:
        self._far = far
        self._weather = weather
        self._epoll = select.epoll()
        self._pairs: dict[int, _Pair] = {}  # by either descriptor
        self._listener: socket.socket | None = None
        self._port = 0
        self._accepted = 0
        self._octets = [0, 0]
        self._input = b""
        self._listen()
        self._epoll.register(0, select.EPOLLIN)

    def run(self) -> None:
        """Carry until the standard input ends."""
        while self._wait():
            now = time.monotonic()
            for pair in set(self._pairs.values()):
                self._serve(pair, now)

    def _wait(self) -> bool:
        """Wait for the next event or the next octets that are due; deal with commands."""
        timeout = None
        if not self._weather.holds:
            dues = [
                way.queue[0][0]
                for pair in self._pairs.values()
                for way in (pair.up, pair.down)
                if way.queue and not way.is_blocked
            ]
            if self._weather.rate:
                # A source that was left alone because of the queue is looked at again.
                dues += [
                    way.free_at - _QUEUE / self._weather.rate
                    for pair in self._pairs.values()
                    for way in (pair.up, pair.down)
                    if not way.is_read_to_end and not way.queue
                ]
                dues = [due for due in dues if due > 0]
            if dues:
                timeout = max(0.0, min(dues) - time.monotonic())
        # epoll's own time limit is in milliseconds, which would be a tenth of the delay.
        select.select([self._epoll], [], [], timeout)
        now = time.monotonic()
        for fd, events in self._epoll.poll(0):
            if fd == 0:
                if not self._obey():
                    return False
            elif self._listener is not None and fd == self._listener.fileno():
                self._accept()
            elif fd in self._pairs:
                self._receive(self._pairs[fd], fd, events, now)
        return True

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(64)
        listener.setblocking(False)
        self._port = listener.getsockname()[1]
        self._listener = listener
        if not self._weather.holds:
            self._epoll.register(listener, select.EPOLLIN)

    def _accept(self) -> None:
        assert self._listener is not None
        near, _ = self._listener.accept()
        far = socket.socket()
        try:
            far.connect(("127.0.0.1", self._far))
        except OSError:
            far.close()
            _reset(near)
            return
        self._accepted += 1
        pair = _Pair(near, far)
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._epoll.register(end, 0)
            self._pairs[end.fileno()] = pair

    def _receive(self, pair: _Pair, fd: int, events: int, now: float) -> None:
        way = pair.up if fd == pair.near.fileno() else pair.down
        if not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        if self._weather.holds or fd not in self._pairs:
            return
        if not way.has_room(self._weather, now):
            if events & select.EPOLLERR:
                self._drop(pair)
            return
        try:
            octets = way.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._drop(pair)
            return
        if not octets:
            way.is_read_to_end = True
        self._octets[way is pair.down] += len(octets)
        if not self._weather.swallows:
            way.put(octets, self._weather, now)

    def _serve(self, pair: _Pair, now: float) -> None:
        weather = self._weather
        if weather.holds:
            return
        for way in (pair.up, pair.down):
            try:
                way.deliver(now)
            except OSError:
                self._drop(pair)
                return
        if pair.up.is_ended and pair.down.is_ended:
            self._drop(pair, gently=True)
            return
        wanted = dict.fromkeys(pair.interest, 0)
        for way in (pair.up, pair.down):
            if way.has_room(weather, now):
                wanted[way.source.fileno()] |= select.EPOLLIN
            if way.is_blocked:
                wanted[way.sink.fileno()] |= select.EPOLLOUT
        for fd, events in wanted.items():
            if pair.interest[fd] != events:
                self._epoll.modify(fd, events)
                pair.interest[fd] = events

    def _drop(self, pair: _Pair, *, gently: bool = False) -> None:
        for end in (pair.near, pair.far):
            if self._pairs.pop(end.fileno(), None) is not None:
                # epoll forgets what is closed.
                if gently:
                    end.close()
                else:
                    _reset(end)

    # Commands.

    def _obey(self) -> bool:
        data = os.read(0, 65536)
        if not data:
            return False
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            name, *args = json.loads(line)
            answer = getattr(self, f"_do_{name}")(*args)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        return True

    def _do_port(self) -> int:
        return self._port

    def _do_tune(self, round_trip: float | None, rate: float | None) -> None:
        if round_trip is not None:
            self._weather.delay = round_trip / 2
        if rate is not None:
            self._weather.rate = rate

    def _do_cut(self, how: str) -> int:
        pairs = set(self._pairs.values())
        for pair in pairs:
            self._drop(pair, gently=how == "end")
        return len(pairs)

    def _do_refuse(self, on: bool) -> None:
        if on and self._listener is not None:
            self._listener.close()  # epoll forgets it
            self._listener = None
        elif not on and self._listener is None:
            self._listen()

    def _do_hold(self, on: bool) -> None:
        if on == self._weather.holds:
            return
        self._weather.holds = on
        # Not looked at at all: epoll tells of a dead peer whether one asks for it or not.
        ends = {fd: 0 for fd in self._pairs}
        if self._listener is not None:
            ends[self._listener.fileno()] = select.EPOLLIN
        for fd, events in ends.items():
            if on:
                self._epoll.unregister(fd)
            else:
                self._epoll.register(fd, events)
        for pair in self._pairs.values():
            pair.interest = dict.fromkeys(pair.interest, 0)

    def _do_swallow(self, on: bool) -> None:
        self._weather.swallows = on
        if on:
            for pair in set(self._pairs.values()):
                for way in (pair.up, pair.down):
                    way.queue.clear()
                    way.flight = 0

    def _do_half_close(self, side: str) -> int:
        pairs = set(self._pairs.values())
        for pair in pairs:
            way = pair.towards(side)
            way.is_read_to_end = True
            way.put(b"", self._weather, time.monotonic())
        return len(pairs)

    def _do_inject(self, side: str, octets: str) -> int:
        pairs = set(self._pairs.values())
        for pair in pairs:
            pair.towards(side).put(bytes.fromhex(octets), self._weather, time.monotonic())
        return len(pairs)

    def _do_traffic(self) -> tuple[int, int, int, int]:
        up, down = self._octets
        return self._accepted, len(self._pairs) // 2, up, down


def _reset(end: socket.socket) -> None:
    """Close with an RST."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()


def main() -> None:
    """Be a line: PORT ROUND-TRIP RATE, commands on the standard input as lines of JSON."""
    port, round_trip, rate = sys.argv[1:]
    _Carrier(int(port), _Weather(float(round_trip) / 2, float(rate))).run()


if __name__ == "__main__":
    main()
