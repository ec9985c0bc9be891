"""Paths that are learnt from operations: each way to give a node another name."""

from __future__ import annotations

import pytest

from syspuffs.layers.operations import BY_NAME
from syspuffs.layers.paths import Paths
from syspuffs.native.constants import NameiOp, Vtype
from syspuffs.native.fuse_protocol import RENAME_EXCHANGE, RENAME_NOREPLACE
from syspuffs.native.records import FSCRED, Cookie, Newinfo, lookup_cn

ROOT, ONE, OTHER = Cookie(1), Cookie(2), Cookie(3)
OLD = lookup_cn(b"old", FSCRED)._replace(nameiop=NameiOp.DELETE)
NEW = lookup_cn(b"new", FSCRED)._replace(nameiop=NameiOp.RENAME)


@pytest.fixture
def paths() -> Paths:
    found = Paths(ROOT)
    for cookie, name in ((ONE, b"old"), (OTHER, b"new")):
        args = (ROOT, lookup_cn(name, FSCRED))
        found.learn(BY_NAME["lookup"], args, Newinfo(cookie, Vtype.VREG))
    return found


@pytest.mark.parametrize(
    ("name", "flags", "other"),
    [
        ("rename", (), b"/new"),
        ("rename_with", (RENAME_NOREPLACE,), b"/new"),
        ("rename_with", (RENAME_EXCHANGE,), b"/old"),
    ],
)
def test_renamed(paths: Paths, name: str, flags: tuple[int, ...], other: bytes) -> None:
    args = (ROOT, ONE, OLD, ROOT, OTHER, NEW, *flags)
    assert paths.of(BY_NAME[name], args) == b"/old"
    paths.learn(BY_NAME[name], args, None)
    assert (paths.path(ONE), paths.path(OTHER)) == (b"/new", other)
