"""The table, and what falls short of what is owed or wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .mounts import SSHFS, Contender
from .rounds import Results
from .rows import Row

MEMORY_GOAL: Final = 150 * 1_000_000
"""Resident memory of our daemon while streaming, octets (design.md, section 9)."""

_WIDTH: Final = 160


@dataclass(frozen=True)
class Shortfall:
    """Something that is less than it should be; `owed` is due now, otherwise it is a goal."""

    owed: bool
    text: str


class Report:
    """Prints `results`; `shortfalls` are collected on the way."""

    def __init__(
        self,
        console: Console,
        results: Results,
        rows: Sequence[Row],
        contenders: Sequence[Contender],
    ) -> None:
        self._console = console
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

    def print_speeds(self) -> None:
        """Print the main table: medians, their ratios to sshfs, and the range."""
        self._console.print(
            f"Rates over the loopback: medians of {self._results.rounds} interleaved rounds, "
            "lowest and highest.\n'x' is the ratio to sshfs, 'of plain' that of the stack to "
            "'psshfs, ssh'. Marked: OWED (due now), short (of the goal).",
            highlight=False,
        )
        table = Table(show_lines=True)
        table.add_column("row")
        for contender in self._contenders:
            table.add_column(contender.title, justify="right", no_wrap=True)
        for row in self._rows:
            cells = [self._cell(row, contender) for contender in self._contenders]
            table.add_row(Text(f"{row.title}\n{row.unit}"), *cells)
        self._console.print(table)

    def _cell(self, row: Row, contender: Contender) -> Text:
        if contender.rows is not None and row.key not in contender.rows:
            return Text("")
        rates = self.rates(row, contender.key)
        if not rates:
            reason = self._results.faults.get((row.key, contender.key))
            if reason is None:
                return Text("-")  # the user had enough before it came to this
            self._fall_short(row, contender, reason)
            return Text("FAILED", style="bold red")
        cell = Text()
        ratio = self._ratio(row, contender.key, SSHFS)
        if ratio is not None and contender.key != SSHFS:
            self._judge(cell, row, contender, f"{ratio:.2f}x", ratio, "sshfs")
        if contender.plain is not None:
            share = self._ratio(row, contender.key, contender.plain)
            if share is not None:
                self._judge(cell, row, contender, f"{share:.2f} of plain", share, "plain psshfs")
        cell.append(f"{_number(median(rates))}\n", style="bold" if contender.key == SSHFS else "")
        cell.append(f"[{_number(min(rates))} .. {_number(max(rates))}]", style="dim")
        if fault := self._results.faults.get((row.key, contender.key)):
            cell.append("\nsometimes FAILED", style="bold red")
            self._fall_short(row, contender, fault)
        return cell

    def _judge(
        self, cell: Text, row: Row, contender: Contender, text: str, ratio: float, base: str
    ) -> None:
        """Put a ratio into the cell, marked where it is less than it should be."""
        if base == "sshfs":
            owed = row.owed.get(contender.goals or "")
            goal = row.goals.get(contender.goals or "")
        else:
            owed, goal = row.pair_owed, row.pair_goal
        mark, style = "", "green" if ratio >= 1 else ""
        for due, wanted in ((True, owed), (False, goal)):
            if wanted is None or ratio >= wanted:
                continue
            mark, style = (" OWED" if due else " short"), ("bold red" if due else "yellow")
            self.shortfalls.append(
                Shortfall(
                    due,
                    f"{row.title}, {contender.title}: {ratio:.3f} of {base}, "
                    f"{'owed' if due else 'goal'} {wanted:.1f}",
                )
            )
            break
        cell.append(f"{text}{mark}\n", style=style)

    def _fall_short(self, row: Row, contender: Contender, fault: str) -> None:
        # A row that does not run at all is a debt, whoever is at fault.
        text = f"{row.title}, {contender.title}: {fault}"
        self.shortfalls.append(Shortfall(True, text))

    def print_costs(self) -> None:
        """Print CPU seconds of the daemons and their ssh, and memory."""
        measured = [c for c in self._contenders if c.rows is None]
        table = Table(
            title="CPU time in seconds, medians: of the mount + its ssh (+ the server's end)"
        )
        table.add_column("row")
        for contender in measured:
            table.add_column(contender.title, justify="right", no_wrap=True)
        for row in self._rows:
            cells = []
            for contender in measured:
                samples = self._results.samples.get((row.key, contender.key), [])
                parts = zip(*(sample.usage for sample in samples), strict=True)
                medians = [median(part) for part in parts]
                cells.append("{:.2f} + {:.2f} (+ {:.2f})".format(*medians) if medians else "")
            table.add_row(row.title, *cells)
        table.add_section()
        peaks = []
        for contender in measured:
            peak = self._results.peaks.get(contender.key)
            if peak is None:
                peaks.append("")
                continue
            high = contender.key != SSHFS and peak > MEMORY_GOAL
            if high:
                text = f"memory, {contender.title}: {peak / 1e6:.0f} MB, goal 150 MB"
                self.shortfalls.append(Shortfall(False, text))
            peaks.append(f"{peak / 1e6:.0f} MB{' short' if high else ''}")
        table.add_row("resident memory at its highest", *peaks)
        ciphers = self._results.ciphers
        table.add_row("cipher", *(_short(ciphers.get(c.key, "unknown")) for c in measured))
        self._console.print(table)
        if "cat" in ciphers:
            self._console.print(f"ssh cat: cipher {ciphers['cat']}, login not counted")


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


def _short(cipher: str) -> str:
    return cipher.partition("@")[0]
