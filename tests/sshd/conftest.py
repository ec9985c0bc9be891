"""Keys that all tests here share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.sshd import make_key


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the keys alice, bob, ca and rsa."""
    directory = tmp_path_factory.mktemp("keys")
    for name in ("alice", "bob", "ca"):
        make_key(directory / name, comment=f"{name}@test")
    make_key(directory / "rsa", "rsa")
    return directory


@pytest.fixture
def alice(keys: Path) -> Path:
    """The identity file of one who may come in."""
    return keys / "alice"
