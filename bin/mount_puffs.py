"""mount_puffs: mount any stack of elements, named by its type string."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from ..gateway.assembly import stack_command
from ..gateway.between import FAULT_GROUP, THROTTLE_GROUP, TRACE_GROUP
from ..gateway.commandline import CommandParser, help_sections, run_command
from ..gateway.comparing import COMPARE_GROUP
from ..gateway.mounting import run_mount
from ..gateway.stack import TMPFS_GROUP, VND_GROUP, element_lines, parse_stack
from ..gateway.words.options import HOST_GROUP
from ..gateway.words.sshwords import PSSHFS_GROUP

PROGRAM: Final = "mount_puffs"

_USAGE: Final = "%(prog)s -t STACK [options] special mountpoint"

_DESCRIPTION: Final = """\
Mount a stack of elements in one process. STACK is written as the mount shows it
afterwards: 'puffs|p2k|puffs|psshfs'. `special` is what the bottom element takes:
[user@]host[:path] for psshfs, a directory for local, the command line of a FUSE program
without the mount point for perfuse, a disk image or block device for ext2fs, any text for
tmpfs."""

_EXAMPLES: Final = """\
  mount_puffs -t 'puffs|p2k|puffs|psshfs' host:/pub /puffs
  mount_puffs -t 'puffs|p2k|tmpfs' -o size=64M,mode=0755 none /mnt
  mount_puffs -t 'puffs|psshfs' -o port=2222,cache_timeout=5 host: /mnt
  mount_puffs -t 'puffs|p2k|ext2fs' -o ro disk.img /mnt
  mount_puffs -t 'puffs|p2k|ext2fs|vnd|puffs|psshfs' -o image=disk.img host:/images /mnt
  mount_puffs -t 'puffs|trace|fault|psshfs' -o trace=/tmp/t,faults=rules.toml host: /mnt
  mount_puffs -t 'puffs|trace|perfuse' -o trace=/tmp/t 'bindfs /pub' /mnt
  mount_puffs -t 'puffs|compare|psshfs' -o compare=local,compare_special=/copy host:/pub /mnt
  umount /mnt                      (as a user: fusermount3 -u /mnt)"""

_ENVIRONMENT: Final = """\
  PUFFS_COMFD          set by syspuffs: mount over that descriptor, not on the host
  HOME, SSH_AUTH_SOCK  where ~/.ssh and the agent are (psshfs)"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: _main(argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    command = stack_command(
        PROGRAM,
        parse_stack(args.stack),
        args.special,
        args.mountpoint,
        args.words,
        foreground=args.foreground,
        verbose=args.verbose,
    )
    return run_mount(command)


def _parser() -> CommandParser:
    parser = CommandParser(PROGRAM, _DESCRIPTION, _USAGE, _more)
    parser.add_argument("special", help="what to mount")
    parser.add_argument("mountpoint", help="directory to mount on")
    parser.add_argument(
        "-t", dest="stack", metavar="STACK", required=True, help="elements joined by '|', top first"
    )
    parser.add_mount_arguments()
    return parser


def _more() -> str:
    elements = "Elements of a stack:\n" + "\n".join(element_lines()) + "\n\n"
    groups = [HOST_GROUP, TMPFS_GROUP, VND_GROUP, PSSHFS_GROUP]
    groups += [THROTTLE_GROUP, TRACE_GROUP, FAULT_GROUP, COMPARE_GROUP]
    return elements + help_sections(groups, _EXAMPLES, _ENVIRONMENT, ssh=True)


if __name__ == "__main__":
    entry()
