"""What is answered, for people: tables and trees on the terminal, or JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .client import Found


def console() -> Console:
    """Return the terminal; what is not one gets lines as long as they are."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=10_000, no_color=True)


def plain(text: str) -> str:
    """Return a text in which nothing moves the cursor: names of files may be made of anything."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(found: Any) -> None:
    """Print what programs can read, indented."""
    print(msgspec.json.format(msgspec.json.encode(found)).decode())


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns; numbers stand at the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    lines = [list(row) for row in rows]
    for at, heading in enumerate(headings):
        is_number = bool(lines) and all(isinstance(row[at], (int, float)) for row in lines)
        table.add_column(
            heading, justify="right" if is_number else "left", no_wrap=True, overflow="fold"
        )
    for row in lines:
        table.add_row(*(Text(plain(str(value))) for value in row))
    console().print(table)


def age(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds) // 60
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"


def mount_table(found: Sequence[Found]) -> None:
    """Print one line for each mount, and for each process that serves a part of one."""
    rows = [
        (
            one.summary["mountpoint"],
            ("...|" if one.is_part else "") + one.summary["type"],
            one.summary["special"],
            one.summary["pid"],
            one.summary["uid"],
            age(one.summary["seconds"]),
        )
        if one.summary
        else ("?", one.error, "", int(one.path.name), "", "")
        for one in found
    ]
    print_table(("MOUNTPOINT", "TYPE", "SPECIAL", "PID", "UID", "SINCE"), rows)


def status_text(answers: Sequence[Mapping[str, Any]]) -> None:
    """Print what a mount is made of, process by process."""
    out = console()
    for at, answer in enumerate(answers):
        special, where, kind = answer["special"], answer["mountpoint"], answer["type"]
        if at == 0:
            out.print(Text(plain(f"{special} on {where} type {kind}")))
        process = f"process {answer['pid']} ({answer['program']}, user {answer['uid']})"
        part = f", serves {kind} to the one above" if answer["part"] else ""
        out.print(Text(plain(f"{process}, since {age(answer['seconds'])}{part}")))
        for name, note in answer["notes"].items():
            out.print(Text(plain(f"  {name}: {note}")))
        for layer in answer["layers"]:
            out.print(Text(plain(f"  {layer['name']}"), style="bold"))
            for title in ("options", "statistics"):
                if layer[title]:
                    out.print(Text(plain(f"    {title}")))
                    for line in _lines(layer[title]):
                        out.print(Text(plain(f"      {line}")))


def _lines(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield one line for the plain values, and one for each group of others."""
    values = [f"{_words(name)} {_said(value)}" for name, value in found.items() if _is_plain(value)]
    if values:
        yield ", ".join(values) + _share(found)
    for name, value in found.items():
        if not _is_plain(value):
            rest = "; ".join(_lines(value)) if isinstance(value, Mapping) else _said(value)
            if rest:
                yield f"{_words(name)}: {rest}"


def _share(found: Mapping[str, Any]) -> str:
    """Say how much of what was looked for in a cache was there."""
    hits, misses = found.get("hits"), found.get("misses")
    if not isinstance(hits, int) or not isinstance(misses, int) or not hits + misses:
        return ""
    hits += found.get("negative_hits", 0)
    return f" ({100 * hits / (hits + misses):.0f} % found)"


def _is_plain(value: Any) -> bool:
    return not isinstance(value, (Mapping, list))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _said(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# Lists.

_Answers = Sequence[Mapping[str, Any]]


def _in_flight(answers: _Answers) -> None:
    rows = [
        (
            "-" if one["seconds"] is None else f"{one['seconds']:.3f}",
            one["operation"],
            f"{one['layer']}:{one['element']}",
            _said(one["pid"]),
            _said(one["uid"]),
            one["command"],
            one["path"],
            one["where"],
        )
        for answer in answers
        for one in answer["requests"]
    ]
    headings = ("SECONDS", "OPERATION", "LAYER", "PID", "UID", "COMMAND", "PATH", "WAITS IN")
    print_table(headings, rows)
    _note_rest(answers, len(rows))


def _vnodes(answers: _Answers) -> None:
    rows = [
        (
            one["kernel"],
            one["vnode"],
            one["type"],
            one["size"],
            one["uses"],
            one["lock"] or "-",
            one["dirty_pages"],
            one["dirty_buffers"],
            one["writes"],
            one["fs"],
            one["path"] or one["key"],
        )
        for answer in answers
        for one in answer["vnodes"]
    ]
    headings = ("KERNEL", "VNODE", "TYPE", "SIZE", "USES", "LOCK", "DIRTY", "BUFS", "WRITES")
    print_table((*headings, "FS", "PATH OR KEY"), rows)
    _note_rest(answers, len(rows))


def _buffers(answers: _Answers) -> None:
    rows = [
        (
            one["kernel"],
            one["device"],
            one["block"],
            one["octets"],
            one["waiting"],
            one["error"],
            " ".join(flag.removeprefix("B_") for flag in one["flags"]),
        )
        for answer in answers
        for one in answer["buffers"]
    ]
    print_table(("KERNEL", "DEVICE", "BLOCK", "OCTETS", "WAITING", "ERROR", "FLAGS"), rows)
    _note_rest(answers, len(rows))


def _locks(answers: _Answers) -> None:
    rows: list[tuple[object, ...]] = []
    for answer in answers:
        for one in answer["vnodes"]:
            users = ", ".join(map(_whom, one["users"]))
            waiting = ", ".join(f"{_whom(who)} ({who['for']})" for who in one["waiting"])
            held = f"{one['held'] or 'free'}" + (f": {users}" if users else "")
            rows.append((one["kernel"], one["vnode"], "vnode", held, waiting or "-", one["path"]))
        for one in answer["advisory"]:
            held = ", ".join(f"{_range(lock)} pid {lock['owner']}" for lock in one["locks"])
            waiting = ", ".join(f"{_range(lock)} {_whom(lock)}" for lock in one["waiting"])
            rows.append((one["kernel"], one["vnode"], "file", held, waiting or "-", one["path"]))
    print_table(("KERNEL", "VNODE", "KIND", "HELD", "WAITS", "PATH"), rows)


def _range(lock: Mapping[str, Any]) -> str:
    end = "" if lock["octets"] is None else lock["start"] + lock["octets"]
    return f"{lock['type']} {lock['start']}..{end}"


def _whom(who: Mapping[str, Any]) -> str:
    if not who["operation"]:
        return "the kernel"
    return str(who["operation"]) + ("" if who["pid"] is None else f" of {who['pid']}")


def _note_rest(answers: _Answers, shown: int) -> None:
    rest = sum(answer["count"] for answer in answers) - shown
    if rest > 0:
        console().print(Text(f"and {rest} more: --all shows them"))


LISTS: Final[dict[str, Callable[[_Answers], None]]] = {
    "inflight": _in_flight,
    "vnodes": _vnodes,
    "buffers": _buffers,
    "locks": _locks,
}
"""How each list is printed."""


def rule_table(rules: Sequence[Mapping[str, Any]]) -> None:
    """Print rules and what has come of them."""
    rows = [
        (
            one["name"],
            " ".join(f"{key}={_said(value)}" for key, value in one["rule"].items()),
            one["matched"],
            one["taken"],
            one["hanging"],
        )
        for one in rules
    ]
    print_table(("NAME", "RULE", "MATCHED", "TAKEN", "HANGING"), rows)
