"""meter: what it counts, and how near its percentiles are."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.meter import Histogram, Meter
from syspuffs.layers.meter.server import NODES_MAX
from syspuffs.layers.p2k import p2k_over
from syspuffs.native.constants import FREAD, FWRITE, NameiOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Cred, Vattr, lookup_cn

CRED = Cred(0, 0, (), 1)


@given(st.lists(st.integers(0, 2**45), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_percentiles_are_off_by_an_eighth_at_most(durations: list[int], share: float) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    at = next(n for n in range(1, len(durations) + 1) if n >= share * len(durations))
    exact = sorted(durations)[at - 1]
    assert abs(histogram.percentile(share) - exact) <= exact / 8
    assert (histogram.count, histogram.longest) == (len(durations), max(durations))
    assert histogram.total == sum(durations)


def test_without_any_there_is_no_percentile() -> None:
    assert Histogram().percentile(0.5) == 0


async def test_what_goes_by_is_counted_once() -> None:
    async with p2k_over(TmpFs(mntfromname=b"none")) as below:
        server = Meter(below)
        root = server.kargs.root.cookie
        made = await server.create(
            root, lookup_cn(b"f", CRED, NameiOp.CREATE), Vattr(Vtype.VREG, 0o644)
        )
        await server.open(made.cookie, FREAD | FWRITE, CRED)
        await server.write(made.cookie, 0, b"0123456789", 0, CRED)
        for _ in range(3):
            await server.read(made.cookie, 0, 100, 0, CRED)
        server.close(made.cookie, FREAD | FWRITE, CRED)
        with pytest.raises(VfsError):
            await server.rmdir(root, made.cookie, lookup_cn(b"f", CRED, NameiOp.DELETE))
        tallies, nodes = server.take()
        counts = {name: (one.times.count, one.errors, one.octets) for name, one in tallies.items()}
        assert counts == {
            "create": (1, 0, 0),
            "open": (1, 0, 0),
            "write": (1, 0, 10),
            "read": (3, 0, 30),
            "rmdir": (1, 1, 0),
        }
        assert nodes == {root: 2, made.cookie: 5}
        assert server.take() == ({}, {})
        await server.unmount(0)


async def test_nodes_are_bounded_and_the_busiest_stay() -> None:
    async with p2k_over(TmpFs(mntfromname=b"none")) as below:
        server = Meter(below)
        root = server.kargs.root.cookie
        numbers = list(range(10**6, 10**6 + 3 * NODES_MAX))
        random.Random(7).shuffle(numbers)
        for number in numbers:
            await server.getattr(root, CRED)
            with pytest.raises(VfsError):
                await server.getattr(Cookie(number), CRED)
        nodes = server.take().nodes
        assert len(nodes) <= NODES_MAX
        assert nodes[root] == len(numbers)
        await server.unmount(0)
