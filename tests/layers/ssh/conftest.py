"""A server for all tests here, a home of its own for each, and no process left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ...support.sshd import Sshd, list_descendants


@pytest.fixture(scope="session")
def shared_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    directory = tmp_path_factory.mktemp("sshd")
    with Sshd(directory, host_keys=("ed25519", "ecdsa", "rsa")) as sshd:
        yield sshd


@pytest.fixture
def sshd(shared_sshd: Sshd) -> Sshd:
    return shared_sshd


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty home directory, which is the home of what the test starts."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(directory))
    return directory


@pytest.fixture(autouse=True)
def _quiet_world(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tester's own agent and graphical prompts out of the tests."""
    for name in ("SSH_AUTH_SOCK", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_process_left(request: pytest.FixtureRequest, shared_sshd: Sshd) -> Iterator[None]:
    before = set(list_descendants(os.getpid()))
    yield
    limit = time.monotonic() + 3
    while left := _list_left(before, shared_sshd):
        assert time.monotonic() < limit, f"left behind: {left}"
        time.sleep(0.01)


def _list_left(before: set[int], shared_sshd: Sshd) -> list[str]:
    ours = set(list_descendants(os.getpid())) - before - set(list_descendants(shared_sshd.pid))
    return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in ours]
