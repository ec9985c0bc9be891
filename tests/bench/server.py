"""The OpenSSH server that all mounts share, as Debian sets it up, and the way to reach it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ..support.sshd import Sshd, find_sftp_server

HOST: Final = "bench"
"""What the server is called in the client's configuration."""


class Server(Sshd):
    """An sshd with sftp-server as a program of its own; `config` is for `ssh -F`.

    It logs at DEBUG level, which tells the ciphers and costs something per connection, not per
    packet.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, subsystem=find_sftp_server(), lines=["LogLevel DEBUG"])
        self.config = directory / "ssh_config"

    def __enter__(self) -> Server:
        super().__enter__()
        self.lead_by(self.port)
        return self

    def lead_by(self, port: int) -> None:
        """Have those who connect from now on come by another port, that of a line to us."""
        lines = [f"Host {HOST}", f"HostName {self.host}", *self.options_by(port)]
        self.config.write_text("\n".join(line.replace("=", " ", 1) for line in lines) + "\n")

    def ciphers(self, start: int) -> list[str]:
        """Return the ciphers (server to client) agreed on since octet `start` of the log."""
        text = self.log.read_bytes()[start:].decode(errors="replace")
        return re.findall(r"kex: server->client cipher: (\S+)", text)
