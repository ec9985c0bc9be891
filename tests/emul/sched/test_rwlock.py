"""Reader/writer locks. Who gets in when is VnodeLock's: see tests/emul/test_lock.py."""

from __future__ import annotations

import pytest
import trio

from syspuffs.emul.sched import RW_READER, RW_WRITER, Krwlock

from ..caller import now
from .visitors import Visitors


def visitors(nursery: trio.Nursery, lock: Krwlock) -> Visitors:
    async def enter(name: str) -> None:
        await lock.enter(RW_WRITER if name.startswith("w") else RW_READER)

    return Visitors(nursery, enter, lock.exit)


def test_a_free_lock_does_not_yield() -> None:
    lock = Krwlock("rw")
    now(lock.enter(RW_READER))
    now(lock.enter(RW_READER))
    assert lock.lock_held
    assert not lock.write_held()
    assert not lock.tryenter(RW_WRITER)
    assert not lock.tryupgrade()  # there is another reader
    lock.exit()
    assert lock.tryupgrade()
    assert lock.write_held()
    assert "writer=lwp0" in repr(lock)
    assert not lock.tryenter(RW_READER)
    lock.downgrade()
    assert lock.lock_held
    assert not lock.write_held()
    assert lock.tryenter(RW_READER)
    lock.exit()
    lock.exit()
    assert not lock.lock_held
    now(lock.enter(RW_WRITER))
    lock.exit()
    assert lock.tryenter(RW_WRITER)
    lock.exit()
    assert not lock.lock_held


async def test_served_in_order_of_arrival() -> None:
    lock = Krwlock("rw")
    async with trio.open_nursery() as nursery:
        guests = visitors(nursery, lock)
        await guests.arrive("r1", "r2", "w1", "r3", "w2")
        assert guests.inside == ["r1", "r2"]
        await guests.leave("r1", "r2")
        assert guests.inside == ["w1"]
        await guests.leave("w1")
        assert guests.inside == ["r3"]
        await guests.leave("r3")
        assert guests.inside == ["w2"]
        await guests.leave("w2")
    assert not lock.lock_held


async def test_what_belongs_to_the_writer() -> None:
    lock = Krwlock("rw")

    async def other() -> None:
        assert not lock.write_held()
        with pytest.raises(RuntimeError, match="not its writer"):
            lock.exit()
        with pytest.raises(RuntimeError, match="not its writer"):
            lock.downgrade()

    await lock.enter(RW_WRITER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
    assert lock.write_held()
    lock.exit()
    with pytest.raises(RuntimeError, match="nobody holds"):
        lock.exit()


async def test_cancelled_waiter_has_nothing() -> None:
    lock = Krwlock("rw")
    async with trio.open_nursery() as nursery:
        guests = visitors(nursery, lock)
        await guests.arrive("r1", "w1", "r2")
        await guests.cancel("w1")
        assert guests.inside == ["r1", "r2"]
        await guests.leave("r1", "r2")
    assert lock.tryenter(RW_WRITER)
