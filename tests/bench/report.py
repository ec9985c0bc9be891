"""The tables as Markdown, and what falls short of what is owed or wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from rich.console import Console

from .links import Link
from .mounts import SSHFS, Contender
from .rounds import Results
from .rows import PAIR_GOALS, Row

MEMORY_GOAL: Final = 150 * 1_000_000
"""Resident memory of our daemon while streaming, octets (design.md, section 9)."""

CAT: Final = "cat"
"""The key of what copies without a file system."""

_WIDTH: Final = 160


@dataclass(frozen=True)
class Shortfall:
    """Something that is less than it should be; `owed` is due now, otherwise it is a goal."""

    owed: bool
    text: str


class Report:
    """Writes what was measured over `link`; `shortfalls` are collected on the way."""

    def __init__(
        self, link: Link, results: Results, rows: Sequence[Row], contenders: Sequence[Contender]
    ) -> None:
        self._link = link
        self._results = results
        self._rows = rows
        self._contenders = contenders
        self.shortfalls: list[Shortfall] = []

    def rates(self, row: Row, key: str) -> list[float]:
        """Return what was measured in one cell, in the units of the row."""
        samples = self._results.samples.get((row.key, key), [])
        return [row.rate(sample.amount, sample.seconds) for sample in samples]

    def _ratio(self, row: Row, key: str, base: str) -> float | None:
        ours, theirs = self.rates(row, key), self.rates(row, base)
        return median(ours) / median(theirs) if ours and theirs else None

    def speeds(self) -> Iterator[str]:
        """Give the lines of the main table: medians, their ratios, and the range."""
        yield f"## {self._link.title[0].upper()}{self._link.title[1:]}"
        yield ""
        yield f"Rates: medians of {self._results.rounds} interleaved rounds (lowest to highest)."
        yield ""
        yield from _line("work", *(contender.title for contender in self._contenders))
        yield from _line("---", *("---:" for _ in self._contenders))
        for row in self._rows:
            cells = (self._cell(row, contender) for contender in self._contenders)
            yield from _line(f"{row.title}, {row.unit}", *cells)
        yield ""
        for row in self._rows:
            if limit := row.limits.get(self._link.key):
                yield f"* {row.title}: {limit}"

    def _cell(self, row: Row, contender: Contender) -> str:
        if not contender.does(row.key):
            return ""
        key = contender.key
        rates = self.rates(row, key)
        fault = self._results.faults.get((row.key, key))
        if fault is not None:
            # A row that does not run at all is a debt, whoever is at fault.
            self.shortfalls.append(Shortfall(True, f"{self._name(row, contender)}: {fault}"))
        if not rates:
            return "-" if fault is None else "**failed**"
        ratios = []
        link = self._link.key
        if key not in (SSHFS, CAT):
            base = row.key if row.key != "late" else "create"
            ratio = self._ratio_of(row, key, base, SSHFS)
            goal = row.goals.get(link, {}).get(key)
            ratios.append(self._judge(row, contender, ratio, "x", "of sshfs", goal))
        if (wanted := row.of_cat.get(link)) and key in ("asyncssh", "ssh"):
            ratio = self._ratio(row, key, CAT)
            ratios.append(self._judge(row, contender, ratio, " of cat", "of ssh cat", wanted))
        if contender.plain is not None:
            ratio = self._ratio(row, key, contender.plain)
            goal = PAIR_GOALS.get(link) if contender.share is None else contender.share
            ratios.append(self._judge(row, contender, ratio, " of plain", "of plain psshfs", goal))
        words = [word for word in ratios if word]
        words.append(f"{_number(median(rates))} ({_number(min(rates))} to {_number(max(rates))})")
        if fault is not None:
            words.append("**sometimes failed**")
        return "<br>".join(words)

    def _ratio_of(self, row: Row, key: str, base_row: str, base: str) -> float | None:
        """Return the ratio to another row's rate, where the other has no such row of its own."""
        if base_row == row.key:
            return self._ratio(row, key, base)
        for other in self._rows:
            if other.key == base_row and (theirs := self.rates(other, base)):
                return median(self.rates(row, key)) / median(theirs)
        return None

    def _name(self, row: Row, contender: Contender) -> str:
        return f"{self._link.title}: {row.title}, {contender.title}"

    def _judge(
        self,
        row: Row,
        contender: Contender,
        ratio: float | None,
        unit: str,
        what: str,
        goal: float | None,
    ) -> str:
        """Return a ratio in words, with the goal behind it where it is less than that."""
        if ratio is None:
            return ""
        text = f"{ratio:.2f}{unit}"
        if not goal or ratio >= goal:
            return f"**{text}**" if goal else text
        short = f"{self._name(row, contender)}: {ratio:.2f} {what}, goal {goal:g}"
        self.shortfalls.append(Shortfall(True, short))
        return f"{text} (goal {goal:g})"

    def costs(self) -> Iterator[str]:
        """Give the lines of a table of CPU seconds of the daemons and their ssh, and memory."""
        measured = [c for c in self._contenders if c.rows is None]
        yield "CPU seconds, medians: the mount + its ssh (+ the server's end)."
        yield ""
        yield from _line("work", *(contender.title for contender in measured))
        yield from _line("---", *("---:" for _ in measured))
        for row in self._rows:
            cells = []
            for contender in measured:
                samples = self._results.samples.get((row.key, contender.key), [])
                parts = zip(*(sample.usage for sample in samples), strict=True)
                medians = [median(part) for part in parts]
                cells.append("{:.2f} + {:.2f} (+ {:.2f})".format(*medians) if medians else "")
            yield from _line(row.title, *cells)
        peaks = []
        for contender in measured:
            peak = self._results.peaks.get(contender.key)
            if peak is None:
                peaks.append("")
                continue
            if contender.key != SSHFS and peak > MEMORY_GOAL:
                text = f"memory, {contender.title}: {peak / 1e6:.0f} MB, goal 150 MB"
                self.shortfalls.append(Shortfall(False, text))
            peaks.append(f"{peak / 1e6:.0f} MB")
        yield from _line("resident memory at its highest", *peaks)
        ciphers = self._results.ciphers
        shown = (ciphers.get(c.key, "unknown").partition("@")[0] for c in measured)
        yield from _line("cipher", *shown)
        yield ""


def _line(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def print_shortfalls(console: Console, shortfalls: Sequence[Shortfall]) -> bool:
    """Print what falls short; return whether nothing that is owed does."""
    for owed, title in ((True, "Owed and not there"), (False, "Short of the goal")):
        lines = [shortfall.text for shortfall in shortfalls if shortfall.owed is owed]
        if lines:
            console.print(f"{title}:", style="bold red" if owed else "yellow")
            for line in lines:
                console.print(f"  {line}", markup=False, highlight=False)
        else:
            console.print(f"{title}: nothing", style="green")
    return not any(shortfall.owed for shortfall in shortfalls)


def console() -> Console:
    """Return where to print; as wide as the table needs when it is no terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=_WIDTH)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
