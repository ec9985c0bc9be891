"""A report for people: a table on a terminal, the same without colours elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .findings import Finding, Verdict

_STYLES: Final = {
    Verdict.WORKS: ("ok", "green"),
    Verdict.LACKS: ("no", "yellow"),
    Verdict.FAILS: ("FAILS", "bold red"),
    Verdict.TELLS: ("", ""),
}


def as_table(special: str, findings: Sequence[Finding], console: Console) -> None:
    """Print what was found of `special`."""
    table = Table(title=Text(special), title_justify="left", show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        word, style = _STYLES[finding.verdict]
        # Text, and no markup: what a server says may have brackets in it, and worse.
        text = "".join(c if c.isprintable() else "?" for c in finding.text)
        table.add_row(Text(finding.topic), Text(word, style=style), Text(text))
    console.print(table)


def as_json(special: str, findings: Sequence[Finding]) -> str:
    """Return the same for programs."""
    return json.dumps(
        {
            "special": special,
            "findings": [
                {**finding._asdict(), "verdict": finding.verdict.value} for finding in findings
            ],
        },
        indent=2,
    )
