"""Print the SFTP end beside OpenSSH's sftp-server, rclone's and asyncssh's.

    python tests/bench/served.py                 sshd in front of each, three rounds, two minutes
    python tests/bench/served.py --daemon        each with the SSH that it brings along
    python tests/bench/served.py --rounds 9 --direct

One client that costs little (our codec on a blocking socket, behind OpenSSH's ssh) makes the same
requests of each server in turn; all serve a directory in memory, and "tmpfs" is ours over our own
files in memory. Figures are medians over the rounds. With --direct the client holds the server's
standard streams, without any SSH.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

if __package__ in (None, ""):  # run as a script: find the package that it belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "tests.bench"

from syspuffs.native import sftp

from ..support.mounts import python_command
from ..support.sshd import Sshd, find_sftp_server, make_key
from .machine import describe
from .report import Shortfall

FILES = 300
MAKE = sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_TRUNC


class Client:
    """A blocking SFTP client on a socket."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL
            )
        self._buffer = memoryview(bytearray(4 << 20))
        self._start = self._end = 0
        self._replies: deque[tuple[int, int, int, int]] = deque()
        self.received = 0
        """Octets since the beginning."""
        self._socket.sendall(sftp.init())
        self._reply()

    def close(self) -> None:
        self._socket.close()
        self._process.wait(timeout=20)

    def _reply(self) -> tuple[int, int, int, int]:
        buffer = self._buffer
        while not self._replies:
            if self._start == self._end:
                self._start = self._end = 0
            elif len(buffer) - self._end < 1 << 19:
                rest = bytes(buffer[self._start : self._end])
                buffer[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            count = self._socket.recv_into(buffer[self._end :])
            if not count:
                raise EOFError("the server ended")
            self._end += count
            self.received += count
            self._start, found = sftp.scan(buffer, self._start, self._end, 1 << 20)
            self._replies.extend(found)
        return self._replies.popleft()

    def ask(self, packet: bytes, payload: bytes = b"") -> tuple[int, memoryview]:
        """Make one request and return type and body of its answer."""
        self._socket.sendall(packet + payload)
        kind, _, start, end = self._reply()
        return kind, self._buffer[start:end]

    def done(self, packet: bytes, payload: bytes = b"") -> memoryview:
        """The same; an error ends the bench."""
        kind, body = self.ask(packet, payload)
        if kind == sftp.FXP_STATUS:
            code, text = sftp.decode_status(body)
            if code != sftp.FX_OK:
                raise RuntimeError(f"status {code}: {text!r}")
        return body

    def pipeline(self, packets: Sequence[tuple[bytes, bytes]], depth: int) -> int:
        """Make many requests with `depth` of them in flight; return how many octets came back."""
        sent = answered = 0
        before = self.received
        while answered < len(packets):
            batch = packets[sent : answered + depth]
            sent += len(batch)
            if sum(len(head) + len(data) for head, data in batch) < 1 << 16:
                self._socket.sendall(b"".join([part for packet in batch for part in packet]))
            else:
                for head, data in batch:
                    self._socket.sendall(head)
                    if data:
                        self._socket.sendall(data)
            self._reply()
            answered += 1 + len(self._replies)
            self._replies.clear()
        return self.received - before


Row = Callable[[Client, bytes], float]


def _rate(count: float, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def _names(base: bytes) -> list[bytes]:
    return [b"%b/a/b/f%d" % (base, number) for number in range(FILES)]


def create(client: Client, base: bytes) -> float:
    """Small files made, one after the other: files/s."""
    for path in (base, base + b"/a", base + b"/a/b"):
        client.done(sftp.mkdir(1, path))

    def work() -> None:
        for name in _names(base):
            handle = sftp.decode_handle(client.done(sftp.open_(1, name, MAKE)))
            client.done(sftp.write(2, handle, 0, 2000), bytes(2000))
            client.done(sftp.close(3, handle))

    return _rate(FILES, work)


def read_small(client: Client, base: bytes) -> float:
    """The same read: files/s."""

    def work() -> None:
        for name in _names(base):
            handle = sftp.decode_handle(client.done(sftp.open_(1, name, sftp.FXF_READ)))
            client.done(sftp.fstat(2, handle))
            client.done(sftp.read(3, handle, 0, 32768))
            client.done(sftp.close(4, handle))

    return _rate(FILES, work)


def lstat(client: Client, base: bytes) -> float:
    """One request at a time: requests/s."""
    names = _names(base)

    def work() -> None:
        for number in range(2000):
            client.done(sftp.lstat(1, names[number % FILES]))

    return _rate(2000, work)


def lstats(client: Client, base: bytes) -> float:
    """64 in flight: requests/s."""
    names = _names(base)
    packets = [(sftp.lstat(number, names[number % FILES]), b"") for number in range(10_000)]
    return _rate(len(packets), lambda: client.pipeline(packets, 64))


def listing(client: Client, base: bytes) -> float:
    """Directories listed: entries/s."""

    def work() -> None:
        for _ in range(5):
            handle = sftp.decode_handle(client.done(sftp.opendir(1, base + b"/a/b")))
            while client.ask(sftp.readdir(2, handle))[0] == sftp.FXP_NAME:
                pass
            client.done(sftp.close(3, handle))

    return _rate(5 * (FILES + 2), work)


def _bulk(size: int, depth: int, total: int) -> tuple[Row, Row]:
    def write(client: Client, base: bytes) -> float:
        handle = sftp.decode_handle(client.done(sftp.open_(1, base + b"/big", MAKE)))
        data = bytes(size)
        offsets = range(0, total, size)
        packets = [(sftp.write(n, handle, at, size), data) for n, at in enumerate(offsets)]
        rate = _rate(total / 1e6, lambda: client.pipeline(packets, depth))
        client.done(sftp.close(1, handle))
        return rate

    def read(client: Client, base: bytes) -> float:
        handle = sftp.decode_handle(client.done(sftp.open_(1, base + b"/big", sftp.FXF_READ)))
        offsets = range(0, total, size)
        packets = [(sftp.read(n, handle, at, size), b"") for n, at in enumerate(offsets)]
        start = time.perf_counter()
        # What came, not what was asked for: some answer a long READ with 32 KiB.
        rate = client.pipeline(packets, depth) / 1e6 / (time.perf_counter() - start)
        client.done(sftp.close(1, handle))
        return rate

    return write, read


_WRITE_32K, _READ_32K = _bulk(32768, 64, 64 << 20)
_WRITE_255K, _READ_255K = _bulk(261_120, 16, 128 << 20)

ROWS: dict[str, Row] = {
    "small files made, files/s": create,
    "small files read, files/s": read_small,
    "LSTAT one at a time, /s": lstat,
    "LSTAT 64 in flight, /s": lstats,
    "listing, entries/s": listing,
    "write 32 KiB x 64, MB/s": _WRITE_32K,
    "read 32 KiB x 64, MB/s": _READ_32K,
    "write 255 KiB x 16, MB/s": _WRITE_255K,
    "read 255 KiB x 16, MB/s": _READ_255K,
}
"""What is measured, in this order: later rows use what earlier ones made."""


@dataclass(frozen=True)
class Server:
    """One that is measured: its command, and where in its tree the files go."""

    name: str
    argv: tuple[str, ...]
    base: bytes

    @property
    def subsystem(self) -> str:
        """The command for sshd_config, which takes one pair of quotes away."""
        return " ".join(f"\"'{word}'\"" if "|" in word else word for word in self.argv)


def programs(memory: str) -> list[Server]:
    """Return the servers that serve one client on standard input and output."""
    ours = python_command("puffs_sftp_server")
    found = [
        Server("OpenSSH", (find_sftp_server(),), os.fsencode(f"{memory}/r")),
        Server("ours", (*ours, "-t", "local", memory), b"/r"),
        Server("tmpfs", (*ours, "-t", "p2k|tmpfs", "none"), b"/r"),
    ]
    if shutil.which("rclone"):
        found.append(Server("rclone", (*RCLONE, "--stdio", memory), b"/r"))
    return found


RCLONE: Final = ("rclone", "--config=/dev/null", "--vfs-cache-mode=writes", "serve", "sftp")

ASYNCSSH: Final = """\
import asyncio, sys, asyncssh

async def main(port, key, known, root):
    def server(channel):
        return asyncssh.SFTPServer(channel, chroot=root.encode())
    await asyncssh.listen("127.0.0.1", int(port), server_host_keys=[key],
                          authorized_client_keys=known, sftp_factory=server)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""
"""asyncssh's own SFTP server, as its documentation shows it."""


@contextmanager
def over_sshd(servers: Sequence[Server]) -> Iterator[dict[str, Sequence[str]]]:
    """Put an sshd before each; give what reaches it."""
    with ExitStack() as stack:
        argv: dict[str, Sequence[str]] = {}
        for server in servers:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            sshd = stack.enter_context(Sshd(place, subsystem=server.subsystem))
            options = [word for option in sshd.options for word in ("-o", option)]
            argv[server.name] = ["ssh", "-F", "none", *options, "-s", sshd.host, "sftp"]
        yield argv


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


@contextmanager
def daemons(memory: str) -> Iterator[tuple[list[Server], dict[str, Sequence[str]]]]:
    """Start the servers that bring SSH along, and OpenSSH's; give them and what reaches each."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        key, host = make_key(place / "key"), make_key(place / "host")
        known = place / "key.pub"
        ours = python_command("puffs_sftpd")
        port = {name: _free_port() for name in ("ours", "tmpfs", "rclone", "asyncssh")}
        commands: dict[str, Sequence[str]] = {
            name: [
                *(*ours, "--listen", f"127.0.0.1:{port[name]}", "--user", "bench"),
                *("--key", str(known), "--run-as", getpass.getuser(), "-t", *tree),
            ]
            for name, tree in (("ours", ("local", memory)), ("tmpfs", ("p2k|tmpfs", "none")))
        }
        commands["asyncssh"] = [
            *(sys.executable, "-c", ASYNCSSH, str(port["asyncssh"]), str(host), str(known), memory)
        ]
        if shutil.which("rclone"):
            commands["rclone"] = [
                *(*RCLONE, memory, "--addr", f"127.0.0.1:{port['rclone']}", "--user", "bench"),
                *("--authorized-keys", str(known), "--key", str(host)),
            ]
        sshd = stack.enter_context(Sshd(place / "sshd", subsystem=find_sftp_server()))
        options = [word for option in sshd.options for word in ("-o", option)]
        servers = [Server("OpenSSH", (), os.fsencode(f"{memory}/r"))]
        argv: dict[str, Sequence[str]] = {
            "OpenSSH": ["ssh", "-F", "none", *options, "-s", sshd.host, "sftp"]
        }
        for name, command in commands.items():
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            _wait_for(port[name], process)
            servers.append(Server(name, (), b"/r"))
            argv[name] = [
                *("ssh", "-F", "none", "-p", str(port[name]), "-l", "bench", "-i", str(key)),
                *("-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o"),
                *("UserKnownHostsFile=/dev/null", "-s", "127.0.0.1", "sftp"),
            ]
        yield servers, argv


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as probe:
            if probe.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen")


def measure(
    servers: Sequence[Server], argv: Mapping[str, Sequence[str]], memory: str, rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Return the figures by row and server."""
    figures: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for server in servers:
            client = Client(argv[server.name])
            try:
                for name, row in ROWS.items():
                    with contextlib.suppress(RuntimeError):
                        rate = row(client, server.base)
                        figures.setdefault((name, server.name), []).append(rate)
                for path in (*_names(server.base), server.base + b"/big"):
                    client.ask(sftp.remove(1, path))
                for path in (b"/a/b", b"/a", b""):
                    client.ask(sftp.rmdir(1, server.base + path))
            finally:
                client.close()
            shutil.rmtree(f"{memory}/r", ignore_errors=True)
    return figures


OWED: Final = {"OpenSSH": 0.7}
"""Of what others reach, with sshd in front of all."""
OWED_DAEMON: Final = {"rclone": 1.0, "asyncssh": 1.5}
"""The same for those that bring their own SSH."""


def print_figures(
    figures: dict[tuple[str, str], list[float]], owed: Mapping[str, float]
) -> list[Shortfall]:
    """Print the medians, and ours beside each peer; return where we reach less than is owed."""
    names = list(dict.fromkeys(server for _, server in figures))
    peers = [peer for peer in ("OpenSSH", "rclone", "asyncssh") if peer in names]
    head = "".join(f"{name:>10}" for name in names)
    print(f"\n{'':28}{head}" + "".join(f"  /{peer:<8}" for peer in peers))
    shortfalls = []
    for row in ROWS:
        medians = {
            name: statistics.median(figures[row, name]) for name in names if (row, name) in figures
        }
        cells = "".join(
            f"{medians[name]:10.0f}" if name in medians else f"{'-':>10}" for name in names
        )
        ratios = ""
        for peer in peers:
            if peer not in medians:
                ratios += f"  {'-':<9}"
                continue
            ratio = medians["ours"] / medians[peer]
            ratios += f"  {ratio:<9.2f}"
            if ratio < owed.get(peer, 0):
                text = f"served, {row}: {ratio:.2f} of {peer}, owed {owed[peer]:.2f}"
                shortfalls.append(Shortfall(True, text))
        print(f"{row:28}{cells}{ratios}")
    return shortfalls


def print_programs(rounds: int, *, direct: bool = False) -> list[Shortfall]:
    """Measure what serves standard streams, behind sshd unless `direct`, and print it."""
    with _memory() as memory:
        servers = programs(memory)
        streams = {server.name: server.argv for server in servers}
        with contextlib.nullcontext(streams) if direct else over_sshd(servers) as reached:
            figures = measure(servers, reached, memory, rounds)
    return print_figures(figures, {} if direct else OWED)


def print_daemons(rounds: int) -> list[Shortfall]:
    """Measure what brings its own SSH, and print it."""
    with _memory() as memory, daemons(memory) as (servers, reached):
        return print_figures(measure(servers, reached, memory, rounds), OWED_DAEMON)


@contextmanager
def _memory() -> Iterator[str]:
    memory = tempfile.mkdtemp(dir="/dev/shm")
    try:
        yield memory
    finally:
        shutil.rmtree(memory, ignore_errors=True)


def main(argv: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(prog="served.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how many rounds (3)")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--daemon", action="store_true", help="each with the SSH it brings along")
    kinds.add_argument("--direct", action="store_true", help="without SSH")
    args = parser.parse_args(argv)
    for title, text in describe():
        print(f"{title:9}{text}")
    if args.daemon:
        print_daemons(args.rounds)
    else:
        print_programs(args.rounds, direct=args.direct)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
