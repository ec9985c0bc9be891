"""Figures for Prometheus, in a registry of their own.

Counters are fed as things happen. What can be asked for at any time (octets of living sessions,
lengths of queues, use of quotas) is asked for when somebody fetches the figures, and costs nothing
otherwise.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ...native import sftp_server as sftp
from ..sftp import Session
from ..sftp.permitted import KINDS
from .names import STATUS_NAMES, status_name

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Seconds: a request that memory answers takes 50 us, one by a far server 20 to 300 ms."""

Figures = Callable[[], Mapping[str, float]]
"""Asks for figures, each with its label."""


class Metrics(Collector):
    """All figures of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        into = self._registry
        self._sessions = Gauge("syspuffs_sessions", "SFTP sessions now", ["account"], registry=into)
        self._begun = Counter(
            "syspuffs_sessions_begun", "SFTP sessions so far", ["account"], registry=into
        )
        self._logins = Counter("syspuffs_logins", "Attempts to log in", ["result"], registry=into)
        requests = Counter("syspuffs_requests", "SFTP requests", ["request"], registry=into)
        failures = Counter(
            "syspuffs_failures", "SFTP requests that failed", ["status"], registry=into
        )
        seconds = Histogram(
            "syspuffs_request_seconds",
            "How long SFTP requests took",
            ["request"],
            buckets=_BUCKETS,
            registry=into,
        )
        # Looked up once: a labelled child costs a lock and two tuples each time.
        self._by_kind = {
            kind.record: (requests.labels(kind.name).inc, seconds.labels(kind.name).observe)
            for kind in KINDS
        }
        self._failures = {code: failures.labels(name).inc for code, name in STATUS_NAMES.items()}
        self._failed_oddly = failures.labels(status_name(-1)).inc
        self._living: dict[Session, str] = {}
        self._octets: Tally[tuple[str, str]] = Tally()
        self._figures: list[tuple[str, str, str, Figures]] = []
        self._registry.register(self)

    def page(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)

    # What happens.

    def login(self, result: str) -> None:
        """Count an attempt to log in; `result` is one of a few words."""
        self._logins.labels(result).inc()

    def request(self, kind: type[Any], code: int, seconds: float) -> None:
        """Count a request, its time and its failure."""
        found = self._by_kind.get(kind)
        if found is None:
            return
        count, observe = found
        count()
        observe(seconds)
        if code not in (sftp.FX_OK, sftp.FX_EOF):
            self._failures.get(code, self._failed_oddly)()

    @contextmanager
    def session(self, account: str, session: Session) -> Iterator[None]:
        """Count a session of `account` while the context lasts, and its octets for good."""
        self._sessions.labels(account).inc()
        self._begun.labels(account).inc()
        self._living[session] = account
        try:
            yield
        finally:
            self._sessions.labels(account).dec()
            del self._living[session]
            self._add(self._octets, account, session)

    @staticmethod
    def _add(octets: Tally[tuple[str, str]], account: str, session: Session) -> None:
        statistics = session.statistics()
        octets[account, "received"] += statistics.octets_received
        octets[account, "sent"] += statistics.octets_sent

    # What is asked for.

    def watch(self, name: str, text: str, label: str, figures: Figures) -> None:
        """Have `figures` asked for whenever somebody fetches: a gauge syspuffs_`name`."""
        self._figures.append((f"syspuffs_{name}", text, label, figures))

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        octets = Tally(self._octets)
        for session, account in self._living.items():
            self._add(octets, account, session)
        family = CounterMetricFamily(
            "syspuffs_octets", "Octets of the SFTP protocol", labels=["account", "direction"]
        )
        for labels, count in sorted(octets.items()):
            family.add_metric(labels, count)
        yield family
        for name, text, label, figures in self._figures:
            gauge = GaugeMetricFamily(name, text, labels=[label])
            for value, figure in sorted(figures().items()):
                gauge.add_metric([value], figure)
            yield gauge
