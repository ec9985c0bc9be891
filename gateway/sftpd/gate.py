"""Whom to let in at all, before anything is known about them but where they are.

Pure bookkeeping: the time and the dice come from outside.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from ..sshd.settings import SshSettings

SOURCES_MAX: Final = 65536
"""Sources with failures that are remembered; the longest quiet one is forgotten first."""
_IPV6_PREFIX: Final = 64
"""What one customer has of IPv6 at least: addresses within are one source."""


@dataclass(slots=True)
class _Record:
    """What is known of a source that has failed."""

    level: int
    """Failures in a row; the next penalty is `seconds` times 2 to this power."""
    refused_until: float
    forgotten_at: float


def source_of(address: str) -> str:
    """Return what an address is counted as."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        return str(ip_network((ip, _IPV6_PREFIX), strict=False))
    return address


class Gate:
    """Counts connections by number, from `enter` to `leave`.

    `clock` gives seconds, `dice` a number from 0 to 1.
    """

    def __init__(
        self, settings: SshSettings, clock: Callable[[], float], dice: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._dice = dice
        self._inside: dict[int, str] = {}
        self._startups: set[int] = set()
        self._by_source: Counter[str] = Counter()
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self.refused: Counter[str] = Counter()
        """Connections that were refused, by reason."""

    def update(self, settings: SshSettings) -> None:
        """Go on with other limits; those inside stay."""
        self._settings = settings

    @property
    def connections(self) -> int:
        """How many are inside."""
        return len(self._inside)

    @property
    def startups(self) -> int:
        """How many are inside that have not logged in."""
        return len(self._startups)

    @property
    def penalised(self) -> int:
        """How many sources are refused for their failures."""
        now = self._clock()
        return sum(record.refused_until > now for record in self._records.values())

    def refusal(self, address: str) -> str:
        """Return why a client there is not let in: a word, which is counted; or nothing."""
        reason = self._refusal(address)
        if reason:
            self.refused[reason] += 1
        return reason

    def _refusal(self, address: str) -> str:
        settings = self._settings
        source = source_of(address)
        record = self._records.get(source)
        if record is not None and record.refused_until > self._clock():
            if not self._is_exempt(address):
                return "penalty"
        if len(self._inside) >= settings.max_connections:
            return "connections"
        if settings.connections_per_source:
            if self._by_source[source] >= settings.connections_per_source:
                return "source"
        if self._is_drop(len(self._startups)):
            return "startups"
        return ""

    def _is_drop(self, count: int) -> bool:
        startups = self._settings.max_startups
        if count >= startups.full:
            return True
        if count < startups.start:
            return False
        chance = startups.rate + (100 - startups.rate) * (count - startups.start) / (
            startups.full - startups.start
        )
        return self._dice() * 100 < chance

    def enter(self, number: int, address: str) -> None:
        """A client is let in, and has not logged in."""
        source = source_of(address)
        self._inside[number] = address
        self._startups.add(number)
        self._by_source[source] += 1

    def log_in(self, number: int) -> None:
        """It has logged in."""
        self._startups.discard(number)

    def leave(self, number: int, *, is_failure: bool) -> None:
        """It has left; `is_failure` costs its source a penalty."""
        address = self._inside.pop(number)
        self._startups.discard(number)
        source = source_of(address)
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]
        if is_failure and not self._is_exempt(address):
            self._punish(source)

    def _punish(self, source: str) -> None:
        penalties = self._settings.penalties
        if not penalties.seconds:
            return
        now = self._clock()
        record = self._records.pop(source, None)
        if record is None or record.forgotten_at <= now:
            record = _Record(0, now, now)
        # No larger power than needed: the level of a patient source grows without end.
        seconds = min(penalties.seconds * 2 ** min(record.level, 64), penalties.cap_seconds)
        record.level += 1
        record.refused_until = max(record.refused_until, now + seconds)
        record.forgotten_at = record.refused_until + penalties.cap_seconds
        self._records[source] = record
        while self._records and (
            len(self._records) > SOURCES_MAX
            or next(iter(self._records.values())).forgotten_at <= now
        ):
            self._records.popitem(last=False)

    def _is_exempt(self, address: str) -> bool:
        ip = ip_address(address)
        return any(ip in network for network in self._settings.penalties.exempt)
