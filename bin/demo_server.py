"""An SFTP server for bin/demo: asyncssh on the loopback, throw-away keys, one directory.

Run as `python -m syspuffs.bin.demo_server DIRECTORY`. DIRECTORY/root is served; DIRECTORY
gets `key` (the only one that may log in, as user "demo"), `known_hosts`, and, when connections
are taken, `port`. It ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncssh

USER = "demo"


class RootedServer(asyncssh.SFTPServer):
    """Shows links as they are: asyncssh answers "no such file" for relative ones in a chroot."""

    def readlink(self, path: bytes) -> bytes:
        """Return the target of a link."""
        return os.readlink(self.map_path(path))


def make_keys(directory: Path) -> asyncssh.SSHKey:
    """Write the user's key pair into `directory` and return a host key."""
    user_key = asyncssh.generate_private_key("ssh-ed25519", comment=f"{USER} of bin/demo")
    old_mask = os.umask(0o077)
    try:
        user_key.write_private_key(directory / "key")
        user_key.write_public_key(directory / "key.pub")
    finally:
        os.umask(old_mask)
    return asyncssh.generate_private_key("ssh-ed25519")


async def serve(directory: Path) -> None:
    """Serve `directory`/root to the key in `directory` until standard input ends."""
    root = directory / "root"
    host_key = make_keys(directory)

    def sftp_factory(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        return RootedServer(channel, chroot=os.fsencode(root))

    acceptor = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        authorized_client_keys=str(directory / "key.pub"),
        sftp_factory=sftp_factory,
        password_auth=False,
        kbdint_auth=False,
        gss_host=None,
    )
    port = acceptor.get_port()
    known = host_key.export_public_key("openssh").decode().strip()
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {known}\n")
    ready = directory / "port.new"
    ready.write_text(f"{port}\n")
    ready.rename(directory / "port")

    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    acceptor.close()
    await acceptor.wait_closed()


def main(argv: Sequence[str]) -> int:
    """Run the server and return its exit status."""
    if len(argv) != 1 or not (Path(argv[0]) / "root").is_dir():
        print("usage: demo_server DIRECTORY; there must be a DIRECTORY/root", file=sys.stderr)
        return 2
    asyncio.run(serve(Path(argv[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
