"""What a stack can do, and why some cannot.

A stack says what it lacks; a test says by `@needs(...)` what it needs. The reasons
are limits of SFTP version 3, of a program below, or of the place where the stack runs, never of
ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

import pytest

LIMITS: Final = {
    "special": "SFTP version 3 has no request that makes a device, fifo or socket",
    "nlink": "SFTP version 3 has no link counts; fuse-overlayfs counts a hidden name of its own",
    "inode": "SFTP version 3 does not carry inode numbers, so two names of a file look like two",
    "blocks": "SFTP version 3 does not carry the number of blocks, so holes cannot be seen",
    "ctime": "SFTP version 3 does not carry the time of the last change of attributes",
    "ns_times": "SFTP version 3 carries times in whole seconds",
    "wide_times": "SFTP version 3 carries times as unsigned 32 bit numbers",
    "chown": "only root gives files away; these tests run as a user",
    "devices": "only root makes device nodes; these tests run as a user",
    "exact_nlink_dir": "ext4 and SFTP servers count sub-directories each in its own way",
    "readonly": "this place cannot be mounted read-only",
    "long_names": "fuse-overlayfs has names of up to 251 octets: it puts 4 before some of its own",
    "origin": "this stack has no directory of the host behind it",
}
"""Capability -> why a stack may lack it."""

SFTP_LACKS: Final = frozenset(
    {
        "special",
        "nlink",
        "inode",
        "blocks",
        "ctime",
        "ns_times",
        "wide_times",
        "exact_nlink_dir",
    }
)


USER_LACKS: Final = frozenset() if os.geteuid() == 0 else frozenset({"chown", "devices"})
"""What is missing where the host or a server checks who the tests run as."""


def needs(*names: str) -> pytest.MarkDecorator:
    """Mark a test as one that needs these capabilities."""
    for name in names:
        assert name in LIMITS, f"unknown capability {name!r}"
    return pytest.mark.needs(*names)


def missing(markers: Iterable[pytest.Mark], lacks: frozenset[str]) -> str | None:
    """Return why a test with these markers cannot run on a stack that lacks `lacks`, if so."""
    for marker in markers:
        for name in marker.args:
            if name in lacks:
                return LIMITS[name]
    return None
