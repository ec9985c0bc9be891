"""puffsctl doctor, over a real sshd and over servers that lack one thing or another."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ..servers.others import paramiko_server, proftpd
from ..support.mounts import Outcome, python_command, run, words
from ..support.sshd import Sshd, find_sftp_server
from .conftest import listening

pytestmark = pytest.mark.sshd

DOCTOR = [*python_command("puffsctl"), "doctor"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a file that is long enough to say something, and a link."""
    path = tmp_path / "tree"
    path.mkdir()
    (path / "data").write_bytes(bytes(1 << 20))
    (path / "link").symlink_to("data")
    return path


def examine(*arguments: str) -> dict[str, tuple[str, Any]]:
    """Return verdict and text of each topic; the last of a topic counts."""
    got = run([*DOCTOR, "--json", *arguments])
    assert (got.status, got.stderr) == (0, "")
    findings = json.loads(got.stdout)["findings"]
    return {f["topic"]: (f["verdict"], f["text"]) for f in findings}


def snapshot(tree: Path) -> list[tuple[str, int, int]]:
    """Return what a change to the tree or in it would change."""
    return [(str(p), os.lstat(p).st_mtime_ns, os.lstat(p).st_size) for p in (tree, *tree.iterdir())]


def test_looking_changes_nothing(sshd: Sshd, tree: Path) -> None:
    before = snapshot(tree)
    found = examine(*words(["ssh_config=none", *sshd.options]), f"127.0.0.1:{tree}")
    assert snapshot(tree) == before
    assert "aes" in found["connection"][1]
    assert found["packets"][1].startswith("READ 255 KiB, WRITE 255 KiB, ")
    assert found["links"][0] == found["fsync"][0] == found["hardlink"][0] == "works"
    assert found["reading"][1].endswith(" s, one connection")
    assert f"{os.geteuid()}:{os.getegid()}" in found["owners"][1]
    assert "writing" not in found


def test_trying_out_leaves_nothing_behind(sshd: Sshd, tree: Path) -> None:
    names = sorted(os.listdir(tree))
    found = examine("--write", *words(["ssh_config=none", *sshd.options]), f"127.0.0.1:{tree}")
    assert sorted(os.listdir(tree)) == names
    worked = "size clock times permissions rename letters octets fsync".split()
    worked += ["hard links", "symbolic links", "upper case"]
    assert {topic: found[topic][0] for topic in worked} == dict.fromkeys(worked, "works")
    assert "writing" in found


def over_a_port(tree: Path, *flags: str, arguments: tuple[str, ...] = ()) -> dict[str, Any]:
    server, port = listening([find_sftp_server(), *flags])
    with server:
        return examine("-o", f"directport={port}", *arguments, f"localhost:{tree}")


def test_what_a_server_lacks_is_said(tree: Path) -> None:
    lacks = "limits,posix-rename,statvfs,hardlink,fsync,lsetstat,users-groups-by-id"
    found = over_a_port(tree, "-P", lacks, arguments=("--write",))
    assert found["packets"][1] == "READ 32 KiB, WRITE 32 KiB"
    for topic in lacks.split(","):
        assert found[topic][0] == "lacks", topic
        assert len(found[topic][1]) > 10
    assert found["rename"][0] == "lacks"
    assert "space" not in found
    assert sorted(os.listdir(tree)) == ["data", "link"]


def test_a_server_that_cannot_be_written(tree: Path) -> None:
    found = over_a_port(tree, "-R", arguments=("--write",))
    assert found["writing"][0] == "fails"
    assert sorted(os.listdir(tree)) == ["data", "link"]


def test_faults_of_other_servers_are_found(tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with proftpd(place) as other:
        found = examine("--write", *words(other.words), f"127.0.0.1:{tree}")
    assert found["links"][0] == found["symbolic links"][0] == "fails"
    place = tmp_path / "other"
    place.mkdir()
    with paramiko_server(place) as other:
        found = examine("--write", *words(other.words), f"127.0.0.1:{tree}")
    assert found["octets"] == ("lacks", "names that are no UTF-8 are refused")
    assert found["times"][0] == "works"
    assert sorted(os.listdir(tree)) == ["data", "link"]


def test_for_people(sshd: Sshd, tree: Path) -> None:
    got = run([*DOCTOR, *words(["ssh_config=none", *sshd.options]), f"127.0.0.1:{tree}"])
    assert got.status == 0
    lines = got.stdout.splitlines()
    assert lines[0].rstrip() == f"127.0.0.1:{tree}"
    assert any(line.split()[:2] == ["fsync", "ok"] for line in lines)
    assert "\x1b" not in got.stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["no-such-host.invalid:"], 10),
        (["-o", "passive", "host:"], 2),
        (["-o", "nonsense", "host:"], 2),
        ([], 2),
    ],
)
def test_failures(arguments: list[str], status: int) -> None:
    got: Outcome = run([*DOCTOR, "-o", "ssh_config=none", *arguments])
    assert got.status == status
    assert len(got.stderr.splitlines()) == 1
