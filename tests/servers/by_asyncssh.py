"""asyncssh's own SFTP server. Run as `by_asyncssh.py HOST_KEY AUTHORIZED_KEYS`; prints its port."""

from __future__ import annotations

import asyncio
import sys

import asyncssh


async def main(host_key: str, authorized: str) -> None:
    acceptor = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        authorized_client_keys=authorized,
        sftp_factory=True,
    )
    print(acceptor.get_port(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main(*sys.argv[1:]))
