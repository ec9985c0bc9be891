"""puffs_trace: show what the `trace` element of a stack has written down."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from ..gateway.commandline import CommandParser, checked, run_command
from ..gateway.status import CommandError, Status
from ..gateway.tracing.filters import Filter, errnos, operations
from ..layers.trace import Event, TraceError, events, growing

PROGRAM: Final = "puffs_trace"

_USAGE: Final = "%(prog)s {show,chrome} [options] trace"

_DESCRIPTION: Final = """\
Show what a mount with the element 'trace' was asked and what it answered. Such a mount is
made by, say: mount_puffs -t 'puffs|trace|psshfs' -o trace=/tmp/t host:/pub /mnt"""

_EXAMPLES: Final = """\
Examples:
  puffs_trace show --follow /tmp/t
  puffs_trace show --op read,write --slower 10 /tmp/t
  puffs_trace show --path '/src/*' --errno ENOENT,EACCES /tmp/t
  puffs_trace chrome -o /tmp/t.json /tmp/t         (for ui.perfetto.dev)

Exit status:
  0  done    1  the trace cannot be read    2  wrong command line"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: _main(argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    try:
        _COMMANDS[args.command](args)
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        raise CommandError(Status.FAILURE, f"{exc.filename or args.trace}: {exc.strerror}") from exc
    except TraceError as exc:
        raise CommandError(Status.FAILURE, f"{args.trace}: {exc}") from exc
    return Status.OK


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
    wishes.add_argument("--op", type=checked(operations), metavar="NAME[,NAME...]")
    wishes.add_argument("--path", metavar="PATTERN", help="as the shell's; '*' matches '/' too")
    wishes.add_argument(
        "--errno",
        type=checked(_errnos),
        metavar="ERROR[,ERROR...]",
        help="those that failed so; 'any': all that failed",
    )
    wishes.add_argument("--slower", type=float, metavar="MS", default=0.0, help="took longer")
    wishes.add_argument("--pid", type=int, help="asked for by this process")
    wishes.add_argument("--layer", type=int, metavar="N", help="seen by this layer; the first is 0")
    return parser


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


def _show(args: argparse.Namespace) -> None:
    from ..gateway.tracing.text import line

    with _output(args) as out:
        if not args.follow:
            found = sorted(_chosen(args), key=lambda event: event.start)
            layers = len({event.layer for event in found})
            for event in found:
                print(line(event, layers=layers), file=out)
            return
        chosen = _filter(args)
        layers = 1
        with open(args.trace, "rb", buffering=0) as stream:
            for growth in growing(stream):
                if growth is None:
                    out.flush()
                elif chosen.matches(growth):
                    layers = max(layers, growth.layer + 1)
                    print(line(growth, layers=layers), file=out)


def _chrome(args: argparse.Namespace) -> None:
    from ..gateway.tracing.chrome import write_chrome

    with _output(args) as out:
        write_chrome(_chosen(args), out)


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], None]]] = {
    "show": _show,
    "chrome": _chrome,
}

if __name__ == "__main__":
    entry()
