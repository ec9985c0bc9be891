"""puffs_sftp_server: serve a stack on standard input and output. The letters are OpenSSH's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final

from ..gateway.assembly import served_ground
from ..gateway.commandline import CommandParser, checked, help_sections, run_command
from ..gateway.sftp.permitted import NAMES, Permitted
from ..gateway.sftp.stdio import FACILITIES, LEVELS, StdioCommand, expand_start, run_stdio
from ..gateway.stack import TMPFS_GROUP, VND_GROUP, element_lines, parse_served
from ..gateway.status import CommandError, Status
from ..gateway.words.options import octal
from ..gateway.words.sshwords import PSSHFS_GROUP

PROGRAM: Final = "puffs_sftp_server"

_USAGE: Final = """\
%(prog)s -t STACK [options] special
       %(prog)s -Q requests"""

_DESCRIPTION: Final = """\
Serve a stack of elements to one SFTP client on standard input and output, as sshd's
Subsystem and ForceCommand want it, and `sftp -D`. STACK is written as mount_puffs has it,
without the first 'puffs': 'psshfs', 'p2k|tmpfs', 'p2k|puffs|psshfs'. `special` is what the
bottom element takes: [user@]host[:path] for psshfs, a directory for local, an image or device
for ext2fs, any text for tmpfs. The psshfs options write_behind and cache_timeout are 0 here
unless they are given."""

_EXAMPLES: Final = """\
  Subsystem sftp /usr/bin/puffs_sftp_server -t psshfs files.example.org:/pub   (sshd_config)
  sftp -D "puffs_sftp_server -t p2k|tmpfs none"
  puffs_sftp_server -R -t local /srv
  puffs_sftp_server -Q requests"""

_ENVIRONMENT: Final = """\
  SSH_CONNECTION       where the client is, for the log
  HOME, SSH_AUTH_SOCK  where ~/.ssh and the agent are (psshfs)"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: _main(argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.query is not None:
        if args.query.lower() != "requests":
            parser.error(f"-Q {args.query}: there is nothing of that name to list but 'requests'")
        print("\n".join(NAMES))
        return Status.OK
    if args.stack is None or args.special is None:
        parser.error("a stack (-t) and what it is to serve are needed")
    elements = parse_served(args.stack)
    return run_stdio(
        StdioCommand(
            program=PROGRAM,
            elements=elements,
            ground=served_ground(elements, args.special, args.words, readonly=args.readonly),
            start=b"" if args.start is None else expand_start(args.start),
            umask=None if args.umask is None else octal(args.umask),
            permitted=Permitted(
                readonly=args.readonly,
                denied=_requests("-P", args.denied) or (),
                allowed=_requests("-p", args.allowed),
            ),
            level=args.level.upper(),
            facility=args.facility.upper(),
            to_stderr=args.to_stderr,
        )
    )


def _requests(letter: str, text: str | None) -> list[str] | None:
    """Return the names of a list of requests.

    Errors: CommandError for a name that no request has: a list that denies nothing by a slip of
    the pen is worse than none.
    """
    if text is None:
        return None
    names = text.split(",")
    for name in names:
        if name not in NAMES:
            raise CommandError(
                Status.USAGE, f"{letter}: there is no request '{name}'; -Q requests lists them"
            )
    return names


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    def known(value: str) -> None:
        if value.upper() not in names:
            raise ValueError(f"'{value}' is none of {', '.join(names)}")

    return checked(known)


def _parser() -> CommandParser:
    parser = CommandParser(PROGRAM, _DESCRIPTION, _USAGE, _more)
    parser.add_served_arguments()
    add = parser.add_argument
    add(
        "-d",
        dest="start",
        metavar="DIR",
        help="where relative paths begin, in what is served (its root); ~, %%d, %%u, %%U as sshd",
    )
    add("-R", dest="readonly", action="store_true", help="refuse whatever changes anything")
    add("-u", dest="umask", metavar="MASK", type=checked(octal), help="umask, octal")
    add("-P", dest="denied", metavar="REQ[,REQ...]", help="refuse these requests")
    add("-p", dest="allowed", metavar="REQ[,REQ...]", help="refuse all requests but these")
    add("-Q", dest="query", metavar="requests", help="list the requests for -P and -p, and exit")
    add(
        "-l",
        dest="level",
        metavar="LEVEL",
        default="ERROR",
        type=_one_of(tuple(LEVELS)),
        help="what to log: QUIET, FATAL, ERROR, INFO, VERBOSE or DEBUG (ERROR)",
    )
    add(
        "-f",
        dest="facility",
        metavar="FACILITY",
        default="AUTH",
        type=_one_of(FACILITIES),
        help="syslog facility: DAEMON, USER, AUTH, LOCAL0 to LOCAL7 (AUTH)",
    )
    add("-e", dest="to_stderr", action="store_true", help="log to standard error, not to syslog")
    return parser


def _more() -> str:
    elements = "Elements of a stack:\n" + "\n".join(element_lines(mounted=False)) + "\n\n"
    groups = [TMPFS_GROUP, VND_GROUP, PSSHFS_GROUP]
    return elements + help_sections(groups, _EXAMPLES, _ENVIRONMENT, ssh=True, served=True)


if __name__ == "__main__":
    entry()
