"""A file that others replace while it is open here: each open sees the file that was there then."""

from __future__ import annotations

import pytest

from ..support.mounts import MountCommand, Mounts
from ..support.stacks import PSSHFS, WHOLE_STACK

pytestmark = [pytest.mark.fuse, pytest.mark.sshd]


@pytest.mark.parametrize(("name", "command"), [("psshfs", PSSHFS), ("whole stack", WHOLE_STACK)])
def test_a_log_that_is_rotated(mounts: Mounts, name: str, command: MountCommand) -> None:
    """`tail -f` has the old one open and goes on with it; `cat` shows the new one."""
    with mounts.use(f"replaced by {name}", command) as (there, origin):
        for serial in range(5):
            (origin / "log").write_text(f"old {serial}\n" * 10_000)
            with (there / "log").open() as kept:
                assert kept.readline() == f"old {serial}\n"
                (origin / "log").rename(origin / f"log.{serial}")
                (origin / "log").write_text(f"new {serial}\n" * 5)
                assert (there / "log").read_text() == f"new {serial}\n" * 5
                assert kept.read() == f"old {serial}\n" * 9_999
            assert (there / "log").read_text() == f"new {serial}\n" * 5
