"""A server's user comes to his quota: an error, whatever protocol version 3 makes of it."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.mounts import Ground, MountCommand, mounted, python_command, words
from ..support.sshd import Sshd
from ..support.stacks import PSSHFS

pytestmark = [pytest.mark.fuse, pytest.mark.sshd]

RULE = """
[[rule]]
op = "write"
path = "/f"
errno = "EDQUOT"
nth = 3
times = 1000000
"""


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Path]:
    """A directory where the third write to a file is beyond a quota; the disk has room."""
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / "rules").write_text(RULE)
    command = MountCommand(
        "puffs|fault|local",
        lambda ground: [
            *(*python_command("mount_puffs"), "-t", "puffs|fault|local"),
            *words([*ground.options, f"faults={tmp_path}/rules"]),
            *(str(below), str(ground.point)),
        ],
    )
    with mounted(command, Ground(below, tmp_path / "limited", tmp_path / "log.limited", None)):
        yield tmp_path / "limited"


@pytest.mark.parametrize(("server", "number"), [("openssh", errno.EIO), ("ours", errno.EDQUOT)])
def test_a_quota(tmp_path: Path, limited: Path, server: str, number: int) -> None:
    """OpenSSH's server says Failure, and nothing shows why; ours has the words of the error."""
    program = "internal-sftp"
    if server == "ours":
        ours = [*python_command("puffs_sftp_server"), "-t", "local", "/"]
        program = shlex.join(ours)
    with Sshd(tmp_path / "sshd", subsystem=program) as sshd:
        ground = Ground(limited, tmp_path / "mnt", tmp_path / "log", sshd)
        with mounted(PSSHFS, ground) as made:
            fd = os.open(made.point / "f", os.O_CREAT | os.O_WRONLY)
            errors = []
            for call in [lambda: os.write(fd, b"x" * 100_000)] * 6 + [lambda: os.fsync(fd)] * 3:
                try:
                    call()
                except OSError as exc:
                    errors.append(exc.errno)
            os.close(fd)
            assert errors
            assert set(errors) == {number}
            made.log_read = 1 << 30
