"""Record locks of the host: each locker is a process, for there they belong to processes."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from syspuffs.native.records import Flock

from .hostcalls import call
from .target import Locker, fail

_PROGRAM: Final = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for line in sys.stdin:
    op, *numbers = map(int, line.split())
    flock = struct.pack("hhqqi4x", numbers[0], 0, numbers[1], numbers[2], 0)
    try:
        kind, _, start, length, pid = struct.unpack("hhqqi4x", fcntl.fcntl(fd, op, flock))
        print(0, kind, start, length, pid, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


class ProcessLocker(Locker):
    """A process of the host: record locks belong to processes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process

    async def setlk(self, kind: int, start: int, length: int) -> None:
        await call(self._ask, fcntl.F_SETLK, kind, start, length)

    async def getlk(self, kind: int, start: int, length: int) -> Flock:
        return Flock(*await call(self._ask, fcntl.F_GETLK, kind, start, length))

    def _ask(self, op: int, kind: int, start: int, length: int) -> list[int]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(b"%d %d %d %d\n" % (op, kind, start, length))
        stdin.flush()
        number, *answer = map(int, stdout.readline().split())
        if number:
            fail(number)
        return answer


@asynccontextmanager
async def process_locker(path: bytes) -> AsyncIterator[Locker]:
    """Start a process that has `path` open; it ends with the block."""
    argv: list[str | bytes] = [sys.executable, "-I", "-S", "-c", _PROGRAM, path]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            yield ProcessLocker(process)
        finally:
            process.stdin.close()
