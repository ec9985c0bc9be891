"""The element `compare`: its words, its second stack, and its reports for people."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from .status import CommandError, Status
from .words.options import Settings, WordGroup, WordSpec, file_name, sets, split_words, takes, text

if TYPE_CHECKING:
    from ..layers.compare import Mismatch
    from ..layers.ops import FileServer
    from ..layers.outcomes import Seen
    from .stack import Element, Ground

_log = logging.getLogger(__name__)

LOGGED_MAX: Final = 100
"""Differences that go to the log; a report file has more of them."""
REPORTED_MAX: Final = 100_000
_NAMES_MAX: Final = 8
"""Names of a directory that are shown."""
_SHOWN_MAX: Final = 64
"""Octets of a value that are shown."""

COMPARE_GROUP: Final = WordGroup(
    "compare options",
    {
        "compare": WordSpec(
            takes("second", text), "do everything there, too: elements without 'puffs|'", "STACK"
        ),
        "compare_special": WordSpec(takes("special", text), "what that one mounts", "SPECIAL"),
        "compare_report": WordSpec(
            takes("report", file_name), "append differences to this file; else to the log", "FILE"
        ),
        "compare_strict": WordSpec(
            sets("strict", True), "operations that differ fail with EIO, after both have done them"
        ),
    },
)


def second_stack(words: Sequence[str]) -> tuple[tuple[Element, ...], str]:
    """Return the elements of the second stack that `words` name, and its special; () for none.

    Errors: CommandError (STACK), as `parse_served`.
    """
    from .stack import parse_served

    given = {word.name: word.value or "" for word in split_words(words)}
    stack = given.get("compare", "")
    elements = parse_served(stack) if stack else ()
    if any(element.name == "compare" for element in elements):
        raise CommandError(Status.STACK, "'compare' compares two stacks, not three")
    return elements, given.get("compare_special", "none")


@asynccontextmanager
async def compare(below: Any, ground: Ground) -> AsyncIterator[FileServer]:
    """Build the element that does everything twice, with the second stack."""
    from dataclasses import replace

    from ..layers.compare import Compare
    from .between import FAULT_GROUP
    from .stack import built, parse_served

    settings = ground.settings[COMPARE_GROUP.title]
    stack = settings.get("second")
    if stack is None:
        raise CommandError(
            Status.USAGE, "compare needs to be told what with: -o compare=STACK,compare_special=..."
        )
    others = {k: v for k, v in ground.settings.items() if k != FAULT_GROUP.title}
    beside = replace(ground, special=settings.get("special", "none"), settings=others)
    with ExitStack() as files:
        report = Report(_opened(settings, files))
        async with built(parse_served(stack), beside) as second:
            strict = settings.get("strict", False)
            server = Compare(below, second.server, report, strict=strict, beside=second.parts)
            yield server
        report.end(server.compared, server.left_out, server.undecided)


def _opened(settings: Settings, files: ExitStack) -> TextIO | None:
    file = settings.get("report")
    if file is None:
        return None
    try:
        return files.enter_context(open(file, "a", encoding="utf-8", buffering=1))
    except OSError as exc:
        raise CommandError(
            Status.USAGE, f"option 'compare_report={file}': {exc.strerror}; give a file to write to"
        ) from None


class Report:
    """Says what differs: two lines each, to a file or to the log, as many as are of use."""

    def __init__(self, file: TextIO | None) -> None:
        self.count = 0
        self._file = file
        self._max = LOGGED_MAX if file is None else REPORTED_MAX

    def __call__(self, found: Mismatch) -> None:
        """Report one difference. What cannot be written is lost."""
        self.count += 1
        if self.count <= self._max:
            self._say(text_of(found))
        elif self.count == self._max + 1:
            self._say("compare: there are more differences, which are not told")

    def end(self, compared: int, left_out: int, undecided: int) -> None:
        """Sum up, in the file alone."""
        if self._file is not None:
            self._say(
                f"{compared} operations compared, {self.count} differences, {left_out} left out, "
                f"{undecided} undecided"
            )

    def _say(self, said: str) -> None:
        if self._file is None:
            _log.warning("%s", said)
            return
        try:
            print(said, file=self._file)
        except OSError as exc:
            _log.error("differences cannot be written: %s", exc)
            self._file = None


def text_of(found: Mismatch) -> str:
    """Return a difference as text: the call as `puffs_trace` shows it, and both outcomes."""
    from .tracing.text import call

    stamp = time.strftime("%H:%M:%S", time.localtime())
    cred = found.operation.cred(found.args)
    who = f" {cred.pid}" if cred is not None and cred.pid > 0 else ""
    shown = call(found.operation, found.args, found.path)
    if found.kind == "unsupported":
        which = "second" if found.second.errno == errno.EOPNOTSUPP else "first"
        return f"{stamp}{who} {shown}\n  the {which} one has no {found.operation.name} at all"
    first, second = both_shown(found.first, found.second)
    return f"{stamp}{who} {shown}\n  {found.kind}: first {first}, second {second}"


def both_shown(first: Seen, second: Seen) -> tuple[str, str]:
    """Return two outcomes that differ, as text."""
    from ..layers.outcomes import Names

    one, other = first.value, second.value
    if isinstance(one, Names) and isinstance(other, Names):
        return _names(one.names - other.names), _names(other.names - one.names)
    if isinstance(one, bytes) and isinstance(other, bytes):
        short = min(len(one), len(other))
        at = next((at for at in range(short) if one[at] != other[at]), short)
        return _data(one, at), _data(other, at)
    return shown(first), shown(second)


def shown(seen: Seen) -> str:
    """Return an outcome as text, cut to what is of use."""
    from ..native.errors import VfsError

    if seen.errno:
        return str(VfsError(seen.errno))
    if seen.value is None:
        return "success"
    if isinstance(seen.value, bytes):
        return repr(seen.value[:_SHOWN_MAX])
    if isinstance(seen.value, tuple) and len(seen.value) == 3:
        return _attributes(*seen.value)
    return repr(seen.value)


def _attributes(vtype: int | None, mode: int | None, size: int | None) -> str:
    from ..native.constants import Vtype

    if vtype is None:
        return "no such name"
    said = [Vtype(vtype).name if vtype in Vtype.__members__.values() else f"vtype {vtype}"]
    said += [f"mode={mode:04o}"] if mode is not None else []
    said += [f"size={size}"] if size is not None else []
    return " ".join(said)


def _names(names: frozenset[bytes]) -> str:
    cut = sorted(names)[:_NAMES_MAX]
    return f"alone has {len(names)} names {cut}" if names else "has no others"


def _data(data: bytes, at: int) -> str:
    return f"{len(data)} octets, at {at} {data[at : at + _SHOWN_MAX]!r}"
