"""What a known file costs: the nodes and listings of psshfs and the host end's nodes together."""

from __future__ import annotations

import gc
import os
import tracemalloc
from pathlib import Path
from typing import Final

from syspuffs.gateway.host.nodes import NodeTable
from syspuffs.layers.psshfs import Psshfs
from syspuffs.native.constants import READDIR_PLUS
from syspuffs.native.records import Cookie, lookup_cn

from ..layers.psshfs.harness import CRED, mounted, root_of

FILES: Final = 1000
DIRECTORIES: Final = 2
OCTETS_MAX: Final = 530
"""For each file whose name has 18 octets and whose size and times are its own; the dicts of
1,000,000 of them are up to 30 octets a file larger than these."""


def fill(tree: Path) -> None:
    for serial in range(DIRECTORIES * FILES):
        directory = tree / f"d{serial // FILES}"
        directory.mkdir(exist_ok=True)
        path = directory / f"file-{serial:09}.txt"
        path.touch()
        os.truncate(path, 100_000 + serial)
        os.utime(path, (1_500_000_000 + serial, 1_600_000_000 + serial))


async def list_for_the_host(server: Psshfs, table: NodeTable, cookie: Cookie) -> None:
    """Read a directory as READDIRPLUS has it done, and tell the host all entries."""
    parent = table.by_cookie(cookie)
    assert parent is not None
    offset = 0
    is_end = False
    while not is_end:
        entries, is_end = await server.readdir(cookie, offset, 32768, READDIR_PLUS, CRED)
        for entry in entries:
            offset = entry.offset
            if entry.newinfo is not None:
                node = table.absorb(entry.newinfo)
                table.tell(parent, entry.name, node)
                table.settle(node)


async def test_a_million_known_files_fit_in_a_gigabyte(tmp_path: Path) -> None:
    fill(tmp_path)
    async with mounted(tmp_path) as server:
        table = NodeTable(server, server.kargs.root)
        root = root_of(server)
        await list_for_the_host(server, table, root)
        tracemalloc.start()
        try:
            for at in range(DIRECTORIES):
                info = await server.lookup(root, lookup_cn(b"d%d" % at, CRED))
                await list_for_the_host(server, table, info.cookie)
            gc.collect()
            octets = tracemalloc.get_traced_memory()[0] // (DIRECTORIES * FILES)
        finally:
            tracemalloc.stop()
        assert len(table) == 1 + DIRECTORIES + DIRECTORIES * FILES
    assert octets < OCTETS_MAX, octets
