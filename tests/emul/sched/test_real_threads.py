"""Locks, sleeps and vnode operations between tasks and real threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
import trio

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.lock import VnodeLock
from syspuffs.emul.mount import Mount
from syspuffs.emul.sched import (
    RW_READER,
    RW_WRITER,
    Condvar,
    DebugMutex,
    Krwlock,
    Kthread,
    LockDebug,
    Mutex,
    blocking,
    kthread_create,
    kthread_create_real,
    nonblocking,
    tsleep,
    wakeup,
)
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vfs import Lookup
from syspuffs.emul.vnode import Vnode, vrele
from syspuffs.native.constants import NameiOp, Vtype
from syspuffs.native.records import Buffer, Vattr, lookup_cn

from ..caller import ROOT

ROUNDS = 50
THREADS = 3


class Shared:
    """What only one may change at a time: tasks yield in the middle of it, threads run freely."""

    def __init__(self) -> None:
        self.count = 0
        self.readers = 0

    async def add(self) -> None:
        value = self.count
        await trio.lowlevel.checkpoint()
        self.count = value + 1

    def add_here(self) -> None:
        """In the thread itself, with calls of the kernel in the middle of it."""
        value = self.count
        nonblocking(int)
        self.count = value + 1


async def _both(
    kernel: Kernel,
    afn: Callable[..., object],
    fn: Callable[..., object],
) -> None:
    """Run as many tasks of `afn` as real threads of `fn` at the same time."""
    threads: list[Kthread] = []
    for i in range(THREADS):
        threads.append(kthread_create(kernel, afn, name=f"task {i}"))  # type: ignore[arg-type]
        threads.append(kthread_create_real(kernel, fn, name=f"thread {i}"))
    for thread in threads:
        await thread.join()


@pytest.mark.parametrize("debug", [False, True])
async def test_mutex(debug: bool) -> None:
    lockdebug = LockDebug()
    mutex = DebugMutex(lockdebug, "m") if debug else Mutex("m")
    shared = Shared()

    async def task() -> None:
        for _ in range(ROUNDS):
            async with mutex:
                await shared.add()

    def thread() -> None:
        for _ in range(ROUNDS):
            blocking(mutex.enter)
            try:
                assert nonblocking(mutex.owned)
                assert not nonblocking(mutex.try_enter)
                shared.add_here()
            finally:
                nonblocking(mutex.exit)

    async with Kernel() as kernel:
        await _both(kernel, task, thread)
    assert shared.count == 2 * THREADS * ROUNDS
    assert not mutex.is_locked
    assert lockdebug.report() == []


async def test_rwlock() -> None:
    lock = Krwlock("rw")
    shared = Shared()

    async def task() -> None:
        for i in range(ROUNDS):
            if i % 3:
                await lock.enter(RW_READER)
                value = shared.count
                await trio.lowlevel.checkpoint()
                assert shared.count == value
            else:
                await lock.enter(RW_WRITER)
                await shared.add()
            lock.exit()

    def thread() -> None:
        for i in range(ROUNDS):
            if i % 3:
                blocking(lock.enter, RW_READER)
                value = shared.count
                nonblocking(int)
                assert shared.count == value
            else:
                blocking(lock.enter, RW_WRITER)
                assert nonblocking(lock.write_held)
                shared.add_here()
            nonblocking(lock.exit)

    async with Kernel() as kernel:
        await _both(kernel, task, thread)
    assert shared.count == 2 * THREADS * len(range(0, ROUNDS, 3))
    assert not lock.lock_held


async def test_vnode_lock() -> None:
    lock = VnodeLock()
    shared = Shared()

    async def task() -> None:
        for _ in range(ROUNDS):
            await lock.shared()
            if not await lock.upgrade():
                lock.release()
                await lock.exclusive()
            await shared.add()
            lock.downgrade()
            lock.release()

    def thread() -> None:
        for _ in range(ROUNDS):
            blocking(lock.exclusive)
            try:
                shared.add_here()
            finally:
                nonblocking(lock.release)

    async with Kernel() as kernel:
        await _both(kernel, task, thread)
    assert shared.count == 2 * THREADS * ROUNDS
    assert not lock.is_locked


async def test_condvar() -> None:
    """A bounded buffer; both kinds produce and consume."""
    mutex, not_empty, not_full = Mutex("buffer"), Condvar("not empty"), Condvar("not full")
    buffer: deque[int] = deque()
    consumed: list[int] = []

    async def produce() -> None:
        for i in range(ROUNDS):
            async with mutex:
                while len(buffer) >= 2:
                    await not_full.wait_sig(mutex)
                buffer.append(i)
                not_empty.signal()

    async def consume() -> None:
        for _ in range(ROUNDS):
            async with mutex:
                while not buffer:
                    assert await not_empty.timedwait(mutex, 60)
                consumed.append(buffer.popleft())
                not_full.broadcast()

    def really_produce() -> None:
        for i in range(ROUNDS):
            blocking(mutex.enter)
            while len(buffer) >= 2:
                assert blocking(not_full.timedwait_sig, mutex, 60)
            buffer.append(i)
            nonblocking(not_empty.signal)
            nonblocking(mutex.exit)

    def really_consume() -> None:
        for _ in range(ROUNDS):
            blocking(mutex.enter)
            while not buffer:
                blocking(not_empty.wait, mutex)
            consumed.append(buffer.popleft())
            nonblocking(not_full.signal)
            nonblocking(mutex.exit)

    async with Kernel() as kernel:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_both, kernel, produce, really_produce)
                nursery.start_soon(_both, kernel, consume, really_consume)
    assert sorted(consumed) == sorted([*range(ROUNDS)] * 2 * THREADS)
    assert not buffer


async def test_tsleep_and_wakeup() -> None:
    """A token goes round: each waits until it is at its place, and sends it on."""
    places = 2 * THREADS
    token = [0]
    arrived: list[int] = []

    async def turn(me: int) -> None:
        while token[0] % places != me:
            assert await tsleep(token, "token", 60)

    def send_on(me: int) -> None:
        arrived.append(me)
        token[0] += 1
        wakeup(token)

    async def task(me: int) -> None:
        for _ in range(ROUNDS):
            await turn(me)
            send_on(me)

    def thread(me: int) -> None:
        for _ in range(ROUNDS):
            blocking(turn, me)
            nonblocking(send_on, me)

    async with Kernel() as kernel:
        threads: list[Kthread] = []
        for i in range(THREADS):
            threads.append(kthread_create(kernel, task, 2 * i, name=f"task {i}"))
            threads.append(kthread_create_real(kernel, thread, 2 * i + 1, name=f"thread {i}"))
        for joined in threads:
            await joined.join()
    assert arrived == list(range(places)) * ROUNDS


async def test_sleep_of_a_real_thread_is_interrupted_when_it_is_stopped() -> None:
    asleep = trio.Event()

    async def sleep() -> None:
        asleep.set()
        await tsleep(asleep, "nothing", catch=True)

    def thread() -> str:
        try:
            blocking(sleep)
        except trio.Cancelled:
            return "interrupted"
        return "woken"

    async with Kernel() as kernel:
        kthread = kthread_create_real(kernel, thread, name="sleeper")
        await asleep.wait()
        kthread.stop()
        assert await kthread.join() == "interrupted"


class Files:
    """Vnode operations as a client of the kernel makes them, for tasks."""

    def __init__(self, mount: Mount) -> None:
        self.root = mount.root

    async def create(self, name: bytes) -> Vnode:
        dvp = self.root
        await dvp.lock.exclusive()
        try:
            cn = lookup_cn(name, ROOT, NameiOp.CREATE)
            made: Lookup = await dvp.fs.create(dvp, cn, Vattr(vtype=Vtype.VREG, mode=0o644))
        finally:
            dvp.lock.release()
        assert made.vp is not None
        return made.vp

    async def read(self, vp: Vnode, offset: int, resid: int) -> bytes:
        await vp.lock.shared()
        try:
            return bytes(await vp.fs.read(vp, offset, resid, 0, ROOT))
        finally:
            vp.lock.release()

    async def write(self, vp: Vnode, offset: int, data: Buffer) -> None:
        await vp.lock.exclusive()
        try:
            await vp.fs.write(vp, offset, data, 0, ROOT)
        finally:
            vp.lock.release()


BLOCK = 8192


async def test_vnode_operations() -> None:
    """Blocks of one file are written by tasks and threads, and read by the other kind."""
    async with Kernel() as kernel:
        mount = await kernel.mount(TmpFs(uid=0, gid=0))
        files = Files(mount)
        vp = await files.create(b"file")

        def content(me: int, turn: int) -> bytes:
            return bytes([me, turn]) * (BLOCK // 2)

        async def task(me: int) -> None:
            for turn in range(ROUNDS):
                await files.write(vp, me * BLOCK, content(me, turn))
                other = await files.read(vp, (me ^ 1) * BLOCK, BLOCK)
                assert len(set(other[::2])) <= 1  # whole, of one turn
                assert len(set(other[1::2])) <= 1
                await trio.lowlevel.checkpoint()

        def thread(me: int) -> None:
            mine = blocking(files.create, b"file of %d" % me)
            try:
                for turn in range(ROUNDS):
                    # The whole operation in one call, or locks and operation one after the other.
                    blocking(files.write, vp, me * BLOCK, content(me, turn))
                    blocking(vp.lock.shared)
                    try:
                        other = bytes(blocking(vp.fs.read, vp, (me ^ 1) * BLOCK, BLOCK, 0, ROOT))
                    finally:
                        nonblocking(vp.lock.release)
                    assert len(set(other[::2])) <= 1
                    assert len(set(other[1::2])) <= 1
                    blocking(files.write, mine, turn * 2, content(me, turn)[:2])
                assert blocking(files.read, mine, 0, BLOCK)[1::2] == bytes(range(ROUNDS))
            finally:
                blocking(vrele, mine, shield=True)

        threads: list[Kthread] = []
        for i in range(THREADS):
            threads.append(kthread_create(kernel, task, 2 * i, name=f"task {i}"))
            threads.append(kthread_create_real(kernel, thread, 2 * i + 1, name=f"thread {i}"))
        for joined in threads:
            await joined.join()
        last = b"".join(content(me, ROUNDS - 1) for me in range(2 * THREADS))
        assert await files.read(vp, 0, 1 << 20) == last
        await vrele(vp)
        assert [vp.usecount for vp in mount if vp is not mount.root] == [0] * (THREADS + 1)
