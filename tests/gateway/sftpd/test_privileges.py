"""Whom root becomes. What a daemon then may is in tests/sftpd/test_daemon.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """\
import sys
from syspuffs.gateway.sftpd.privileges import become, user_entry
from syspuffs.gateway.status import CommandError
sys.executable = sys.argv[1]
try:
    become(user_entry("nobody"))
except CommandError as exc:
    print(exc.message)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_program_that_the_user_cannot_read(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    program = hidden / "python"
    program.symlink_to(sys.executable)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, program], capture_output=True, text=True, check=True
    )
    assert f"'nobody', as whom we run, cannot read {program}; install this" in done.stdout
