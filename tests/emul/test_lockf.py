"""Advisory locks of ranges: against a model octet by octet, and waiting, one rule at a time."""

from __future__ import annotations

from errno import EAGAIN, EDEADLK, EINVAL, ENOLCK, ENXIO, EOVERFLOW
from fcntl import F_GETLK, F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul import lockf
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.lockf import lf_advlock
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vnode import Vnode, vgone
from syspuffs.native.constants import F_FLOCK
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Flock

from .caller import fails, now

END = 2**63 - 1


def vnodes(count: int = 1) -> list[Vnode]:
    mount = now(Kernel().mount(TmpFs()))
    data = mount.root.data  # any node of tmpfs will do
    return [mount.insert(100 + number, 1, data) for number in range(count)]


def lock(
    vp: Vnode, owner: int, kind: int, start: int, length: int, op: int = F_SETLK
) -> Flock | None:
    """Return the answer, None for EAGAIN; does not yield."""
    try:
        return now(lf_advlock(vp, owner, op, Flock(kind, start, length, owner)))
    except VfsError as exc:
        if exc.errno != EAGAIN:
            raise
        return None


def held(vp: Vnode) -> list[tuple[int, int, int, int]]:
    """Return owner, kind, start and length of all locks."""
    file = vp.mount.kernel.lockf._files.get(vp)
    if file is None:
        return []
    return [(lock.owner, *lock.flock()[:3]) for lock in file.locks]


def test_those_of_flock_are_apart() -> None:
    [vp] = vnodes()
    lock(vp, 1, F_WRLCK, 0, 0)
    mine = Flock(F_WRLCK, 0, 0, 2)
    now(lf_advlock(vp, 2, F_SETLK, mine, F_FLOCK))
    now(lf_advlock(vp, 1, F_SETLK, Flock(F_UNLCK, 0, 0, 1), F_FLOCK))
    assert held(vp) == [(1, F_WRLCK, 0, 0), (2, F_WRLCK, 0, 0)]
    with pytest.raises(VfsError):
        now(lf_advlock(vp, 3, F_SETLK, mine, F_FLOCK))
    now(lf_advlock(vp, 1, F_SETLK, Flock(F_UNLCK, 0, 0, 1)))
    assert held(vp) == [(2, F_WRLCK, 0, 0)]


def test_merging_and_cutting() -> None:
    [vp] = vnodes()
    lock(vp, 1, F_RDLCK, 10, 10)
    lock(vp, 1, F_RDLCK, 20, 5)  # touches
    assert held(vp) == [(1, F_RDLCK, 10, 15)]
    lock(vp, 1, F_RDLCK, 30, 5)
    lock(vp, 1, F_RDLCK, 22, 10)  # bridges
    assert held(vp) == [(1, F_RDLCK, 10, 25)]
    lock(vp, 1, F_WRLCK, 15, 5)
    assert held(vp) == [(1, F_RDLCK, 10, 5), (1, F_WRLCK, 15, 5), (1, F_RDLCK, 20, 15)]
    lock(vp, 1, F_UNLCK, 12, 20)
    assert held(vp) == [(1, F_RDLCK, 10, 2), (1, F_RDLCK, 32, 3)]
    lock(vp, 1, F_WRLCK, 0, 0)
    assert held(vp) == [(1, F_WRLCK, 0, 0)]
    lock(vp, 1, F_UNLCK, 100, 0)
    assert held(vp) == [(1, F_WRLCK, 0, 100)]
    lock(vp, 2, F_UNLCK, 0, 0)  # nobody else's business
    assert held(vp) == [(1, F_WRLCK, 0, 100)]
    lock(vp, 1, F_UNLCK, 0, 0)
    assert held(vp) == []
    assert len(vp.mount.kernel.lockf) == 0


def test_who_is_in_the_way() -> None:
    [vp] = vnodes()
    assert lock(vp, 1, F_RDLCK, 10, 10) == Flock(F_RDLCK, 10, 10, 1)
    lock(vp, 2, F_RDLCK, 15, 0)
    assert lock(vp, 3, F_WRLCK, 19, 1) is None
    assert lock(vp, 3, F_WRLCK, 0, 10) is not None
    assert lock(vp, 1, F_WRLCK, 12, 3) is not None
    assert lock(vp, 1, F_WRLCK, 12, 4) is None
    assert lock(vp, 3, F_WRLCK, 14, 100, F_GETLK) == Flock(F_WRLCK, 12, 3, 1)
    assert lock(vp, 3, F_RDLCK, 15, 100, F_GETLK) == Flock(F_UNLCK, 15, 100, 3)
    assert lock(vp, 3, F_WRLCK, 15, 100, F_GETLK) == Flock(F_RDLCK, 15, 5, 1)
    assert lock(vp, 3, F_WRLCK, 20, 0, F_GETLK) == Flock(F_RDLCK, 15, 0, 2)
    assert lock(vp, 3, F_WRLCK, 5, -5, F_GETLK) == Flock(F_UNLCK, 0, 5, 3)


@pytest.mark.parametrize(
    ("start", "length", "errno"),
    [(-1, 5, EINVAL), (3, -5, EINVAL), (END, 2, EOVERFLOW), (END + 1, 0, EOVERFLOW), (END, 1, 0)],
)
def test_ranges_that_cannot_be(start: int, length: int, errno: int) -> None:
    [vp] = vnodes()
    if errno:
        with fails(errno):
            lock(vp, 1, F_RDLCK, start, length)
    else:
        lock(vp, 1, F_RDLCK, start, length)
        assert held(vp) == [(1, F_RDLCK, start, 0)]  # to the end


def test_nonsense_is_refused() -> None:
    [vp] = vnodes()
    for kind, op in ((F_RDLCK, 99), (99, F_SETLK), (F_UNLCK, F_GETLK)):
        with fails(EINVAL):
            lock(vp, 1, kind, 0, 0, op)


def test_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockf, "LOCKS_MAX", 3)
    [vp] = vnodes()
    for start in (0, 20, 40):
        lock(vp, 1, F_RDLCK, start, 10)
    with fails(ENOLCK):
        lock(vp, 1, F_RDLCK, 60, 10)
    lock(vp, 1, F_UNLCK, 5, 2)  # cuts one in two
    assert len(vp.mount.kernel.lockf) == 4


SPAN = 16
steps = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.sampled_from((F_RDLCK, F_WRLCK, F_UNLCK)),
        st.integers(0, SPAN - 1),
        st.integers(0, 8),
    ),
    max_size=30,
)


@given(steps)
def test_against_a_model(steps: list[tuple[int, int, int, int]]) -> None:
    [vp] = vnodes()
    model: list[dict[int, int]] = [{} for _ in range(SPAN)]  # for each octet: owner -> kind
    for owner, kind, start, length in steps:
        octets = model[start : start + length] if length else model[start:]
        free = not any(
            other != owner and F_WRLCK in (kind, has)
            for octet in octets
            for other, has in octet.items()
        )
        if kind == F_UNLCK:
            lock(vp, owner, kind, start, length)
            for octet in octets:
                octet.pop(owner, None)
        else:
            answer = lock(vp, owner, kind, start, length, F_GETLK)
            assert answer is not None
            assert (answer.type == F_UNLCK) is free
            assert (lock(vp, owner, kind, start, length) is not None) is free
            if free:
                for octet in octets:
                    octet[owner] = kind
        seen: list[dict[int, int]] = [{} for _ in range(SPAN)]
        for who, what, begin, size in held(vp):
            for octet in seen[begin : begin + size] if size else seen[begin:]:
                assert who not in octet
                octet[who] = what
        assert seen == model
        # Pieces of one kind never touch.
        ends = {(who, what, begin + size) for who, what, begin, size in held(vp) if size}
        assert not any((who, what, begin) in ends for who, what, begin, _ in held(vp))
        assert len(vp.mount.kernel.lockf) == len(held(vp))


class Waiters:
    """Tasks that wait for locks."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.ended: dict[str, int] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    async def begin(
        self, name: str, vp: Vnode, owner: int, kind: int, start: int, length: int
    ) -> None:
        async def run() -> None:
            with scope:
                try:
                    await lf_advlock(vp, owner, F_SETLKW, Flock(kind, start, length, owner))
                    self.ended[name] = 0
                except VfsError as exc:
                    self.ended[name] = exc.errno

        scope = self.scopes[name] = trio.CancelScope()
        self.nursery.start_soon(run)
        await wait_all_tasks_blocked()


async def test_waiting_in_order() -> None:
    [vp] = vnodes()
    async with trio.open_nursery() as nursery:
        waiters = Waiters(nursery)
        await waiters.begin("no wait", vp, 1, F_WRLCK, 0, 10)
        assert waiters.ended == {"no wait": 0}
        await waiters.begin("writer", vp, 2, F_WRLCK, 0, 5)
        await waiters.begin("reader", vp, 3, F_RDLCK, 0, 5)
        await waiters.begin("elsewhere", vp, 4, F_RDLCK, 5, 5)
        lock(vp, 1, F_UNLCK, 0, 0)
        assert held(vp) == [(2, F_WRLCK, 0, 5), (4, F_RDLCK, 5, 5)]  # handed over at once
        await wait_all_tasks_blocked()
        assert set(waiters.ended) == {"no wait", "writer", "elsewhere"}
        lock(vp, 2, F_RDLCK, 0, 5)  # a write lock that becomes a read lock lets readers in
        await wait_all_tasks_blocked()
        assert waiters.ended["reader"] == 0
        assert not vp.mount.kernel.lockf._waiting


async def test_cancelled_waiter_has_what_he_had() -> None:
    [vp] = vnodes()
    async with trio.open_nursery() as nursery:
        waiters = Waiters(nursery)
        lock(vp, 1, F_RDLCK, 0, 10)
        lock(vp, 2, F_RDLCK, 0, 10)
        await waiters.begin("upgrade", vp, 2, F_WRLCK, 0, 10)
        await waiters.begin("next", vp, 3, F_WRLCK, 5, 1)
        waiters.scopes["upgrade"].cancel()
        await wait_all_tasks_blocked()
        assert waiters.ended == {}
        assert held(vp) == [(1, F_RDLCK, 0, 10), (2, F_RDLCK, 0, 10)]
        lock(vp, 1, F_UNLCK, 0, 0)
        lock(vp, 2, F_UNLCK, 0, 0)
        await wait_all_tasks_blocked()
        assert waiters.ended == {"next": 0}
        assert not vp.mount.kernel.lockf._waiting


async def test_deadlocks_are_found() -> None:
    a, b, c = vnodes(3)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(nursery)
        for owner, vp in enumerate((a, b, c), 1):
            lock(vp, owner, F_WRLCK, 0, 0)
        await waiters.begin("1 for 2", b, 1, F_WRLCK, 0, 1)
        await waiters.begin("2 for 3", c, 2, F_RDLCK, 7, 1)
        await waiters.begin("4 for 1", a, 4, F_RDLCK, 0, 1)  # no circle
        assert waiters.ended == {}
        await waiters.begin("3 for 1", a, 3, F_RDLCK, 3, 1)
        assert waiters.ended == {"3 for 1": EDEADLK}
        await waiters.begin("both read", c, 5, F_RDLCK, 0, 1)
        lock(c, 3, F_UNLCK, 0, 0)
        await wait_all_tasks_blocked()
        assert waiters.ended.keys() == {"3 for 1", "2 for 3", "both read"}
        for owner, vp in ((2, b), (2, c), (1, a), (1, b)):
            lock(vp, owner, F_UNLCK, 0, 0)
        await wait_all_tasks_blocked()
        assert [waiters.ended[name] for name in ("1 for 2", "4 for 1")] == [0, 0]


async def test_two_readers_who_both_want_to_write() -> None:
    [vp] = vnodes()
    async with trio.open_nursery() as nursery:
        waiters = Waiters(nursery)
        lock(vp, 1, F_RDLCK, 0, 10)
        lock(vp, 2, F_RDLCK, 0, 10)
        await waiters.begin("one", vp, 1, F_WRLCK, 0, 10)
        await waiters.begin("two", vp, 2, F_WRLCK, 0, 10)
        assert waiters.ended == {"two": EDEADLK}
        lock(vp, 2, F_UNLCK, 0, 0)
        await wait_all_tasks_blocked()
        assert waiters.ended["one"] == 0


async def test_death_of_the_vnode_ends_locks_and_waits() -> None:
    [vp] = vnodes()
    async with trio.open_nursery() as nursery:
        waiters = Waiters(nursery)
        lock(vp, 1, F_WRLCK, 0, 0)
        await waiters.begin("waits", vp, 2, F_WRLCK, 0, 0)
        await vgone(vp)
        await wait_all_tasks_blocked()
        assert waiters.ended == {"waits": ENXIO}
        assert len(vp.mount.kernel.lockf) == 0
        assert not vp.mount.kernel.lockf._waiting
