"""Mounting and unmounting: what vetoes, what force means, and the way up to a client."""

from __future__ import annotations

from errno import EBUSY, EINVAL, EIO, ENOTDIR, ENXIO

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.emul.kernel import UNMOUNT_GRACE, Kernel
from syspuffs.emul.mount import Loaded, Mount
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vnode import Vnode, vgone, vref, vrele
from syspuffs.native.constants import MNT_FORCE, MNT_WAIT, FlushOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred

from .caller import Caller, fails, now


class Stubborn(TmpFs):
    """A tmpfs whose ways of ending can be chosen; writes down in which order it ends."""

    def __init__(self) -> None:
        super().__init__(uid=0, gid=0)
        self.heard: list[str] = []
        self.start_error = 0
        self.root_error = 0
        self.sync_error = 0
        self.unmount_error = 0
        self.hangs = False

    async def start(self) -> None:
        if self.start_error:
            raise VfsError(self.start_error)

    async def root(self) -> Vnode:
        if self.root_error:
            raise VfsError(self.root_error)
        return await super().root()

    async def sync(self, waitfor: int, cred: Cred) -> None:
        assert waitfor == MNT_WAIT
        self.heard.append("sync")
        if self.sync_error:
            raise VfsError(self.sync_error)

    async def unmount(self, flags: int) -> None:
        self.heard.append("unmount by force" if flags & MNT_FORCE else "unmount")
        if self.hangs:
            await trio.sleep_forever()
        if self.unmount_error:
            raise VfsError(self.unmount_error)
        await super().unmount(flags)

    def reclaim(self, vp: Vnode) -> None:
        self.heard.append(f"reclaim {vp.key}")
        super().reclaim(vp)


async def test_unmount_syncs_ends_and_reclaims() -> None:
    async with Kernel() as kernel:
        fs = Stubborn()
        mount = await kernel.mount(fs)
        assert kernel.mounts == (mount,)
        assert mount.root.is_root
        assert mount.root.usecount == 1
        caller = Caller(mount)
        vp = caller.create(mount.root, b"a")
        await vrele(vp)
        root = mount.root
        await kernel.unmount(mount)
        assert fs.heard == ["sync", "unmount", "reclaim 1", "reclaim 2"]
        assert root.is_dead
        assert vp.is_dead
        assert root.usecount == 0
        assert not mount.is_alive
        assert not kernel.mounts
        assert not any(kernel.statistics())
        with fails(EINVAL):
            await kernel.unmount(mount)
        with fails(ENXIO):
            mount.insert(9, Vtype.VREG, None)
        with pytest.raises(RuntimeError):
            _ = mount.root


async def test_used_vnode_keeps_the_mount() -> None:
    async with Kernel() as kernel:
        fs = Stubborn()
        mount = await kernel.mount(fs)
        caller = Caller(mount)
        vp = caller.create(mount.root, b"a")
        with fails(EBUSY):
            await kernel.unmount(mount)
        assert fs.heard == []
        assert mount.is_alive
        caller.write(vp, 0, b"still there")
        await vrele(vp)
        vref(mount.root)  # somebody's working directory
        with fails(EBUSY):
            await kernel.unmount(mount)
        await vrele(mount.root)
        await kernel.unmount(mount)
        assert "unmount" in fs.heard


@pytest.mark.parametrize("where", ["sync_error", "unmount_error"])
async def test_error_vetoes_and_force_does_not_ask(where: str) -> None:
    async with Kernel() as kernel:
        fs = Stubborn()
        setattr(fs, where, EIO)
        mount = await kernel.mount(fs)
        with fails(EIO):
            await kernel.unmount(mount)
        assert mount.is_alive
        assert kernel.mounts == (mount,)
        await vrele(Caller(mount).create(mount.root, b"a"))
        await kernel.unmount(mount, MNT_FORCE)
        assert not mount.is_alive


async def test_forced_unmount_takes_vnodes_from_their_users() -> None:
    async with Kernel() as kernel:
        mount = await kernel.mount(TmpFs(uid=0, gid=0))
        caller = Caller(mount)
        vp = caller.create(mount.root, b"a")
        root = mount.root
        vref(root)
        await kernel.unmount(mount, MNT_FORCE)
        assert vp.is_dead
        with fails(ENXIO):
            caller.write(vp, 0, b"lost")
        with fails(ENXIO):
            caller.find(root, b"a")
        await vrele(vp)
        await vrele(root)
        assert len(kernel.free_list) == 0


async def test_forced_unmount_waits_for_a_lock(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        mount = await kernel.mount(TmpFs())
        vp = Caller(mount).create(mount.root, b"a")
        await vp.lock.exclusive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.unmount, mount, MNT_FORCE)
            await wait_all_tasks_blocked()
            assert not vp.is_dead
            vp.lock.release()
            await wait_all_tasks_blocked()
            assert vp.is_dead
        assert trio.current_time() < UNMOUNT_GRACE
        await vrele(vp)


async def test_forced_unmount_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        fs = Stubborn()
        fs.hangs = True
        mount = await kernel.mount(fs)
        caller = Caller(mount)
        vp, other = caller.create(mount.root, b"a"), caller.create(mount.root, b"b")
        await vrele(other)
        go_on = trio.Event()

        async def use() -> None:
            await vp.lock.shared()
            await go_on.wait()
            vp.lock.release()
            await vrele(vp)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await wait_all_tasks_blocked()
            start = trio.current_time()
            await kernel.unmount(mount, MNT_FORCE)
            assert trio.current_time() - start <= 2 * UNMOUNT_GRACE
            assert vp.is_dead
            assert other.is_dead
            go_on.set()


async def test_force_overtakes_an_unmount_that_hangs(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        fs = Stubborn()
        fs.hangs = True
        mount = await kernel.mount(fs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.unmount, mount)
            await wait_all_tasks_blocked()
            await kernel.unmount(mount, MNT_FORCE)
            assert not mount.is_alive
            fs.hangs = False
            nursery.cancel_scope.cancel()


async def test_unmount_that_was_overtaken_returns(autojump_clock: MockClock) -> None:
    go_on = trio.Event()

    class Slow(TmpFs):
        async def unmount(self, flags: int) -> None:
            if not flags & MNT_FORCE:
                await go_on.wait()

    async with Kernel() as kernel:
        mount = await kernel.mount(Slow())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.unmount, mount)
            await wait_all_tasks_blocked()
            await kernel.unmount(mount, MNT_FORCE)
            go_on.set()
        assert not kernel.mounts


async def test_vnodes_that_die_while_force_waits_for_another(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        mount = await kernel.mount(TmpFs(uid=0, gid=0))
        caller = Caller(mount)
        locked, dying = caller.create(mount.root, b"a"), caller.create(mount.root, b"b")
        caller.remove(mount.root, b"b")
        await locked.lock.exclusive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.unmount, mount, MNT_FORCE)
            await wait_all_tasks_blocked()
            await vrele(dying)
            assert dying.is_dead
            locked.lock.release()
        assert locked.is_dead
        assert len(kernel.free_list) == 0
        await vrele(locked)


async def test_leaving_the_kernel_unmounts_youngest_first() -> None:
    heard: list[tuple[str, int]] = []

    class Named(TmpFs):
        async def unmount(self, flags: int) -> None:
            heard.append((self.mntfromname.decode(), flags))

    async def use(vp: Vnode) -> None:
        try:
            await trio.sleep_forever()
        finally:
            await vrele(vp)

    async with Kernel() as kernel:
        mounts = [await kernel.mount(Named(name)) for name in (b"a", b"b", b"c")]
        vp = Caller(mounts[1]).create(mounts[1].root, b"used")
        kernel.nursery.start_soon(use, vp)
    assert heard == [("c", 0), ("b", MNT_FORCE), ("a", 0)]
    assert not any(mount.is_alive for mount in mounts)
    assert vp.is_dead


async def test_file_system_that_breaks_at_the_end_takes_no_task_with_it() -> None:
    class Broken(TmpFs):
        async def unmount(self, flags: int) -> None:
            raise KeyError("a bug")

    with pytest.raises(KeyError):
        async with Kernel() as kernel:
            await kernel.mount(Broken())


async def test_leaving_by_cancellation_unmounts_too() -> None:
    fs = Stubborn()
    with trio.CancelScope() as scope:
        async with Kernel() as kernel:
            await kernel.mount(fs)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert fs.heard == ["unmount by force", "reclaim 1"]


async def test_errors_leave_the_kernel_as_they_are() -> None:
    with pytest.raises(KeyError):
        async with Kernel():
            raise KeyError("mine")


async def test_failing_task_of_the_kernel_ends_it() -> None:
    async def fail() -> None:
        raise KeyError("thread")

    fs = Stubborn()

    async def run() -> None:
        async with Kernel() as kernel:
            await kernel.mount(fs)
            kernel.nursery.start_soon(fail)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(KeyError)
    assert fs.heard == ["unmount by force", "reclaim 1"]


async def test_mount_that_fails_leaves_nothing() -> None:
    async with Kernel() as kernel:
        fs = Stubborn()
        fs.start_error = EIO
        with fails(EIO):
            await kernel.mount(fs)
        assert fs.heard == []  # it never started
        fs = Stubborn()
        fs.root_error = EIO
        with fails(EIO):
            await kernel.mount(fs)
        assert fs.heard == ["unmount by force"]
        assert kernel.mounts == ()


async def test_requests_of_the_file_system_reach_the_client() -> None:
    class Client:
        def __init__(self) -> None:
            self.heard: list[object] = []

        async def flush(
            self, op: FlushOp, vp: Vnode | None, start: int = 0, end: int = 0, name: bytes = b""
        ) -> None:
            await trio.lowlevel.checkpoint()
            self.heard.append((op, vp, start, end, name))

        def request_unmount(self) -> None:
            self.heard.append("unmount")

    async with Kernel() as kernel:
        mount = await kernel.mount(TmpFs())
        root = mount.root
        await mount.flush(FlushOp.INVAL_ATTR_NODE, root)
        mount.request_unmount()  # nobody there: nothing happens
        client = Client()
        mount.set_client(client)
        await mount.flush(FlushOp.INVAL_NAMECACHE_NAME, root, name=b"a")
        await mount.flush(FlushOp.INVAL_NAMECACHE_ALL, None)
        mount.request_unmount()
        assert client.heard == [
            (FlushOp.INVAL_NAMECACHE_NAME, root, 0, 0, b"a"),
            (FlushOp.INVAL_NAMECACHE_ALL, None, 0, 0, b""),
            "unmount",
        ]
        await kernel.unmount(mount)
        mount.request_unmount()
        assert len(client.heard) == 3


# Loading by number.


class Numbers:
    """Loads vnodes by number, when it is told to; counts."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.data = mount.root.data  # any node of tmpfs will do
        self.loads = 0
        self.gates: list[trio.Event] = []
        self.error = 0

    async def load(self, key: int) -> Loaded:
        self.loads += 1
        gate = trio.Event()
        self.gates.append(gate)
        await gate.wait()
        if self.error:
            raise VfsError(self.error)
        return Loaded(Vtype.VREG, self.data, size=key)

    async def get(self, key: int, got: list[Vnode | int]) -> None:
        try:
            got.append(await self.mount.vget_load(key, self.load))
        except VfsError as exc:
            got.append(exc.errno)

    async def put(self, *vps: Vnode | int | None) -> None:
        for vp in vps:
            if isinstance(vp, Vnode):
                await vrele(vp)


async def test_one_loader_for_each_key() -> None:
    async with Kernel() as kernel, trio.open_nursery() as nursery:
        mount = await kernel.mount(TmpFs())
        numbers = Numbers(mount)
        got: list[Vnode | int] = []
        for key in (70, 70, 71, 70):
            nursery.start_soon(numbers.get, key, got)
        await wait_all_tasks_blocked()
        assert numbers.loads == 2
        with fails(EBUSY):  # somebody is about to use it
            await kernel.unmount(mount)
        for gate in numbers.gates:
            gate.set()
        await wait_all_tasks_blocked()
        assert len(got) == 4
        vp = mount.vget(70)
        assert vp is not None
        assert (vp.usecount, vp.size, got.count(vp)) == (4, 70, 3)
        assert now(mount.vget_load(70, numbers.load)) is vp  # in memory: no yield
        await numbers.put(vp, vp, *got)
        await kernel.unmount(mount)


async def test_loader_that_fails_leaves_nothing() -> None:
    async with Kernel() as kernel, trio.open_nursery() as nursery:
        mount = await kernel.mount(TmpFs())
        numbers = Numbers(mount)
        got: list[Vnode | int] = []
        for _ in range(3):
            nursery.start_soon(numbers.get, 70, got)
        await wait_all_tasks_blocked()
        numbers.error = EIO
        numbers.gates[0].set()
        await wait_all_tasks_blocked()
        assert got == [EIO]
        assert (numbers.loads, len(mount)) == (2, 1)  # another one tries for itself
        numbers.error = 0
        numbers.gates[1].set()
        await wait_all_tasks_blocked()
        assert len(got) == 3
        assert got[1] is got[2]
        await numbers.put(*got)
        await kernel.unmount(mount)


async def test_cancelled_loader_hands_over() -> None:
    async with Kernel() as kernel, trio.open_nursery() as nursery:
        mount = await kernel.mount(TmpFs())
        numbers = Numbers(mount)
        got: list[Vnode | int] = []
        scopes = [trio.CancelScope() for _ in range(3)]

        async def get(scope: trio.CancelScope) -> None:
            with scope:
                await numbers.get(70, got)

        for scope in scopes:
            nursery.start_soon(get, scope)
            await wait_all_tasks_blocked()
        scopes[1].cancel()  # one that only waits
        await wait_all_tasks_blocked()
        assert numbers.loads == 1
        scopes[0].cancel()
        await wait_all_tasks_blocked()
        assert numbers.loads == 2
        numbers.gates[1].set()
        await wait_all_tasks_blocked()
        assert [isinstance(vp, Vnode) for vp in got] == [True]
        await numbers.put(*got)
        await kernel.unmount(mount)


async def test_node_made_while_its_number_is_loaded() -> None:
    async with Kernel() as kernel, trio.open_nursery() as nursery:
        mount = await kernel.mount(TmpFs())
        numbers = Numbers(mount)
        got: list[Vnode | int] = []
        nursery.start_soon(numbers.get, 70, got)
        await wait_all_tasks_blocked()
        vp = mount.insert(70, Vtype.VREG, numbers.data, size=1)
        numbers.gates[0].set()
        await wait_all_tasks_blocked()
        assert got == [vp]
        assert (vp.usecount, vp.size) == (2, 1)
        await numbers.put(vp, *got)
        await kernel.unmount(mount)


async def test_load_in_a_mount_that_ends() -> None:
    async with Kernel() as kernel, trio.open_nursery() as nursery:
        mount = await kernel.mount(TmpFs())
        numbers = Numbers(mount)
        got: list[Vnode | int] = []
        nursery.start_soon(numbers.get, 70, got)
        await wait_all_tasks_blocked()
        await kernel.unmount(mount, MNT_FORCE)
        numbers.gates[0].set()
        await wait_all_tasks_blocked()
        assert got == [ENXIO]


# Mount points.


async def test_mount_on_a_directory() -> None:
    async with Kernel() as kernel:
        root = await kernel.mount(TmpFs(uid=0, gid=0))
        caller = Caller(root)
        dvp = caller.mkdir(root.root, b"mnt")
        below = await kernel.mount(TmpFs(), covered=dvp)
        assert below.covered is dvp
        assert dvp.mountedhere is below
        assert dvp.usecount == 2
        await vrele(dvp)
        with fails(EBUSY):
            await kernel.unmount(root)
        await kernel.unmount(below)
        await wait_all_tasks_blocked()
        assert below.covered is None
        assert dvp.mountedhere is None
        assert dvp.usecount == 0
        await kernel.unmount(root)


async def test_where_nothing_can_be_mounted() -> None:
    async with Kernel() as kernel:
        root = await kernel.mount(TmpFs(uid=0, gid=0))
        caller = Caller(root)
        vp, dvp = caller.create(root.root, b"file"), caller.mkdir(root.root, b"mnt")
        with fails(ENOTDIR):
            await kernel.mount(TmpFs(), covered=vp)
        below = await kernel.mount(TmpFs(), covered=dvp)
        with fails(EBUSY):
            await kernel.mount(TmpFs(), covered=dvp)
        broken = Stubborn()
        broken.start_error = EIO
        with fails(EIO):
            await kernel.mount(broken, covered=below.root)
        broken = Stubborn()
        broken.root_error = EIO
        with fails(EIO):
            await kernel.mount(broken, covered=below.root)
        await wait_all_tasks_blocked()
        assert below.root.usecount == 1
        assert below.root.mountedhere is None
        on_top = await kernel.mount(TmpFs(), covered=below.root)  # over a mount goes
        with fails(EBUSY):
            await kernel.unmount(below)
        await kernel.unmount(on_top)
        await wait_all_tasks_blocked()
        await kernel.unmount(below)
        await vgone(dvp)
        with fails(ENXIO):
            await kernel.mount(TmpFs(), covered=dvp)
        await vrele(dvp)
        await vrele(vp)


async def test_two_at_once_on_one_directory() -> None:
    class Slow(TmpFs):
        async def start(self) -> None:
            await trio.lowlevel.checkpoint()

    async with Kernel() as kernel:
        root = await kernel.mount(TmpFs())
        results: list[int] = []

        async def mount() -> None:
            try:
                await kernel.mount(Slow(), covered=root.root)
                results.append(0)
            except VfsError as exc:
                results.append(exc.errno)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount)
            nursery.start_soon(mount)
        assert sorted(results) == [0, EBUSY]


async def test_force_takes_what_is_mounted_below_first() -> None:
    async with Kernel() as kernel:
        root, below, deepest = Stubborn(), Stubborn(), Stubborn()
        for fs in (root, below, deepest):
            fs.heard = root.heard
        await kernel.mount(root)
        await kernel.mount(below, covered=root.mount.root)
        dvp = Caller(below.mount).mkdir(below.mount.root, b"d")
        await kernel.mount(deepest, covered=dvp)
        await vrele(dvp)
        await kernel.unmount(root.mount, MNT_FORCE)
        assert [what for what in root.heard if "unmount" in what] == ["unmount by force"] * 3
        assert kernel.mounts == ()
        await wait_all_tasks_blocked()
        assert dvp.usecount == 0


async def test_covered_directory_is_to_be_seen_while_the_file_system_ends() -> None:
    class Watching(Stubborn):
        async def unmount(self, flags: int) -> None:
            assert root.root.mountedhere is None
            await super().unmount(flags)

    async with Kernel() as kernel:
        root = await kernel.mount(TmpFs())
        fs = Watching()
        fs.unmount_error = EIO
        mount = await kernel.mount(fs, covered=root.root)
        with fails(EIO):
            await kernel.unmount(mount)
        assert root.root.mountedhere is mount  # vetoed
        fs.unmount_error = 0
        await kernel.unmount(mount)
        assert root.root.mountedhere is None
