"""mount_psshfs: mount a tree of an SFTP server. The letters are NetBSD's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from ..gateway.assembly import stack_command
from ..gateway.between import FAULT_GROUP
from ..gateway.commandline import CommandParser, checked, help_sections, run_command
from ..gateway.mounting import run_mount
from ..gateway.stack import parse_stack
from ..gateway.words.options import HOST_GROUP, number
from ..gateway.words.sshwords import OWN_GROUP, SSHFS_GROUP, seconds

PROGRAM: Final = "mount_psshfs"
STACK: Final = "puffs|psshfs"

_READ_OCTETS: Final = 261_120
"""What one READ brings from an OpenSSH server: the unit of -r."""

_USAGE: Final = "%(prog)s [options] [user@]host[:path] mountpoint"

_DESCRIPTION: Final = """\
Mount a directory of an SFTP server on the host. The command returns when the mount
answers requests; the file server goes on in the background. Without a path the login
directory is mounted. An IPv6 address stands in brackets: '[::1]:/pub'."""

_EXAMPLES: Final = """\
  mount_psshfs user@example.org:/pub /mnt
  mount_psshfs -s -o ro,port=2222,IdentityFile=/home/me/.ssh/id example.org: /mnt
  mount_psshfs -o ssh_command=ssh,ProxyJump=gate.example.org '[2001:db8::1]:/pub' /mnt
  mount_psshfs -o sftp_server=/usr/lib/openssh/sftp-server :/srv /mnt
  umount /mnt                      (as a user: fusermount3 -u /mnt)"""

_ENVIRONMENT: Final = """\
  PUFFS_COMFD          set by syspuffs: mount over that descriptor, not on the host
  HOME, SSH_AUTH_SOCK  where ~/.ssh and the agent are"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: _main(argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest:
        if args.preserve and args.target.isdigit():
            parser.error(f"-p takes no number here; the port is given by -o port={args.target}")
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    for note in _notes(args):
        print(f"{PROGRAM}: {note}", file=sys.stderr)
    command = stack_command(
        PROGRAM,
        parse_stack(STACK),
        args.target,
        args.mountpoint,
        [*args.words, *_words_of_letters(args)],
        foreground=args.foreground or args.stay,
        verbose=args.verbose,
    )
    return run_mount(command)


def _words_of_letters(args: argparse.Namespace) -> list[str]:
    """Return the words behind `-o` that the letters stand for."""
    words = [word for word, given in (("compression", args.compression),) if given]
    for name, value in (
        ("ssh_config", args.config),
        ("remote_uid", args.uid),
        ("remote_gid", args.gid),
        ("cache_timeout", args.timeout),
        ("max_conns", args.connections),
        ("read_ahead", None if args.reads is None else int(args.reads) * _READ_OCTETS),
    ):
        if value is not None:
            words.append(f"{name}={value}".replace(",", "\\,"))
    for option in args.ssh_options:
        name, _, value = option.replace("=", " ", 1).partition(" ")
        words.append(f"{name}={value.strip()}".replace(",", "\\,"))
    return words


def _notes(args: argparse.Namespace) -> list[str]:
    """Return what the user should know of letters that are accepted for NetBSD's sake."""
    notes = []
    if args.export:
        notes.append("-e: mounted without file handles, it cannot be exported by NFS")
    return notes


def _parser() -> CommandParser:
    parser = CommandParser(
        PROGRAM,
        _DESCRIPTION,
        _USAGE,
        lambda: help_sections(
            [OWN_GROUP, SSHFS_GROUP, HOST_GROUP, FAULT_GROUP], _EXAMPLES, _ENVIRONMENT, ssh=True
        ),
    )
    add = parser.add_argument
    add("target", metavar="[user@]host[:path]", help="what to mount")
    add("mountpoint", help="directory to mount on")
    parser.add_mount_arguments()
    add("-s", dest="stay", action="store_true", help="stay in the foreground, as -f")
    add(
        "-t",
        dest="timeout",
        metavar="SECS",
        type=checked(seconds),
        help="believe attributes and directories so long (30; 0: never; -1: for ever); "
        "SIGHUP drops what is remembered",
    )
    add("-F", dest="config", metavar="FILE", help="ssh configuration file for ~/.ssh/config")
    add(
        "-O",
        dest="ssh_options",
        metavar="OPT=VAL",
        action="append",
        default=[],
        help="an ssh_config keyword and its value; the same works behind -o",
    )
    add("-C", dest="compression", action="store_true", help="compress what goes over the line")
    add(
        "-u",
        dest="uid",
        metavar="UID",
        type=checked(number),
        help="this user there is the mounting user here",
    )
    add(
        "-g",
        dest="gid",
        metavar="GID",
        type=checked(number),
        help="this group there is the mounting group here",
    )
    add(
        "-r",
        dest="reads",
        metavar="N",
        type=checked(number),
        help=f"read ahead at most N requests of {_READ_OCTETS} octets in one file",
    )
    add(
        "-c",
        dest="connections",
        metavar="N",
        type=checked(number),
        help="so many connections at most carry the data of a long file (4); names go over the "
        "first one",
    )
    add("-e", dest="export", action="store_true", help="exportable by NFS (NetBSD); it is not")
    add("-p", dest="preserve", action="store_true", help="reconnect (NetBSD); it does")
    return parser


if __name__ == "__main__":
    entry()
