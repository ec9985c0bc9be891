"""What sessions did: lines for an audit, events for others, figures for Prometheus.

A gateway has one `Recorder` (recorder.py); each session gets a journal from it (journal.py), which
hears of every request when it has ended, and hands on what is wanted: a line to the one writer
(writer.py), an event to the queue of each hook (events.py, hooks.py), counts to the figures
(metrics.py, exporter.py). Nothing of this makes a session wait: queues are bounded, and what has
no room is counted as lost and said to be.
"""

from __future__ import annotations

from .lines import Who
from .recorder import Recorder, recording
from .settings import (
    AuditSettings,
    CommandHook,
    EventKind,
    EventSettings,
    HttpHook,
    MetricsSettings,
    Target,
)

__all__ = [
    "AuditSettings",
    "CommandHook",
    "EventKind",
    "EventSettings",
    "HttpHook",
    "MetricsSettings",
    "Recorder",
    "Target",
    "Who",
    "recording",
]
