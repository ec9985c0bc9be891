"""A process that serves one tree in memory to any number of SFTP clients.

Run as `python -m tests.sftpd.resident SOCKET`. Each connection to the UNIX socket brings two
descriptors, a client's standard input and output, and gets an octet when its session is over:
what sshd starts for `Subsystem` is relay.py, which hands its own over. It ends when its
standard input ends; then everything must have been given back, or the status is 1.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

import trio

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.sftp import Export, Session, View, exported
from syspuffs.layers.p2k import p2k_over
from syspuffs.native.records import Cred

SELF = Cred(os.geteuid(), os.getegid(), tuple(os.getgroups()), os.getpid())


async def take(export: Export, connection: socket.socket, failures: list[str]) -> None:
    """Serve the client whose descriptors come over `connection`."""
    with connection:
        await trio.lowlevel.wait_readable(connection)
        _, fds, _, _ = socket.recv_fds(connection, 1, 2)
        for fd in fds:
            os.set_blocking(fd, False)
        session = Session(View(export, SELF, user=b"me"), fds[0], fds[1])
        try:
            await session.serve()
        finally:
            for fd in fds:
                trio.lowlevel.notify_closing(fd)
                os.close(fd)
        if session.failures:
            failures.append(f"{session.failures} requests failed")
        try:
            connection.send(b"e")
        except BrokenPipeError:
            pass


async def serve(path: str) -> int:
    """Serve until standard input ends; return the exit status."""
    failures: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        listener.setblocking(False)
        fs = TmpFs(mntfromname=b"none", mode=0o755)
        async with p2k_over(fs) as server:
            async with exported(server) as export:

                async def accept() -> None:
                    while True:
                        await trio.lowlevel.wait_readable(listener)
                        connection, _ = listener.accept()
                        nursery.start_soon(take, export, connection, failures)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(accept)
                    print("ready", flush=True)
                    await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
                    nursery.cancel_scope.cancel()
                export.directories_changed()
                left = export.nodes.in_use
                if left:
                    failures.append(f"nodes in use: {left}")
            await server.unmount(0)
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(trio.run(serve, sys.argv[1]))
