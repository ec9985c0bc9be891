"""An OpenSSH server of our own on the loopback, with throw-away keys, and how to reach it."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from ..support.leaks import descendants

HOST: Final = "bench"
"""What the server is called in the client's configuration."""
_PATIENCE: Final = 10.0


class Server:
    """sshd in a directory of its own; `config` is the client's configuration file.

    Used as a context manager; its end ends sshd and everything below it. It logs at DEBUG
    level, which tells the ciphers and costs something per connection, not per packet.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.config = directory / "ssh_config"
        self.log = directory / "sshd.log"

    def __enter__(self) -> Server:
        self._directory.mkdir(mode=0o700)
        for name in ("host_key", "user_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._directory / name],
                check=True,
            )
        (self._directory / "authorized_keys").write_text(
            (self._directory / "user_key.pub").read_text()
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for _ in range(5):  # another process may take the port between our look and sshd's bind
            port = _free_port()
            if self._start(port):
                self._write_client(port)
                return self
        raise RuntimeError("sshd did not start: " + self.log.read_text()[-2000:])

    def __exit__(self, *exc: object) -> None:
        if self._process is None:
            return
        for pid in reversed(descendants(self._process.pid)):
            _terminate(pid)
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self, port: int) -> bool:
        config = self._directory / "sshd_config"
        config.write_text(
            f"Port {port}\n"
            "ListenAddress 127.0.0.1\n"
            f"HostKey {self._directory}/host_key\n"
            f"AuthorizedKeysFile {self._directory}/authorized_keys\n"
            "PidFile none\n"
            "PermitRootLogin yes\n"
            "StrictModes no\n"
            "UsePAM no\n"
            "PasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            "MaxStartups 100\n"
            "LogLevel DEBUG\n"
            f"Subsystem sftp {_sftp_server()}\n"
        )
        self._process = subprocess.Popen(
            [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-f", config, "-E", self.log],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return True
        return False

    def _write_client(self, port: int) -> None:
        known = self._directory / "known_hosts"
        words = (self._directory / "host_key.pub").read_text().split()
        known.write_text(f"[127.0.0.1]:{port} {words[0]} {words[1]}\n")
        self.config.write_text(
            f"Host {HOST}\n"
            "    HostName 127.0.0.1\n"
            f"    Port {port}\n"
            f"    User {pwd.getpwuid(os.geteuid()).pw_name}\n"
            f"    IdentityFile {self._directory}/user_key\n"
            "    IdentitiesOnly yes\n"
            f"    UserKnownHostsFile {known}\n"
            "    StrictHostKeyChecking yes\n"
        )

    @property
    def pid(self) -> int:
        """Return the process id of the listening sshd."""
        assert self._process is not None
        return self._process.pid

    def ciphers(self, start: int = 0) -> list[str]:
        """Return the ciphers (server to client) agreed on since octet `start` of the log."""
        text = self.log.read_bytes()[start:].decode(errors="replace")
        return re.findall(r"kex: server->client cipher: (\S+)", text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _sftp_server() -> str:
    for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server"):
        if os.path.exists(path):
            return path
    return "internal-sftp"


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, 15)
    except ProcessLookupError:
        pass
