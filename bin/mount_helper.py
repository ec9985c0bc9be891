"""mount.psshfs: the helper of mount(8) for the types psshfs and fuse.psshfs, as fstab has them.

mount(8) runs it as `mount.psshfs SPECIAL DIRECTORY [-sfnv] [-o WORDS] [-t TYPE]`, as root and with
hardly any environment, or with none at all when systemd or autofs do.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from ..gateway.commandline import CommandParser, help_sections, run_command
from ..gateway.words.options import HOST_GROUP, split_words
from ..gateway.words.sshwords import PSSHFS_GROUP, SSH_GROUP
from . import psshfs

PROGRAM: Final = "mount.psshfs"

_USAGE: Final = "mount -t psshfs [-o options] [user@]host:[dir] mountpoint"

_DESCRIPTION: Final = """\
The helper of mount(8) for lines of fstab with the type psshfs or fuse.psshfs. Link it to
/sbin/mount.psshfs, and to /sbin/mount.fuse.psshfs as well, for mount(8) looks there only.
The words behind -o are those of psshfs(1)."""

_EXAMPLES: Final = """\
  ln -s "$(command -v mount.psshfs)" /sbin/mount.psshfs
  mount -t psshfs -o IdentityFile=/home/me/.ssh/id me@example.org:/pub /mnt"""

_ENVIRONMENT: Final = """\
  PATH, HOME           if they are not there: the system's directories, that of the user"""

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: _main(argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.fake:
        return 0
    os.environ.setdefault("PATH", _PATH)
    if not os.environ.get("HOME"):
        os.environ["HOME"] = pwd.getpwuid(os.geteuid()).pw_dir
    words = _known(args.words) if args.sloppy else args.words
    command = [option for word in words for option in ("-o", word)]
    return psshfs.mount(PROGRAM, [*command, "--", args.target, args.mountpoint])


def _known(values: Iterable[str]) -> list[str]:
    """Return those words that somebody knows, for `-s`."""
    groups = (PSSHFS_GROUP, SSH_GROUP, HOST_GROUP)
    words = [
        word
        for word in split_words(psshfs.renamed(values))
        if any(group.find(word) for group in groups)
    ]
    return [str(word).replace(",", "\\,") for word in words]


def _parser() -> CommandParser:
    parser = CommandParser(
        PROGRAM,
        _DESCRIPTION,
        _USAGE,
        lambda: help_sections([], _EXAMPLES, _ENVIRONMENT),
    )
    add = parser.add_argument
    add("target", metavar="[user@]host:[dir]", help="what to mount")
    add("mountpoint", help="directory to mount on")
    add("-o", dest="words", metavar="WORD[,WORD...]", action="append", default=[], help="options")
    add("-s", dest="sloppy", action="store_true", help="leave out words that nobody knows")
    add("-f", dest="fake", action="store_true", help="do everything but mount: nothing")
    add("-n", "-v", action="store_true", help="accepted: no mtab is written, and nothing told")
    add("-t", metavar="TYPE", help="accepted: the type by which mount(8) came here")
    return parser


if __name__ == "__main__":
    entry()
