"""puffsctl: look into a mount that is in use, and reach into it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..gateway.commandline import CommandParser, run_command
from ..gateway.control.client import Connection, Found, mount_at, mounts
from ..gateway.control.protocol import ControlError
from ..gateway.status import CommandError, Status

PROGRAM: Final = "puffsctl"

_DESCRIPTION: Final = """\
Look into a mount that is in use, and reach into it. Mounts are named by their mount
points; without one it is the mount that holds the current directory. Only the user whose
mount it is may ask, and root. A silent server below never keeps an answer waiting."""

_EXAMPLES: Final = """\
Examples:
  puffsctl list
  puffsctl status /mnt

Exit status:
    0  done
    1  the mount cannot answer; the message says why
    2  wrong command line
   40  there is no such mount, or it is another user's"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: _main(argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    do: Callable[[argparse.Namespace], int] = args.do
    try:
        return do(args)
    except ControlError as exc:
        raise CommandError(Status.FAILURE, str(exc)) from None


def _parser() -> CommandParser:
    parser = CommandParser(PROGRAM, _DESCRIPTION, "%(prog)s COMMAND ...", lambda: _EXAMPLES)
    commands = parser.add_subparsers(prog=PROGRAM, metavar="COMMAND", required=True)

    def command(
        name: str, text: str, do: Callable[[argparse.Namespace], int], *, at: bool = True
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=text, usage=None, more=lambda: ""
        )
        made.set_defaults(do=do)
        if at:
            made.add_argument("mountpoint", nargs="?", help="the mount, or a path in it")
        return made

    lists = command("list", "show all mounts of this user", _list, at=False)
    _json(lists)
    _json(command("status", "show the layers of a mount, options and figures", _status))
    return parser


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print what programs can read")


def _asked(found: Sequence[Found], ask: str, **args: Any) -> list[Any]:
    """Return what each process of a mount answers, upper ones first."""
    answers = []
    for one in found:
        try:
            with Connection(one.path) as connection:
                answers.append(connection.ask(ask, **args))
        except OSError as exc:
            raise CommandError(
                Status.NOTHING_MOUNTED, f"{one.mountpoint}: the mount has ended ({exc.strerror})"
            ) from None
    return answers


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

    answers = _asked(mount_at(args.mountpoint), "status")
    if args.json:
        print_json(answers)
    else:
        status_text(answers)
    return Status.OK


if __name__ == "__main__":
    entry()
