"""A few runs of the storm; `tox -e weather` has many."""

from __future__ import annotations

import contextlib
import errno
import os
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
from .storm import COMMANDS, DEAD_AFTER, LineSky, behind, outside, storm

pytestmark = [pytest.mark.fuse, pytest.mark.sshd, pytest.mark.slow]


@pytest.mark.parametrize(("way", "seed"), [("ssh", 1), ("asyncssh", 3)])
def test_storm(tmp_path: Path, way: str, seed: int) -> None:
    with outside(tmp_path, COMMANDS[way], 0.005) as (line, sshd, made):
        storm(seed, 4, LineSky(seed, line, sshd, made), made)


def test_an_open_file_outlives_the_server(tmp_path: Path) -> None:
    """The server goes away with all of its sessions and comes back a while later."""
    with outside(tmp_path, COMMANDS["ssh"], 0.0) as (line, sshd, made):
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
    with outside(tmp_path, COMMANDS[way], 0.0) as (line, _, made):
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
    with outside(tmp_path, COMMANDS[way], 0.0) as (_, __, made):
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
    with outside(tmp_path, COMMANDS["ssh"], 0.0) as (line, _, made):
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
    with outside(tmp_path, COMMANDS["ssh"], 0.0) as (line, _, made):
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
