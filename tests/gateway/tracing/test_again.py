"""`puffs_trace replay` and `shrink`, on a trace of a real mount."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ...support.mounts import mounted, python_command, run
from ...support.sshd import find_sftp_server
from .test_mounted import command, ground

pytestmark = pytest.mark.fuse


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace"
    here = ground(tmp_path, f"trace={file}", "trace_data=full", "nocache")
    script = """
        mkdir src; for i in 1 2 3 4 5; do seq $i 1000 >src/$i; done
        mv src/1 src/one; ln -s one src/link; cat src/link >/dev/null; cp -r src copy
        rm copy/2; rmdir copy 2>/dev/null; ls -l src copy >/dev/null; chmod 600 src/3
    """
    with mounted(command("puffs|trace|p2k|tmpfs"), here) as mount:
        subprocess.run(["sh", "-c", script], cwd=mount.point, check=True)
    return file


def puffs_trace(*args: str | Path) -> tuple[int, list[str]]:
    got = run([*python_command("puffs_trace"), *map(str, args)])
    assert got.stderr == ""
    return got.status, got.stdout.splitlines()


def test_replay(trace: Path, tmp_path: Path) -> None:
    status, lines = puffs_trace("replay", "-t", "p2k|puffs|p2k|tmpfs", trace)
    assert (status, lines[-1].partition(", ")[2]) == (0, "1 left out, 0 differences")  # unmount
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o1777)  # as the root of a tmpfs is
    words = f"sftp_server={find_sftp_server()}"
    status, lines = puffs_trace("replay", "-t", "psshfs", "-s", place, "-w", words, trace)
    assert (status, lines[-1].partition(", ")[2]) == (0, "1 left out, 0 differences")
    assert (place / "src" / "one").read_text().startswith("1\n2\n")
    assert sorted(path.name for path in (place / "copy").iterdir()) == "3 4 5 link one".split()


def test_differences_and_shrink(trace: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text('[[rule]]\nop = "write"\npath = "/copy/*"\ntorn = 0\n')
    suspect = ["-t", "fault|p2k|tmpfs", "-w", f"faults={rules}"]
    status, lines = puffs_trace("replay", *suspect, trace)
    assert status == 1
    assert any("attributes: expected VREG mode=0644 size=" in line for line in lines)
    status, lines = puffs_trace("shrink", *suspect, trace)
    assert status == 0
    assert len(lines) < 10
    assert any(' write("/copy/' in line for line in lines)
    status, lines = puffs_trace("shrink", "-t", "null|p2k|tmpfs", trace)
    assert (status, lines) == (1, [])


def test_complains(trace: Path) -> None:
    argv = [*python_command("puffs_trace"), "replay"]
    got = run([*argv, str(trace)])
    assert (got.status, got.stderr) == (2, "puffs_trace: replay needs a stack: -t STACK\n")
    got = run([*argv, "-t", "p2k|psshfs", str(trace)])
    assert got.status == 3
