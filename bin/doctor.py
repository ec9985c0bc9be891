"""puffsctl doctor: what works on an SFTP server, and what will not."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from ..gateway.failures import explain
from ..gateway.status import CommandError, Status
from ..gateway.words.options import HOST_GROUP, parse_words
from ..gateway.words.sshwords import PSSHFS_GROUP, SSH_GROUP
from . import psshfs

TEXT: Final = "say what works on an SFTP server, and what will not and why"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("target", metavar="[user@]host:[dir]", help="the tree to look at")
    parser.add_argument(
        "-o",
        dest="words",
        action="append",
        default=[],
        metavar="WORD[,WORD...]",
        help="how to reach it: words of psshfs(1)",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="try to write as well, in a directory that is removed again",
    )


def run(args: argparse.Namespace) -> int:
    """Examine the server and print what was found. Errors: CommandError."""
    import trio
    from rich.console import Console

    from ..gateway.doctor import report
    from ..gateway.remote import remote

    psshfs_words, ssh, _host = parse_words(
        psshfs.renamed(args.words), [PSSHFS_GROUP, SSH_GROUP, HOST_GROUP]
    )
    for word in ("passive", "password_stdin"):
        if psshfs_words.get(word):
            text = f"{word}: doctor reads no standard input; leave it out"
            raise CommandError(Status.USAGE, text)
    console = Console(stderr=True)
    try:
        with console.status(f"Looking at {args.target}"):
            found = trio.run(_examine, args, remote(psshfs_words, ssh, readonly=False))
    except BaseException as exc:
        error = explain(exc)
        if error is None:
            raise
        raise error from None
    if args.json:
        print(report.as_json(args.target, found))
    else:
        report.as_table(args.target, found, Console(file=sys.stdout))
    return Status.OK


async def _examine(args: argparse.Namespace, told: Any) -> list[Any]:
    import trio

    from ..gateway.doctor import Finding, Verdict, examine
    from ..gateway.doctor.trials import try_out
    from ..gateway.remote import remote_tree
    from ..layers.psshfs import Psshfs

    found: list[Finding] = []

    def connected(description: str) -> None:
        found.append(Finding("connection", Verdict.TELLS, description))

    start = trio.current_time()
    async with remote_tree(args.target, told, opened=connected) as server:
        assert isinstance(server, Psshfs)
        took = trio.current_time() - start
        found.append(Finding("login", Verdict.TELLS, f"{took:.2f} s until files are there", took))
        await examine(server, found.append)
        if args.write:
            await try_out(server, found.append)
        await server.unmount(0)
    return found
