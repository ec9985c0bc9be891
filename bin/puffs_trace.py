"""puffs_trace: show what the `trace` element of a stack has written down."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from ..gateway.commandline import CommandParser, checked, run_command
from ..gateway.failures import explain
from ..gateway.stack import Element, parse_served
from ..gateway.status import CommandError, Status
from ..gateway.tracing.filters import Filter, errnos, operations
from ..layers.trace import Event, TraceError, events, growing

PROGRAM: Final = "puffs_trace"

_USAGE: Final = "%(prog)s {show,chrome,html,replay,shrink} [options] trace"

_DESCRIPTION: Final = """\
Show what a mount with the element 'trace' was asked and what it answered. Such a mount is
made by, say: mount_puffs -t 'puffs|trace|psshfs' -o trace=/tmp/t host:/pub /mnt"""

_EXAMPLES: Final = """\
Examples:
  puffs_trace show --follow /tmp/t
  puffs_trace show --op read,write --slower 10 /tmp/t
  puffs_trace show --path '/src/*' --errno ENOENT,EACCES /tmp/t
  puffs_trace chrome -o /tmp/t.json /tmp/t         (for ui.perfetto.dev)
  puffs_trace html -o /tmp/t.html /tmp/t
  puffs_trace replay -t psshfs -s host:/empty /tmp/t
  puffs_trace shrink -t 'fault|p2k|tmpfs' -w faults=rules.toml /tmp/t
  puffs_trace shrink -t perfuse -s 'bindfs /empty' /tmp/t

Exit status:
  0  done; replay: no difference; shrink: a small trace was found
  1  a difference; none for shrink; the trace cannot be read
  2  wrong command line    3  a stack that does not fit    others: as mount_puffs"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: _main(argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    try:
        return _COMMANDS[args.command](args)
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        raise CommandError(Status.FAILURE, f"{exc.filename or args.trace}: {exc.strerror}") from exc
    except TraceError as exc:
        raise CommandError(Status.FAILURE, f"{args.trace}: {exc}") from exc
    except Exception as exc:
        error = explain(exc)
        if error is None:
            raise
        raise error from None


def _parser() -> CommandParser:
    parser = CommandParser(PROGRAM, _DESCRIPTION, _USAGE, lambda: _EXAMPLES)
    parser.add_argument("command", choices=list(_COMMANDS), help="what to make of the trace")
    parser.add_argument("trace", type=Path, help="the file that was given with -o trace=FILE")
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FILE", help="write there, not to standard output"
    )
    parser.add_argument(
        "--follow", action="store_true", help="show: go on as the file grows, until interrupted"
    )
    wishes = parser.add_argument_group("which operations (all have to be met)")
    wishes.add_argument(
        "--op", type=checked(operations), metavar="NAME[,NAME...]", help="lookup, read, write, ..."
    )
    wishes.add_argument("--path", metavar="PATTERN", help="as the shell's; '*' matches '/' too")
    wishes.add_argument(
        "--errno",
        type=checked(_errnos),
        metavar="ERROR[,ERROR...]",
        help="those that failed so; 'any': all that failed",
    )
    wishes.add_argument(
        "--slower", type=float, metavar="MS", default=0.0, help="took longer, milliseconds"
    )
    wishes.add_argument("--pid", type=int, help="asked for by this process")
    wishes.add_argument("--layer", type=int, metavar="N", help="seen by this layer; the first is 0")
    again = parser.add_argument_group("replay and shrink")
    again.add_argument(
        "-t", dest="stack", metavar="STACK", help="do it again there: elements without 'puffs|'"
    )
    again.add_argument(
        "-s",
        dest="special",
        metavar="SPECIAL",
        default="none",
        help="what the bottom of that stack takes, as mount_puffs has it",
    )
    again.add_argument(
        "-w",
        dest="words",
        metavar="WORD[,WORD...]",
        action="append",
        default=[],
        help="words of the elements, as mount_puffs has them behind -o",
    )
    again.add_argument("--paced", action="store_true", help="replay: in the trace's own time")
    again.add_argument(
        "--believed",
        metavar="STACK",
        default="p2k|tmpfs",
        help="shrink: what is right is what this one does (p2k|tmpfs)",
    )
    return parser


def _layer(args: argparse.Namespace) -> list[Event]:
    from ..gateway.tracing.again import of_one_layer

    return list(filter(_filter(args).matches, of_one_layer(args.trace, args.layer or 0)))


def _stack(args: argparse.Namespace) -> tuple[Element, ...]:
    if args.stack is None:
        raise CommandError(Status.USAGE, f"{args.command} needs a stack: -t STACK")
    return parse_served(args.stack)


def _replay(args: argparse.Namespace) -> int:
    import trio

    from ..gateway.tracing.again import replay_on

    elements = _stack(args)
    with _output(args) as out:
        is_same = trio.run(
            lambda: replay_on(
                _layer(args), elements, args.special, args.words, out, paced=args.paced
            )
        )
    return Status.OK if is_same else Status.FAILURE


def _shrink(args: argparse.Namespace) -> int:
    import trio

    from ..gateway.tracing.again import shrink_on

    elements, believed = _stack(args), parse_served(args.believed)
    with _output(args) as out:
        is_found = trio.run(
            shrink_on, _layer(args), elements, believed, args.special, args.words, out
        )
    return Status.OK if is_found else Status.FAILURE


def _errnos(text: str) -> frozenset[int]:
    return frozenset() if text == "any" else errnos(text)


def _filter(args: argparse.Namespace) -> Filter:
    return Filter(
        names=operations(args.op) if args.op else frozenset(),
        path=args.path,
        failed=args.errno is not None,
        errnos=_errnos(args.errno) if args.errno else frozenset(),
        slower=int(args.slower * 1e6),
        pid=args.pid,
        layer=args.layer,
    )


@contextmanager
def _output(args: argparse.Namespace) -> Iterator[TextIO]:
    if args.output is None:
        yield sys.stdout
        return
    with open(args.output, "w", encoding="utf-8") as stream:
        yield stream


def _chosen(args: argparse.Namespace) -> Iterator[Event]:
    return filter(_filter(args).matches, events(args.trace))


def _show(args: argparse.Namespace) -> int:
    from ..gateway.tracing.text import line

    with _output(args) as out:
        if not args.follow:
            found = sorted(_chosen(args), key=lambda event: event.start)
            layers = len({event.layer for event in found})
            for event in found:
                print(line(event, layers=layers), file=out)
            return Status.OK
        chosen = _filter(args)
        layers = 1
        with open(args.trace, "rb", buffering=0) as stream:
            for growth in growing(stream):
                if growth is None:
                    out.flush()
                elif chosen.matches(growth):
                    layers = max(layers, growth.layer + 1)
                    print(line(growth, layers=layers), file=out)
    return Status.OK


def _chrome(args: argparse.Namespace) -> int:
    from ..gateway.tracing.chrome import write_chrome

    with _output(args) as out:
        write_chrome(_chosen(args), out)
    return Status.OK


def _html(args: argparse.Namespace) -> int:
    from ..gateway.tracing.report import write_report

    with _output(args) as out:
        write_report(_chosen(args), args.trace.name, out)
    return Status.OK


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "show": _show,
    "chrome": _chrome,
    "html": _html,
    "replay": _replay,
    "shrink": _shrink,
}

if __name__ == "__main__":
    entry()
