"""A guard over files in memory, with an SFTP client in front and a server that counts below."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.sftp import Export, exported
from syspuffs.layers.guard import Guard, GuardSettings, guarded
from syspuffs.layers.p2k import p2k_over
from syspuffs.native import sftp
from syspuffs.native.records import Componentname, Cookie, lookup_cn

from ...gateway.sftp.harness import Counting, Served
from ...support.sftp_end import SELF


class Guarded(Served):
    """Sessions see the tree through `guard`; what others do goes to `counting`."""

    def __init__(self, counting: Counting, export: Export, guard: Guard) -> None:
        super().__init__(counting, export)
        self.guard = guard

    async def find(self, path: bytes) -> Cookie:
        """Walk without the SFTP end; what was found on the way stays looked up."""
        cookie = self.guard.kargs.root.cookie
        for name in path.split(b"/"):
            if name:
                info = await self.guard.lookup(cookie, lookup_cn(name, SELF))
                assert info.cookie, name
                cookie = info.cookie
        return cookie

    def name(self, name: bytes) -> Componentname:
        return lookup_cn(name, SELF)


@asynccontextmanager
async def guarded_tree(
    settings: GuardSettings,
    *,
    files: tuple[tuple[bytes, bytes], ...] = (),
    ledger_file: Path | None = None,
    seconds: float = 30,
) -> AsyncIterator[Guarded]:
    """Serve files in memory behind a guard.

    `files` are there before it: (path, data), a path that ends in a slash is a directory. At the
    end everything must have been given back, to the server below, too.
    """
    with trio.fail_after(seconds):
        async with p2k_over(TmpFs(mntfromname=b"none", mode=0o755)) as server:
            counting = Counting(server)
            async with exported(counting) as export:
                async with Served(counting, export).client() as wire:
                    for path, data in files:
                        if path.endswith(b"/"):
                            await wire.ask(sftp.mkdir, path)
                        else:
                            await wire.put(path, data, 0o644)
            async with guarded(counting, settings, ledger_file=ledger_file) as guard:
                async with exported(guard) as export:
                    yield Guarded(counting, export, guard)
                    export.names_changed()
                    assert export.nodes.in_use == []
                assert guard.known == 1
            counting.settled()
            await server.unmount(0)
