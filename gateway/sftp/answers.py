"""What handlers of requests give back, and how much fits into it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeAlias

from ...native import sftp_server as sftp
from ...native.records import Buffer
from .turns import Turn

DATA_MAX: Final = 256 * 1024 - 1024
"""What one READ brings at most, octets; OpenSSH has the same."""
PACKET_MAX: Final = 256 * 1024
"""Longest packet that is taken, octets, without its length."""

Reply: TypeAlias = bytes
"""A whole packet."""


class Data(NamedTuple):
    """The answer to a READ: the head of the packet, and what was read, to be sent behind it."""

    head: bytes
    payload: Buffer


Handler: TypeAlias = Callable[[Turn, Any], Awaitable[Reply | Data]]
"""Does one request, and returns the answer. Errors: VfsError, Refusal."""


def success(id: int) -> Reply:
    """Return the answer to what has been done."""
    return sftp.status(id, sftp.FX_OK, b"Success")
