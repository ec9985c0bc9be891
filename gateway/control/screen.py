"""`top`: what goes on in a mount, on a screen that lives, or once."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..status import CommandError, Status
from .client import Connection, Found
from .text import console, plain, print_json

_PATHS: Final = 10
_QUIT: Final = frozenset(b"qQ\x1b\x03")


def show(found: Sequence[Found], seconds: float, *, once: bool, json: bool) -> int:
    """Show the figures of a mount every so many seconds until somebody presses q or ^C.

    `once`: print them once, and return. `json`: for programs; a line each time unless `once`.
    Errors: ControlError when the mount ends, CommandError.
    """
    with ExitStack() as stack:
        try:
            asked = [stack.enter_context(Connection(one.path)) for one in found]
        except OSError as exc:
            text = f"{found[0].mountpoint}: the mount has ended ({exc.strerror})"
            raise CommandError(Status.NOTHING_MOUNTED, text) from None
        _take(asked)  # the meters are there from now on
        if once or json:
            while True:
                time.sleep(seconds)
                answers = _take(asked)
                if json:
                    print_json(answers)
                    sys.stdout.flush()
                else:
                    console().print(_picture(found, answers))
                if once:
                    return Status.OK
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise CommandError(Status.USAGE, "top needs a terminal; --once and --json do without")
        _live(found, asked, seconds)
    return Status.OK


def _take(asked: Sequence[Connection]) -> list[dict[str, Any]]:
    return [connection.ask("measure") for connection in asked]


def _live(found: Sequence[Found], asked: Sequence[Connection], seconds: float) -> None:
    screen = Console(highlight=False)
    waiting = Text(f"{found[0].mountpoint}: figures every {seconds:g} s ... (q leaves)")
    with (
        _keys() as keyboard,
        Live(waiting, console=screen, screen=True, auto_refresh=False) as live,
    ):
        live.refresh()
        while not _pressed(keyboard, seconds):
            live.update(_picture(found, _take(asked), height=screen.height), refresh=True)


@contextmanager
def _keys() -> Iterator[int]:
    """Have keys at once and unseen; ^C becomes a key."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        # Output as before: rich ends its lines as ever.
        now = termios.tcgetattr(fd)
        now[1] = before[1]
        termios.tcsetattr(fd, termios.TCSANOW, now)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _pressed(keyboard: int, seconds: float) -> bool:
    """Wait so long; return whether to leave, at once."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([keyboard], [], [], left)[0]:
            keys = os.read(keyboard, 64)
            if not keys or _QUIT & set(keys):
                return True
    return False


def _picture(
    found: Sequence[Found], answers: Sequence[dict[str, Any]], height: int | None = None
) -> Group:
    """Return what is shown; with a height no more than that."""
    top = answers[0]
    first = top["layers"][0]["operations"] if top["layers"] else {}
    span = max(top["seconds"], 1e-9)
    count = sum(one["count"] for one in first.values())
    errors = sum(one["errors"] for one in first.values())
    octets = sum(one["octets"] for one in first.values())
    where = f"{found[0].mountpoint}  {found[0].summary['type']}"
    sums = (
        f"{count / span:.0f} operations/s  {errors / span:.0f} errors/s  "
        f"{octets / span / 1e6:.1f} MB/s  {top['in_flight']} under way"
    )
    head = [Text(plain(line), no_wrap=True, overflow="ellipsis") for line in (where, sums)]
    rows = None if height is None else max(3, height - _PATHS - 7)
    paths = _path_table(top["paths"], span)
    return Group(*head, Text(), _operation_table(answers, rows), Text(), paths)


def _operation_table(answers: Sequence[dict[str, Any]], rows: int | None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("LAYER", "OPERATION"):
        table.add_column(heading, no_wrap=True)
    for heading in ("PER S", "ERRORS", "MB/S", "P50", "P99", "LONGEST", "BUSY"):
        table.add_column(heading, justify="right", no_wrap=True)
    lines = []

    for answer in answers:
        span = max(answer["seconds"], 1e-9)
        for layer in answer["layers"]:
            name = f"{layer['layer']}:{layer['name']}"
            operations = sorted(layer["operations"].items(), key=lambda item: -item[1]["total"])
            lines += [(name, operation, one, span) for operation, one in operations]
    for name, operation, one, span in lines[:rows]:
        table.add_row(
            name,
            operation,
            f"{one['count'] / span:.0f}",
            f"{one['errors'] / span:.0f}" if one["errors"] else "",
            f"{one['octets'] / span / 1e6:.1f}" if one["octets"] else "",
            *(_time(one[key]) for key in ("p50", "p99", "longest")),
            f"{one['total'] / 1e9 / span:.2f}",
        )
    return table


def _path_table(paths: Sequence[dict[str, Any]], span: float) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("PER S", justify="right")
    table.add_column("BUSIEST PATHS", no_wrap=True)
    for one in paths[:_PATHS]:
        table.add_row(f"{one['count'] / span:.0f}", Text(plain(one["path"])))
    return table


def _time(ns: int) -> str:
    if ns < 1_000_000:
        return f"{ns / 1e3:.0f} us"
    return f"{ns / 1e6:.1f} ms" if ns < 1_000_000_000 else f"{ns / 1e9:.2f} s"
