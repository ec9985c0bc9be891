"""A Linux of its own in user mode, with a disk and an sshd, whose power can be cut.

    with Machine(place) as machine:
        ... [*machine.near, "ssh", machine.HOST] ...
        machine.cut()

Its root is the host's, its disk an image with ext4, mounted at `origin`; it is reached by a tap
device in a network name space. The cut is SIGKILL to all of it: what is lost is what its
kernel had not given to the disk, as with a power cut of a machine whose disk has no cache.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final

from ..support.mounts import wait_until
from ..support.sshd import find_program, make_key

PROGRAMS: Final = {
    "linux.uml": "user-mode-linux",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mke2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
}
_BOOT: Final = 60.0
_PORT: Final = 22
_COMMIT: Final = 300
"""Seconds between commits of ext4's journal: nothing gets to the disk that nobody asked for."""

_INIT: Final = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /run/sshd
ip link set lo up
ip address add {host}/24 dev eth0
ip link set eth0 up
mount -t ext4 -o commit={commit} /dev/ubdb {origin}
exec {sshd} -D -e -r -f {config}
"""
_CONFIG: Final = """\
ListenAddress {host}:{port}
HostKey {place}/host
AuthorizedKeysFile {place}/identity.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp internal-sftp
KexAlgorithms curve25519-sha256
PrintMotd no
PrintLastLog no
"""


class Machine:
    """One such machine, which runs for the time of a `with` unless it is cut before.

    No space may be in `place`: its kernel's command line has no quotes.

    `near` is a command that runs what follows where the machine can be reached; `options` are ssh's
    for logging in; `image` is what the disk has, to be looked at after the cut.
    Errors: RuntimeError when it does not start.
    """

    NEAR = "198.18.0.1"
    HOST = "198.18.0.2"

    def __init__(self, place: Path) -> None:
        self.place = place
        self.origin = place / "disk"
        self.image = place / "image"
        self.log = place / "console"
        self._netns = f"syspuffs-{os.getpid()}-machine"
        self.near = ["nsenter", f"--net=/run/netns/{self._netns}"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def options(self) -> list[str]:
        """The `-o` words by which the server is found, and nothing else."""
        return [
            "ssh_config=none",
            f"Port={_PORT}",
            "User=root",
            f"IdentityFile={self.place}/identity",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            f"UserKnownHostsFile={self.place}/known_hosts",
            "GlobalKnownHostsFile=none",
        ]

    def __enter__(self) -> Machine:
        self.origin.mkdir(parents=True)
        make_key(self.place / "identity")
        host = make_key(self.place / "host").with_suffix(".pub").read_text()
        (self.place / "known_hosts").write_text(f"{self.HOST} {host}")
        config, init = self.place / "sshd_config", self.place / "init"
        config.write_text(_CONFIG.format(host=self.HOST, port=_PORT, place=self.place))
        init.write_text(
            _INIT.format(
                host=self.HOST,
                commit=_COMMIT,
                origin=self.origin,
                sshd=find_program("sshd"),
                config=config,
            )
        )
        init.chmod(0o755)
        with self.image.open("wb") as disk:
            disk.truncate(256 << 20)
        _run("mke2fs", "-q", "-F", "-t", "ext4", str(self.image))
        _run("ip", "netns", "add", self._netns)
        try:
            for command in (
                "link set lo up",
                "tuntap add tap0 mode tap",
                f"address add {self.NEAR}/24 dev tap0",
                "link set tap0 up",
            ):
                _run(*self.near, "ip", *command.split())
            self._start(init)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, init: Path) -> None:
        arguments = ["mem=256M", f"ubdb={self.image}", "eth0=tuntap,tap0"]
        arguments += ["rootfstype=hostfs", "rootflags=/", "rw", f"init={init}", "quiet"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self.near, "linux.uml", *arguments, "con=null", "con0=null,fd:1"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = self._process
        wait_until(lambda: self._listens() or process.poll() is not None, _BOOT)
        if not self._listens():
            said = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the machine does not start:\n{said}")

    def _listens(self) -> bool:
        return b"Server listening" in self.log.read_bytes()

    def cut(self) -> None:
        """Cut its power; harmless when it has none."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def close(self) -> None:
        """Cut its power, and take its network away; harmless when called twice."""
        self.cut()
        if Path("/run/netns", self._netns).exists():
            _run("ip", "netns", "delete", self._netns)


def missing() -> str:
    """Say why there can be no machine here, "" if there can."""
    if os.geteuid() != 0:
        return "only root may make network name spaces"
    lacks = [package for name, package in PROGRAMS.items() if shutil.which(name) is None]
    return f"apt-get install {' '.join(lacks)}" if lacks else ""


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
