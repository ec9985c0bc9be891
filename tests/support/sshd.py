"""A real OpenSSH server on the loopback, with throw-away keys and a configuration of its own.

    with Sshd(directory) as sshd:
        ... SshOptions(port=sshd.port, config_file="none", options=sshd.options) ...

Works for root and for users (who then can log in as themselves only). A missing sshd is an
error and no reason to skip: what talks to real servers is tested with a real server.
"""

from __future__ import annotations

import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_START_TIME = 10.0
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def find_program(name: str) -> str:
    """Give the path of a program of OpenSSH; the error says what to install."""
    places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"))
    path = shutil.which(name, path=places)
    if path is None:
        raise RuntimeError(f"{name} is missing: install openssh-server and openssh-client")
    return path


def find_sftp_server() -> str:
    """Give the path of OpenSSH's sftp-server, which no PATH names."""
    for place in ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/libexec"):
        if os.access(f"{place}/sftp-server", os.X_OK):
            return f"{place}/sftp-server"
    raise RuntimeError("sftp-server is missing: install openssh-sftp-server")


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "", comment: str = "") -> Path:
    """Make a key pair at `path` and `path`.pub and give `path`."""
    size = ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(
        [
            *(find_program("ssh-keygen"), "-q", "-t", kind, *size),
            *("-N", passphrase, "-C", comment, "-f", str(path)),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    return path


def list_descendants(pid: int) -> list[int]:
    """Give the processes below `pid`, the nearest first."""
    parents: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                text = Path(entry.path, "stat").read_text()
                parent = int(text.rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, ())
    return found[1:]


class Sshd:
    """One server; `with` starts and ends it, and every session that it still has.

    `subsystem` is what `Subsystem sftp` runs, None for a server without SFTP; `lines` are
    put before the rest of sshd_config, where the first value counts. It listens at `host`, an
    address of where the command `within` puts it, which becomes what it is given to run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        subsystem: str | None = "internal-sftp",
        host_keys: Sequence[str] = ("ed25519",),
        lines: Sequence[str] = (),
        host: str = "127.0.0.1",
        within: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.host = host
        self.user = getpass.getuser()
        self.port = 0
        self.log = directory / "log"
        self.known_hosts = directory / "known_hosts"
        self.authorized_keys = directory / "authorized_keys"
        self.identity = directory / "identity"
        self.host_keys = {kind: directory / f"host_{kind}" for kind in host_keys}
        self._subsystem = subsystem
        self._lines = lines
        self._within = within
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """Give ssh options by which a client logs in and looks at nothing but our files."""
        return self.options_by(self.port)

    def options_by(self, port: int) -> tuple[str, ...]:
        """Give the same for a client that comes by another port, that of a line to us."""
        known = f"[{self.host}]:{port} "
        lines = self.known_hosts.read_text() if self.known_hosts.exists() else ""
        if port != self.port and known not in lines:
            keys = (self.public_host_key(kind) for kind in self.host_keys)
            self.known_hosts.write_text(lines + "".join(f"{known}{key}\n" for key in keys))
        return (
            f"Port={port}",
            f"User={self.user}",
            f"IdentityFile={self.identity}",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            f"UserKnownHostsFile={self.known_hosts}",
            "GlobalKnownHostsFile=none",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
        )

    @property
    def pid(self) -> int:
        """Give the process that listens."""
        assert self._process is not None
        return self._process.pid

    def public_host_key(self, kind: str = "ed25519") -> str:
        """Give type and data of a host key, as known_hosts has them."""
        return " ".join(self.host_keys[kind].with_suffix(".pub").read_text().split()[:2])

    def __enter__(self) -> Sshd:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.identity.exists():
            make_key(self.identity)
            public = Path(f"{self.identity}.pub").read_text()
            self.authorized_keys.write_text(public)
            for kind, path in self.host_keys.items():
                make_key(path, kind)
        problem = ""
        for _ in range(3):
            if not (problem := self._start()):
                name = f"[{self.host}]:{self.port}"
                keys = (self.public_host_key(kind) for kind in self.host_keys)
                self.known_hosts.write_text("".join(f"{name} {key}\n" for key in keys))
                return self
        raise RuntimeError(f"sshd does not start: {problem}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _configure(self) -> Iterator[str]:
        yield from self._lines
        yield f"ListenAddress {self.host}:{self.port}"
        yield f"PidFile {self.directory}/pid"
        for path in self.host_keys.values():
            yield f"HostKey {path}"
        yield f"AuthorizedKeysFile {self.authorized_keys}"
        yield "StrictModes no"
        yield "UsePAM no"
        yield "PasswordAuthentication no"
        yield "KbdInteractiveAuthentication no"
        yield "PermitRootLogin prohibit-password"
        yield "MaxStartups 100"
        yield "MaxSessions 20"
        yield "PrintMotd no"
        yield "LogLevel VERBOSE"
        if self._subsystem is not None:
            yield f"Subsystem sftp {self._subsystem}"

    def _start(self) -> str:
        """Start it and wait until it listens; give what went wrong."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with socket.socket() as probe:
            # Free here, and all the more within a name space of its own.
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = self.directory / "sshd_config"
        config.write_text("\n".join(self._configure()) + "\n")
        with open(self.log, "ab") as log:
            start = log.tell()
            self._process = subprocess.Popen(
                [*self._within, find_program("sshd"), "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Dies with the test run, however that ends.
                preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        limit = time.monotonic() + _START_TIME
        while time.monotonic() < limit:
            if self._process.poll() is not None:
                break
            if b"Server listening on" in self.log.read_bytes()[start:]:
                return ""
            time.sleep(0.005)
        problem = self.log.read_text()[start:].strip()
        self.stop()
        return problem or "it says nothing"

    def kill_sessions(self) -> None:
        """Kill every connection's processes, as a machine does that goes down."""
        for pid in list_descendants(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the server and its sessions; harmless when called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        # The listener first, or it would start more; sessions have process groups of their own.
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGSTOP)
        pids = list_descendants(process.pid)
        process.kill()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
