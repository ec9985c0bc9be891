"""Lost packets, resets and black holes between two name spaces, on the host's own TCP."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ..support.expect import pattern
from ..support.mounts import Ground, mount, python_command, wait_until
from ..support.sshd import find_sftp_server
from ..support.stacks import PSSHFS
from ..support.superserver import Superserver
from ..support.wire import Wire, missing
from .storm import COMMANDS, DEAD_AFTER, HANG, storm
from .wires import WireSky, at_far_end

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.sshd,
    pytest.mark.slow,
    pytest.mark.skipif(missing() != "", reason=missing()),
]


@pytest.mark.parametrize(("way", "seed"), [("ssh", 19), ("asyncssh", 33)])
def test_storm(tmp_path: Path, way: str, seed: int) -> None:
    with at_far_end(tmp_path, COMMANDS[way]) as (wire, _, made):
        storm(seed, 3, WireSky(seed, wire), made)


def test_copies_are_whole_though_packets_are_lost(tmp_path: Path) -> None:
    content = pattern(3_000_000, 1)
    with at_far_end(tmp_path, COMMANDS["ssh"]) as (wire, sshd, made):
        (made.origin / "there").write_bytes(content)
        logins = sshd.log.read_text().count("Accepted publickey")
        wire.rule("numgen random mod 100 < 3 drop")
        assert (made.point / "there").read_bytes() == content
        (made.point / "sent").write_bytes(content)
        assert (made.origin / "sent").read_bytes() == content
        assert sshd.log.read_text().count("Accepted publickey") == logins, "the connection was lost"


@pytest.mark.parametrize(
    "verdict", ["meta l4proto tcp reject with tcp reset", "drop"], ids=["reset", "black hole"]
)
def test_each_lost_octet_is_told(tmp_path: Path, verdict: str) -> None:
    """Nobody waits for the network to come back: what is not on the server made a call fail."""
    with at_far_end(tmp_path, COMMANDS["ssh"], "on_disconnect=fail") as (wire, _, made):
        fd = os.open(made.point / "f", os.O_CREAT | os.O_WRONLY, 0o644)
        written = safe = 0
        trouble: list[OSError] = []
        timer = threading.Timer(0.3, wire.rule, args=(verdict,))
        timer.start()
        start = time.monotonic()
        try:
            for _ in range(1000):
                written += os.write(fd, pattern(262_144, written))
                os.fsync(fd)
                safe = written
        except OSError as exc:
            trouble.append(exc)
        try:
            os.close(fd)
        except OSError as exc:
            trouble.append(exc)
        timer.join()
        assert time.monotonic() - start < 4 * DEAD_AFTER
        assert trouble, "nobody was told"
        assert {exc.errno for exc in trouble} <= {errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN}
        there = (made.origin / "f").read_bytes()
        assert len(there) >= safe > 0
        assert all(
            there[at : at + 262_144] == pattern(262_144, at) for at in range(0, safe, 262_144)
        )
        wire.clear()


def test_a_network_that_is_back_is_used_at_once(tmp_path: Path) -> None:
    """Attempts are made 0, 1, 3, 7 and 15 s after the loss, and when a link comes up."""
    with at_far_end(tmp_path, COMMANDS["ssh"]) as (wire, _, made):
        (made.origin / "f").write_text("contents")
        wire.link(on=False)
        log = made.ground.log
        assert wait_until(lambda: "cannot connect again yet" in log.read_text(), 30.0)
        time.sleep(8)  # the attempt after 7 s is over, too
        wire.link(on=True)
        start = time.monotonic()
        assert wait_until(lambda: "connected again" in log.read_text(), 30.0)
        assert time.monotonic() - start < 5
        assert (made.point / "f").read_text() == "contents"


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_black_hole_without_ssh(tmp_path: Path, is_idle: bool) -> None:
    """By a port of its own, where nobody but TCP asks whether the server is there."""
    with (
        Wire() as wire,
        Superserver([find_sftp_server()], host=wire.FAR, within=wire.far) as server,
    ):
        (origin := tmp_path / "origin").mkdir()
        words = (f"dead_after={DEAD_AFTER:g}", f"on_disconnect=wait:{HANG:g}")
        command = replace(
            PSSHFS,
            argv=lambda ground: [
                *wire.near,
                *python_command("psshfs"),
                *(option for word in ground.options for option in ("-o", word)),
                *(
                    "-o",
                    f"directport={server.port}",
                    f"{wire.FAR}:{ground.origin}",
                    str(ground.point),
                ),
            ],
        )
        made = mount(command, Ground(origin, tmp_path / "mnt", tmp_path / "log", None, words))
        try:
            with (made.point / "f").open("wb", buffering=0) as file:
                wire.rule("drop")
                start = time.monotonic()
                if not is_idle:
                    file.write(b"x" * 100_000)
                assert wait_until(lambda: "connection lost" in made.ground.log.read_text(), 30.0)
                assert time.monotonic() - start < 3 * DEAD_AFTER
                wire.clear()
                file.write(b"y")
                os.fsync(file.fileno())
                size = 1 if is_idle else 100_001
                assert (origin / "f").stat().st_size == size
            made.log_read = sys.maxsize
            made.close()
        finally:
            made.destroy()
