"""The life of a vnode: references, inactive, the free list, reclaim, death."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from errno import ENXIO

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.mount import Mount
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vnode import Vnode, vgone, vput, vrecycle, vref, vrele, vrele_nowait
from syspuffs.native.constants import PGO_CLEANIT, PGO_SYNCIO, TTL_FOREVER, Vtype
from syspuffs.native.records import Vattr

from .caller import ROOT, Caller, fails, now


class Recorder(TmpFs):
    """A tmpfs that writes down what the kernel tells it and waits in inactive when asked to."""

    def __init__(self) -> None:
        super().__init__(uid=0, gid=0)
        self.heard: list[tuple[str, object]] = []
        self.gate: Callable[[], Awaitable[None]] | None = None
        self.recycles = False

    def make(self, key: int) -> Vnode:
        """Return a vnode with no node of tmpfs behind it."""
        return self.mount.insert(key, Vtype.VREG, f"data {key}")

    async def inactive(self, vp: Vnode) -> bool:
        assert vp.lock.is_exclusive
        assert vp.usecount >= 1
        self.heard.append(("inactive", vp.key))
        if self.gate is not None:
            await self.gate()
        return self.recycles

    def reclaim(self, vp: Vnode) -> None:
        assert vp.data is not None
        self.heard.append(("reclaim", vp.key))


@pytest.fixture
def fs() -> Recorder:
    fs = Recorder()
    now(Kernel(desiredvnodes=5).mount(fs))
    return fs


@pytest.fixture
def mount(fs: Recorder) -> Mount:
    return fs.mount


def test_last_vrele_makes_inactive_and_vget_revives(fs: Recorder, mount: Mount) -> None:
    vp = fs.make(7)
    vref(vp)
    assert vp.usecount == 2
    now(vrele(vp))
    assert fs.heard == []
    assert not vrele_nowait(vp)
    assert vp.usecount == 1
    now(vrele(vp))
    assert fs.heard == [("inactive", 7)]
    assert vp.usecount == 0
    assert len(mount.free_list) == 1
    assert not vp.lock.is_locked

    assert mount.vget(7) is vp
    assert vp.usecount == 1
    assert len(mount.free_list) == 0
    assert vp.data == "data 7"
    now(vrele(vp))
    assert fs.heard == [("inactive", 7)] * 2
    assert mount.vget(8) is None


def test_recycled_at_once_when_the_file_system_says_so(fs: Recorder, mount: Mount) -> None:
    fs.recycles = True
    vp = fs.make(7)
    now(vrele(vp))
    assert fs.heard == [("inactive", 7), ("reclaim", 7)]
    assert vp.is_dead
    assert vp.data is None
    assert mount.vget(7) is None
    assert len(mount.free_list) == 0
    # Its key may be used again while somebody still looks at the old one.
    other = fs.make(7)
    assert other is not vp
    assert other.serial > vp.serial


def test_vnodes_are_bounded_and_the_oldest_unused_one_goes(fs: Recorder, mount: Mount) -> None:
    vps = [fs.make(key) for key in range(10, 14)]  # with the root as many as there may be
    for vp in vps[:3]:
        now(vrele(vp))
    assert mount.vget(10) is vps[0]  # used again, so the youngest when it is dropped now
    now(vrele(vps[0]))
    assert len(mount) == 5
    vps += [fs.make(key) for key in (14, 15)]
    assert [key for what, key in fs.heard if what == "reclaim"] == [11, 12]
    assert vps[1].is_dead
    assert not vps[0].is_dead
    assert len(mount) == 5
    statistics = mount.kernel.statistics()
    assert statistics.vnodes == 5
    assert statistics.free == 1
    assert statistics.recycled == 2
    assert statistics.revived == 1
    with fails(ENXIO):  # it was not forgiven for lack of a name, it just went
        now(vps[1].fs.getattr(vps[1], ROOT))


def test_used_vnodes_may_be_more_than_the_bound(fs: Recorder, mount: Mount) -> None:
    vps = [fs.make(key) for key in range(10, 20)]
    assert len(mount) == 11
    for vp in vps[:3]:
        now(vrele(vp))
        assert vp.is_dead  # at once, for there are still too many
    for vp in vps[3:]:
        now(vrele(vp))
    assert len(mount) == 5
    assert [vp.is_dead for vp in vps] == [True] * 6 + [False] * 4


def test_bound_is_shared_by_the_mounts_of_a_kernel() -> None:
    kernel = Kernel(desiredvnodes=3)
    one, two = Recorder(), Recorder()
    now(kernel.mount(one))
    now(kernel.mount(two))
    now(vrele(one.make(5)))
    now(vrele(two.make(5)))
    assert one.heard == [("inactive", 5), ("reclaim", 5)]
    assert two.heard == [("inactive", 5)]


def test_vput_with_either_kind_of_hold(fs: Recorder) -> None:
    vp = fs.make(7)
    vref(vp)
    now(vp.lock.exclusive())
    now(vput(vp))
    assert vp.usecount == 1
    assert not vp.lock.is_locked
    vref(vp)
    now(vp.lock.shared())
    now(vput(vp))
    assert vp.usecount == 1
    assert not vp.lock.is_locked
    now(vp.lock.shared())
    now(vput(vp))
    assert fs.heard == [("inactive", 7)]
    assert not vp.lock.is_locked
    assert fs.mount.vget(7) is vp
    now(vp.lock.exclusive())
    now(vput(vp))
    assert fs.heard == [("inactive", 7)] * 2
    assert not vp.lock.is_locked


def test_too_many_vreles_are_noticed(fs: Recorder) -> None:
    vp = fs.make(7)
    now(vrele(vp))
    with pytest.raises(RuntimeError, match="without a reference"):
        now(vrele(vp))
    with pytest.raises(RuntimeError, match="unused"):
        vref(vp)


def test_second_vnode_of_a_key_is_refused(fs: Recorder) -> None:
    fs.make(7)
    with pytest.raises(RuntimeError, match="second vnode"):
        fs.make(7)


async def test_vget_during_inactive_saves_the_vnode(fs: Recorder, mount: Mount) -> None:
    go_on = trio.Event()
    fs.gate = go_on.wait
    fs.recycles = True
    vp = fs.make(7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vrele, vp)
        await wait_all_tasks_blocked()
        assert mount.vget(7) is vp  # found while its end is being prepared
        assert vp.usecount == 2
        go_on.set()
    assert not vp.is_dead
    assert vp.usecount == 1
    assert not vp.lock.is_locked
    fs.gate = None
    await vrele(vp)
    assert vp.is_dead
    assert fs.heard == [("inactive", 7), ("inactive", 7), ("reclaim", 7)]


async def test_vget_and_vrele_during_inactive(fs: Recorder, mount: Mount) -> None:
    go_on = trio.Event()
    fs.gate = go_on.wait
    fs.recycles = True
    vp = fs.make(7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vrele, vp)
        await wait_all_tasks_blocked()
        assert mount.vget(7) is vp
        await vrele(vp)  # not the last one: the first vrele still holds its own
        assert vp.usecount == 1
        go_on.set()
    assert vp.is_dead
    assert fs.heard == [("inactive", 7), ("reclaim", 7)]


async def test_vref_while_vrele_waits_for_the_lock(fs: Recorder) -> None:
    """Out of the rules (the holder has no reference), yet nothing may be lost."""
    vp = fs.make(7)
    await vp.lock.exclusive()
    scope = trio.CancelScope()

    async def drop() -> None:
        with scope:
            await vrele(vp)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drop)
        await wait_all_tasks_blocked()
        vref(vp)
        scope.cancel()  # a reference is dropped in any case
        await wait_all_tasks_blocked()
        assert vp.usecount == 2
        vp.lock.release()
    assert vp.usecount == 1
    assert fs.heard == []
    assert not vp.lock.is_locked


async def test_cancelled_inactive_drops_the_reference(fs: Recorder, mount: Mount) -> None:
    fs.gate = trio.sleep_forever
    fs.recycles = True
    vp = fs.make(7)
    with trio.move_on_after(0) as scope:
        await vrele(vp)
    assert scope.cancelled_caught
    assert vp.usecount == 0
    assert not vp.is_dead
    assert not vp.lock.is_locked
    fs.gate = None
    assert mount.vget(7) is vp
    await vrele(vp)
    assert vp.is_dead


async def test_two_tasks_making_the_same_vnode_get_one(fs: Recorder, mount: Mount) -> None:
    made = []

    async def find(key: int) -> None:
        await trio.lowlevel.checkpoint()  # the round trip comes before vget, nothing after it
        vp = mount.vget(key)
        made.append(vp if vp is not None else fs.make(key))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(find, 7)
    assert len(set(made)) == 1
    assert made[0].usecount == 5


def test_vgone_takes_a_vnode_from_its_users(fs: Recorder, mount: Mount) -> None:
    vp = fs.make(7)
    vref(vp)
    now(vgone(vp))
    assert vp.is_dead
    assert vp.usecount == 2
    assert not vp.lock.is_locked
    assert mount.vget(7) is None
    now(vgone(vp))
    for operation in (
        vp.fs.getattr(vp, ROOT),
        vp.fs.setattr(vp, Vattr(mode=0), ROOT),
        vp.fs.read(vp, 0, 1, 0, ROOT),
        vp.fs.write(vp, 0, b"x", 0, ROOT),
        vp.fs.fsync(vp, 0, 0, 0, ROOT),
        vp.fs.open(vp, 1, ROOT),
        vp.fs.access(vp, 4, ROOT),
        vp.fs.lookup(vp, Caller(mount).cn(b"x")),
        vp.fs.pathconf(vp, 0),
    ):
        with fails(ENXIO):
            now(operation)
    vp.fs.close(vp, 1, ROOT)
    now(vrele(vp))
    now(vrele(vp))
    assert fs.heard == [("reclaim", 7)]
    assert len(mount.free_list) == 0


def test_recycled_vnode_forgives_late_write_back(fs: Recorder) -> None:
    fs.recycles = True
    vp = fs.make(7)
    now(vrele(vp))
    assert vp.is_dead
    now(vp.fs.write(vp, 0, b"late", 0, ROOT))
    now(vp.fs.fsync(vp, 0, 0, 0, ROOT))
    va, ttl = now(vp.fs.setattr(vp, Vattr(size=4), ROOT))
    assert (va.vtype, va.nlink, ttl) == (Vtype.VREG, 0, 0)
    assert now(vp.fs.inactive(vp)) is False
    with fails(ENXIO):
        now(vp.fs.read(vp, 0, 1, 0, ROOT))


def test_dead_vnodes_and_pages(fs: Recorder) -> None:
    """Who writes pages back comes late, and must not fail for pages that have gone."""
    recycled, revoked = fs.make(7), fs.make(8)
    vrele_nowait(revoked)
    now(vgone(revoked))
    fs.recycles = True
    now(vrele(recycled))
    for vp in (recycled, revoked):
        now(vp.fs.putpages(vp, 0, 0, PGO_CLEANIT | PGO_SYNCIO))
        with fails(ENXIO):
            now(vp.fs.getpages(vp, 0, 4096, PGO_SYNCIO))
        with fails(ENXIO):
            now(vp.fs.bmap(vp, 0, 512))
    now(vrele(revoked))


def test_vrecycle_takes_unused_vnodes_only(fs: Recorder, mount: Mount) -> None:
    vp = fs.make(7)
    assert not vrecycle(vp)
    assert not mount.vrecycle(7)
    now(vrele(vp))
    assert mount.vrecycle(7)
    assert vp.is_dead
    assert not vrecycle(vp)
    assert mount.vrecycle(7)  # there is none


def test_tmpfs_vnode_comes_back_with_its_node(mount: Mount) -> None:
    caller = Caller(now(Kernel(desiredvnodes=0).mount(TmpFs(uid=0, gid=0))))
    vp = caller.create(caller.root, b"a")
    caller.write(vp, 0, b"hello")
    caller.put(vp)
    assert vp.is_dead  # no unused vnodes are kept
    again = caller.walk(b"a")
    assert again is not vp
    assert again.size == 5
    assert caller.read(again) == b"hello"
    with caller.shared(again):
        assert now(caller.fs.getattr(again, ROOT))[1] == TTL_FOREVER
    caller.put(again)


async def test_vrele_async_never_waits_and_gets_done() -> None:
    fs = Recorder()
    async with Kernel() as kernel:
        mount = await kernel.mount(fs)
        go_on = trio.Event()
        fs.gate = go_on.wait
        vps = [fs.make(key) for key in range(10, 110)]
        for vp in vps:
            kernel.vrele_async(vp)
        await wait_all_tasks_blocked()
        # Some wait in inactive; nobody who called did.
        assert 1 <= len(fs.heard) < 100
        fs.gate = None
        go_on.set()
        await kernel.unmount(mount)  # waits for all of them, or it would find them busy
        assert all(vp.usecount == 0 for vp in vps)
        assert [what for what, _ in fs.heard].count("inactive") == 100


async def test_unmount_drops_what_was_left_to_a_cancelled_kernel() -> None:
    """It once waited for ever for tasks that had gone."""
    fs = Recorder()
    with trio.fail_after(5):
        async with Kernel() as kernel:
            mount = await kernel.mount(fs)
            vp = fs.make(77)
            kernel.nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()  # the tasks of the kernel end
                kernel.vrele_async(vp)
                await kernel.unmount(mount)
            assert kernel.mounts == ()
