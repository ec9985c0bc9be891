"""Command lines: what all commands have in common, errors of one line, and their help."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from .status import (
    CommandError,
    Status,
    daemon_status_lines,
    served_status_lines,
    status_lines,
)
from .words.options import WordGroup


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are CommandErrors; its help ends with `more()`."""

    def __init__(self, prog: str, description: str, usage: str, more: Callable[[], str]) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
        )
        self._more = more
        self.add_argument("-h", "--help", action="help", help="show this help and exit")
        self.add_argument("-V", "--version", action=_Version, help="show the version and exit")

    def error(self, message: str) -> NoReturn:
        """End the command with the usage status."""
        raise CommandError(Status.USAGE, f"{message}; {self.prog} --help shows how it is used")

    def format_help(self) -> str:
        """Return the help, with options in groups, examples and exit statuses."""
        return super().format_help() + "\n" + self._more()

    def add_mount_arguments(self) -> None:
        """Add the arguments which every mounting command has."""
        self._add_words("mount options")
        self.add_argument(
            "-f", dest="foreground", action="store_true", help="stay in the foreground"
        )
        self.add_argument(
            "-d",
            "--debug",
            dest="verbose",
            action="store_true",
            help="print debugging messages; stays in the foreground",
        )

    def add_served_arguments(self) -> None:
        """Add the arguments which every command has that serves a stack."""
        self.add_argument("special", nargs="?", help="what to serve")
        self.add_argument(
            "-t", dest="stack", metavar="STACK", help="elements joined by '|', top first"
        )
        self._add_words("words of the elements")

    def _add_words(self, what: str) -> None:
        self.add_argument(
            "-o",
            dest="words",
            metavar="WORD[,WORD...]",
            action="append",
            default=[],
            help=f"{what}, see below; may be repeated, later wins, '\\,' is a comma",
        )


_SSH: Final = """\
ssh options (-o):
  Keyword=VALUE         any keyword of ssh_config(5) about connection, keys and authentication:
                        IdentityFile, ProxyJump, StrictHostKeyChecking=yes|ask|accept-new|no,
                        UserKnownHostsFile, User, Ciphers, ConnectTimeout, ..."""


def checked(convert: Callable[[str], object]) -> Callable[[str], str]:
    """Return a type for `add_argument` that leaves the text as it is if `convert` accepts it."""

    def check(value: str) -> str:
        try:
            convert(value)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None
        return value

    return check


class _Version(argparse.Action):
    """Prints name and version. The look-up is slow, so it is made only when asked for."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(nargs=0, **kwargs)  # type: ignore[arg-type]

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> NoReturn:
        from importlib.metadata import version

        print(f"{parser.prog} {version('syspuffs')}")
        parser.exit(Status.OK)


def help_sections(
    groups: Sequence[WordGroup],
    examples: str,
    environment: str,
    *,
    ssh: bool = False,
    wrapper: bool = False,
    served: bool = False,
    daemon: bool = False,
) -> str:
    """Return what follows the options in `--help`.

    `served`: of what mounts nothing; `daemon`: of what serves until it is told to stop.
    """
    parts = [f"{group.title} (-o):\n" + "\n".join(group.help_lines()) for group in groups]
    if ssh:
        parts.append(_SSH)
    parts.append("Examples:\n" + examples.rstrip("\n"))
    if daemon:
        statuses = daemon_status_lines()
    else:
        statuses = served_status_lines() if served else status_lines(wrapper)
    parts.append("Exit status:\n" + "\n".join(statuses))
    parts.append("Environment:\n" + environment.rstrip("\n"))
    return "\n\n".join(parts) + "\n"


def run_command(program: str, main: Callable[[], int]) -> int:
    """Run `main`; a CommandError out of it becomes one line and its status."""
    try:
        return main()
    except CommandError as error:
        print(f"{program}: {error.message}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return Status.SIGNAL + 2
    except BrokenPipeError:
        # Whoever read our help has gone; keep the interpreter from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Status.SIGNAL + 13
