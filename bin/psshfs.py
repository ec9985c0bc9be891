"""psshfs: mount a tree of an SFTP server. The command line is sshfs's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..gateway.assembly import stack_command
from ..gateway.commandline import CommandParser, help_sections, run_command
from ..gateway.mounting import run_mount
from ..gateway.stack import parse_stack
from ..gateway.words.options import HOST_GROUP, WordGroup, split_words
from ..gateway.words.sshwords import OWN_GROUP, SSHFS_GROUP

PROGRAM: Final = "psshfs"
STACK: Final = "puffs|psshfs"

_USAGE: Final = "%(prog)s [user@]host:[dir] mountpoint [options]"

_DESCRIPTION: Final = """\
Mount a directory of an SFTP server on the host, with the command line of sshfs. The
command returns when the mount answers requests; the file server goes on in the
background. Without a directory the login directory is mounted. An IPv6 address stands
in brackets: '[::1]:/pub'. What has no effect here says so, in one line."""

_EXAMPLES: Final = """\
  psshfs user@example.org:/pub /mnt
  psshfs user@example.org: /mnt -p 2222 -C -o ro,IdentityFile=/home/me/.ssh/id
  psshfs -o idmap=user,follow_symlinks example.org:/pub /mnt
  psshfs -f -o sftp_server=/usr/libexec/sftp-server '[2001:db8::1]:/pub' /mnt
  socat EXEC:/usr/lib/openssh/sftp-server EXEC:'psshfs -o passive :/srv /mnt'
  fusermount3 -u /mnt              (as root: umount /mnt)"""

_ENVIRONMENT: Final = """\
  PUFFS_COMFD          set by syspuffs: mount over that descriptor, not on the host
  HOME, SSH_AUTH_SOCK  where ~/.ssh and the agent are"""

_OTHERWISE: Final = {
    # mount_psshfs has this name for a program on this machine; sshfs for one of the server.
    "sftp_server": "subsystem",
    "sshfs_debug": "debug",
}
"""Words that sshfs and we have other names for."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: mount(PROGRAM, argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def mount(program: str, argv: Sequence[str]) -> int:
    """Mount by a command line of sshfs, as `program`. Errors: CommandError."""
    args = _parser().parse_args(argv)
    command = stack_command(
        program,
        parse_stack(STACK),
        args.target,
        args.mountpoint,
        renamed(args.words),
        foreground=args.foreground,
        verbose=args.verbose,
    )
    return run_mount(command)


def renamed(values: Iterable[str]) -> list[str]:
    """Return the words of `values`, one each, with our names for those that sshfs names
    otherwise."""
    words = []
    for word in split_words(values):
        word = word._replace(name=_OTHERWISE.get(word.name, word.name))
        words.append(str(word).replace(",", "\\,"))
    return words


def _word(name: str) -> Callable[[str], str]:
    """Return how a letter's value becomes a word."""
    return lambda value: f"{name}={value}".replace(",", "\\,")


def _parser() -> CommandParser:
    hidden = _OTHERWISE["sftp_server"]
    own = {name: spec for name, spec in OWN_GROUP.words.items() if name not in _OTHERWISE}
    sshfs = {name: spec for name, spec in SSHFS_GROUP.words.items() if name != hidden}
    groups = [
        WordGroup(OWN_GROUP.title, own),
        WordGroup(SSHFS_GROUP.title, {"sftp_server": SSHFS_GROUP.words[hidden], **sshfs}),
        HOST_GROUP,
    ]
    parser = CommandParser(
        PROGRAM,
        _DESCRIPTION,
        _USAGE,
        lambda: help_sections(groups, _EXAMPLES, _ENVIRONMENT, ssh=True),
    )
    add = parser.add_argument
    add("target", metavar="[user@]host:[dir]", help="what to mount")
    add("mountpoint", help="directory to mount on")
    parser.add_mount_arguments()
    # Letters are words, so that the later of both wins.
    for letter, name, shown, text in (
        ("-p", "port", "PORT", "port of the server"),
        ("-F", "ssh_config", "FILE", "ssh configuration file for ~/.ssh/config"),
    ):
        add(letter, dest="words", metavar=shown, type=_word(name), action="append", help=text)
    for letters, word, text in (
        (["-C"], "compression", "compress what goes over the line"),
        (["-s"], "single_threaded", "accepted; it is one thread, always"),
        (["-v", "--verbose"], "sshfs_verbose", "accepted; what ssh says is shown, always"),
        (["-1"], "ssh_protocol=1", "accepted; protocol 2 is used"),
    ):
        add(*letters, dest="words", action="append_const", const=word, help=text)
    return parser


if __name__ == "__main__":
    entry()
