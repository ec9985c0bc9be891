"""A server for all tests here, and a home of its own for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ...support.leaks import ALLOWED
from ...support.sshd import Sshd
from .harness import other_server


@pytest.fixture(scope="session")
def shared_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    directory = tmp_path_factory.mktemp("sshd")
    with Sshd(directory, host_keys=("ed25519", "ecdsa", "rsa")) as sshd:
        ALLOWED.add_process(sshd.pid)
        yield sshd


@pytest.fixture
def sshd(shared_sshd: Sshd) -> Sshd:
    return shared_sshd


@pytest.fixture(scope="session")
def password_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """Give ssh options that lead to a server with a password: secret."""
    directory = tmp_path_factory.mktemp("server")
    with other_server("password", directory, is_shared=True) as options:
        yield options


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
