"""The host's node table: two counts a node, names kept for victims, nothing lost, nothing early."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.host.nodes import ROOT_INO, Node, NodeTable
from syspuffs.layers.p2k import P2k, p2k_over
from syspuffs.native.constants import NameiOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred, Newinfo, Vattr, lookup_cn

CRED = Cred(0, 0)


@pytest.fixture
async def server() -> AsyncIterator[P2k]:
    async with p2k_over(TmpFs(mntfromname=b"none")) as served:
        yield served


async def _make(server: P2k, name: bytes) -> Newinfo:
    cn = lookup_cn(name, CRED, NameiOp.CREATE)
    return await server.create(server.kargs.root.cookie, cn, Vattr(Vtype.VREG, 0o600))


async def _is_alive(server: P2k, info: Newinfo) -> bool:
    try:
        await server.getattr(info.cookie, CRED)
    except VfsError:
        return False
    return True


def _told(table: NodeTable, info: Newinfo, name: bytes) -> Node:
    node = table.absorb(info)
    table.tell(table.root, name, node)
    table.settle(node)
    return node


async def test_a_node_goes_below_with_the_last_lookup_of_the_host(server: P2k) -> None:
    table = NodeTable(server, server.kargs.root)
    info = await _make(server, b"a")
    node = _told(table, info, b"a")
    again = await server.lookup(server.kargs.root.cookie, lookup_cn(b"a", CRED))
    assert _told(table, again, b"a") is node
    table.forget(node.ino, 1)
    assert await _is_alive(server, info)
    table.forget(node.ino, 1)
    assert not await _is_alive(server, info)
    assert table.child(table.root, b"a") is None


async def test_a_pinned_node_outlives_a_forget(server: P2k) -> None:
    """A READDIRPLUS entry that waits, or a lookup whose reply is being made."""
    table = NodeTable(server, server.kargs.root)
    info = await _make(server, b"a")
    node = _told(table, info, b"a")
    waiting = await server.lookup(server.kargs.root.cookie, lookup_cn(b"a", CRED))
    assert table.absorb(waiting) is node
    table.forget(node.ino, 1)
    assert await _is_alive(server, info)
    assert table.by_cookie(info.cookie) is node
    table.settle(node)
    assert not await _is_alive(server, info)


async def test_numbers_are_the_servers_unless_taken(server: P2k) -> None:
    table = NodeTable(server, server.kargs.root)
    info = await _make(server, b"a")
    assert info.va is not None
    node = _told(table, info, b"a")
    assert node.ino == info.va.fileid
    other = await _make(server, b"b")
    assert other.va is not None
    for fileid in (info.va.fileid, ROOT_INO, 0, None):
        twin = other._replace(va=other.va._replace(fileid=fileid))
        shown = table.absorb(twin)
        assert shown.ino not in (node.ino, ROOT_INO, 0)
        assert table.by_ino(shown.ino) is shown
        other = await server.lookup(server.kargs.root.cookie, lookup_cn(b"b", CRED))
        table.settle(shown)


async def test_renamed_and_removed_names_are_followed(server: P2k) -> None:
    table = NodeTable(server, server.kargs.root)
    a = _told(table, await _make(server, b"a"), b"a")
    b = _told(table, await _make(server, b"b"), b"b")
    table.unname(table.root, b"a")
    table.unname(table.root, b"b")
    table.name(table.root, b"b", a)
    assert table.child(table.root, b"b") is a
    assert table.child(table.root, b"a") is None
    table.forget(b.ino, 1)
    assert table.child(table.root, b"b") is a, "the old b takes nobody's name along"
    table.forget(a.ino, 1)
    assert len(table) == 1
    table.forget(ROOT_INO, 1)
    assert len(table) == 1, "the root stays"
