"""Stacks in this process with an end on top, for what looks into them without a mount."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic_ns
from typing import Any

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.control.ends import Request
from syspuffs.layers.fault import Faulty, Rules
from syspuffs.layers.ops import FileServer, Upcalls
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.passing import Passing
from syspuffs.layers.puffs import puffs_over
from syspuffs.native.records import Cookie, Cred


class Top(Passing):
    """What stands on top: like the host, it can be told to stand on something else."""

    name = "top"

    def __init__(self, below: FileServer) -> None:
        super().__init__(below)
        self.under_way: list[Request] = []
        self.upcalls: Upcalls | None = None

    @property
    def server(self) -> FileServer:
        return self.below

    def statistics(self) -> dict[str, Any]:
        return {"requests": len(self.under_way)}

    def requests(self) -> list[Request]:
        return list(self.under_way)

    def path(self, cookie: Cookie) -> bytes | None:
        return b"/" if cookie == self.below.kargs.root.cookie else None

    def known_below(self, path: bytes) -> list[Cookie]:
        return [self.below.kargs.root.cookie]

    @contextmanager
    def asked(
        self, name: str, running: Coroutine[Any, Any, Any], who: Cred
    ) -> Generator[Coroutine[Any, Any, Any], None, None]:
        """Have `running` be a request under way for the time of a block."""
        request = Request(name, b"/", who, monotonic_ns(), running)
        self.under_way.append(request)
        try:
            yield running
        finally:
            self.under_way.remove(request)


@asynccontextmanager
async def nested(rules: Rules | None = None) -> AsyncIterator[Top]:
    """`p2k|puffs|p2k|tmpfs`, with a fault layer above the second p2k if there are rules."""
    async with p2k_over(TmpFs(mntfromname=b"none")) as inner:
        server: FileServer = inner if rules is None else Faulty(inner, rules)
        async with puffs_over(server) as fs, p2k_over(fs) as outer:
            yield Top(outer)
            await outer.unmount(0)
