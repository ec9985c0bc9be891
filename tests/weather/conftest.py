"""Places and commands for mounts that do not come about."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.mounts import Mounts, mounted_type, python_command, run, words
from ..support.sshd import Sshd


@pytest.fixture
def sshd(mounts: Mounts) -> Sshd:
    """The server of the session: to be asked, not to be harmed."""
    return mounts.sshd


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """A mount point."""
    place = tmp_path / "mnt"
    place.mkdir()
    return place


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A directory behind a server."""
    place = tmp_path / "origin"
    place.mkdir()
    (place / "f").write_text("contents")
    return place


class Refusal:
    """A command that must not mount: its outcome, checked for what holds for all of them.

    It says `says` in the last line of its standard error, which is the only one if `alone`.
    """

    def __init__(self, argv: list[str], point: Path, *, says: str = "", alone: bool = True) -> None:
        self.got = run(argv)
        assert self.got.stdout == ""
        assert mounted_type(point) is None, "it is mounted all the same"
        lines = self.got.stderr.splitlines()
        assert lines, f"status {self.got.status} without a word"
        if alone:
            assert len(lines) == 1, f"{len(lines)} lines in place of one:\n{self.got.stderr}"
        self.message = lines[-1]
        assert "internal error" not in self.message, self.message
        assert says in self.message, self.message

    @property
    def status(self) -> int:
        """The exit status."""
        return self.got.status


def psshfs_argv(special: str, point: Path, options: list[str]) -> list[str]:
    """Return a command that mounts `special` with these `-o` words."""
    return [*python_command("mount_psshfs"), *words(options), special, str(point)]
