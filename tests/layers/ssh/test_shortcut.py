"""The data of a channel do not go through asyncssh while all is as it mostly is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ...support.sshd import Sshd

pytestmark = pytest.mark.sshd

PROGRAM = Path(__file__).with_name("short_way.py")


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"])
def test_small_packets_go_the_short_way(cipher: str, sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    lines = "".join(f"  {option.replace('=', ' ', 1)}\n" for option in sshd.options)
    config.write_text(f"Host it\n  HostName {sshd.host}\n{lines}")
    run = subprocess.run(
        [sys.executable, PROGRAM, config, cipher, "50"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert (found["delivered"], found["reason"]) == (0, "MACError")
    assert (found["write"], found["data_received"]) == (0, 0)
