"""A process that serves one tree to any number of SFTP clients.

Run as `python -m tests.sftpd.resident SOCKET TREE`, where TREE is "tmpfs", or "host" for the root
of this machine by way of psshfs. Each connection to the UNIX socket brings two descriptors, a
client's standard input and output, a directory to start in and the letters of puffs_sftp_server;
it gets an octet when its session is over. What sshd or sftp start is relay.py, which hands its
own over. It ends when its standard input ends; then everything must have been given back, or the
status is 1.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Final

import trio

from syspuffs.bin.puffs_sftp_server import _parser, _requests
from syspuffs.gateway.assembly import served_ground
from syspuffs.gateway.sftp import Export, Permitted, Session, View, exported
from syspuffs.gateway.stack import built, parse_served
from syspuffs.native.records import Cred

from ..support.sshd import find_sftp_server

SELF: Final = Cred(os.geteuid(), os.getegid(), tuple(os.getgroups()), os.getpid())


async def take(export: Export, tree: str, connection: socket.socket, failures: list[str]) -> None:
    """Serve the client whose descriptors come over `connection`."""
    with connection:
        await trio.lowlevel.wait_readable(connection)
        message, fds, _, _ = socket.recv_fds(connection, 65536, 2)
        start, *letters = message.split(b"\0")
        for fd in fds:
            os.set_blocking(fd, False)
        args = _parser().parse_args(map(os.fsdecode, letters))
        permitted = Permitted(
            readonly=args.readonly,
            denied=_requests("-P", args.denied) or (),
            allowed=_requests("-p", args.allowed),
        )
        view = View(export, SELF, user=b"me")
        if tree == "host":
            await view.start_in(start)
        session = Session(view, fds[0], fds[1], permitted=permitted)
        try:
            await session.serve()
        finally:
            for fd in fds:
                trio.lowlevel.notify_closing(fd)
                os.set_blocking(fd, True)
                os.close(fd)
        if session.failures:
            failures.append(f"{session.failures} requests failed")
        try:
            connection.send(b"e")
        except BrokenPipeError:
            pass


async def serve(path: str, tree: str) -> int:
    """Serve until standard input ends; return the exit status."""
    failures: list[str] = []
    text, words, special = "p2k|tmpfs", ["mode=755"], "none"
    if tree == "host":
        text, words, special = "psshfs", [f"sftp_server={find_sftp_server()}"], ":/"
    elements = parse_served(text)
    ground = served_ground(elements, special, words, readonly=False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        listener.setblocking(False)
        async with built(elements, ground) as stack:
            async with exported(stack.server) as export:

                async def accept() -> None:
                    while True:
                        await trio.lowlevel.wait_readable(listener)
                        connection, _ = listener.accept()
                        nursery.start_soon(take, export, tree, connection, failures)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(accept)
                    print("ready", flush=True)
                    await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
                    nursery.cancel_scope.cancel()
                export.names_changed()
                left = export.nodes.in_use
                if left:
                    failures.append(f"nodes in use: {left}")
            await stack.server.unmount(0)
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(trio.run(serve, sys.argv[1], sys.argv[2]))
