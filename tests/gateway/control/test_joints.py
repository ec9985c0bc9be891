"""Layers that come and go in a stack that is in use."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from syspuffs.gateway.control.elements import trace
from syspuffs.gateway.control.joints import INSERTED_MAX, Joints
from syspuffs.gateway.control.measuring import measuring
from syspuffs.gateway.control.protocol import NO_PLACE, ControlError
from syspuffs.layers.fault import Rule, Rules
from syspuffs.native.constants import FREAD, FWRITE, NameiOp, Vtype
from syspuffs.native.records import Cred, Vattr, lookup_cn

from .stacks import Top, nested

CRED = Cred(0, 0, (), 1)


@asynccontextmanager
async def joints(top: Top) -> AsyncIterator[Joints]:
    async with trio.open_nursery() as nursery:
        yield Joints(top, nursery)
        nursery.cancel_scope.cancel()


async def test_places_are_named_by_what_is_around_them() -> None:
    async with nested() as top, joints(top) as made:
        assert await made.insert("null", "puffs|HERE|p2k|tmpfs")
        assert trace(top) == "p2k|puffs|null|p2k|tmpfs"
        await made.insert("readonly", "")
        assert trace(top) == "readonly|p2k|puffs|null|p2k|tmpfs"
        await made.insert("null", "readonly|HERE")
        assert trace(top) == "readonly|null|p2k|puffs|null|p2k|tmpfs"
        with pytest.raises(ControlError, match="say which"):
            made.remove("null", "")
        with pytest.raises(ControlError, match=r"'HERE\|p2k' may be .* or "):
            await made.insert("null", "HERE|p2k")
        for place in ("psshfs|HERE", "HERE|tmpfs", "p2k|HERE"):  # there is no file server below
            with pytest.raises(ControlError, match=NO_PLACE):
                await made.insert("null", place)
        for place in ("puffs|psshfs", "HERE|HERE"):
            with pytest.raises(ControlError, match="a place is named like"):
                await made.insert("null", place)
        made.remove("null", "readonly|HERE|p2k")
        made.remove("null", "puffs|HERE")
        made.remove("readonly", "")
        assert trace(top) == "p2k|puffs|p2k|tmpfs"
        with pytest.raises(ControlError, match="there is no null in"):
            made.remove("null", "")


async def test_names_and_words_that_make_no_sense() -> None:
    async with nested() as top, joints(top) as made:
        for name in ("psshfs", "p2k", "compare", "nosuch", ""):
            with pytest.raises(ControlError, match="cannot come between"):
                await made.insert(name, "")
        with pytest.raises(ControlError, match="throttle_ops"):
            await made.insert("throttle", "", ["throttle_op=1"])
        with pytest.raises(ControlError, match="-o trace=FILE"):
            await made.insert("trace", "")
        with pytest.raises(ControlError, match="No such file"):
            await made.insert("trace", "", ["trace=/nosuch/directory/t"])
        assert trace(top) == "p2k|puffs|p2k|tmpfs"


async def test_there_is_an_end_to_it() -> None:
    async with nested() as top, joints(top) as made:
        for _ in range(INSERTED_MAX):
            await made.insert("null", "")
        with pytest.raises(ControlError, match="take some out"):
            await made.insert("null", "")


async def test_what_is_under_way_ends_where_it_began(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rules = Rules([Rule(op="getattr", hang=True, nth=1)])
    async with nested(rules) as top, joints(top) as made, trio.open_nursery() as nursery:
        root = top.kargs.root.cookie
        nursery.start_soon(top.getattr, root, CRED)
        await trio.testing.wait_all_tasks_blocked()
        await made.insert("readonly", "HERE|fault")
        made.remove("fault", "")
        assert trace(top) == "p2k|puffs|readonly|p2k|tmpfs"
        await top.getattr(root, CRED)  # goes by the one that hangs, for it is not there any more
        assert nursery.child_tasks
        rules.release()


@pytest.mark.parametrize("seed", range(3))
async def test_work_goes_on_while_layers_come_and_go(seed: int) -> None:
    chance = random.Random(seed)
    done = changes = 0

    async def work(top: Top, number: int) -> None:
        nonlocal done
        root = top.kargs.root.cookie
        for turn in range(60):
            name = b"%d.%d" % (number, turn)
            cn = lookup_cn(name, CRED, NameiOp.CREATE)
            made = await top.create(root, cn, Vattr(Vtype.VREG, 0o644))
            await top.open(made.cookie, FREAD | FWRITE, CRED)
            await top.write(made.cookie, 0, name, 0, CRED)
            await trio.lowlevel.checkpoint()
            assert bytes(await top.read(made.cookie, 0, 100, 0, CRED)) == name
            top.close(made.cookie, FREAD | FWRITE, CRED)
            await top.remove(root, made.cookie, lookup_cn(name, CRED, NameiOp.DELETE))
            top.reclaim(made.cookie, 1)
            done += 1

    async with nested() as top, joints(top) as made:
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(work, top, number)
            while done < 240:
                names = made.names()
                guests = [at for at, name in enumerate(names) if name in ("null", "throttle")]
                if len(guests) > 3 or (guests and chance.random() < 0.5):
                    at = chance.choice(guests)
                    made.remove(names[at], "|".join([*names[:at], "HERE", *names[at + 1 :]]))
                else:
                    at = chance.choice([at for at, name in enumerate(names) if name == "p2k"])
                    place = "|".join([*names[:at], "HERE", *names[at:]])
                    await made.insert(chance.choice(("null", "throttle")), place)
                changes += 1
                with measuring(top, made) as figures:
                    await trio.lowlevel.checkpoint()
                    figures.take()
                await trio.lowlevel.checkpoint()
    assert changes >= 15


async def test_meters_stand_on_all_servers_while_somebody_looks() -> None:
    async with nested() as top, joints(top) as made:
        root = top.kargs.root.cookie
        with measuring(top, made) as figures:
            for _ in range(5):
                await top.getattr(root, CRED)
            found = figures.take()
            assert [(one["layer"], one["name"]) for one in found["layers"]] == [
                (1, "p2k"),
                (3, "p2k"),
            ]
            first, second = (one["operations"]["getattr"] for one in found["layers"])
            assert first["count"] == second["count"] == 5
            assert first["total"] > second["total"] > 0
            assert found["paths"] == [{"path": "/", "count": 5}]
            assert figures.take()["layers"][0]["operations"] == {}
        assert trace(top) == "p2k|puffs|p2k|tmpfs"
