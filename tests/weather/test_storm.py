"""A few runs of the storm; `tox -e weather` has many."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from syspuffs.gateway.status import Status

from ..support.mounts import mounted_type, run, wait_until
from ..support.sshd import list_descendants
from .storm import COMMANDS, DEAD_AFTER, BareSky, LineSky, behind, outside, storm

pytestmark = [pytest.mark.fuse, pytest.mark.sshd, pytest.mark.slow]


@pytest.mark.parametrize(
    ("way", "seed", "sky"), [("ssh", 1, LineSky), ("asyncssh", 3, LineSky), ("port", 5, BareSky)]
)
def test_storm(tmp_path: Path, way: str, seed: int, sky: type[LineSky]) -> None:
    with outside(tmp_path, way, 0.005) as (line, server, made):
        storm(seed, 4, sky(seed, line, server, made), made)


def test_an_open_file_outlives_the_server(tmp_path: Path) -> None:
    """The server goes away with all of its sessions and comes back a while later."""
    with outside(tmp_path, "ssh", 0.0) as (line, sshd, made):
        (made.point / "f").write_bytes(b"x" * 1000)
        with (made.point / "f").open("r+b", buffering=0) as file:
            line.refuse()
            sshd.kill_sessions()
            threading.Timer(1.5, line.refuse, kwargs={"on": False}).start()
            file.seek(1000)
            file.write(b"y" * 1000)
            os.fsync(file.fileno())
            assert (made.origin / "f").read_bytes() == b"x" * 1000 + b"y" * 1000


@pytest.mark.parametrize("way", ["asyncssh", "ssh"])
def test_a_black_hole_is_noticed(tmp_path: Path, way: str) -> None:
    """Nothing ends the connection but that nothing comes; who waits is answered afterwards.

    By then nothing is left of the connection that might still bring the server what was lost.
    """
    with outside(tmp_path, way, 0.0) as (line, _, made):
        (made.origin / "f").write_text("contents")
        lost = {pid for one in made.pids for pid in list_descendants(one)}
        assert lost
        line.hold()
        start = time.monotonic()
        assert wait_until(lambda: "connection lost" in made.ground.log.read_text(), 30.0)
        assert time.monotonic() - start < 3 * DEAD_AFTER
        line.hold(on=False)
        assert (made.point / "f").read_text() == "contents"
        assert not lost & {pid for one in made.pids for pid in list_descendants(one)}


@pytest.mark.parametrize("way", ["asyncssh", "ssh"])
def test_a_stopped_mount_goes_on(tmp_path: Path, way: str) -> None:
    """All of it stands still for longer than a network may, as in a frozen container."""
    with outside(tmp_path, way, 0.0) as (_, __, made):
        with (made.point / "f").open("wb", buffering=0) as file:
            file.write(b"before")
            stopped = made.processes()
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for pid in stopped:
                    os.kill(pid, number)
                if number == signal.SIGSTOP:
                    writer = threading.Thread(target=file.write, args=(b", meanwhile",))
                    writer.start()
                    time.sleep(DEAD_AFTER + 1)  # nothing else happens
            writer.join(20)
            assert not writer.is_alive()
            file.write(b", after")
            os.fsync(file.fileno())
        assert (made.origin / "f").read_bytes() == b"before, meanwhile, after"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    """The server's disk is full, and the connection is cut on the way to that."""
    with outside(tmp_path, "ssh", 0.0) as (line, _, made):
        small = made.origin / "small"
        small.mkdir()
        assert run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)]).status == 0
        try:
            fd = os.open(made.point / "small" / "f", os.O_CREAT | os.O_WRONLY)
            errors = []
            for number in range(24):
                if number == 4:
                    line.cut()
                with contextlib.suppress(OSError):
                    os.write(fd, b"x" * 131_072)
            for _ in range(2):
                try:
                    os.fsync(fd)
                except OSError as error:
                    errors.append(error.errno)
            os.close(fd)
            assert errors == [errno.ENOSPC]
            (made.point / "small" / "f").unlink()
            (made.point / "small" / "g").write_bytes(b"room again")
            assert (small / "g").read_bytes() == b"room again"
        finally:  # close() does not wait for the server's
            assert wait_until(lambda: run(["umount", str(small)]).status == 0)


def test_unmount_in_a_black_hole(tmp_path: Path) -> None:
    """umount(8) asks for statvfs first, which must not wait for a network that is gone."""
    with outside(tmp_path, "ssh", 0.0) as (line, _, made):
        assert os.listdir(made.point) == []
        line.swallow()
        start = time.monotonic()
    assert time.monotonic() - start < 20


def test_termination_says_what_was_not_saved(tmp_path: Path) -> None:
    """SIGTERM with data that the server never got: the command's status and its words say so."""
    with behind(tmp_path, 0.0) as (line, _, ground):
        ground.point.mkdir()
        argv = COMMANDS["ssh"].argv(replace(ground, extra=("on_disconnect=wait:5", "dead_after=3")))
        at = argv.index(f"log={ground.log}")
        del argv[at - 1 : at + 1]
        with subprocess.Popen([*argv, "-f"], stderr=subprocess.PIPE, text=True) as process:
            try:
                assert wait_until(lambda: mounted_type(ground.point) is not None)
                fd = os.open(ground.point / "lost", os.O_CREAT | os.O_WRONLY)
                os.write(fd, b"saved")
                os.fsync(fd)
                line.swallow()
                os.write(fd, b"not saved")
                line.refuse()
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=60)
            finally:
                with contextlib.suppress(OSError):
                    os.close(fd)
                process.kill()
        assert process.returncode == Status.UNSAVED, said
        assert f"{ground.origin}/lost" in said
        assert (ground.origin / "lost").read_bytes() == b"saved"
        assert mounted_type(ground.point) is None


@pytest.mark.parametrize(("way", "is_hasty"), [("asyncssh", False), ("ssh", False), ("ssh", True)])
def test_saving_is_shown(tmp_path: Path, way: str, is_hasty: bool) -> None:
    """^C while a slow link has yet to take what was written: it is waited for, and one sees how
    much it is. Who cannot wait presses it again, and is told what is lost."""
    content = os.urandom(20_000)
    with behind(tmp_path, 0.0) as (line, _, ground), Screen() as screen:
        ground.point.mkdir()
        argv = COMMANDS[way].argv(replace(ground, extra=("writeback=yes", "dead_after=10")))
        at = argv.index(f"log={ground.log}")
        del argv[at - 1 : at + 1]
        with subprocess.Popen([*argv, "-f"], stderr=screen.slave) as process:
            try:
                assert wait_until(lambda: mounted_type(ground.point) is not None)
                line.tune(rate=300_000)
                for number in range(100):
                    (ground.point / f"{number}").write_bytes(content)
                process.send_signal(signal.SIGINT)
                screen.wait_for(
                    r"\rsaving \d+ files, \d+(\.\d)? [kM]B left, \d+(\.\d)? kB/s \.\.\."
                )
                if is_hasty:
                    process.send_signal(signal.SIGINT)
                status = screen.watch(process)
            finally:
                process.kill()
        if is_hasty:
            assert status == Status.UNSAVED
            screen.wait_for("not saved")
        else:
            assert status == 0
            assert all(
                (ground.origin / f"{number}").read_bytes() == content for number in range(100)
            )
        assert mounted_type(ground.point) is None


class Screen:
    """A terminal that a program's words go to."""

    def __init__(self) -> None:
        self.slave = -1
        self._master = -1
        self.seen = ""

    def __enter__(self) -> Screen:
        self._master, self.slave = os.openpty()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._master)
        os.close(self.slave)

    def wait_for(self, regex: str) -> None:
        """Read on until it is there."""
        deadline = time.monotonic() + 20
        while not re.search(regex, self.seen.replace("\x1b[K", "")):
            rest = max(0.0, deadline - time.monotonic())
            assert select.select([self._master], [], [], rest)[0], f"no {regex!r}: {self.seen!r}"
            self.seen += os.read(self._master, 4096).decode()

    def watch(self, process: subprocess.Popen[bytes]) -> int:
        """Read on until a process has ended; return its status."""
        deadline = time.monotonic() + 40
        while process.poll() is None or select.select([self._master], [], [], 0)[0]:
            assert time.monotonic() < deadline, f"it does not end: {self.seen!r}"
            if select.select([self._master], [], [], 0.01)[0]:
                self.seen += os.read(self._master, 4096).decode()
        return process.returncode
