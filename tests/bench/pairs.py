"""What each further `p2k|puffs` pair costs a request: stacks over tmpfs in one process, no mount.

The same requests go through `p2k|tmpfs` and through that with one and two pairs on top; what is
between the medians is the price of a pair: a frame out, a frame back, a kernel in between.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Final

import trio
from rich.console import Console
from rich.table import Table

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.ops import FileServer
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.puffs import puffs_over
from syspuffs.native.constants import FREAD, FWRITE, NameiOp, Vtype
from syspuffs.native.records import Cookie, Cred, Vattr, lookup_cn

from .report import Shortfall

PAIR_GOAL: Final = 40.0
"""The most that a pair may cost a request, microseconds (design.md, section 9)."""

KERNEL_GOALS: Final = {("getattr", "lookup + reclaim"): 40.0, ("read of 128 KiB",): 60.0}
"""The most that p2k and the emulated kernel may cost together, microseconds. (The copy that a read
makes is not counted in the goal; it is in the figure.)"""

DEPTHS: Final = (0, 1, 2)
_BLOCK: Final = 128 * 1024
_BLOCKS: Final = 8
_NAME: Final = b"file"
_CRED: Final = Cred(0, 0, (), 1)


class Ready:
    """A stack with one file in it, opened for reading and writing."""

    def __init__(self, server: FileServer, root: Cookie, file: Cookie) -> None:
        self._server = server
        self._root = root
        self._file = file
        self._data = bytes(_BLOCK)
        self._cn = lookup_cn(_NAME, _CRED)

    async def getattr(self, count: int) -> None:
        """Ask for attributes `count` times."""
        for _ in range(count):
            await self._server.getattr(self._file, _CRED)

    async def lookup(self, count: int) -> None:
        """Look a name up and give the lookup back, `count` times."""
        for _ in range(count):
            info = await self._server.lookup(self._root, self._cn)
            self._server.reclaim(info.cookie, 1)

    async def read(self, count: int) -> None:
        """Read blocks of 128 KiB."""
        for number in range(count):
            offset = number % _BLOCKS * _BLOCK
            data = await self._server.read(self._file, offset, _BLOCK, 0, _CRED)
            if len(data) != _BLOCK:
                raise RuntimeError(f"{len(data)} octets read of {_BLOCK}")

    async def write(self, count: int) -> None:
        """Write blocks of 128 KiB."""
        for number in range(count):
            await self._server.write(self._file, number % _BLOCKS * _BLOCK, self._data, 0, _CRED)


OPERATIONS: Final[tuple[tuple[str, Callable[[Ready, int], Awaitable[None]], int], ...]] = (
    ("getattr", Ready.getattr, 1000),
    ("lookup + reclaim", Ready.lookup, 500),
    ("read of 128 KiB", Ready.read, 300),
    ("write of 128 KiB", Ready.write, 300),
)
"""Title, what to do, how many of it in one round."""


def trace(depth: int) -> str:
    """Return the type of a stack with that many pairs."""
    return "p2k|puffs|" * depth + "p2k|tmpfs"


async def _make_ready(stack: AsyncExitStack, depth: int) -> Ready:
    server: FileServer = await stack.enter_async_context(p2k_over(TmpFs(mntfromname=b"none")))
    for _ in range(depth):
        fs = await stack.enter_async_context(puffs_over(server))
        server = await stack.enter_async_context(p2k_over(fs))
    if server.kargs.typename != trace(depth):
        raise RuntimeError(f"built {server.kargs.typename}, not {trace(depth)}")
    root = server.kargs.root.cookie
    va = Vattr(vtype=Vtype.VREG, mode=0o644)
    info = await server.create(root, lookup_cn(_NAME, _CRED, NameiOp.CREATE), va)
    await server.open(info.cookie, FREAD | FWRITE, _CRED)
    stack.callback(server.reclaim, info.cookie, 1)
    stack.callback(server.close, info.cookie, FREAD | FWRITE, _CRED)
    ready = Ready(server, root, info.cookie)
    await ready.write(_BLOCKS)
    return ready


async def _measure(rounds: int) -> dict[tuple[str, int], float]:
    """Return microseconds of one request, medians, by operation and depth."""
    samples: dict[tuple[str, int], list[float]] = {}
    async with AsyncExitStack() as stack:
        stacks = [await _make_ready(stack, depth) for depth in DEPTHS]
        for _ in range(rounds):
            for title, do, count in OPERATIONS:
                for depth, ready in zip(DEPTHS, stacks, strict=True):
                    began = time.perf_counter()
                    await do(ready, count)
                    took = (time.perf_counter() - began) / count * 1e6
                    samples.setdefault((title, depth), []).append(took)
    return {key: median(values) for key, values in samples.items()}


def print_pairs(out: Console, rounds: int) -> list[Shortfall]:
    """Measure and print; return what is above the goal."""
    figures = trio.run(_measure, rounds)
    table = Table(title="One request through stacks in one process, microseconds, medians")
    table.add_column("operation")
    for depth in DEPTHS:
        table.add_column(trace(depth), justify="right")
    table.add_column("each pair costs", justify="right")
    shortfalls = []
    for title, _, _ in OPERATIONS:
        values = [figures[title, depth] for depth in DEPTHS]
        cost = (values[-1] - values[0]) / DEPTHS[-1]
        high = cost > PAIR_GOAL
        if high:
            text = f"a pair of layers costs {cost:.0f} us on {title}, goal {PAIR_GOAL:.0f} us"
            shortfalls.append(Shortfall(False, text))
        table.add_row(
            title, *(f"{value:.1f}" for value in values), f"{cost:.1f}{' short' if high else ''}"
        )
    out.print(table)
    for titles, goal in KERNEL_GOALS.items():
        cost = sum(figures[title, 0] for title in titles)
        if cost > goal:
            text = f"{' + '.join(titles)} through {trace(0)}: {cost:.0f} us, owed {goal:.0f} us"
            shortfalls.append(Shortfall(True, text))
    return shortfalls
