"""Traces done again on stacks by their string, and made small, for `puffs_trace`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO

import trio

from ...layers.ops import FileServer
from ...layers.replay import compared, replay, shrink
from ...layers.replay.values import Difference
from ...layers.trace import Event, TraceError, events
from ...native.constants import MNT_FORCE
from ..assembly import served_ground
from ..comparing import both_shown
from ..stack import Element, built
from .text import line


@asynccontextmanager
async def stack_server(
    elements: Sequence[Element], special: str, words: Sequence[str]
) -> AsyncIterator[FileServer]:
    """Build a stack for the time of a block and unmount it at the end."""
    ground = served_ground(elements, special, words, readonly=False)
    async with built(elements, ground) as stack:
        try:
            yield stack.server
        finally:
            with trio.CancelScope(shield=True):
                await stack.server.unmount(MNT_FORCE)


def of_one_layer(file: Path, layer: int) -> list[Event]:
    """Return what one layer has seen. Errors: OSError, TraceError."""
    found = [event for event in events(file) if event.layer == layer]
    if not found:
        raise TraceError(f"there is nothing of layer {layer} in it")
    return found


async def replay_on(
    trace: list[Event],
    elements: Sequence[Element],
    special: str,
    words: Sequence[str],
    out: TextIO,
    *,
    paced: bool,
) -> bool:
    """Do a trace again, say what comes out else, and return whether nothing does."""
    async with stack_server(elements, special, words) as server:
        run = await replay(server, trace, paced=paced)
    differences = list(compared(run.events, run.expected, run.seen))
    for difference in differences:
        _say(difference, out)
    done = len(run.events) - run.skipped
    print(f"{done} operations, {run.skipped} left out, {len(differences)} differences", file=out)
    return not differences


async def shrink_on(
    trace: list[Event],
    elements: Sequence[Element],
    believed: Sequence[Element],
    special: str,
    words: Sequence[str],
    out: TextIO,
) -> bool:
    """Make a trace small on which `elements` differ from `believed`; False when they do not.

    `words` are for `elements` only: what is believed has no faults.
    """
    small = await shrink(
        trace,
        lambda: stack_server(elements, special, words),
        lambda: stack_server(believed, special, []),
    )
    for event in small:
        print(line(event), file=out)
    return bool(small)


def _say(difference: Difference, out: TextIO) -> None:
    print(line(difference.event), file=out)
    expected, seen = both_shown(difference.expected, difference.seen)
    print(f"  {difference.kind}: expected {expected}, got {seen}", file=out)
