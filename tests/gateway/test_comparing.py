"""`compare` in mounts: an SFTP tree beside a directory, what real programs do, and its words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ..support.mounts import Ground, MountCommand, mounted, python_command, run
from ..support.sshd import find_sftp_server

pytestmark = pytest.mark.fuse

SCRIPT = """
    mkdir src; for i in 1 2 3 4 5 6 7 8 9; do seq $i 1000 >src/$i; done
    mv src/1 src/one; ln -s one src/link; cat src/link >/dev/null; cp -r src copy
    ln src/2 src/two; rm copy/2; rmdir copy 2>/dev/null; ls -l src copy >/dev/null
    chmod 600 src/3; echo more >>src/4; dd if=/dev/zero of=src/5 bs=1000 seek=3 count=1 conv=notrunc
    : >src/6; mv src/7 src/8; tar cf all.tar src copy; tar xf all.tar -C copy; cat nothing
"""


def command(argv_of_special: str, *options: str, stack: str = "psshfs") -> MountCommand:
    def argv(ground: Ground) -> list[str]:
        words = [word for option in (*ground.options, *options) for word in ("-o", option)]
        special = argv_of_special.replace("ORIGIN", str(ground.origin))
        argv = [*python_command("mount_puffs"), "-t", f"puffs|compare|{stack}", *words]
        return [*argv, special, str(ground.point)]

    return MountCommand(f"puffs|compare|{stack}", argv, remote=False)


@pytest.mark.slow
def test_an_sftp_tree_beside_a_directory(tmp_path: Path) -> None:
    """Some 900 operations of programs: no difference; then one is made, and it is found."""
    copy, report = tmp_path / "copy", tmp_path / "report"
    copy.mkdir()
    words = (
        f"compare=local,compare_special={copy},compare_report={report}",
        f"sftp_server={find_sftp_server()},nocache",
    )
    here = Ground(tmp_path / "origin", tmp_path / "mnt", tmp_path / "log", None, words)
    here.origin.mkdir()
    with mounted(command(":ORIGIN"), here) as mount:
        subprocess.run(["sh", "-c", SCRIPT], cwd=mount.point, capture_output=True, check=False)
        assert report.read_text() == ""
        for place in (here.origin, copy):
            assert (place / "src" / "4").read_text().endswith("more\n")
        (copy / "src" / "9").write_text("else\n")
        (mount.point / "src" / "9").read_bytes()
    lines = report.read_text().splitlines()
    found = [lines[at + 1] for at, line in enumerate(lines) if 'getattr("/src/9"' in line]
    found += [lines[at + 1] for at, line in enumerate(lines) if 'read("/src/9"' in line]
    assert any(
        "attributes: first VREG mode=0644 size=3877, second VREG mode=0644 size=5" in line
        for line in found
    )
    assert any("data: first 3877 octets, at 0 b'9\\n10" in line for line in found)
    compared = int(lines[-1].split()[0])
    assert compared > 800
    assert " 0 left out" in lines[-1]


def test_strict_and_the_log(tmp_path: Path) -> None:
    words = ("compare=p2k|tmpfs,mode=0755,compare_strict",)
    here = Ground(tmp_path / "origin", tmp_path / "mnt", tmp_path / "log", None, words)
    here.origin.mkdir()
    (here.origin / "f").write_text("f")
    with mounted(command("ORIGIN", stack="local"), here) as mount:
        with pytest.raises(OSError, match="Input/output error"):
            (mount.point / "f").read_text()
        (mount.point / "g").write_text("g")
        assert (mount.point / "g").read_text() == "g"
        log = here.log.read_text()
        assert "type: first VREG mode=0644 size=1, second no such name" in log
        mount.log_read = len(log)


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        ([], 2, "compare needs to be told what with: -o compare=STACK"),
        (["compare=tmpfs"], 3, "a stack that is served begins with a file server"),
        (["compare=compare|local"], 3, "compares two stacks, not three"),
        (["compare=local,compare_special=/nowhere"], 26, "/nowhere"),
        (["compare=p2k|tmpfs,nodes=5,compare_report=/nowhere/f"], 2, "give a file to write to"),
        (["nodes=5,compare=local"], 2, "unknown option 'nodes'"),
        (["compare=local,compare_special=POINT/.."], 2, "which is to be mounted there"),
    ],
)
def test_words(tmp_path: Path, words: list[str], status: int, complaint: str) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    given = [part for word in words for part in ("-o", word.replace("POINT", str(point)))]
    argv = [*python_command("mount_puffs"), "-t", "puffs|compare|local", *given]
    got = run([*argv, "/usr/lib", str(point)])
    assert complaint in got.stderr
    assert (got.status, got.stderr.count("\n")) == (status, 1)
