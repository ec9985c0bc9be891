"""How much must be in flight to fill the link, and no more.

What is in flight beyond bandwidth times delay waits in queues on the way, and
every small request waits behind it: on a slow link eight megabytes read ahead
would hold an `ls` up for seconds. So the windows follow what the link is seen
to carry: the rate at which answers come, times the delay of a request that met
no other, twice over, so that a window that is too small doubles with each
round trip.
"""

from __future__ import annotations

from typing import Final

FAR: Final = 0.004
"""Seconds of round trip from which on a request that may turn out to be needless costs less than to
wait once more for one that was needed."""
INITIAL: Final = 1024 * 1024
"""The window while nothing is known, octets."""
FLOOR: Final = 1024 * 1024
"""What a window may have besides, octets: for time spent in disks and schedulers..."""
FLOOR_TIME: Final = 0.05
"""...but not more than the link carries in this time, seconds."""
DECAY: Final = 31 / 32
"""What becomes of the highest rate seen with every answer that is slower."""
CHANNEL: Final = 2 * 1024 * 1024
"""What one channel of SSH moves in a round trip at most with OpenSSH: its window, octets."""
ROUND_TRIP_AGE: Final = 300.0
"""For how long a shortest round trip counts, seconds (at least; twice that at most)."""


class RoundTrip:
    """The shortest time that a request took that was alone on the connection."""

    __slots__ = ("_current", "_former", "_since", "seconds")

    def __init__(self) -> None:
        self._current = self._former = float("inf")
        self._since = 0.0
        self.seconds = 0.0

    @property
    def is_far(self) -> bool:
        """Tell whether a trip costs more than a request that may be needless."""
        return self.seconds >= FAR

    def forget(self) -> None:
        """Begin anew: the way to the server may be another one."""
        self._current = self._former = float("inf")

    def add(self, seconds: float, now: float) -> None:
        """Take in what one request took."""
        if now - self._since > ROUND_TRIP_AGE:
            self._since = now
            self._former = self._current
            self._current = seconds
        elif seconds < self._current:
            self._current = seconds
        self.seconds = min(self._current, self._former)


class Pace:
    """The window of one direction, for all files together. Times are seconds of one clock."""

    __slots__ = ("_rate", "_round_trip", "delivered", "in_flight", "window")

    def __init__(self, round_trip: RoundTrip) -> None:
        self._round_trip = round_trip
        self._rate = 0.0
        self.in_flight = 0.0
        """Octets that the link is seen to hold: bandwidth times delay."""
        self.delivered = 0
        """Octets that were asked for or sent and have been answered."""
        self.window = INITIAL

    def answered(self, octets: int, before: int, since: float, now: float) -> None:
        """Hear that a request of `octets` was answered, which was made at `since`, when
        `delivered` was `before`."""
        self.delivered += octets
        elapsed = now - since
        if elapsed <= 0:
            return
        rate = (self.delivered - before) / elapsed
        self._rate = max(rate, self._rate * DECAY)
        self._set()

    def _set(self) -> None:
        self.in_flight = self._rate * self._round_trip.seconds
        self.window = int(2 * self.in_flight + min(FLOOR, self._rate * FLOOR_TIME))

    def expect(self, times: int) -> None:
        """Hear that there are so many times as many channels now, each as good as the one so far.

        Where they are not, `DECAY` takes it back; where the rate seen is that of several channels
        already, it stays.
        """
        round_trip = self._round_trip.seconds
        if round_trip and self._rate:
            most = times * CHANNEL / round_trip
            self._rate = max(self._rate, min(times * self._rate, most))
            self._set()
