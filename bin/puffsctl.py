"""puffsctl: look into a mount that is in use, and reach into it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ..gateway.commandline import CommandParser, run_command
from ..gateway.control.client import ASK_SECONDS, Connection, Found, mount_at, mounts
from ..gateway.control.protocol import HERE, NO_PLACE, ControlError
from ..gateway.status import CommandError, Status
from . import doctor

PROGRAM: Final = "puffsctl"

_DESCRIPTION: Final = """\
Look into a mount that is in use, and reach into it. Mounts are named by their mount
points; without one it is the mount that holds the current directory. Only the user whose
mount it is may ask, and root. A silent server below never keeps an answer waiting."""

_EXAMPLES: Final = """\
Examples:
  puffsctl list
  puffsctl status /mnt
  puffsctl inflight                                  (of the mount that we are in)
  puffsctl top /mnt
  puffsctl trace start -m /mnt /tmp/t              (puffs_trace shows it)
  puffsctl trace stop -m /mnt
  puffsctl fault add -m /mnt op=write errno=ENOSPC nth=3
  puffsctl layer insert -m /mnt -o throttle_delay=100 throttle 'puffs|HERE|psshfs'
  puffsctl forget /mnt/some/directory

Exit status:
    0  done
    1  the mount cannot answer, or not do that; the message says why
    2  wrong command line
   40  there is no such mount, or it is another user's"""

_FORGET_SECONDS: Final = 15.0
"""Longer than the mount itself tries."""
_LINES: Final = 200
_ALL: Final = 100_000
_LISTS: Final = {
    "inflight": "show the requests under way: who waits, how long, in which layer",
    "vnodes": "show the vnodes of its emulated kernels",
    "buffers": "show the buffers of its emulated kernels",
    "locks": "show who holds which lock, and who waits for it",
}

Do = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: _main(argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    do: Do = args.do
    try:
        return do(args)
    except ControlError as exc:
        raise CommandError(Status.FAILURE, str(exc)) from None


# The command line.


def parser() -> CommandParser:
    """Return the command line, with all commands."""
    made = CommandParser(PROGRAM, _DESCRIPTION, "%(prog)s COMMAND ...", lambda: _EXAMPLES)
    commands = _commands(made, PROGRAM)

    def command(name: str, text: str, do: Do, *, at: bool = True) -> argparse.ArgumentParser:
        added = _command(commands, name, text, do)
        if at:
            added.add_argument("mountpoint", nargs="?", help="the mount, or a path in it")
        return added

    _json(command("list", "show all mounts of this user", _list, at=False))
    _json(command("status", "show the layers of a mount, their options and figures", _status))
    for name, text in _LISTS.items():
        lists = command(name, text, _lists)
        _json(lists)
        lists.add_argument("--all", action="store_true", help=f"all lines, not {_LINES} at most")
    top = command("top", "show what goes on, until q or ^C is pressed", _top)
    top.add_argument(
        "--seconds", type=_seconds, default=1.0, metavar="S", help="time between figures (1)"
    )
    top.add_argument("--once", action="store_true", help="print figures once, and end")
    _json(top)
    command("metrics", "print all figures as Prometheus reads them", _metrics)
    forget = command("forget", "drop what is remembered of a path", _forget, at=False)
    forget.add_argument("path", help="in a mount; what lies below it is forgotten as well")
    examined = command("doctor", doctor.TEXT, doctor.run, at=False)
    doctor.add(examined)
    _json(examined)
    _add_layer(commands)
    _add_trace(commands)
    _add_fault(commands)
    return made


def _add_layer(commands: Any) -> None:
    layer = _commands(_command(commands, "layer", "put a layer in, or take it out"), "layer")
    insert = _command(layer, "insert", "put a layer in between two requests", _insert)
    remove = _command(layer, "remove", "take a layer out between two requests", _remove)
    for made in (insert, remove):
        _at(made)
        made.add_argument("name", help="null, readonly, throttle, trace or fault")
        made.add_argument(
            "place", nargs="?", default="", help=f"such as 'puffs|{HERE}|psshfs' (on top of all)"
        )
    insert.add_argument(
        "-o", dest="words", action="append", default=[], metavar="WORD", help="words of the layer"
    )


def _add_trace(commands: Any) -> None:
    trace = _commands(_command(commands, "trace", "record what goes on"), "trace")
    start = _command(trace, "start", "begin to record in a file", _trace_start)
    start.add_argument("file", help="is appended to; puffs_trace shows it")
    start.add_argument(
        "--data", choices=("length", "digest", "full"), default="length", help="kept of file data"
    )
    stop = _command(trace, "stop", "end a recording", _remove)
    stop.set_defaults(name="trace")
    for made in (start, stop):
        _at(made)
        made.add_argument("--place", default="", help=f"such as 'puffs|{HERE}|psshfs'")


def _add_fault(commands: Any) -> None:
    fault = _commands(_command(commands, "fault", "make things go wrong"), "fault")
    add = _command(fault, "add", "have one more rule", _fault_add)
    add.add_argument("rule", nargs="+", metavar="KEY=VALUE", help="op=write errno=EIO nth=3 ...")
    load = _command(fault, "load", "have the rules of a file", _fault_load)
    load.add_argument("file", type=Path, help="in TOML, as for -o faults=FILE")
    release = _command(fault, "release", "let go on what hangs", _fault_release)
    release.add_argument("name", nargs="?", help="by the rules of this name")
    remove = _command(fault, "remove", "have a rule no longer", _fault_remove)
    remove.add_argument("name", help="of the rule, see list")
    for made in (add, load):
        made.add_argument("--place", default="", help="where, if there is no fault layer yet")
    listed = _command(fault, "list", "show the rules and how often they were taken", _fault_list)
    clear = _command(fault, "clear", "have no rules any more", _fault_clear)
    for made in (add, load, release, remove, listed, clear):
        _at(made)
        _json(made)


def _commands(parser: argparse.ArgumentParser, name: str) -> Any:
    prog = PROGRAM if name == PROGRAM else f"{PROGRAM} {name}"
    return parser.add_subparsers(prog=prog, metavar="COMMAND", required=True)


def _command(commands: Any, name: str, text: str, do: Do | None = None) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", usage=None, more=lambda: ""
    )
    made.set_defaults(do=do, command=name)
    return made


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print what programs can read")


def _at(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", dest="mountpoint", help="the mount (that of the current directory)")


def _seconds(text: str) -> float:
    found = float(text)
    if not 0.1 <= found <= 3600:
        raise argparse.ArgumentTypeError("give 0.1 to 3600 seconds")
    return found


# Asking.


def _ask(one: Found, ask: str, seconds: float = ASK_SECONDS, **args: Any) -> Any:
    try:
        with Connection(one.path) as connection:
            return connection.ask(ask, seconds, **args)
    except OSError as exc:
        raise CommandError(
            Status.NOTHING_MOUNTED, f"{one.mountpoint}: the mount has ended ({exc.strerror})"
        ) from None


def _ask_all(found: Sequence[Found], ask: str, **args: Any) -> list[Any]:
    """Return what each process of a mount answers, upper ones first."""
    return [_ask(one, ask, **args) for one in found]


def _ask_one(found: Sequence[Found], ask: str, **args: Any) -> Any:
    """Return what the first process answers that has the place which is asked for."""
    for one in found[:-1]:
        try:
            return _ask(one, ask, **args)
        except ControlError as exc:
            if not str(exc).startswith(NO_PLACE):
                raise
    return _ask(found[-1], ask, **args)


# The commands.


def _list(args: argparse.Namespace) -> int:
    from ..gateway.control.text import mount_table, print_json

    found = mounts()
    if args.json:
        print_json(
            [one.summary or {"pid": int(one.path.name), "error": one.error} for one in found]
        )
    else:
        mount_table(found)
    return Status.OK


def _status(args: argparse.Namespace) -> int:
    from ..gateway.control.text import print_json, status_text

    answers = _ask_all(mount_at(args.mountpoint), "status")
    if args.json:
        print_json(answers)
    else:
        status_text(answers)
    return Status.OK


def _lists(args: argparse.Namespace) -> int:
    from ..gateway.control import text

    limit = _ALL if args.all else _LINES
    answers = _ask_all(mount_at(args.mountpoint), args.command, limit=limit)
    if args.json:
        text.print_json(answers)
    else:
        text.LISTS[args.command](answers)
    return Status.OK


def _top(args: argparse.Namespace) -> int:
    from ..gateway.control.screen import show

    found = mount_at(args.mountpoint)
    return show(found, args.seconds, once=args.once, json=args.json)


def _metrics(args: argparse.Namespace) -> int:
    for page in _ask_all(mount_at(args.mountpoint), "metrics"):
        print(page, end="")
    return Status.OK


def _forget(args: argparse.Namespace) -> int:
    path = os.fsencode(os.path.abspath(args.path))
    found = mount_at(args.path)
    below = path.removeprefix(os.fsencode(found[0].mountpoint)) or b"/"
    # From below: who is above hears from there what no longer holds.
    for one in reversed(found):
        _ask(one, "forget", _FORGET_SECONDS, path=below)
    return Status.OK


# Reaching into the stack.


def _insert(args: argparse.Namespace) -> int:
    words = [word.replace(",", "\\,") for word in args.words]
    found = mount_at(args.mountpoint)
    print(_ask_one(found, "insert", name=args.name, place=args.place, words=words))
    return Status.OK


def _remove(args: argparse.Namespace) -> int:
    print(_ask_one(mount_at(args.mountpoint), "remove", name=args.name, place=args.place))
    return Status.OK


def _trace_start(args: argparse.Namespace) -> int:
    file = os.path.abspath(args.file).replace(",", "\\,")
    words = [f"trace={file}", f"trace_data={args.data}"]
    found = mount_at(args.mountpoint)
    print(_ask_one(found, "insert", name="trace", place=args.place, words=words))
    return Status.OK


def _fault_add(args: argparse.Namespace) -> int:
    rule = {}
    for word in args.rule:
        key, equals, value = word.partition("=")
        if not equals:
            raise CommandError(Status.USAGE, f"'{word}': a rule is made of words like errno=EIO")
        rule[key] = value
    return _faults(args, add=rule, place=args.place)


def _fault_load(args: argparse.Namespace) -> int:
    try:
        rules = args.file.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandError(Status.USAGE, f"{args.file}: {exc}; give a file of rules") from None
    return _faults(args, load=rules, place=args.place)


def _fault_release(args: argparse.Namespace) -> int:
    return _faults(args, release=True, name=args.name)


def _fault_remove(args: argparse.Namespace) -> int:
    return _faults(args, remove=args.name)


def _fault_list(args: argparse.Namespace) -> int:
    return _faults(args)


def _fault_clear(args: argparse.Namespace) -> int:
    return _faults(args, clear=True)


def _faults(args: argparse.Namespace, **wish: Any) -> int:
    from ..gateway.control.text import print_json, rule_table

    found = mount_at(args.mountpoint)
    rules: list[Any]
    if "place" in wish:
        rules = _ask_one(found, "faults", **wish)
    else:
        rules = [rule for answer in _ask_all(found, "faults", **wish) for rule in answer]
    if args.json:
        print_json(rules)
    else:
        rule_table(rules)
    return Status.OK


if __name__ == "__main__":
    entry()
