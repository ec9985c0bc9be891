"""Data to and from the host: in place while that is quick, by threads when it is not.

Measured on a 2-core machine, 255 KiB in the page cache: read in place 12-18 us, write 16-25 us;
either by a thread 155-235 us. So reads ask for what is in memory first (RWF_NOWAIT), and go to a
thread for what is not. Writes, and reads where the file system cannot say (tmpfs), are done in
place until one has taken long: a disk that is slow is slow for a while, and threads wait for it.

A call in a thread is never abandoned: it is done with the descriptor and the data when it returns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EIO, EOPNOTSUPP
from typing import Any, Final, TypeVar

import trio

from ...native.errors import VfsError
from ...native.records import Buffer

_R = TypeVar("_R")

THREADS: Final = 8
"""How many calls wait for the host at the same time."""
QUICK: Final = 20 * 10**6
"""What a call may take, ns: more than losing the processor to somebody else does."""
SLOW_FOR: Final = 2 * 10**9
"""For how long nothing is done in place after a call that took longer, ns."""


class Pace:
    """Calls that may wait for a disk. `waits` counts those that went to a thread."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._limiter = trio.CapacityLimiter(THREADS)
        self._slow_until = 0
        self._blind: set[int] = set()
        """Devices whose file systems cannot say what is in memory."""
        self.waits = 0

    async def wait(self, call: Callable[..., _R], *args: Any) -> _R:
        """Return what a call returns; a thread waits for it."""
        self.waits += 1
        return await trio.to_thread.run_sync(self._timed, call, *args, limiter=self._limiter)

    async def quickly(self, call: Callable[..., _R], *args: Any) -> _R:
        """Return what a call returns, without a thread if that is likely to be quick."""
        if self._clock() < self._slow_until:
            return await self.wait(call, *args)
        return self._timed(call, *args)

    def _timed(self, call: Callable[..., _R], *args: Any) -> _R:
        start = self._clock()
        try:
            return call(*args)
        finally:
            end = self._clock()
            if end - start > QUICK:
                self._slow_until = end + SLOW_FOR

    async def read(self, fd: int, device: int, offset: int, resid: int) -> bytearray:
        """Return `resid` octets from `offset`; fewer at the end of the file. Errors: OSError."""
        data = bytearray(resid)
        done = 0
        with memoryview(data) as view:
            while done < resid:
                at = offset + done
                with view[done:] as rest:
                    if device in self._blind:
                        got = await self.quickly(os.preadv, fd, [rest], at)
                    else:
                        try:
                            got = os.preadv(fd, [rest], at, os.RWF_NOWAIT)
                        except BlockingIOError:
                            got = await self.wait(os.preadv, fd, [rest], at)
                        except OSError as exc:
                            if exc.errno != EOPNOTSUPP:
                                raise
                            self._blind.add(device)
                            continue
                if not got:
                    break
                done += got
        del data[done:]
        return data

    async def write(self, fd: int, offset: int, data: Buffer, flags: int) -> None:
        """Write all of `data`; `flags` are pwritev2's. Errors: OSError, and what was written is."""
        do = self.wait if flags & (os.RWF_SYNC | os.RWF_DSYNC) else self.quickly
        done = 0
        with memoryview(data) as view:
            while done < len(view):
                with view[done:] as rest:
                    put = await do(os.pwritev, fd, [rest], offset + done, flags)
                if not put:
                    raise VfsError(EIO, "the host wrote nothing and did not say why")
                done += put
