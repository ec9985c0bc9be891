"""What marshalling costs: each message through the C codec and through the reference in Python.

The messages and the measuring are those of tests/native/bench_codec.py, which prints them all.
"""

from __future__ import annotations

import gc
from typing import Final

from rich.console import Console
from rich.table import Table

from ..native.bench_codec import rows
from .report import Shortfall

FRAME_OWED: Final = 5.0
"""The most that marshal and unmarshal of one frame may cost together, microseconds."""
NAME_OWED: Final = 5.0
"""How many times as fast as the reference a NAME reply of 100 entries has to be decoded."""


_BOTH: Final = ", both"


def print_frames(out: Console) -> list[Shortfall]:
    """Measure and print; return what falls short.

    Frames with a hundred entries are not held against the budget of a single frame.
    """
    shortfalls: list[Shortfall] = []
    frames = Table(title="One puffs frame, marshal and unmarshal together, microseconds")
    packets = Table(title="One SFTP message, microseconds")
    for title in ("frame", "C", "struct", "ratio"):
        frames.add_column(title, justify="left" if title == "frame" else "right")
    for title in ("message", "C", "struct", "ratio"):
        packets.add_column(title, justify="left" if title == "message" else "right")
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        for name, ours, theirs in rows():
            debt = _debt(name, ours, theirs)
            if debt:
                shortfalls.append(Shortfall(True, f"{name}: {debt}"))
            mark = " OWED" if debt else ""
            cells = (name, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.1f}{mark}")
            if name.startswith("sftp "):
                packets.add_row(*cells)
            elif debt or name.endswith(_BOTH):
                frames.add_row(*cells)
    finally:
        if was_collecting:
            gc.enable()
    out.print(frames)
    out.print(packets)
    return shortfalls


def _debt(name: str, ours: float, theirs: float) -> str:
    """Return what is owed of one message, "" for nothing."""
    if theirs < ours:
        return f"{ours:.2f} us, the reference {theirs:.2f} us"
    many = ", 100 " in name
    if name.endswith(_BOTH) and not many and ours > FRAME_OWED:
        return f"{ours:.2f} us, owed {FRAME_OWED:.0f} us"
    if name.startswith("sftp name, ") and _octets(name) > 1000 and theirs < NAME_OWED * ours:
        return f"{theirs / ours:.1f} times as fast as the reference, owed {NAME_OWED:.0f}"
    return ""


def _octets(name: str) -> int:
    return int(name.split()[2])
