"""OpenSSH's own tests of its sftp-server, with ours in that place."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import Resident, program

REGRESS = Path("/usr/lib/openssh/regress")
"""Where Debian's openssh-tests has them."""

pytestmark = [pytest.mark.sshd, pytest.mark.slow]


def run(place: Path, name: str, server: str) -> None:
    """Run one of the tests over `server`, a program without arguments of its own."""
    if not REGRESS.is_dir():
        pytest.fail(f"{REGRESS} is missing: apt-get install openssh-tests")
    work = place / "regress"
    shutil.copytree(REGRESS, work, symlinks=True)
    # A server without arguments, for the tests put some behind it.
    ours = place / "our-server"
    ours.write_text(f'#!/bin/sh\nexec {server} "$@"\n')
    ours.chmod(0o755)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    done = subprocess.run(
        ["sh", "test-exec.sh", str(work), str(work / f"{name}.sh")],
        cwd=work,
        env={
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(place),
            "OBJ": str(work),
            "SRC": str(work),
            "BUILDDIR": str(work),
            "TEST_SHELL": "sh",
            "TEST_SSH_UNSAFE_PERMISSIONS": "1",
            "TEST_SSH_SSH": "/usr/bin/ssh",
            "TEST_SSH_SSHD": "/usr/sbin/sshd",
            "TEST_SSH_SFTP": "/usr/bin/sftp",
            "TEST_SSH_SSHKEYGEN": "/usr/bin/ssh-keygen",
            "TEST_SSH_SFTPSERVER": str(ours),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("ok "), done.stdout


@pytest.mark.parametrize(
    "name", ["sftp-cmds", "sftp-badcmds", "sftp-batch", "sftp-glob", "sftp-perm"]
)
def test_sessions_of_a_resident_server(tmp_path: Path, host: Resident, name: str) -> None:
    run(tmp_path, name, host.command)


def test_the_program_itself(tmp_path: Path) -> None:
    run(tmp_path, "sftp-batch", program("-d", "$PWD"))
