"""Files in tmpfs: data, holes, attributes, times, permissions, limits."""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, EFBIG, EINVAL, EISDIR, ELOOP, ENOSPC, ENXIO, EOPNOTSUPP, EPERM

import pytest

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vnode import Vnode
from syspuffs.native.constants import FREAD, FWRITE, IO_APPEND, Vtype
from syspuffs.native.records import FSCRED, Cred

from .caller import ANN, BOB, EVE, ROOT, Caller, fails, mounted, now

KIB = 1024
MIB = 1024 * KIB
DAY = 86_400 * 10**9


@pytest.fixture
def root() -> Caller:
    return Caller(mounted())


@pytest.fixture
def ann(root: Caller) -> Caller:
    return Caller(root.mount, ANN)


def test_read_and_write(root: Caller) -> None:
    f = root.create(root.root, b"f")
    assert root.read(f) == b""
    root.write(f, 0, b"hello, world")
    assert f.size == 12
    assert root.read(f, 7, 5) == b"world"
    assert root.read(f, 7, 500) == b"world"
    assert root.read(f, 12, 1) == b""
    assert root.read(f, 1 << 50, 1) == b""
    root.write(f, 7, b"W")
    root.write(f, 999, b"!", IO_APPEND)
    assert root.read(f) == b"hello, World!"
    root.write(f, 5, b"")
    for action in (lambda: root.read(f, -1), lambda: root.write(f, -1, b"x")):
        with fails(EINVAL):
            action()
    assert root.read(f) == b"hello, World!"
    root.put(f)


def test_large_transfers(root: Caller) -> None:
    f = root.create(root.root, b"f")
    data = bytes(range(256)) * (3 * MIB // 256)
    root.write(f, 10, data)
    assert root.read(f) == bytes(10) + data
    assert root.read(f, 10 + 100_000, 128 * KIB) == data[100_000 : 100_000 + 128 * KIB]
    root.put(f)


def test_writer_may_reuse_the_buffer(root: Caller) -> None:
    f = root.create(root.root, b"f")
    buffer = bytearray(b"first")
    root.write(f, 0, memoryview(buffer))
    buffer[:] = b"other"
    buffer += b"resized"  # no view of it is held
    assert root.read(f) == b"first"
    with root.shared(f):
        kept = now(root.fs.read(f, 0, 5, 0, ROOT))
    root.write(f, 0, b"again")
    assert bytes(kept) == b"first"
    root.put(f)


def test_holes(root: Caller) -> None:
    f = root.create(root.root, b"f")
    root.write(f, 1 << 40, b"end")
    va = root.getattr(f)
    assert va.size == (1 << 40) + 3
    assert va.bytes == 4096
    assert root.read(f, 12345, 100) == bytes(100)
    assert root.read(f, (1 << 40) - 2, 100) == b"\0\0end"
    root.setattr(f, size=1 << 39)
    assert root.getattr(f).bytes == 0
    va = root.setattr(f, size=1 << 50)
    assert va.size == f.size == 1 << 50
    assert va.bytes == 0
    assert root.read(f, 1 << 40, 3) == bytes(3)
    root.put(f)


def test_truncation_and_back_gives_zeros(root: Caller) -> None:
    f = root.create(root.root, b"f")
    root.write(f, 0, b"x" * 200_000)
    assert root.getattr(f).bytes == (200_000 + 4095) // 4096 * 4096
    root.setattr(f, size=70_000)
    root.setattr(f, size=200_000)
    assert root.read(f) == b"x" * 70_000 + bytes(130_000)
    assert root.getattr(f).bytes == (70_000 + 4095) // 4096 * 4096
    root.setattr(f, size=0)
    assert root.getattr(f).bytes == 0
    assert root.read(f) == b""
    root.put(f)


def test_size_of_what_has_none(root: Caller) -> None:
    d, s = root.mkdir(root.root, b"d"), root.symlink(root.root, b"s", b"x")
    p = root.mknod(root.root, b"p", Vtype.VFIFO)
    for vp, errno in ((d, EISDIR), (s, EINVAL), (p, EINVAL)):
        with fails(errno):
            root.setattr(vp, size=0)
        with fails(errno):
            root.read(vp)
        with fails(errno):
            root.write(vp, 0, b"x")
    root.put(d, s, p)


def test_file_sizes_end_somewhere(root: Caller) -> None:
    f = root.create(root.root, b"f")
    root.setattr(f, size=2**63 - 1)
    root.write(f, 2**63 - 2, b"x")
    actions: list[Callable[[], object]] = [
        lambda: root.write(f, 2**63 - 2, b"xy"),
        lambda: root.write(f, 0, b"x", IO_APPEND),
        lambda: root.setattr(f, size=2**63),
    ]
    for action in actions:
        with fails(EFBIG):
            action()
    with fails(EINVAL):
        root.setattr(f, size=-1)
    assert root.getattr(f).size == 2**63 - 1
    root.put(f)


def test_space_is_limited() -> None:
    root = Caller(mounted(size_limit=MIB))
    f, g = root.create(root.root, b"f"), root.create(root.root, b"g")
    root.write(f, 0, bytes(MIB - 4096))
    before = root.getattr(g)
    with fails(ENOSPC):
        root.write(g, 0, bytes(4097))
    assert root.getattr(g) == before  # all or nothing
    root.write(g, 0, bytes(4096))
    assert now(root.fs.statvfs()).bfree == 0
    assert now(root.fs.statvfs()).blocks == 256
    root.write(f, 0, b"overwriting takes nothing")
    root.setattr(g, size=1 << 40)  # nor does a hole
    root.setattr(f, size=0)
    assert now(root.fs.statvfs()).bfree == 255
    root.remove(root.root, b"g")
    assert now(root.fs.statvfs()).bfree == 255
    root.put(g)
    assert now(root.fs.statvfs()).bfree == 256
    root.put(f)


def test_unlinked_file_stays_while_it_is_used(root: Caller) -> None:
    f = root.create(root.root, b"f")
    root.write(f, 0, b"data")
    root.remove(root.root, b"f")
    root.put(root.create(root.root, b"f"))  # another one
    assert root.read(f) == b"data"
    root.write(f, 4, b" more")
    assert root.read(f) == b"data more"
    assert root.getattr(f).nlink == 0
    assert root.setattr(f, mode=0o600).mode == 0o600
    root.put(f)
    assert f.is_dead


def test_unused_file_without_a_name_leaves_no_vnode() -> None:
    mount = now(Kernel(desiredvnodes=100).mount(TmpFs(uid=0, gid=0)))
    root = Caller(mount)
    for _ in range(50):
        root.put(root.create(root.root, b"f"))
        root.remove(root.root, b"f")
    assert len(mount) == 1
    assert len(mount.free_list) == 0


def test_fallocate_and_fdiscard(root: Caller) -> None:
    f = root.create(root.root, b"f")
    root.write(f, 0, b"x" * 200_000)
    with root.exclusive(f):
        now(root.fs.fdiscard(f, 1000, 190_000))
    assert root.read(f) == b"x" * 1000 + bytes(190_000) + b"x" * 9000
    assert root.getattr(f).bytes < 140_000
    with root.exclusive(f):
        now(root.fs.fallocate(f, 200_000, 100_000))
        for operation in (root.fs.fallocate, root.fs.fdiscard):
            with fails(EINVAL):
                now(operation(f, 0, 0))
    assert root.getattr(f).size == f.size == 300_000
    assert root.getattr(f).bytes >= 100_000
    root.put(f)


def times(caller: Caller, vp: Vnode) -> tuple[int, int, int]:
    va = caller.getattr(vp)
    return va.atime, va.mtime, va.ctime


def test_times_are_kept_to_the_nanosecond(root: Caller) -> None:
    f = root.create(root.root, b"f")
    for atime, mtime in ((1, 999_999_999), (-1, -DAY), (2**62 + 1, 1_700_000_000_123_456_789)):
        va = root.setattr(f, atime=atime, mtime=mtime)
        assert (va.atime, va.mtime) == (atime, mtime)
    _, _, ctime = times(root, f)
    root.setattr(f, atime=5)
    assert times(root, f)[:2] == (5, 1_700_000_000_123_456_789)
    assert times(root, f)[2] > ctime
    va = root.setattr(f, birthtime=7, ctime=9)
    assert (va.birthtime, va.ctime) == (7, 9)
    root.put(f)


def test_what_changes_which_time(root: Caller) -> None:
    d = root.mkdir(root.root, b"d")
    f = root.create(d, b"f")
    old = 1000
    va = root.getattr(f)
    assert va.atime == va.mtime == va.ctime == va.birthtime

    def changed(vp: Vnode, action: Callable[[], object]) -> str:
        before = times(root, vp)
        action()
        return "".join(
            letter
            for letter, one, two in zip("amc", before, times(root, vp), strict=True)
            if one != two
        )

    assert changed(f, lambda: root.write(f, 0, b"x")) == "mc"
    assert changed(f, lambda: root.write(f, 0, b"")) == ""
    assert changed(f, lambda: root.setattr(f, size=1)) == "mc"  # even to the same size
    assert changed(f, lambda: root.setattr(f, mode=0o600)) == "c"
    assert changed(f, lambda: root.setattr(f, uid=3)) == "c"
    assert changed(f, lambda: root.read(f)) == "a"
    assert changed(f, lambda: root.read(f)) == ""  # relatime: nothing has happened since
    root.setattr(f, atime=old, mtime=old, ctime=old)
    assert changed(f, lambda: root.read(f)) == "a"
    assert changed(d, lambda: root.put(root.create(d, b"g"))) == "mc"
    assert changed(d, lambda: root.link(d, b"h", f)) == "mc"
    assert changed(f, lambda: root.link(d, b"i", f)) == "c"
    assert changed(f, lambda: root.remove(d, b"i")) == "c"
    assert changed(d, lambda: root.remove(d, b"h")) == "mc"
    assert changed(d, lambda: root.put(root.mkdir(d, b"e"))) == "mc"
    assert changed(d, lambda: root.rmdir(d, b"e")) == "mc"
    assert changed(d, lambda: root.readdir(d)) == "a"
    assert changed(d, lambda: root.find(d, b"missing")) == ""
    assert root.getattr(f).birthtime == va.birthtime
    root.put(f, d)


def test_access_time_once_a_day(root: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    f = root.create(root.root, b"f")
    root.write(f, 0, b"x")
    start = 1_700_000_000 * 10**9
    clock = start
    monkeypatch.setattr("syspuffs.emul.tmpfs.fileops.time_ns", lambda: clock)
    root.setattr(f, atime=start, mtime=start - 2, ctime=start - 1)
    clock += DAY
    root.read(f)
    assert times(root, f)[0] == start
    clock += 1
    root.read(f)
    assert times(root, f)[0] == clock
    root.put(f)


def test_read_only_mount_keeps_access_times() -> None:
    fs = TmpFs(uid=0, gid=0)
    mount = now(Kernel().mount(fs, rdonly=True))
    root = Caller(mount)
    f = root.create(root.root, b"f")  # a client would not let this through
    root.write(f, 0, b"x")
    before = times(root, f)
    root.read(f)
    assert times(root, f) == before
    root.put(f)


# Who may.


@pytest.mark.parametrize(
    ("cred", "mode", "may"),
    [
        (ANN, 0o700, "rwx"),
        (ANN, 0o077, ""),
        (BOB, 0o740, "r"),
        (BOB, 0o707, ""),
        (EVE, 0o705, "rx"),
        (ROOT, 0o000, "rw"),
        (ROOT, 0o010, "rwx"),
        (FSCRED, 0o000, "rwx"),
    ],
)
def test_access_and_open(root: Caller, ann: Caller, cred: Cred, mode: int, may: str) -> None:
    f = ann.create(root.root, b"f", mode)
    ann.open(f)  # the creator's own first open
    ann.close(f)
    who = Caller(root.mount, cred)
    assert who.may(f) == may
    for flags, wanted in ((FREAD, "r"), (FWRITE, "w"), (FREAD | FWRITE, "rw")):
        if set(wanted) <= set(may):
            who.open(f, flags)
            who.close(f, flags)
        else:
            with fails(EACCES):
                who.open(f, flags)
    root.put(f)


def test_creator_may_open_once_whatever_the_mode(root: Caller, ann: Caller) -> None:
    f = ann.create(root.root, b"f", 0o444)
    ann.open(f)
    ann.write(f, 0, b"x")
    ann.setattr(f, size=0)  # ftruncate on that descriptor
    ann.close(f)
    with fails(EACCES):
        ann.open(f)
    with fails(EACCES):
        ann.setattr(f, size=0)
    ann.open(f, FREAD)
    g = ann.create(root.root, b"g", 0o444)
    with fails(EACCES):  # nobody else, and his try uses it up
        Caller(root.mount, EVE).open(g, FWRITE)
    with fails(EACCES):
        ann.open(g, FWRITE)
    root.put(f, g)


def test_open_of_what_is_no_file(root: Caller) -> None:
    d, s = root.mkdir(root.root, b"d"), root.symlink(root.root, b"s", b"x")
    p = root.mknod(root.root, b"p", Vtype.VFIFO)
    root.open(d, FREAD)
    root.close(d, FREAD)
    for vp, mode, errno in ((d, FWRITE, EISDIR), (s, FREAD, ELOOP), (p, FREAD, ENXIO)):
        with fails(errno):
            root.open(vp, mode)
    root.put(d, s, p)


def test_directories_want_permission(root: Caller, ann: Caller) -> None:
    eve = Caller(root.mount, EVE)
    d = ann.mkdir(root.root, b"d", 0o700)
    f = ann.create(d, b"f")
    actions: list[Callable[[], object]] = [
        lambda: eve.find(d, b"f"),
        lambda: eve.find(d, b"missing"),
        lambda: eve.create(d, b"g"),
        lambda: eve.mkdir(d, b"g"),
        lambda: eve.symlink(d, b"g", b"x"),
        lambda: eve.link(d, b"g", f),
        lambda: eve.remove(d, b"f"),
        lambda: eve.rename(d, b"f", root.root, b"f"),
        lambda: eve.open(d, FREAD),
    ]
    for action in actions:
        with fails(EACCES):
            action()
    ann.setattr(d, mode=0o755)
    eve.put(eve.find(d, b"f"))
    actions = [
        lambda: eve.create(d, b"g"),
        lambda: eve.remove(d, b"f"),
        lambda: eve.rename(d, b"f", root.root, b"f"),
    ]
    for action in actions:
        with fails(EACCES):
            action()
    assert root.names(d) == [b"f"]
    root.put(f, d)


def test_sticky_directory(root: Caller, ann: Caller) -> None:
    bob, eve = Caller(root.mount, BOB), Caller(root.mount, EVE)
    d = ann.mkdir(root.root, b"d")
    ann.setattr(d, mode=0o1777)
    f, g = bob.create(d, b"f"), bob.create(d, b"g")
    mine = eve.create(d, b"mine")
    actions: list[Callable[[], object]] = [
        lambda: eve.remove(d, b"f"),
        lambda: eve.rename(d, b"f", d, b"x"),
        lambda: eve.rename(d, b"mine", d, b"f"),
    ]
    for action in actions:
        with fails(EPERM):
            action()
    eve.rename(d, b"mine", d, b"still mine")
    bob.remove(d, b"f")
    ann.remove(d, b"g")  # hers is the directory
    root.put(f, g, mine, d)


def test_directory_moves_only_if_it_may_be_written(root: Caller, ann: Caller) -> None:
    eve = Caller(root.mount, EVE)
    d = ann.mkdir(root.root, b"d", 0o755)
    other = root.mkdir(root.root, b"other", 0o777)
    root.setattr(other, mode=0o777)
    with fails(EACCES):  # ".." would change
        eve.rename(root.root, b"d", other, b"d")
    eve.rename(root.root, b"d", root.root, b"e")
    root.put(d, other)


def test_chmod_chown_and_utimes(root: Caller, ann: Caller) -> None:
    eve = Caller(root.mount, EVE)
    f = ann.create(root.root, b"f", 0o755)
    before = root.getattr(f)
    assert (before.uid, before.gid) == (ANN.uid, ANN.gid)
    for fields in ({"mode": 0o777}, {"uid": EVE.uid}, {"gid": EVE.gid}, {"atime": 1}, {"mtime": 1}):
        with fails(EPERM):
            eve.setattr(f, **fields)
    for fields in ({"uid": BOB.uid}, {"gid": EVE.gid}, {"uid": ANN.uid, "gid": EVE.gid}):
        with fails(EPERM):
            ann.setattr(f, **fields)
    with fails(EPERM):  # nothing of it happens
        ann.setattr(f, mode=0o600, size=10, gid=EVE.gid)
    assert root.getattr(f) == before

    ann.setattr(f, mode=0o6755)
    assert ann.mode(f) == 0o6755
    assert ann.setattr(f, gid=2009).mode == 0o755
    assert root.getattr(f).gid == 2009
    ann.setattr(f, mode=0o6755)
    assert root.setattr(f, uid=0, gid=0).mode == 0o755  # root's chown does it, too
    assert root.setattr(f, mode=0o6755, uid=5).mode == 0o6755  # a mode beside it is the last word
    root.put(f)


def test_writing_takes_the_set_id_bits(root: Caller, ann: Caller) -> None:
    f = ann.create(root.root, b"f")
    root.setattr(f, mode=0o6777)
    root.write(f, 0, b"x")
    assert root.mode(f) == 0o6777
    Caller(root.mount, EVE).write(f, 0, b"x")
    assert root.mode(f) == 0o777
    root.setattr(f, mode=0o6777)
    ann.setattr(f, size=0)
    assert root.mode(f) == 0o777
    root.put(f)


def test_truncate_wants_write_permission(root: Caller, ann: Caller) -> None:
    f = ann.create(root.root, b"f", 0o644)
    with fails(EACCES):
        Caller(root.mount, BOB).setattr(f, size=0)
    root.setattr(f, mode=0o666)
    assert Caller(root.mount, BOB).setattr(f, size=3).size == 3
    root.put(f)


def test_setgid_directory(root: Caller, ann: Caller) -> None:
    d = root.mkdir(root.root, b"d")
    root.setattr(d, mode=0o2777, gid=EVE.gid)
    f, sub = ann.create(d, b"f", 0o2755), ann.mkdir(d, b"sub", 0o755)
    s = ann.symlink(d, b"s", b"x")
    assert [root.getattr(vp).gid for vp in (f, sub, s)] == [EVE.gid] * 3
    assert root.mode(f) == 0o755
    assert root.mode(sub) == 0o2755
    assert root.getattr(sub).uid == ANN.uid
    root.put(d, f, sub, s)


def test_setattr_of_what_cannot_be_set(root: Caller) -> None:
    f = root.create(root.root, b"f")
    for field in ("vtype", "nlink", "fsid", "fileid", "blocksize", "gen", "rdev", "bytes"):
        with fails(EINVAL):
            root.setattr(f, **{field: 1})
    with fails(EOPNOTSUPP):
        root.setattr(f, flags=1)
    assert root.setattr(f).fileid == root.getattr(f).fileid
    root.put(f)


def test_root_directory_is_whose_it_was_said_to_be() -> None:
    root = Caller(mounted(uid=7, gid=8, mode=0o1750))
    va = root.getattr(root.root)
    assert (va.uid, va.gid, va.mode, va.nlink, va.fileid) == (7, 8, 0o1750, 2, 1)
