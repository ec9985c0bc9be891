"""The debug mode: who breaks a rule of vfs is told so, with the line; who keeps them, nothing."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EBUSY
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.lock import VnodeLock
from syspuffs.emul.mount import Mount
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vfs import Entry, Lookup
from syspuffs.emul.vnode import Vnode, vgone, vref, vrele
from syspuffs.emul.vopcheck import VopError
from syspuffs.native.constants import MNT_FORCE, READDIR_PLUS, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Buffer, Componentname, Cred, Vattr

from .caller import ROOT, Caller, now


class Sloppy(TmpFs):
    """Does one thing wrong when told to."""

    def __init__(self) -> None:
        super().__init__(uid=0, gid=0)
        self.wrong: Any = None

    async def lookup(self, dvp: Vnode, cn: Componentname) -> Lookup:
        found = await super().lookup(dvp, cn)
        match self.wrong:
            case "unlocks":
                dvp.lock.release()
            case "leaves a lock":
                assert found.vp is not None
                assert found.vp.lock.try_shared()
            case "unreferenced":
                assert found.vp is not None
                found.vp.usecount = 0
            case "eats the reference":
                dvp.usecount = 0
            case Lookup():
                if found.vp is not None:
                    await vrele(found.vp)
                return self.wrong
        return found

    async def create(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        return self.wrong or await super().create(dvp, cn, va)

    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        return self.wrong or await super().getattr(vp, cred)

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        return self.wrong or await super().read(vp, offset, resid, ioflag, cred)

    async def readdir(
        self, vp: Vnode, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Entry], bool]:
        return self.wrong or await super().readdir(vp, offset, resid, flags, cred)

    async def bmap(self, vp: Vnode, offset: int, length: int) -> tuple[int, int]:
        return self.wrong or (7, length)


@pytest.fixture
def fs() -> Sloppy:
    fs = Sloppy()
    now(Kernel(debug=True).mount(fs))
    return fs


@pytest.fixture
def mount(fs: Sloppy) -> Mount:
    return fs.mount


@pytest.fixture
def caller(mount: Mount) -> Caller:
    return Caller(mount)


# Callers.


def test_who_calls_without_the_lock_is_named(mount: Mount, caller: Caller) -> None:
    root = mount.root
    with pytest.raises(VopError) as caught:
        now(root.fs.lookup(root, caller.cn(b"a")))
    text = str(caught.value)
    assert text.startswith("tmpfs lookup: <Vnode")
    assert "the caller holds it shared or exclusively" in text
    assert "nobody holds it" in text
    assert "emul/test_vopcheck.py:" in text
    assert "test_who_calls_without_the_lock_is_named" in text
    debug = mount.kernel.debug
    assert debug is not None
    assert debug.locks.report() == [text]


def test_a_shared_lock_is_not_enough_to_change(mount: Mount, caller: Caller) -> None:
    root = mount.root
    with caller.shared(root), pytest.raises(VopError, match="exclusively, says the rule"):
        now(root.fs.create(root, caller.cn(b"a"), Vattr(vtype=Vtype.VREG, mode=0o600)))
    with caller.shared(root), pytest.raises(VopError, match="held shared by lwp0"):
        now(root.fs.setattr(root, Vattr(), ROOT))
    caller.put(caller.create(root, b"a"))


def test_a_lock_that_must_not_be_held(mount: Mount, caller: Caller) -> None:
    vp = caller.create(mount.root, b"a")
    caller.open(vp)
    with caller.shared(vp):
        with pytest.raises(VopError, match="the caller has no hold of it"):
            vp.fs.close(vp, 3, ROOT)
        with pytest.raises(VopError, match="the caller has no hold of it"):
            now(vp.fs.poll(vp, 1))
    caller.close(vp)
    caller.put(vp)


@pytest.mark.logs("tmpfs getattr: .* held shared by")
async def test_the_lock_of_another_task_does_not_count() -> None:
    async with Kernel(debug=True) as kernel:
        mount = await kernel.mount(TmpFs(uid=0, gid=0))
        root = mount.root
        go_on = trio.Event()

        async def hold() -> None:
            await root.lock.shared()
            await go_on.wait()
            root.lock.release()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await wait_all_tasks_blocked()
            with pytest.raises(VopError, match=r"held shared by .*hold, taken at .*hold"):
                await root.fs.getattr(root, ROOT)
            root.fs.abortop(root, Caller(mount).cn(b"a"))  # asks for none
            go_on.set()


def test_dead_unused_and_foreign_vnodes(fs: Sloppy, mount: Mount, caller: Caller) -> None:
    vp = caller.create(mount.root, b"a")
    other = now(mount.kernel.mount(TmpFs()))
    with caller.shared(vp), pytest.raises(VopError, match="another file system"):
        now(other.fs.getattr(vp, ROOT))
    caller.put(vp)
    with caller.shared(vp), pytest.raises(VopError, match="has no reference"):
        now(vp.fs.getattr(vp, ROOT))
    vp = caller.get(mount.root, b"a")
    now(vgone(vp))
    with caller.shared(vp), pytest.raises(VopError, match="is dead: ask"):
        now(mount.fs.getattr(vp, ROOT))
    with pytest.raises(VfsError):
        now(vp.fs.getattr(vp, ROOT))  # as it should be asked
    caller.put(vp)


def test_four_locks_of_a_rename(mount: Mount, caller: Caller) -> None:
    root = mount.root
    fvp, tvp = caller.create(root, b"a"), caller.create(root, b"b")
    for unlocked in (root, fvp, tvp):
        locked = [vp for vp in (root, fvp, tvp) if vp is not unlocked]
        with caller.exclusive(*locked), pytest.raises(VopError, match=f"<Vnode {unlocked.serial}"):
            now(root.fs.rename(root, fvp, caller.cn(b"a"), root, tvp, caller.cn(b"b")))
    caller.rename(root, b"a", root, b"b")
    caller.put(fvp, tvp)


# File systems.


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("unlocks", "locks that it gave away: vnode tmpfs"),
        ("leaves a lock", "that it left: vnode tmpfs"),
        ("unreferenced", "has no reference"),
        ("eats the reference", "the caller's reference on <Vnode"),
        (Lookup(None, -1), "time-outs"),
        (Lookup(None, 0, Vattr(vtype=1)), "attributes of nothing"),
    ],
)
def test_lookup_that_breaks_a_rule(
    fs: Sloppy, caller: Caller, wrong: object, text: str, mount: Mount
) -> None:
    caller.put(caller.create(mount.root, b"a"))
    fs.wrong = wrong
    assert mount.root.lock.try_shared()
    with pytest.raises(VopError, match=text):
        now(mount.root.fs.lookup(mount.root, caller.cn(b"a")))


def test_attributes_of_another_type(fs: Sloppy, caller: Caller, mount: Mount) -> None:
    vp = caller.create(mount.root, b"a")
    fs.wrong = Lookup(vp, 0, Vattr(vtype=Vtype.VDIR), 0)
    with pytest.raises(VopError, match="attributes say type 2"):
        caller.find(mount.root, b"a")
    fs.wrong = Lookup(None)
    with pytest.raises(VopError, match="made a node and returned none"):
        caller.create(mount.root, b"b")
    for wrong, text in (((Vattr(vtype=1), -1), "hold for -1 ns"), ((Vattr(), 0), "without a type")):
        fs.wrong = wrong
        with pytest.raises(VopError, match=text):
            caller.getattr(vp)


@pytest.mark.parametrize(
    ("entries", "eof", "text"),
    [
        ([], False, "no entry, and not the end"),
        ([Entry(1, 1, b"a", 5), Entry(2, 1, b"b", 5)], True, "no way on"),
        ([Entry(1, 1, b"a", 3)], True, "no way on"),  # where it began
        ([Entry(1, 1, b"a", 0)], True, "no way on"),
        ([Entry(1, 1, b"a/b", 5)], True, "cannot be"),
        ([Entry(1, 1, b"", 5)], True, "cannot be"),
        ([Entry(1, 1, b"a" * 40, 5), Entry(2, 1, b"b" * 40, 6)], True, "more than the 100 octets"),
        ([Entry(1, 2, b"..", 5, Lookup(None))], True, "a node with"),
        ([Entry(1, 2, b"a", 5, Lookup(None, -1))], True, "time-outs"),
    ],
)
def test_listing_that_breaks_a_rule(
    fs: Sloppy, caller: Caller, mount: Mount, entries: list[Entry], eof: bool, text: str
) -> None:
    fs.wrong = entries, eof
    with pytest.raises(VopError, match=text):
        caller.readdir(mount.root, 3, 100, READDIR_PLUS)


def test_data_that_break_a_rule(fs: Sloppy, caller: Caller, mount: Mount) -> None:
    vp = caller.create(mount.root, b"a")
    fs.wrong = b"more than was asked for"
    with pytest.raises(VopError, match="23 octets read, 4 asked for"):
        caller.read(vp, 0, 4)
    for wrong in ((7, 0), (7, 513), (-2, 512)):
        fs.wrong = wrong
        with pytest.raises(VopError, match="octets at block"):
            now(vp.fs.bmap(vp, 0, 512))
    fs.wrong = None
    assert now(vp.fs.bmap(vp, 0, 512)) == (7, 512)
    caller.put(vp)


# The kernel.


def test_off_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSPUFFS_DEBUG", "0")
    fs = TmpFs()
    mount = now(Kernel().mount(fs))
    assert mount.fs is fs
    assert type(mount.root) is Vnode
    assert type(mount.root.lock) is VnodeLock
    assert mount.kernel.debug is None
    monkeypatch.setenv("SYSPUFFS_DEBUG", "1")
    assert Kernel().debug is not None
    assert Kernel(debug=False).debug is None


def test_what_is_no_operation_goes_through(fs: Sloppy, mount: Mount) -> None:
    fs.wrong = "anything"
    assert getattr(mount.fs, "wrong") == "anything"  # noqa: B009
    assert mount.fs.typename == "tmpfs"
    assert mount.fs.ops == fs.ops
    assert mount.root.fs is mount.fs
    assert mount.fs is not fs


def test_order_of_locks_after_a_rename(mount: Mount, caller: Caller) -> None:
    """What was below is above now, and may be locked first."""
    root = mount.root
    a = caller.mkdir(root, b"a")
    b = caller.mkdir(a, b"b")

    async def both(first: Vnode, second: Vnode) -> None:
        await first.lock.exclusive()
        await second.lock.exclusive()
        second.lock.release()
        first.lock.release()

    now(both(a, b))
    caller.rename(a, b"b", root, b"b")
    caller.rename(root, b"a", b, b"a")
    now(both(b, a))
    with pytest.raises(RuntimeError, match="order of locks"):
        now(both(a, b))
    a.lock.release()


async def test_users_of_a_mount_that_goes_by_force_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Kernel(debug=True) as kernel:
        mount = await kernel.mount(TmpFs(uid=0, gid=0))
        vp = Caller(mount).create(mount.root, b"a")
        with pytest.raises(VfsError, match=r"in use: <Vnode .*\n    \+1 at") as caught:
            await kernel.unmount(mount)
        assert caught.value.errno == EBUSY
        with caplog.at_level("INFO"):
            await kernel.unmount(mount, MNT_FORCE)
        assert "by force under who uses <Vnode" in caplog.text
        await vrele(vp)


@pytest.mark.logs("references left: <Vnode .*use=2")
async def test_references_that_are_left_at_the_end() -> None:
    async with Kernel(debug=True) as kernel:
        mount = await kernel.mount(TmpFs(uid=0, gid=0))
        vp = Caller(mount).create(mount.root, b"a")
        vref(vp)
        assert kernel.debug is not None
        [text] = [text for text in kernel.debug.leaks() if str(vp.serial) in text]
        last, first = text.splitlines()[1:]
        assert last.startswith("    +1 at emul/test_vopcheck.py:")
        assert "create" in first
    assert vp.is_dead


@pytest.mark.logs("still held: vnode tmpfs .* held shared by .*taken at emul/test_vopcheck.py")
@pytest.mark.logs("references left")
async def test_locks_that_are_left_at_the_end() -> None:
    async with Kernel(debug=True) as kernel:
        mount = await kernel.mount(TmpFs(uid=0, gid=0))
        vp = Caller(mount).create(mount.root, b"a")
        await vgone(vp)
        await vp.lock.shared()


async def test_nothing_is_left_of_who_keeps_the_rules() -> None:
    async with Kernel(debug=True) as kernel:
        mount = await kernel.mount(TmpFs(uid=0, gid=0))
        caller = Caller(mount)
        vp = caller.create(mount.root, b"a")
        caller.write(vp, 0, b"data")
        assert caller.read(vp) == b"data"
        assert caller.names(mount.root) == [b"a"]
        caller.remove(mount.root, b"a")
        caller.put(vp)
        await kernel.unmount(mount)
        assert kernel.debug is not None
        assert kernel.debug.leaks() == []
