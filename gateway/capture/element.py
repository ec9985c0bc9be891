"""The element `perfuse` of a stack: a FUSE program that is run for it.

`special` is the command line without the mount point, which comes last in the command lines of all
such programs. That is an empty directory of ours then: nothing is mounted there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ..commands import end_command, shell_status, start_failure
from ..status import CommandError, Status
from . import Capture, MountCall, captured
from .program import FuseProgram

if TYPE_CHECKING:
    from ...layers.ops import FileServer
    from ..stack import Ground


@asynccontextmanager
async def program_below(ground: Ground) -> AsyncIterator[FileServer]:
    """Run the command line and yield what it serves. On exit the program has ended.

    Errors: CommandError; without a message when the program has failed and told the user why.
    """
    argv = _argv(ground.special)
    if shutil.which(argv[0]) is None:
        raise start_failure(argv[0], FileNotFoundError())
    async with AsyncExitStack() as stack:
        point = stack.enter_context(tempfile.TemporaryDirectory(prefix="syspuffs-"))
        try:
            process, capture = await stack.enter_async_context(
                captured([*argv, point], dict(os.environ))
            )
        except OSError as exc:
            raise start_failure(argv[0], exc) from None
        try:
            call = await _mount_call(process, capture, argv[0])
            rules = ground.rules if ground.has_faults else None
            program = FuseProgram(process, capture, argv[0], rules)
            async with program.serving(call, os.fsencode(ground.special)) as server:
                yield server
        finally:
            with trio.CancelScope(shield=True):
                await end_command(process, 0.0)  # by itself it had the time to end before


def _argv(special: str) -> list[str]:
    """Return the words of the command line. Errors: CommandError."""
    try:
        argv = shlex.split(special)
    except ValueError as exc:
        raise CommandError(Status.USAGE, f"'{special}' is no command line: {exc}") from None
    if not argv:
        raise CommandError(
            Status.USAGE, "perfuse needs the command line of a FUSE program, as in 'bindfs /pub'"
        )
    return argv


async def _mount_call(process: trio.Process, capture: Capture, name: str) -> MountCall:
    """Wait for the program's wish to mount. Errors: CommandError when it ends without one."""
    call: MountCall | None = None

    async def caught(scope: trio.CancelScope) -> None:
        nonlocal call
        call = await capture.mount_call()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caught, nursery.cancel_scope)
        await process.wait()
        nursery.cancel_scope.cancel()
    if call is not None:
        return call
    if process.returncode:
        raise CommandError(shell_status(process.returncode), "")
    raise CommandError(
        Status.NOTHING_MOUNTED, f"{name} ended without mounting anything; it must be a FUSE program"
    )
