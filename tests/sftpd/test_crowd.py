"""The beginning of crowd.py, which goes on for as long as one likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.sshd
@pytest.mark.slow
def test_sessions_beside_each_other() -> None:
    program = Path(__file__).with_name("crowd.py")
    done = subprocess.run(
        [sys.executable, program, "--sessions", "24", "--seconds", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    assert "all answers right" in done.stdout
