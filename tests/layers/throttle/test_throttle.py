"""throttle: how long things take, by a clock that does not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from syspuffs.layers.throttle import Pace, Throttle
from syspuffs.native.constants import NameiOp, Vtype
from syspuffs.native.records import Cookie, Cred, Vattr, lookup_cn

from ..puffs.memserver import MemServer

CRED = Cred(0, 0, (), 1)


async def file(below: MemServer) -> Cookie:
    cn = lookup_cn(b"f", CRED, NameiOp.CREATE)
    made = await below.create(below.kargs.root.cookie, cn, Vattr(Vtype.VREG, 0o644))
    return made.cookie


async def test_operations_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """A second's worth at once, then by and by, for all users together."""
    below = MemServer()
    server = Throttle(below, Pace(operations=10))
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(server.getattr, below.root.cookie, CRED)
    assert trio.current_time() - start == pytest.approx(2.0)


async def test_octets_a_second(autojump_clock: trio.testing.MockClock) -> None:
    below = MemServer()
    cookie = await file(below)
    server = Throttle(below, Pace(octets=1000))
    start = trio.current_time()
    await server.write(cookie, 0, bytes(3000), 0, CRED)
    assert trio.current_time() - start == pytest.approx(2.0)
    assert len(await server.read(cookie, 0, 2000, 0, CRED)) == 2000
    assert trio.current_time() - start == pytest.approx(4.0)


async def test_latency_and_what_is_free(autojump_clock: trio.testing.MockClock) -> None:
    below = MemServer()
    server = Throttle(below, Pace(latency=0.5))
    start = trio.current_time()
    await server.getattr(below.root.cookie, CRED)
    assert trio.current_time() - start == pytest.approx(0.5)
    await server.inactive(below.root.cookie)
    await server.unmount(0)
    assert trio.current_time() - start == pytest.approx(0.5)


async def test_a_cancelled_write_owes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    below = MemServer()
    cookie = await file(below)
    server = Throttle(below, Pace(octets=1000))
    with trio.move_on_after(1):
        await server.write(cookie, 0, bytes(100_000), 0, CRED)
    start = trio.current_time()
    await server.write(cookie, 0, bytes(1000), 0, CRED)
    assert trio.current_time() - start <= 1.0
