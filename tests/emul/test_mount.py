"""Mounting and unmounting: what vetoes, what force means, and the way up to a client."""

from __future__ import annotations

from errno import EBUSY, EINVAL, EIO, ENXIO

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.emul.kernel import UNMOUNT_GRACE, Kernel
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vnode import Vnode, vref, vrele
from syspuffs.native.constants import MNT_FORCE, MNT_WAIT, FlushOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred

from .caller import Caller, fails


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
        assert kernel.statistics() == (0, 0, 0, 0, 0)
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
        vref(mount.root)  # a reference on the root alone does not matter
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


async def test_forced_unmount_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        fs = Stubborn()
        fs.hangs = True
        mount = await kernel.mount(fs)
        caller = Caller(mount)
        vp, other = caller.create(mount.root, b"a"), caller.create(mount.root, b"b")
        await vrele(other)
        await vp.lock.shared()
        start = trio.current_time()
        await kernel.unmount(mount, MNT_FORCE)
        assert trio.current_time() - start <= 2 * UNMOUNT_GRACE
        assert vp.is_dead
        assert other.is_dead
        vp.lock.release()
        await vrele(vp)


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


async def test_leaving_the_kernel_unmounts_youngest_first() -> None:
    heard: list[str] = []

    class Named(TmpFs):
        async def unmount(self, flags: int) -> None:
            assert flags & MNT_FORCE
            heard.append(self.mntfromname.decode())

    async with Kernel() as kernel:
        mounts = [await kernel.mount(Named(name)) for name in (b"a", b"b", b"c")]
    assert heard == ["c", "b", "a"]
    assert not any(mount.is_alive for mount in mounts)


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
