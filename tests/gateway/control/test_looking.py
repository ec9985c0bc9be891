"""Where requests stand, who holds what, and what is in the emulated kernels."""

from __future__ import annotations

from fcntl import F_SETLK, F_SETLKW, F_WRLCK

import pytest
import trio
import trio.testing

from syspuffs.emul.kernel import Kernel
from syspuffs.gateway.control import kernels
from syspuffs.gateway.control.elements import elements, figures, options
from syspuffs.gateway.control.elements import kernels as kernels_of
from syspuffs.gateway.control.inflight import in_flight
from syspuffs.layers.fault import Rule, Rules
from syspuffs.layers.throttle import Pace, Throttle
from syspuffs.native.constants import FREAD, NameiOp, Vtype
from syspuffs.native.records import Cred, Flock, Vattr, lookup_cn

from .stacks import Top, nested

FIRST, SECOND = Cred(0, 0, (), 1), Cred(0, 0, (), 2)
LOOK = lookup_cn(b"nothing", FIRST)


async def ask(top: Top, name: str, who: Cred, *args: object) -> None:
    with top.asked(name, getattr(top, name)(*args), who) as running:
        await running


@pytest.fixture
def rules() -> Rules:
    return Rules([Rule(op="lookup", hang=True)])


async def test_a_request_stands_in_the_layer_that_waits(rules: Rules) -> None:
    async with nested(rules) as top, trio.open_nursery() as nursery:
        root = top.kargs.root.cookie
        nursery.start_soon(ask, top, "lookup", FIRST, root, LOOK)
        await trio.testing.wait_all_tasks_blocked()
        (found,) = in_flight(top, 10)["requests"]
        assert [element.name for element in elements(top)] == [
            *("p2k", "puffs", "fault", "p2k", "tmpfs"),
        ]
        assert (found["layer"], found["element"]) == (3, "fault")
        assert found["where"] == "layers.fault.rules.Fault.wait"
        assert (found["operation"], found["pid"]) == ("lookup", 1)
        rules.release()
    assert in_flight(top, 10) == {"count": 0, "requests": []}


async def test_who_holds_a_lock_and_who_waits_for_it(rules: Rules) -> None:
    async with nested(rules) as top, trio.open_nursery() as nursery:
        root = top.kargs.root.cookie
        nursery.start_soon(ask, top, "lookup", FIRST, root, LOOK)
        await trio.testing.wait_all_tasks_blocked()
        cn = lookup_cn(b"dir", SECOND, NameiOp.CREATE)
        nursery.start_soon(ask, top, "mkdir", SECOND, root, cn, Vattr(Vtype.VDIR, 0o755))
        await trio.testing.wait_all_tasks_blocked()
        (lock,) = kernels.locks(top, 10)["vnodes"]
        assert lock == {
            "kernel": 1,
            "vnode": root,
            "path": "/",
            "held": "shared 1",
            "waiting": [{"for": "exclusive", "operation": "mkdir", "pid": 2}],
            "users": [{"operation": "lookup", "pid": 1}],
        }
        waiting = [one for one in in_flight(top, 10)["requests"] if one["operation"] == "mkdir"]
        assert waiting[0]["element"] == "p2k"
        assert waiting[0]["where"] == "emul.lock.VnodeLock._wait"
        rules.release()
    assert kernels.locks(top, 10)["vnodes"] == []


async def test_advisory_locks_and_who_waits_for_them() -> None:
    async with nested() as top, trio.open_nursery() as nursery:
        root = top.kargs.root.cookie
        cn = lookup_cn(b"f", FIRST, NameiOp.CREATE)
        made = await top.create(root, cn, Vattr(Vtype.VREG, 0o644))
        await top.open(made.cookie, FREAD, FIRST)
        mine = Flock(F_WRLCK, 10, 5, 1)
        await top.advlock(made.cookie, 7, F_SETLK, mine, 0)
        nursery.start_soon(
            ask, top, "advlock", SECOND, made.cookie, 8, F_SETLKW, Flock(F_WRLCK, 0, 0, 2), 0
        )
        await trio.testing.wait_all_tasks_blocked()
        (found,) = kernels.locks(top, 10)["advisory"]
        assert found["locks"] == [{"type": "write", "start": 10, "octets": 5, "owner": 1}]
        assert found["waiting"] == [
            {
                "type": "write",
                "start": 0,
                "octets": None,
                "owner": 2,
                "operation": "advlock",
                "pid": 2,
            }
        ]
        assert found["kernel"] == 2
        nursery.cancel_scope.cancel()


async def test_vnodes_are_listed_up_to_a_limit() -> None:
    async with nested() as top:
        root = top.kargs.root.cookie
        for number in range(20):
            cn = lookup_cn(b"%d" % number, FIRST, NameiOp.CREATE)
            await top.create(root, cn, Vattr(Vtype.VREG, 0o644))
        found = kernels.vnodes(top, 30)
        assert found["count"] == 42
        assert len(found["vnodes"]) == 30
        assert {one["kernel"] for one in found["vnodes"]} == {1, 2}
        assert found["vnodes"][0]["path"] == "/"
        assert found["vnodes"][0]["fs"] == "puffs|p2k|tmpfs"
        assert kernels.buffers(top, 10) == {"count": 0, "buffers": []}


async def test_kernels_are_told_apart() -> None:
    async with nested() as top:
        found = kernels_of(top)
        assert len(found) == 2
        assert all(isinstance(kernel, Kernel) for kernel in found)


async def test_layers_tell_what_they_are_told_and_what_they_did(rules: Rules) -> None:
    async with nested(rules) as top:
        with trio.move_on_after(0):
            await top.lookup(top.kargs.root.cookie, LOOK)
        found = {element.name: figures(element.part) for element in elements(top)}
        assert found["fault"] == {"rules": 1, "taken": 1, "hanging": 0, "is_dead": False}
        assert found["puffs"]["requests"]["lookup"] == 1
        assert found["p2k"]["kernel"]["vnodes"] == 1
        throttle = Throttle(top.server, Pace(operations=7))
        assert options(throttle) == {"operations": 7, "octets": None, "latency": 0.0}
