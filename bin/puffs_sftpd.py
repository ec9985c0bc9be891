"""puffs_sftpd: serve stacks to SFTP clients, over SSH, to one user ad hoc or as a file says."""

from __future__ import annotations

import getpass
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ..gateway.assembly import served_ground
from ..gateway.commandline import CommandParser, checked, help_sections, run_command
from ..gateway.sftpd.daemon import DaemonCommand, run_daemon
from ..gateway.sftpd.settings import Account, Settings, TreeSettings
from ..gateway.sftpd.values import address
from ..gateway.sshd.settings import Credentials, SshSettings
from ..gateway.stack import TMPFS_GROUP, VND_GROUP, element_lines, parse_served
from ..gateway.status import Status
from ..gateway.words.sshwords import PSSHFS_GROUP
from ..layers.guard.settings import GuardSettings

PROGRAM: Final = "puffs_sftpd"

_USAGE: Final = """\
%(prog)s -t STACK [options] special
       %(prog)s --config FILE [--check]"""

_DESCRIPTION: Final = """\
Serve stacks of elements to SFTP clients, over an SSH of its own. Ad hoc: one tree, to one
user; STACK is written as mount_puffs has it, without the first 'puffs', and `special` is
what the bottom element takes. With --config: as a file in TOML says, which
puffs_sftpd.toml(5) describes; SIGHUP reads it again without dropping anybody. It stays in
the foreground until SIGTERM or SIGINT. Given root, it becomes another user once it listens."""

_EXAMPLES: Final = """\
  puffs_sftpd --key ~/.ssh/authorized_keys -t psshfs files.example.org:/pub
  puffs_sftpd --listen '[::]:2022' --user guest --password-hash "$HASH" -t 'p2k|tmpfs' none
  puffs_sftpd --config gateway.toml --check
  puffs_sftpd --config gateway.toml"""

_ENVIRONMENT: Final = """\
  XDG_STATE_HOME       where the host key is kept, in puffs_sftpd (~/.local/state); ad hoc
  HOME, SSH_AUTH_SOCK  where ~/.ssh and the agent are (psshfs)
  NOTIFY_SOCKET        where systemd hears of start, reload and stop"""

_LISTEN: Final = "127.0.0.1:2022"

_log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(PROGRAM, lambda: _main(argv))


def entry() -> None:
    """Run the command with the arguments of this process, and end it."""
    sys.exit(main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    is_configured = args.config is not None
    load = _configured(parser, args) if is_configured else _ad_hoc(parser, args)
    if args.check:
        print("\n".join(_described(load())))
        return Status.OK
    announce = _log.info if is_configured else _say
    return run_daemon(DaemonCommand(PROGRAM, load, announce, is_eager=not is_configured))


def _say(text: str) -> None:
    print(text, flush=True)


def _configured(parser: CommandParser, args: Namespace) -> Callable[[], Settings]:
    alone = ("key", "listen", "password_hash", "run_as", "special", "stack", "user", "words")
    for name in alone:
        if getattr(args, name):
            parser.error("--config has everything in its file; leave out all else but --check")
    file = Path(args.config).absolute()

    def load() -> Settings:
        # pydantic takes a while to import, and who serves ad hoc can do without.
        from ..gateway.sftpd.configuration import read_configuration

        return read_configuration(file)

    return load


def _ad_hoc(parser: CommandParser, args: Namespace) -> Callable[[], Settings]:
    if args.stack is None or args.special is None:
        parser.error("a stack (-t) and what it is to serve are needed, or --config")
    if not args.key and not args.password_hash:
        parser.error("nobody could log in; give --key or --password-hash")
    elements = parse_served(args.stack)
    served_ground(elements, args.special, args.words, readonly=False)
    user = args.user or getpass.getuser()
    state = _state()
    settings = Settings(
        ssh=SshSettings(listen=tuple(map(address, args.listen or [_LISTEN])), state=state),
        accounts={
            user: Account(
                name=user,
                credentials=Credentials(
                    key_files=tuple(Path(file).absolute() for file in args.key),
                    password_hashes=tuple(args.password_hash),
                ),
                trees=(TreeSettings(b"/", args.stack, args.special, tuple(args.words)),),
                guard=GuardSettings(),
            )
        },
        state=state,
        run_as=args.run_as,
        keep_seconds=None,
    )
    return lambda: settings


def _state() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / PROGRAM


def _described(settings: Settings) -> list[str]:
    """Return what would be served, for --check."""
    lines = [f"listen on {host} port {port}" for host, port in settings.ssh.listen]
    lines.append(f"state in {settings.state}")
    for account in settings.accounts.values():
        lines.append(f"user {account.name}: {', '.join(_ways_in(account, settings))}")
        for tree in account.trees:
            path = tree.path.decode("utf-8", "backslashreplace")
            readonly = ", read-only" if tree.readonly or account.guard.readonly else ""
            lines.append(f"  {path}  {tree.stack} {tree.special}{readonly}")
    return lines


def _ways_in(account: Account, settings: Settings) -> list[str]:
    given = account.credentials
    ways = [f"keys of {file}" for file in given.key_files]
    ways += [f"keys: {len(given.keys)}"] * bool(given.keys)
    ways += [f"authorities: {len(given.ca_keys)}"] * bool(given.ca_keys)
    ways += [f"passwords: {len(given.password_hashes)}"] * bool(given.password_hashes)
    if settings.ssh.auth_command:
        ways.append(f"whom {settings.ssh.auth_command[0]} lets in")
    return ways


def _parser() -> CommandParser:
    parser = CommandParser(PROGRAM, _DESCRIPTION, _USAGE, _more)
    parser.add_served_arguments()
    add = parser.add_argument
    add("--user", metavar="NAME", help="who may log in (who starts this)")
    add(
        "--key",
        metavar="FILE",
        action="append",
        default=[],
        help="authorized_keys of that user; may be repeated",
    )
    add(
        "--password-hash",
        metavar="HASH",
        action="append",
        default=[],
        help="argon2 or bcrypt hash of a password of that user; may be repeated",
    )
    add(
        "--listen",
        metavar="ADDRESS:PORT",
        action="append",
        type=checked(address),
        help=f"where to listen ({_LISTEN}); may be repeated, port 0 is any that is free",
    )
    add("--run-as", metavar="USER", help="whom root becomes once it listens (nobody)")
    add("--config", metavar="FILE", help="serve what this file says")
    add("--check", action="store_true", help="print what would be served, and exit")
    return parser


def _more() -> str:
    elements = "Elements of a stack:\n" + "\n".join(element_lines(mounted=False)) + "\n\n"
    groups = [TMPFS_GROUP, VND_GROUP, PSSHFS_GROUP]
    return elements + help_sections(groups, _EXAMPLES, _ENVIRONMENT, ssh=True, daemon=True)


if __name__ == "__main__":
    entry()
