"""The walk in the README, run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.leaks import children, command_line, descendants, reap
from ..support.mounts import unmount_by_force, wait_until

README = Path(__file__).resolve().parents[2] / "README.md"
TITLE = "### A walk: a mistake is found"

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def steps() -> Iterator[tuple[str, str]]:
    """Yield the commands of the walk, and what the README says that they print."""
    walk = README.read_text().partition(f"{TITLE}\n")[2]
    walk = re.split(r"^##+ ", walk, maxsplit=1, flags=re.MULTILINE)[0]
    command, said = "", ""
    for line in [*re.findall(r"^    (.*)$", walk, re.MULTILINE), "$ "]:
        if line.startswith("$ "):
            if command:
                yield command, said
            command, said = line.removeprefix("$ "), ""
        elif command.endswith("\\"):
            command = command.removesuffix("\\") + line.strip()
        else:
            said += line + "\n"


def pattern(said: str) -> str:
    """Return what is shown as a pattern: any number for each, any width of spaces and "..."."""
    text = re.escape(said.rstrip("\n"))
    text = text.replace(re.escape("..."), r"[^\n]*")
    return re.sub(r"(\\ )+", r"\\ +", re.sub(r"\d+", r"\\d+", text))


@pytest.mark.timeout(240)
def test_the_walk(tmp_path: Path) -> None:
    """Each command does what is shown; a line of dots stands for any number of lines."""
    here = Path(__file__).resolve().parent
    for name in ("boxfs.py", "faults.toml"):
        (tmp_path / name).write_bytes((here / name).read_bytes())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found = list(steps())
    assert len(found) >= 8
    try:
        for command, said in found:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=100,
                check=False,
            )
            wanted = pattern(said).replace(r"[^\n]*" + "\\\n", r"(?:[^\n]*\n)*")
            assert done.returncode == 0 or not command.startswith("umount"), command
            assert re.fullmatch(wanted, done.stdout.decode().rstrip("\n")), (command, done.stdout)
    finally:
        for name in ("mnt", "store"):
            unmount_by_force(tmp_path / name)
    assert wait_until(lambda: not serving(), 30.0), serving()


def serving() -> list[str]:
    """Return the commands of the walk that are still running."""
    reap(children(os.getpid()))
    lines = map(command_line, descendants(os.getpid()))
    return [line for line in lines if line.endswith(" store") or "boxfs" in line]
