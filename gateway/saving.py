"""What people see while a mount that ends saves what was written last: how much is left of it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..layers.psshfs.mount.saving import Unsaved

_log = logging.getLogger(__name__)

_SHOW_AFTER: Final = 1.0
"""Seconds that nobody need be told of."""
_LOG_EVERY: Final = 10.0
"""Seconds between two lines of a log."""


class SavingLine:
    """Called again and again with what is left, with zeros at the end: shows it in one line of the
    terminal that standard error is, or, if it is none, in a line of the log now and then.

    `clock` gives seconds.
    """

    def __init__(self, special: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._special = special
        self._clock = clock
        self._begun: float | None = None
        self._first = 0
        self._logged = 0.0
        self._is_shown = False

    def __call__(self, left: Unsaved) -> None:
        """Show what is left."""
        now = self._clock()
        if self._begun is None:
            self._begun, self._first = now, left.octets
            self._logged = now
        if not left.files:
            self._show("")
        elif now - self._begun >= _SHOW_AFTER:
            text = _text(left, self._first - left.octets, now - self._begun)
            if os.isatty(2):
                self._show(f"{text} ...")
            elif now - self._logged >= _LOG_EVERY:
                self._logged = now
                _log.warning("%s: %s", self._special, text)

    def _show(self, text: str) -> None:
        if text or self._is_shown:
            self._is_shown = bool(text)
            with suppress(OSError):
                os.write(2, b"\r\x1b[K" + text.encode())


def _text(left: Unsaved, saved: int, seconds: float) -> str:
    """Return how much is left and how fast it gets less, for people."""
    files = "1 file" if left.files == 1 else f"{left.files} files"
    return f"saving {files}, {_octets(left.octets)} left, {_octets(saved / seconds)}/s"


def _octets(count: float) -> str:
    units = ["GB", "MB", "kB"]
    unit = "B"
    while count >= 1000 and units:
        count /= 1000
        unit = units.pop()
    return f"{count:.1f} {unit}" if count < 100 and unit != "B" else f"{count:.0f} {unit}"
