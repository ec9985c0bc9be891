"""Programs at work on a mount while the network goes wrong, and what must be true afterwards.

    python -m tests.weather.storm --runs 200 --seed 1

Each run has a directory of its own with a reader, writers, an appender, a renamer and a follower
of a log in it, and a sequence of weather, all drawn from the seed. As the network always comes back
within the mount's patience and nobody else changes anything, but for the log that grows, no call
may fail, each file must be what its writer says, and what was fsynced must be on the server when
fsync returns.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from ..support.leaks import become_subreaper, command_line
from ..support.line import Line
from ..support.mounts import Ground, Mounted, mount
from ..support.sshd import Sshd, find_sftp_server
from ..support.stacks import PSSHFS, PSSHFS_BY_SSH, WHOLE_STACK
from ..support.superserver import Superserver

COMMANDS: Final = {
    "asyncssh": PSSHFS,
    "ssh": PSSHFS_BY_SSH,
    "stack": WHOLE_STACK,
    "port": PSSHFS,
}
BY_PORT: Final = "port"
"""The way without SSH."""
DEAD_AFTER: Final = 3.0
HANG: Final = 60.0
"""Seconds after which a call that has not returned hangs; the patience is that, too."""

Server = Sshd | Superserver


@dataclass(frozen=True)
class BehindLine(Ground):
    """Ground whose server is reached by a line."""

    port: int = 0

    @property
    def ssh_options(self) -> list[str]:
        """As for every ground, with the line's port."""
        assert self.sshd is not None
        return ["ssh_config=none", *self.sshd.options_by(self.port)]


@dataclass(frozen=True)
class ByPort(BehindLine):
    """Ground whose server is reached by a line and without SSH."""

    @property
    def ssh_options(self) -> list[str]:
        """The line's port."""
        return [f"directport={self.port}"]


class Sky(ABC):
    """The weather over one mount; `kinds` are those there are, `past` those that have been."""

    kinds: ClassVar[tuple[str, ...]]

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.past: list[str] = []

    def change(self) -> None:
        """Let one thing go wrong, and be well again."""
        what = self.chance.choice(self.kinds)
        self.past.append(what)
        self.let(what)

    @abstractmethod
    def let(self, what: str) -> None:
        """Let this go wrong, and be well again."""

    def wait(self, shortest: float, longest: float) -> None:
        """Let a random time pass: the weather is made of time, and nothing else waits here."""
        time.sleep(self.chance.uniform(shortest, longest))


class LineSky(Sky):
    """That of a line: what happens to connections, and to the programs at both ends."""

    kinds: ClassVar[tuple[str, ...]] = (
        *("reset", "end", "half-client", "half-server", "noise-client", "noise-server"),
        *("swallow", "hold", "refuse", "kill", "sessions"),
    )

    def __init__(self, seed: int, line: Line, server: Server, made: Mounted) -> None:
        super().__init__(seed)
        self._line = line
        self._server = server
        self._made = made

    def let(self, what: str) -> None:
        """Let this go wrong, and be well again."""
        chance, line = self.chance, self._line
        match what:
            case "reset":
                line.cut(how="reset")
            case "end":
                line.cut(how="end")
            case "half-client":
                line.half_close("client")
            case "half-server":
                line.half_close("server")
            case "noise-client":
                line.inject("client", chance.randbytes(chance.randint(1, 5000)))
            case "noise-server":
                line.inject("server", chance.randbytes(chance.randint(1, 5000)))
            case "swallow":
                line.swallow()
                self.wait(0.2, DEAD_AFTER + 1)
                line.swallow(on=False)
                line.cut(how="reset")
            case "hold":
                line.hold()
                self.wait(0.1, 1.0)
                line.hold(on=False)
            case "refuse":
                line.refuse()
                line.cut(how="end")
                self.wait(0.1, 1.5)
                line.refuse(on=False)
            case "kill":
                for pid in self._made.processes():
                    words = command_line(pid)
                    if "psshfs.ssh.pump" in words or words.startswith(("ssh ", "/usr/bin/ssh ")):
                        os.kill(pid, 9)
            case "sessions":
                self._server.kill_sessions()


class BareSky(LineSky):
    """The same without SSH, where nobody would find octets that do not belong there."""

    kinds = tuple(kind for kind in LineSky.kinds if not kind.startswith("noise"))


class Work:
    """What the programs of one run do in `top` of the mount; `origin` is the same at the server."""

    def __init__(self, seed: int, top: Path, origin: Path) -> None:
        self._seed = seed
        self._top = top
        self._origin = origin
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.calls = 0
        self.longest = 0.0
        self.troubles: list[str] = []
        self._checks: list[Callable[[], str]] = []
        top.mkdir()
        content = random.Random(seed).randbytes(4 << 20)
        (top / "static").write_bytes(content)
        for name, body in (
            ("reader", lambda chance: self._read(chance, content)),
            ("writer", lambda chance: self._write(chance, "w")),
            ("other writer", lambda chance: self._write(chance, "v")),
            ("appender", self._append),
            ("renamer", self._rename),
            ("follower", self._follow),
        ):
            thread = threading.Thread(target=self._work, args=(name, body), daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> list[str]:
        """Have the programs come to their end; return what was wrong."""
        self._stop.set()
        limit = time.monotonic() + HANG
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))
            if thread.is_alive():
                self.troubles.append(f"a program hangs for more than {HANG:g} s")
        if not self.troubles:
            self.troubles += [said for check in self._checks if (said := check())]
        return self.troubles

    def _work(self, name: str, body: Callable[[random.Random], Iterator[None]]) -> None:
        chance = random.Random(f"{self._seed} {name}")
        try:
            steps = body(chance)
            while not self._stop.is_set():
                start = time.monotonic()
                if next(steps, self) is self:
                    break
                self.calls += 1
                self.longest = max(self.longest, time.monotonic() - start)
            steps.close()  # type: ignore[attr-defined]
        except Exception:
            self.troubles.append(f"{name}: {traceback.format_exc()}")

    def _read(self, chance: random.Random, content: bytes) -> Iterator[None]:
        with (self._top / "static").open("rb", buffering=0) as kept:
            while True:
                offset = chance.randrange(len(content))
                length = chance.choice((1, 4096, 300_000))
                if chance.random() < 0.7:
                    got = os.pread(kept.fileno(), length, offset)
                    os.posix_fadvise(kept.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                else:
                    with (self._top / "static").open("rb", buffering=0) as file:
                        got = os.pread(file.fileno(), length, offset)
                assert got == content[offset : offset + length], f"{length} octets at {offset}"
                yield

    def _write(self, chance: random.Random, kind: str) -> Iterator[None]:
        for serial in range(1_000_000):
            name = f"{kind}{serial}"
            content = chance.randbytes(chance.choice((0, 100, 70_000, 1_500_000)))
            done = 0
            fd = os.open(self._top / name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            try:
                while done < len(content):
                    done += os.pwrite(fd, content[done : done + 131_072], done)
                    if chance.random() < 0.2:
                        os.fsync(fd)
                        there = (self._origin / name).read_bytes()
                        assert there[:done] == content[:done], f"{name}: fsynced and not there"
                    yield
            finally:
                os.close(fd)
            there = (self._origin / name).read_bytes()
            assert there == content[:done], f"{name}: closed and not there"
            yield

    def _append(self, chance: random.Random) -> Iterator[None]:
        wanted = bytearray()
        path = self._origin / "log"
        self._checks.append(lambda: "" if path.read_bytes() == wanted else "log: not as appended")
        fd = os.open(self._top / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        try:
            while True:
                line = b"%d %s\n" % (
                    len(wanted),
                    chance.randbytes(chance.randint(1, 300)).hex().encode(),
                )
                assert os.write(fd, line) == len(line)
                wanted += line
                yield
        finally:
            os.close(fd)

    def _follow(self, chance: random.Random) -> Iterator[None]:
        """As `tail -f` does: somebody at the server writes a log that is read here as it grows."""
        written = bytearray()
        seen = bytearray()

        def grow(top: Path) -> None:
            with (top / "followed").open("ab") as log:
                line = b"%d %s\n" % (len(written), chance.randbytes(200).hex().encode())
                log.write(line)
            written.extend(line)

        grow(self._top)
        fd = os.open(self._top / "followed", os.O_RDONLY)
        try:
            while True:
                with (self._top / "followed").open("rb"):
                    pass  # an open has the server asked how long it is, a time-out would be long
                while os.fstat(fd).st_size > len(seen):
                    seen += (got := os.read(fd, 65536))
                    assert got, f"an end after {len(seen)} of {len(written)} octets"
                assert written.startswith(seen), f"{len(seen)} octets: not as written"
                yield
                grow(self._origin)
                time.sleep(chance.uniform(0.0, 0.1))
        finally:
            os.close(fd)

    def _rename(self, chance: random.Random) -> Iterator[None]:
        top = self._top / "names"
        files: dict[str, bytes] = {}
        directories: set[str] = set()

        def check() -> str:
            there = {}
            for entry in os.scandir(self._origin / "names"):
                there[entry.name] = None if entry.is_dir() else Path(entry).read_bytes()
            wanted: dict[str, bytes | None] = {**files, **dict.fromkeys(directories)}
            return "" if there == wanted else f"names: {there} and not {wanted}"

        top.mkdir()
        self._checks.append(check)
        for serial in range(1_000_000):
            what = chance.choice(("make", "make", "rename", "over", "unlink", "mkdir", "rmdir"))
            name = chance.choice(sorted(files)) if files else ""
            if what == "make":
                files[f"f{serial}"] = b"%d" % serial
                (top / f"f{serial}").write_bytes(files[f"f{serial}"])
            elif what in ("rename", "over") and name:
                others = [other for other in files if other != name]
                to = chance.choice(others) if what == "over" and others else f"r{serial}"
                (top / name).rename(top / to)
                files[to] = files.pop(name)
            elif what == "unlink" and name:
                (top / name).unlink()
                del files[name]
            elif what == "mkdir":
                (top / f"d{serial}").mkdir()
                directories.add(f"d{serial}")
            elif what == "rmdir" and directories:
                gone = chance.choice(sorted(directories))
                (top / gone).rmdir()
                directories.discard(gone)
            yield


@contextmanager
def behind(
    place: Path, round_trip: float, *, by_port: bool = False
) -> Iterator[tuple[Line, Server, BehindLine]]:
    """A server, a line to it, and ground for a mount by it."""
    with ExitStack() as stack:
        server: Server
        if by_port:
            server = stack.enter_context(Superserver([find_sftp_server()]))
        else:
            server = stack.enter_context(Sshd(place / "sshd"))
        line = stack.enter_context(Line(server.port, round_trip=round_trip))
        origin = place / "origin"
        origin.mkdir()
        extra = (f"dead_after={DEAD_AFTER:g}", f"on_disconnect=wait:{HANG:g}")
        ground = (origin, place / "mnt", place / "log")
        if isinstance(server, Sshd):
            yield line, server, BehindLine(*ground, server, extra, line.port)
        else:
            yield line, server, ByPort(*ground, None, extra, line.port)


@contextmanager
def outside(place: Path, way: str, round_trip: float) -> Iterator[tuple[Line, Server, Mounted]]:
    """A mount behind a line by one of COMMANDS; that connections were lost is not held against
    it."""
    with behind(place, round_trip, by_port=way == BY_PORT) as (line, server, ground):
        made = mount(COMMANDS[way], ground)
        try:
            yield line, server, made
            made.log_read = sys.maxsize
            made.close()
        except Exception as exc:
            exc.add_note(made.ground.log.read_text()[-2000:])
            raise
        finally:
            made.destroy()


def storm(seed: int, changes: int, sky: Sky, made: Mounted) -> str:
    """Run once. Return a line about it; AssertionError when something was wrong."""
    name = f"run{seed}"
    work = Work(seed, made.point / name, made.origin / name)
    for _ in range(changes):
        sky.wait(0.02, 0.5)
        sky.change()
    troubles = work.end()
    assert not troubles, f"seed {seed}, after {sky.past}:\n" + "\n".join(troubles)
    return (
        f"seed {seed}: {work.calls} calls, the longest {work.longest:.1f} s; {', '.join(sky.past)}"
    )


def main() -> int:
    """Run as many times as asked, by all ways to the server in turn."""
    become_subreaper()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--changes", type=int, default=6)
    parser.add_argument("--way", choices=COMMANDS)
    args = parser.parse_args()
    ways = [args.way] if args.way else list(COMMANDS)
    seeds = list(range(args.seed, args.seed + args.runs))
    bad = 0
    for start in range(0, len(seeds), RUNS_EACH):
        way = ways[start // RUNS_EACH % len(ways)]
        with tempfile.TemporaryDirectory() as place:
            with outside(Path(place), way, 0.01) as (line, server, made):
                for seed in seeds[start : start + RUNS_EACH]:
                    sky = (BareSky if way == BY_PORT else LineSky)(seed, line, server, made)
                    try:
                        print(way, storm(seed, args.changes, sky, made), flush=True)
                    except AssertionError as exc:
                        bad += 1
                        print(way, exc, made.ground.log.read_text()[-3000:], flush=True)
                        break
    print(f"{len(seeds)} runs asked for, {bad} went wrong")
    return bad > 0


RUNS_EACH: Final = 10
"""Runs of one mount."""

if __name__ == "__main__":
    sys.exit(main())
