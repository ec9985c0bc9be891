"""Commands that we run for the user: why one did not start, and how it ends."""

from __future__ import annotations

import shutil
from typing import Final

import trio

from .status import CommandError, Status

_TERM_SECONDS: Final = 5.0
"""Time between SIGTERM and SIGKILL."""


def start_failure(name: str, exc: OSError) -> CommandError:
    """Return the end that failing to start the command `name` means."""
    if isinstance(exc, FileNotFoundError) and shutil.which(name) is None:
        where = "no such file" if "/" in name else "no such command in PATH"
        return CommandError(Status.NOT_FOUND, f"{name}: {where}; check its spelling")
    return CommandError(
        Status.CANNOT_EXECUTE, f"{name}: cannot be executed: {exc.strerror}; check the file"
    )


def shell_status(returncode: int) -> int:
    """Return what a shell makes of a command's end."""
    return returncode if returncode >= 0 else Status.SIGNAL - returncode


async def end_command(process: trio.Process, patience: float) -> None:
    """Wait until a command has ended, `patience` seconds by itself, then by signals."""
    with trio.move_on_after(patience):
        await process.wait()
        return
    process.terminate()
    with trio.move_on_after(_TERM_SECONDS):
        await process.wait()
        return
    process.kill()
    await process.wait()
