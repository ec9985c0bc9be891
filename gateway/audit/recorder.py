"""All that is recorded of one gateway: the audit, the events and the figures, and their tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import trio

from ..sftp import Session, View
from .events import Events
from .exporter import serve_page
from .journal import SessionJournal
from .lines import Who, line, timestamp
from .metrics import CONTENT_TYPE, Metrics
from .settings import AuditSettings, EventSettings, MetricsSettings
from .writer import LineWriter

_log = logging.getLogger(__name__)

PAGE: Final = "/metrics"
"""Where the figures are."""


class Recorder:
    """Hears of logins and sessions. Made by `recording`, which owns its tasks.

    `port` is where the figures are served, None where they are not. `clock` gives seconds since
    1970.
    """

    def __init__(
        self,
        audit: AuditSettings | None,
        events: EventSettings,
        *,
        has_metrics: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._audit = audit
        self._writer = None if audit is None else LineWriter(audit, clock)
        self._events = _events_of(events)
        self._clock = clock
        self.metrics = Metrics() if has_metrics else None
        self.port: int | None = None
        if self.metrics is not None:
            self.metrics.watch("queued", "What waits to be written or told", "queue", self._queued)
            self.metrics.watch("lost", "What was not written or told", "queue", self._lost)

    def _queued(self) -> dict[str, float]:
        found: dict[str, float] = {q.name: q.statistics().queued for q in self._events.queues}
        if self._writer is not None:
            found["audit"] = self._writer.statistics().queued
        return found

    def _lost(self) -> dict[str, float]:
        found: dict[str, float] = {q.name: q.statistics().dead for q in self._events.queues}
        if self._writer is not None:
            found["audit"] = self._writer.statistics().lost
        return found

    def login(self, result: str, **facts: Any) -> None:
        """Record an attempt to log in: `result` is one of a few words, `facts` go to the audit."""
        if self.metrics is not None:
            self.metrics.login(result)
        if self._writer is not None:
            fields = {"time": timestamp(self._clock()), "operation": "login", "result": result}
            self._writer.put(line(fields | facts))

    def journal(self, who: Who, view: View) -> SessionJournal | None:
        """Return the journal for a new session over `view`; None when nobody wants to know."""
        if self._writer is None and self.metrics is None and not self._events.kinds:
            return None
        audit = self._audit
        return SessionJournal(
            who,
            view.handles,
            start=view.paths.start,
            put=None if self._writer is None else self._writer.put,
            looks=audit is not None and audit.looks,
            data=audit is not None and audit.data,
            events=self._events,
            metrics=self.metrics,
            clock=self._clock,
        )

    @contextmanager
    def session(self, who: Who, session: Session, journal: SessionJournal | None) -> Iterator[None]:
        """Record a session while the context lasts, in which it is served."""
        if journal is None:
            yield
            return
        journal.began()
        try:
            if self.metrics is None:
                yield
            else:
                with self.metrics.session(who.account, session):
                    yield
        finally:
            journal.ended(session)

    def reopen(self) -> None:
        """Write the audit to the file that has its name now (SIGHUP: the old one was moved)."""
        if self._writer is not None:
            self._writer.reopen()

    async def run(self, listener: trio.SocketListener | None) -> None:
        """Write, tell and serve until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._writer is not None:
                nursery.start_soon(self._writer.run)
            nursery.start_soon(self._events.run)
            if listener is not None and self.metrics is not None:
                nursery.start_soon(serve_page, listener, PAGE, CONTENT_TYPE, self.metrics.page)


def _events_of(settings: EventSettings) -> Events:
    if not settings.hooks:
        return Events(())
    from .hooks import queue_of  # httpx takes its time, and few gateways have hooks

    return Events([queue_of(hook) for hook in settings.hooks])


@asynccontextmanager
async def recording(
    audit: AuditSettings | None = None,
    events: EventSettings | None = None,
    metrics: MetricsSettings | None = None,
    *,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Recorder]:
    """Record while the context lasts; at its end what waits is written and told, within bounds.

    Errors: OSError when the port of the figures is taken.
    """
    has_metrics = metrics is not None and metrics.port is not None
    recorder = Recorder(audit, events or EventSettings(), has_metrics=has_metrics, clock=clock)
    listener = None
    if metrics is not None and metrics.port is not None:
        (listener, *more) = await trio.open_tcp_listeners(metrics.port, host=metrics.host)
        for other in more:
            await other.aclose()
        recorder.port = listener.socket.getsockname()[1]
        _log.info("figures are served on http://%s:%d%s", metrics.host, recorder.port, PAGE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run, listener)
        try:
            yield recorder
        finally:
            nursery.cancel_scope.cancel()
