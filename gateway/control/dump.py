"""A dump to the log (SIGUSR1): requests under way, layers, their figures. One line for each."""

from __future__ import annotations

import logging

import msgspec

from .commands import status
from .inflight import in_flight
from .server import Living

_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)  # who asks for a dump wants it in the log, however little is said there

_REQUESTS_MAX = 100


def dump(living: Living) -> None:
    """Write down what is going on now."""
    found = in_flight(living.end, _REQUESTS_MAX)
    state = status(living)
    _log.info(
        "dump: %s on %s type %s, %d requests under way",
        *(state["special"], state["mountpoint"], state["type"], found["count"]),
    )
    for request in found["requests"]:
        _log.info("dump: under way: %s", _line(request))
    for number, layer in enumerate(state["layers"]):
        _log.info("dump: layer %d %s: %s", number, layer["name"], _line(layer["statistics"]))


def _line(found: object) -> str:
    return msgspec.json.encode(found).decode()
