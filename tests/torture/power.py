"""The server loses its power while programs write through a mount: fsync's promises are kept.

The programs note what each fsync that returned has promised. After the cut the disk's image is
repaired as at every start, by its journal, and must then be clean and have what was promised.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ..support.mounts import Ground, MountCommand, mount, wait_until
from .machine import Machine

_ENOUGH: Final = 60.0
"""Seconds after which a slow machine is cut, however little it has done."""
_END: Final = 60.0
"""Seconds within which each program has been told that the server is gone."""


@dataclass
class Promises:
    """What is to be on the disk whatever happens.

    `prefixes`: files that begin so; `documents`: files with the versions that they may have;
    `loose`: files that were written and closed and promised to nobody.
    """

    prefixes: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, list[bytes]] = field(default_factory=dict)
    loose: dict[str, bytes] = field(default_factory=dict)
    calls: int = 0

    def broken(self, top: Path) -> list[str]:
        """Return a line for each that was not kept in `top`."""
        lines = []
        for name, content in self.prefixes.items():
            there = _contents(top / name)
            if not there.startswith(content):
                lines.append(f"{name}: {len(there)} octets, or others than {len(content)} promised")
        for name, versions in self.documents.items():
            if _contents(top / name) not in versions:
                lines.append(f"{name}: no version from the promised one on")
        return lines

    def lost(self, top: Path) -> int:
        """Return how many of the loose files are not whole in `top`."""
        return sum(_contents(top / name) != content for name, content in self.loose.items())


def _contents(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


class Programs:
    """Writers of several kinds in `top`, each until a call of its fails."""

    def __init__(self, top: Path, seed: int) -> None:
        self.promises = Promises()
        self.errors: list[str] = []
        self._top = top
        self._threads = [
            threading.Thread(target=self._work, args=(body, f"{seed} {name}"), daemon=True)
            for name, body in (
                ("w", self._write),
                ("v", self._write),
                ("log", self._append),
                ("doc", self._save),
                ("loose", self._leave),
            )
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Wait for all of them. AssertionError when one hangs, or did not fail as it should."""
        limit = time.monotonic() + _END
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))
            assert not thread.is_alive(), f"a program hangs for more than {_END:g} s"
        assert not self.errors, "\n".join(self.errors)

    def _work(self, body: object, seed: str) -> None:
        assert callable(body)
        try:
            for _ in body(random.Random(seed), seed.split()[1]):
                self.promises.calls += 1
        except OSError:
            return  # the power has been cut, and the program was told
        except Exception as exc:
            self.errors.append(f"{seed}: {exc!r}")

    def _write(self, chance: random.Random, kind: str) -> Iterator[None]:
        for serial in range(1_000_000):
            content = chance.randbytes(chance.choice((1, 5_000, 300_000)))
            name = f"{kind}{serial}"
            done = 0
            fd = os.open(self._top / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            try:
                while done < len(content):
                    done += os.write(fd, content[done : done + 65_536])
                    if chance.random() < 0.5 or done == len(content):
                        os.fsync(fd)
                        self.promises.prefixes[name] = content[:done]
                    yield
            finally:
                os.close(fd)

    def _append(self, chance: random.Random, name: str) -> Iterator[None]:
        wanted = b""
        fd = os.open(self._top / name, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        try:
            while True:
                line = chance.randbytes(chance.randrange(1, 2_000))
                os.write(fd, line)
                wanted += line
                os.fdatasync(fd)
                self.promises.prefixes[name] = wanted
                yield
        finally:
            os.close(fd)

    def _save(self, chance: random.Random, name: str) -> Iterator[None]:
        """As editors do: a new file, fsync, renamed over the old one, fsync of the directory."""
        versions: list[bytes] = []
        directory = os.open(self._top, os.O_RDONLY)
        try:
            while True:
                content = chance.randbytes(chance.randrange(1, 100_000))
                fd = os.open(self._top / "new", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
                try:
                    os.write(fd, content)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                versions.append(content)
                (self._top / "new").rename(self._top / name)
                os.fsync(directory)
                del versions[:-1]
                self.promises.documents[name] = versions
                yield
        finally:
            os.close(directory)

    def _leave(self, chance: random.Random, kind: str) -> Iterator[None]:
        for serial in range(1_000_000):
            content = chance.randbytes(50_000)
            (self._top / f"{kind}{serial}").write_bytes(content)
            self.promises.loose[f"{kind}{serial}"] = content
            yield


@dataclass(frozen=True)
class _OfMachine(Ground):
    machine: Machine | None = None

    @property
    def ssh_options(self) -> list[str]:
        assert self.machine is not None
        return self.machine.options

    @property
    def special(self) -> str:
        return f"{Machine.HOST}:{self.origin}"


@contextmanager
def _repaired(image: Path, point: Path) -> Iterator[Path]:
    """Mount what is on the disk, after the repair that every start makes."""
    done = subprocess.run(["e2fsck", "-p", str(image)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), f"the journal does not repair it: {done.stdout}{done.stderr}"
    done = subprocess.run(
        ["e2fsck", "-fn", str(image)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"not clean: {done.stdout}{done.stderr}"
    subprocess.run(["mount", "-o", "loop,ro", str(image), str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


def cut(place: Path, command: MountCommand, seed: int) -> tuple[str, int]:
    """Work, cut and look, once; return a line about it, and how much was lost that may be.

    AssertionError when a promise was broken.
    """
    place.mkdir()
    with Machine(place / "machine") as machine:
        words = ("dead_after=3", "on_disconnect=fail")
        ground = _OfMachine(
            machine.origin, place / "mnt", place / "log", None, words, machine=machine
        )
        here = replace(command, argv=lambda ground: [*machine.near, *command.argv(ground)])
        made = mount(here, ground)
        try:
            programs = Programs(made.point, seed)
            steps = random.Random(seed).randrange(50, 400)
            wait_until(lambda: programs.promises.calls >= steps, _ENOUGH)
            machine.cut()
            programs.end()
        finally:
            made.destroy()
        promises = programs.promises
        with _repaired(machine.image, machine.origin) as top:
            broken = promises.broken(top)
            assert not broken, f"seed {seed}: " + "\n".join(broken)
            lost = promises.lost(top)
    octets = sum(map(len, promises.prefixes.values()))
    kept = len(promises.prefixes) + len(promises.documents)
    assert kept > 2, f"seed {seed}: too little was promised to say anything"
    return (
        f"seed {seed}: cut after {promises.calls} steps; {kept} fsynced files "
        f"({octets} octets) are there, {lost} of {len(promises.loose)} others are not whole",
        lost,
    )
