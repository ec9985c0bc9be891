"""Figures of a living stack for Prometheus, and the loopback port on which they may be fetched.

Every number that `status` shows is a figure, with its layer: what a layer counts is not typed in
again here. What counts up and what goes up and down the layers do not say, so the type is
"unknown". Requests under way, the process and its memory come besides.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from ..audit.exporter import serve_page
from ..audit.metrics import CONTENT_TYPE
from .commands import status
from .server import Living

PATH: Final = "/metrics"
_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_]+")


class _Stack(Collector):
    def __init__(self, living: Living) -> None:
        self._living = living

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        requests = self._living.end.requests()
        now = time.monotonic_ns()
        oldest = max((now - one.since for one in requests if one.since), default=0)
        yield GaugeMetricFamily(
            "syspuffs_requests_in_flight", "Requests of the host under way", len(requests)
        )
        yield GaugeMetricFamily(
            "syspuffs_oldest_request_seconds", "Age of the oldest of them", oldest / 1e9
        )
        families: dict[str, UnknownMetricFamily] = {}
        for number, layer in enumerate(status(self._living)["layers"]):
            for words, value in _numbers(layer["statistics"]):
                name = _NO_NAME.sub("_", "_".join(("syspuffs", layer["name"], *words)))
                family = families.get(name)
                if family is None:
                    text = f"{' '.join(words).replace('_', ' ')} of {layer['name']}"
                    family = UnknownMetricFamily(name, text, labels=["layer"])
                    families[name] = family
                family.add_metric([str(number)], value)
        yield from families.values()


def _numbers(found: Mapping[str, Any]) -> Iterator[tuple[list[str], float]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from (([name, *words], number) for words, number in _numbers(value))
        elif isinstance(value, (int, float)):
            yield [name], float(value)


def page(living: Living) -> bytes:
    """Return all figures in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Stack(living))
    ProcessCollector(namespace="syspuffs", registry=registry)
    return generate_latest(registry)


async def serve_metrics(living: Living, listener: socket.socket) -> None:
    """Serve the page to who connects to `listener`, until cancelled. Owns it."""
    host, port = listener.getsockname()[:2]
    living.notes["metrics"] = f"http://{host}:{port}{PATH}"
    stream = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    await serve_page(stream, PATH, CONTENT_TYPE, lambda: page(living))
