"""Listings of psshfs told to the host page by page: what it hears, and that all is given back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from syspuffs.gateway.words.options import HostOptions
from syspuffs.layers.psshfs import Psshfs, PsshfsOptions
from syspuffs.layers.psshfs.options import Idmap
from syspuffs.native import fuse_replies, fuse_requests
from syspuffs.native.constants import Vtype

from ..gateway.host.test_service import Kernel
from ..gateway.host.test_service import mounted as hosted
from ..layers.psshfs.harness import mounted, root_of

FILES = 700  # more than one page
NAMES = {b"f%03d" % number for number in range(FILES)}


def fill(tree: Path) -> None:
    for number in range(FILES):
        path = tree / f"f{number:03}"
        path.touch(0o640 + number % 8)
        os.truncate(path, number * 1000)
        os.utime(path, (number, 2 * number))
    (tree / "d").mkdir()


async def opened(kernel: Kernel) -> int:
    error, body = await kernel.ask(fuse_requests.opendir, 1, 0)
    assert not error
    return fuse_replies.opened(body).fh


async def read(kernel: Kernel, fh: int, offset: int, size: int) -> list[Any]:
    error, body = await kernel.ask(fuse_requests.readdirplus, 1, fh, offset, size, 0)
    assert not error
    assert len(body) <= size
    return list(fuse_replies.dirents_plus(body))


async def read_all(kernel: Kernel, fh: int, size: int) -> list[Any]:
    entries: list[Any] = []
    while more := await read(kernel, fh, entries[-1].offset if entries else 0, size):
        entries += more
    return entries


async def forget(kernel: Kernel, entries: Iterable[Any]) -> None:
    told = [(e.entry.nodeid, 1) for e in entries if e.entry is not None and e.entry.nodeid]
    await kernel.tell(fuse_requests.batch_forget, 0, told)


def check_given_back(server: Psshfs) -> None:
    assert not server.table.told
    assert set(server.table.nodes) == {root_of(server)}


OPTIONS = [
    (HostOptions(), PsshfsOptions()),
    (HostOptions(uid=5, gid=6), PsshfsOptions()),
    (HostOptions(umask=0o77), PsshfsOptions()),
    (HostOptions(), PsshfsOptions(idmap=Idmap.USER)),
]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "owner", "umask", "idmap"])
@pytest.mark.parametrize("size", [4096, 40000])
async def test_what_the_host_hears(
    tmp_path: Path, size: int, options: tuple[HostOptions, PsshfsOptions]
) -> None:
    fill(tmp_path)
    async with (
        mounted(tmp_path, options=options[1]) as server,
        hosted(options[0], server) as mount,  # type: ignore[arg-type]
    ):
        kernel = mount.kernel
        fh = await opened(kernel)
        entries = await read_all(kernel, fh, size)
        names = [entry.name for entry in entries]
        assert len(names) == len(set(names))
        assert set(names) == NAMES | {b".", b"..", b"d"}
        assert [e.offset for e in entries] == sorted(e.offset for e in entries)
        for entry in entries:
            if entry.name in NAMES:
                va, there = entry.entry.va, os.stat(tmp_path / os.fsdecode(entry.name))
                assert (va.size, va.bytes) == (there.st_size, there.st_size + 511 & ~511)
                assert (va.atime, va.mtime) == (there.st_atime_ns, there.st_mtime_ns)
                mode = there.st_mode & 0o7777 if options[0].umask is None else 0o700
                assert (va.vtype, va.mode) == (entry.vtype, mode) == (Vtype.VREG, mode)
                uid, gid = options[0].uid, options[0].gid
                assert va.uid == (there.st_uid if uid is None else uid)
                assert va.gid == (there.st_gid if gid is None else gid)
                assert va.fileid == entry.entry.nodeid == entry.fileid
                assert entry.entry.entry_ttl > 0
                assert entry.entry.attr_ttl > 0
        (last,) = [entry for entry in entries if entry.name == b"f699"]
        error, body = await kernel.ask(fuse_requests.getattr, last.entry.nodeid, 0, 0)
        assert not error
        assert fuse_replies.attr(body)[0] == last.entry.va
        await kernel.ask(fuse_requests.releasedir, 1, fh, 0)
        await forget(kernel, entries)
        check_given_back(server)


@pytest.mark.parametrize("umask", [None, 0o77], ids=["plain", "umask"])
async def test_what_waits_in_a_page_is_given_back(tmp_path: Path, umask: int | None) -> None:
    """By a close, and by a reader that goes elsewhere."""
    fill(tmp_path)
    async with (
        mounted(tmp_path) as server,
        hosted(HostOptions(umask=umask), server) as mount,  # type: ignore[arg-type]
    ):
        kernel = mount.kernel
        fh = await opened(kernel)
        first = await read(kernel, fh, 0, 4096)
        second = await read(kernel, fh, first[-1].offset, 4096)
        again = await read(kernel, fh, 0, 4096)
        assert [entry.name for entry in again] == [entry.name for entry in first]
        elsewhere = await read(kernel, fh, second[5].offset, 4096)
        assert [entry.name for entry in elsewhere[:5]] == [entry.name for entry in second[6:11]]
        await forget(kernel, first)
        await kernel.ask(fuse_requests.releasedir, 1, fh, 0)
        await forget(kernel, [*second, *again, *elsewhere])
        check_given_back(server)
