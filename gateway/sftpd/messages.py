"""Messages of the daemon: to standard error, to syslog or to a file."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from typing import Final

from ..status import CommandError, Status
from .settings import LogSettings

_TO_FILE: Final = "%(asctime)s {program}[%(process)d] %(levelname)s: %(message)s"
_TO_OTHERS: Final = "{program}[%(process)d]: %(levelname)s: %(message)s"


def message_handler(settings: LogSettings, program: str) -> logging.Handler:
    """Return what sends messages where `settings` say, for `use_handler`.

    A file that others have renamed is made anew. Errors: CommandError for one that cannot be
    opened.
    """
    handler: logging.Handler
    form = _TO_OTHERS
    if settings.to == "stderr":
        handler = logging.StreamHandler(sys.stderr)
        if "JOURNAL_STREAM" not in os.environ:  # the journal has times of its own
            form = _TO_FILE
    elif settings.to == "syslog":
        try:
            handler = logging.handlers.SysLogHandler(
                "/dev/log", logging.handlers.SysLogHandler.LOG_DAEMON
            )
        except OSError:
            handler = logging.NullHandler()  # as syslog(3) does where nobody listens
    else:
        form = _TO_FILE
        try:
            handler = logging.handlers.WatchedFileHandler(settings.to)
        except OSError as exc:
            raise CommandError(
                Status.FAILURE, f"log.to: {settings.to}: {exc.strerror}; name another file"
            ) from None
    handler.setFormatter(logging.Formatter(form.format(program=program)))
    handler.setLevel(settings.level)
    return handler


def use_handler(handler: logging.Handler) -> None:
    """Send the messages of this process to `handler`, from now on and to no other."""
    logging.raiseExceptions = False
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(handler.level)
