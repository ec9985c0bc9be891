"""Watches what is logged: a warning that nobody announced fails the test."""

from __future__ import annotations

import logging
import re


class LogWatch(logging.Handler):
    """Collects records of WARNING and above; `expect` announces some."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._expected: list[re.Pattern[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self.lines.append(text)

    def expect(self, pattern: str) -> None:
        """Announce records in whose "LEVEL name: message" the pattern is found."""
        self._expected.append(re.compile(pattern))

    def unexpected(self) -> list[str]:
        """Return what nobody announced."""
        return [
            line
            for line in self.lines
            if not any(pattern.search(line) for pattern in self._expected)
        ]


BAD_LINE = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|Traceback|exception", re.IGNORECASE)
"""In the log of a command: what fails the test that was running."""
