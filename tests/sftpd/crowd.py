"""Many SFTP sessions at once in one puffs_sftpd, each of which knows what it must find.

    python tests/sftpd/crowd.py                      200 sessions for five minutes
    python tests/sftpd/crowd.py --sessions 20 --seconds 5 --seed 7

Each session is an `ssh -s` of its own, with a directory of its own on one of ten accounts, and
works as fast as it is answered: files written, read back and compared, renamed, listed, looked at,
removed. Printed are operations, latencies, and what the gateway process has in memory without
sessions, with all of them idle, after the work and when they have left. Exit status 0 when every
answer was right and everything was given back.
"""

from __future__ import annotations

import argparse
import getpass
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

if __package__ in (None, ""):  # run as a script: find the package that it belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "tests.sftpd"

from syspuffs.native import sftp

from ..gateway.sftp.harness import StatusReply, Wire
from ..support.mounts import python_command
from ..support.sshd import make_key

ACCOUNTS: Final = 10
ANSWER_SECONDS: Final = 60.0
"""An operation that takes longer has failed: 200 others are served in between."""
LOGINS: Final = 8
"""Logins at once: each is some 50 ms of public-key arithmetic on both sides."""
LARGEST: Final = 1_000_000


class Daemon:
    """A puffs_sftpd with accounts whose files are in memory."""

    def __init__(self, place: Path, sessions: int) -> None:
        self.key = make_key(place / "key")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        users = "".join(
            f'[users.u{number}]\nauthorized_keys = ["key.pub"]\nsessions = {sessions}\n'
            f'[[users.u{number}.trees]]\nstack = "p2k|tmpfs"\nspecial = "none"\n'
            for number in range(ACCOUNTS)
        )
        config = place / "gateway.toml"
        config.write_text(
            f'state = "state"\nrun_as = "{getpass.getuser()}"\n{users}[ssh]\n'
            f'listen = ["127.0.0.1:{self.port}"]\n'
            f"max_startups = {sessions}\nmax_connections = {sessions + 10}\n"
        )
        self.process = subprocess.Popen(
            [*python_command("puffs_sftpd"), "--config", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=(place / "log").open("wb"),
        )
        self.log = place / "log"

    def resident(self) -> int:
        """Return what the gateway process has in memory, octets."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def ssh(self, number: int) -> list[str]:
        """Return what reaches it as one of its accounts."""
        return [
            *("ssh", "-F", "none", "-p", str(self.port), "-l", f"u{number % ACCOUNTS}"),
            *("-i", str(self.key), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"),
            *("-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"),
            *("-s", "127.0.0.1", "sftp"),
        ]

    async def listens(self) -> None:
        """Return when it does. Errors: RuntimeError when it has ended instead."""
        with trio.fail_after(30):
            while self.process.poll() is None:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", self.port)
                except OSError:
                    await trio.sleep(0.05)
                else:
                    await stream.aclose()
                    return
        raise RuntimeError(f"puffs_sftpd has ended:\n{self.log.read_text()}")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=60)


class Member:
    """One session, and what its directory must hold."""

    def __init__(self, number: int, seed: int) -> None:
        self.random = random.Random(f"{seed} {number}")
        self.home = b"/m%d" % number
        self.files: dict[bytes, bytes] = {}
        self.wire: Wire
        self.latencies: list[float] = []
        self.octets = 0

    def _name(self) -> bytes:
        return b"%b/f%d" % (self.home, self.random.randrange(12))

    async def _size(self, name: bytes) -> int | None:
        """Return the size of a file, None if there is none."""
        try:
            found = await self.wire.ask(sftp.lstat, name)
        except StatusReply as reply:
            if reply.code != sftp.FX_NO_SUCH_FILE:
                raise
            return None
        assert isinstance(found.size, int)
        return found.size

    async def step(self) -> None:
        """Do one thing. Errors: AssertionError, StatusReply for a wrong answer."""
        rng, wire, files = self.random, self.wire, self.files
        name = self._name()
        action = rng.randrange(8)
        if action < 2 or not files:
            data = rng.randbytes(rng.choice((0, 1, 500, 5_000, 70_000, LARGEST)))
            await wire.put(name, data)
            files[name] = data
            self.octets += len(data)
        elif action < 4:
            name = rng.choice(sorted(files))
            assert await wire.get(name) == files[name], name
            self.octets += len(files[name])
        elif action == 4:
            old = rng.choice(sorted(files))
            await wire.ask(sftp.posix_rename, old, name)
            files[name] = files.pop(old)
        elif action == 5:
            listed = [self.home + b"/" + entry for entry in await wire.names(self.home)]
            assert [n for n in listed if not n.endswith((b"/.", b"/.."))] == sorted(files)
        elif action == 6:
            known = files.get(name)
            assert await self._size(name) == (None if known is None else len(known))
        else:
            gone = rng.choice(sorted(files))
            await wire.ask(sftp.remove, gone)
            del files[gone]

    async def work(self, end: float) -> None:
        """Do things until it is time to end."""
        while trio.current_time() < end:
            since = time.perf_counter()
            with trio.fail_after(ANSWER_SECONDS):
                await self.step()
            self.latencies.append(time.perf_counter() - since)


async def login(
    member: Member, argv: Sequence[str], gate: trio.CapacityLimiter, left: list[trio.Process]
) -> None:
    """Begin a session."""
    near, far = socket.socketpair()
    near.setblocking(False)
    async with gate:
        with far:
            left.append(await trio.lowlevel.open_process(argv, stdin=far, stdout=far))
        member.wire = Wire(near)
        with trio.fail_after(ANSWER_SECONDS):
            await member.wire.greet()
            await member.wire.ask(sftp.mkdir, member.home)


async def crowd(daemon: Daemon, sessions: int, seconds: float, seed: int) -> None:
    """Let all work and print the figures. Errors: whatever went wrong."""
    await daemon.listens()
    members = [Member(number, seed) for number in range(sessions)]
    gate = trio.CapacityLimiter(LOGINS)
    processes: list[trio.Process] = []
    empty = daemon.resident()
    async with trio.open_nursery() as nursery:
        # One of each account first: its files in memory and their kernel are no session's.
        for number, member in enumerate(members[:ACCOUNTS]):
            nursery.start_soon(login, member, daemon.ssh(number), gate, processes)
    accounts = daemon.resident()
    async with trio.open_nursery() as nursery:
        for number, member in enumerate(members[ACCOUNTS:], ACCOUNTS):
            nursery.start_soon(login, member, daemon.ssh(number), gate, processes)
    idle = daemon.resident()
    each = (idle - accounts) / max(sessions - ACCOUNTS, 1)
    print(f"sessions  {sessions}; one that is idle holds {each / 1024:.0f} KiB in the gateway")
    async with trio.open_nursery() as nursery:
        end = trio.current_time() + seconds
        for member in members:
            nursery.start_soon(member.work, end)
    worked = daemon.resident()
    for member in members:
        await member.wire.stream.aclose()
    for process in processes:
        with trio.fail_after(ANSWER_SECONDS):
            await process.wait()
    took = sorted(latency for member in members for latency in member.latencies)
    octets = sum(member.octets for member in members)
    kept = sum(len(data) for member in members for data in member.files.values())
    print(f"work      {len(took)} operations, {octets / 1e6:.0f} MB, all answers right")
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    print(
        f"latency   median {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, most {took[-1] * 1e3:.0f} ms"
    )
    print(
        f"memory    {empty / 2**20:.0f} MiB at first, {idle / 2**20:.0f} with idle sessions, "
        f"{worked / 2**20:.0f} after the work, {kept / 2**20:.0f} of them files"
    )


def main(argv: Sequence[str]) -> int:
    """Run as a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="crowd.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=200, help="how many at once (200)")
    parser.add_argument("--seconds", type=float, default=300, help="how long they work (300)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder), args.sessions)
        try:
            trio.run(crowd, daemon, args.sessions, args.seconds, args.seed)
        finally:
            status = daemon.stop()
            log = daemon.log.read_text()
    troubles = [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line]
    print("\n".join(troubles[:20]) or f"daemon    ended with status {status}, no error in its log")
    return 1 if status or troubles else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
