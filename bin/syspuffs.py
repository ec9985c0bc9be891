"""syspuffs: run a mount command, and mount what it serves through an emulated kernel."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from ..gateway.assembly import mount_command
from ..gateway.between import FAULT_GROUP, TRACE_GROUP, bind_rules, read_rules
from ..gateway.commandline import CommandParser, help_sections, run_command
from ..gateway.mounting import Attachment, run_mount
from ..gateway.words.options import HOST_GROUP, host_options, of_group, parse_words

PROGRAM: Final = "syspuffs"

_USAGE: Final = "%(prog)s [options] [--] command [argument ...]"

_DESCRIPTION: Final = """\
Run a mount command without letting it mount: what it serves is mounted in an emulated
kernel, and that is mounted on the host, where the command wanted to mount. The command
is untouched: its options are its own, and where it fails, its message and exit status
are those of syspuffs. Options of syspuffs itself stand before the command."""

_EXAMPLES: Final = """\
  syspuffs mount_psshfs user@example.org:/pub /puffs
  syspuffs -o ro,allow_other mount_psshfs -t 5 example.org: /puffs
  syspuffs syspuffs mount_psshfs example.org:/pub /puffs
  syspuffs mount_puffs -t 'puffs|p2k|tmpfs' none /puffs
  syspuffs -o trace=/tmp/t,nocache sshfs example.org: /puffs
  syspuffs -o faults=rules.toml sshfs example.org: /puffs
  umount /puffs                    (as a user: fusermount3 -u /puffs)"""

_ENVIRONMENT: Final = """\
  PUFFS_COMFD          set for the command; when it is set for syspuffs itself, syspuffs
                       mounts over that descriptor, not on the host"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: _main(argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    own, wrapped_argv = _split(argv)
    parser = _parser()
    args = parser.parse_args(own)
    if not wrapped_argv:
        parser.error("there is no command to run")
    host, faults, trace = parse_words(args.words, [HOST_GROUP, FAULT_GROUP, TRACE_GROUP])
    host_options(host)  # what is wrong with ours is said before the command runs
    rules = read_rules(faults) if faults else None
    if rules is not None:
        bind_rules(rules, ("frames", "fuse"))

    def attach() -> AbstractAsyncContextManager[Attachment]:
        from ..gateway.wrapping import wrapped

        return wrapped(wrapped_argv, of_group(args.words, HOST_GROUP), rules, trace)

    command = mount_command(PROGRAM, attach, host, foreground=args.foreground, verbose=args.verbose)
    return run_mount(command)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return our own arguments and the command: what begins with the first that is no option."""
    own = list(argv)
    at = 0
    while at < len(own):
        if own[at] == "--":
            return own[:at], own[at + 1 :]
        if not own[at].startswith("-") or own[at] == "-":
            return own[:at], own[at:]
        at += 2 if own[at] == "-o" else 1
    return own, []


def _parser() -> CommandParser:
    parser = CommandParser(
        PROGRAM,
        _DESCRIPTION,
        _USAGE,
        lambda: help_sections(
            [HOST_GROUP, TRACE_GROUP, FAULT_GROUP], _EXAMPLES, _ENVIRONMENT, wrapper=True
        ),
    )
    parser.add_mount_arguments()
    return parser


if __name__ == "__main__":
    entry()
