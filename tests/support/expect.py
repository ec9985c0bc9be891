"""Small means to say what a test expects."""

from __future__ import annotations

import errno
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio


def error_name(number: int | None) -> str:
    """Return "ENOENT" and the like."""
    return "success" if number is None else errno.errorcode.get(number, str(number))


@contextmanager
def raises(*numbers: int) -> Iterator[None]:
    """Expect an `OSError` with one of these errnos."""
    wanted = " or ".join(map(error_name, numbers))
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise AssertionError(f"{error_name(error.errno)} instead of {wanted}") from error
    else:
        raise AssertionError(f"no error, expected {wanted}")


async def eventually(condition: Callable[[], Awaitable[bool]], rounds: int = 2_000) -> None:
    """Wait for what others do in their own time: a server that is told of an end, not asked."""
    for _ in range(rounds):
        if await condition():
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError(f"not within {rounds} rounds")


def pattern(length: int, seed: int = 0) -> bytes:
    """Return octets that look random and are the same every time."""
    return random.Random(seed).randbytes(length)
