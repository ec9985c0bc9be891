"""Names in tmpfs: creation, links, removal, renaming, reading directories."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable
from errno import (
    EEXIST,
    EINVAL,
    EISDIR,
    ENAMETOOLONG,
    ENOENT,
    ENOSPC,
    ENOTDIR,
    ENOTEMPTY,
    EPERM,
)
from pathlib import Path

import pytest

from syspuffs.emul.vnode import Vnode, vref
from syspuffs.native.constants import READDIR_PLUS, TTL_FOREVER, NameiOp, Vtype
from syspuffs.native.errors import VfsError

from .caller import ANN, ROOT, Caller, complete, fails, mounted, now


@pytest.fixture
def root() -> Caller:
    return Caller(mounted())


def test_all_types_of_nodes(root: Caller) -> None:
    made = {
        b"reg": root.create(root.root, b"reg"),
        b"dir": root.mkdir(root.root, b"dir"),
        b"lnk": root.symlink(root.root, b"lnk", b"any/where"),
        b"blk": root.mknod(root.root, b"blk", Vtype.VBLK, os.makedev(8, 1)),
        b"chr": root.mknod(root.root, b"chr", Vtype.VCHR, os.makedev(5, 1)),
        b"fifo": root.mknod(root.root, b"fifo", Vtype.VFIFO),
        b"sock": root.mknod(root.root, b"sock", Vtype.VSOCK),
        b"nod": root.mknod(root.root, b"nod", Vtype.VREG),
    }
    types = {
        b"reg": Vtype.VREG,
        b"dir": Vtype.VDIR,
        b"lnk": Vtype.VLNK,
        b"blk": Vtype.VBLK,
        b"chr": Vtype.VCHR,
        b"fifo": Vtype.VFIFO,
        b"sock": Vtype.VSOCK,
        b"nod": Vtype.VREG,
    }
    assert {name: vp.vtype for name, vp in made.items()} == types
    assert made[b"blk"].rdev == os.makedev(8, 1)
    assert root.getattr(made[b"chr"]).rdev == os.makedev(5, 1)
    assert root.getattr(made[b"reg"]).rdev == 0
    with root.shared(made[b"lnk"]):
        assert now(root.fs.readlink(made[b"lnk"], ROOT)) == b"any/where"
    assert root.getattr(made[b"lnk"]).size == 9
    assert root.getattr(made[b"lnk"]).mode == 0o777
    with fails(EINVAL), root.shared(made[b"reg"]):
        now(root.fs.readlink(made[b"reg"], ROOT))
    numbers = {root.getattr(vp).fileid for vp in made.values()}
    assert len(numbers) == len(made)
    entries, eof = root.readdir(root.root)
    assert eof
    assert {e.name: e.vtype for e in entries if e.name not in (b".", b"..")} == types
    for name, vp in made.items():
        found = root.find(root.root, name)
        assert found is vp
        root.put(found, vp)
    with fails(EINVAL):
        root.mknod(root.root, b"wrong", Vtype.VDIR)
    with fails(EPERM):
        Caller(root.mount, ANN).mknod(root.root, b"dev", Vtype.VCHR, 1)


def test_lookup(root: Caller) -> None:
    with root.shared(root.root):
        answer = now(root.fs.lookup(root.root, root.cn(b"missing")))
    assert answer.vp is None
    assert answer.cn_ttl == TTL_FOREVER
    d = root.mkdir(root.root, b"d")
    inner = root.mkdir(d, b"inner")
    assert root.find(inner, b"..") is d
    assert root.find(root.root, b"..") is root.root
    root.put(d, root.root)
    f = root.create(d, b"f")
    with fails(ENOTDIR):
        root.find(f, b"x")
    with fails(ENAMETOOLONG):
        root.find(d, b"x" * 256)
    with root.shared(d):
        answer = now(root.fs.lookup(d, root.cn(b"f")))
    assert answer.va is not None
    assert complete(answer.va) == root.getattr(f)
    assert answer.va_ttl == TTL_FOREVER
    root.put(answer.vp)
    with fails(EEXIST):
        root.create(d, b"f")
    with fails(EEXIST):
        root.mkdir(d, b"inner")
    with fails(ENAMETOOLONG):
        root.create(d, b"x" * 256)
    root.put(root.create(d, b"x" * 255))
    with fails(ENAMETOOLONG):
        root.symlink(d, b"s", b"x" * 4096)
    root.put(root.symlink(d, b"s", b"x" * 4095))
    root.put(f, inner, d)


def test_removed_directory_is_a_dead_end(root: Caller) -> None:
    d = root.mkdir(root.root, b"d")
    f = root.create(root.root, b"f")
    with fails(ENOTDIR):
        root.rmdir(root.root, b"f")
    with fails(EISDIR):
        root.remove(root.root, b"d")
    root.put(root.create(d, b"x"))
    with fails(ENOTEMPTY):
        root.rmdir(root.root, b"d")
    root.remove(d, b"x")
    root.rmdir(root.root, b"d")
    assert root.getattr(d).nlink == 0
    actions: list[Callable[[], object]] = [
        lambda: root.find(d, b"x"),
        lambda: root.find(d, b".."),
        lambda: root.create(d, b"x"),
        lambda: root.mkdir(d, b"x"),
        lambda: root.symlink(d, b"x", b"y"),
        lambda: root.link(d, b"x", f),
        lambda: root.rename(root.root, b"f", d, b"x"),
    ]
    for action in actions:
        with fails(ENOENT):
            action()
    root.put(d)
    assert d.is_dead
    assert root.find(root.root, b"d") is None
    root.put(f)


def test_links_share_one_node(root: Caller) -> None:
    d = root.mkdir(root.root, b"d")
    f = root.create(root.root, b"f")
    before = root.getattr(f)
    va = root.link(d, b"g", f)
    assert va.nlink == 2
    assert va.ctime > before.ctime
    assert va.mtime == before.mtime
    g = root.find(d, b"g")
    assert g is f
    with fails(EEXIST):
        root.link(d, b"g", f)
    with fails(EPERM):
        root.link(root.root, b"e", d)
    root.remove(root.root, b"f")
    assert root.getattr(f).nlink == 1
    root.remove(d, b"g")
    assert root.getattr(f).nlink == 0
    with fails(ENOENT):  # nothing comes back from there
        root.link(d, b"h", f)
    root.put(f, g, d)


def test_stale_operands_are_noticed(root: Caller) -> None:
    """What the caller found by name may have been replaced before it got the locks."""
    old = root.create(root.root, b"f")
    root.remove(root.root, b"f")
    new = root.create(root.root, b"f")
    with root.exclusive(root.root, old), fails(ENOENT):
        now(root.fs.remove(root.root, old, root.cn(b"f")))
    with root.exclusive(root.root, old), fails(ENOENT):
        now(root.fs.rename(root.root, old, root.cn(b"f"), root.root, None, root.cn(b"g")))
    other = root.create(root.root, b"g")
    with root.exclusive(root.root, new, old), fails(ENOENT):
        now(root.fs.rename(root.root, new, root.cn(b"f"), root.root, old, root.cn(b"g")))
    # A target that came after the lookup is replaced all the same, used or not.
    with root.exclusive(root.root, new):
        now(root.fs.rename(root.root, new, root.cn(b"f"), root.root, None, root.cn(b"g")))
    assert root.getattr(other).nlink == 0
    assert not other.is_dead
    root.put(other)
    assert other.is_dead
    root.put(root.create(root.root, b"unused"))
    with root.exclusive(root.root, new):
        now(root.fs.rename(root.root, new, root.cn(b"g"), root.root, None, root.cn(b"unused")))
    assert len(root.mount) == 3  # root, old, new: the vnode of the replaced file has gone
    assert now(root.fs.statvfs()).ffree == now(mounted().fs.statvfs()).ffree - 2
    root.put(old, new)
    assert now(root.fs.statvfs()).ffree == now(mounted().fs.statvfs()).ffree - 1


# What every pair of names does is compared with what the host kernel does.

TREE = (
    ("d", "dir"),
    ("d/f", "file"),
    ("d/e", "dir"),
    ("d/e/deep", "dir"),
    ("empty", "dir"),
    ("empty2", "dir"),
    ("f", "file"),
    ("g", "file"),
    ("h1", "file"),
    ("l", "link"),
    ("p", "fifo"),
)
LINKS = (("h1", "h2"), ("h1", "d/h3"))
ABSENT = ("new", "d/new", "d/e/deep/new", "empty/new")
NAMES = tuple(path for path, _ in TREE) + tuple(link for _, link in LINKS) + ABSENT


def build_on_host(base: Path) -> None:
    for path, kind in TREE:
        if kind == "dir":
            (base / path).mkdir()
        elif kind == "file":
            (base / path).write_text(path)
        elif kind == "link":
            (base / path).symlink_to("nowhere")
        else:
            os.mkfifo(base / path)
    for old, new in LINKS:
        os.link(base / old, base / new)


def host_tree(base: Path) -> dict[str, tuple[int, int, int]]:
    """Return what is at each path: a number for its identity, its type, its link count."""
    found = {}
    numbers: dict[int, int] = {}
    for path in sorted(base.rglob("*")):
        status = path.lstat()
        number = numbers.setdefault(status.st_ino, len(numbers))
        nlink = 1 if path.is_dir() and not path.is_symlink() else status.st_nlink
        found[str(path.relative_to(base))] = (number, status.st_mode >> 12, nlink)
    return found


def split(root: Caller, path: str) -> tuple[Vnode, bytes]:
    head, _, name = path.rpartition("/")
    if head:
        return root.walk(head.encode()), name.encode()
    vref(root.root)
    return root.root, name.encode()


def build(root: Caller) -> None:
    for path, kind in TREE:
        parent, name = split(root, path)
        if kind == "dir":
            vp = root.mkdir(parent, name)
        elif kind == "file":
            vp = root.create(parent, name)
            root.write(vp, 0, path.encode())
        elif kind == "link":
            vp = root.symlink(parent, name, b"nowhere")
        else:
            vp = root.mknod(parent, name, Vtype.VFIFO)
        root.put(vp, parent)
    for old, new in LINKS:
        vp = root.walk(old.encode())
        parent, name = split(root, new)
        root.link(parent, name, vp)
        root.put(vp, parent)


IFMT = {int(Vtype.VREG): 8, int(Vtype.VDIR): 4, int(Vtype.VLNK): 10, int(Vtype.VFIFO): 1}


def tree(root: Caller) -> dict[str, tuple[int, int, int]]:
    """Return the same of the tmpfs, and see that the links of directories are right."""
    found: dict[str, tuple[int, int, int]] = {}

    def visit(prefix: str, dvp: Vnode) -> None:
        directories = 0
        for name in root.names(dvp):
            vp = root.get(dvp, name)
            va = root.getattr(vp)
            path = prefix + name.decode()
            nlink = va.nlink
            if va.vtype == Vtype.VDIR:
                directories += 1
                nlink = 1
                visit(path + "/", vp)
                dotdot = root.get(vp, b"..")
                assert dotdot is dvp
                root.put(dotdot)
            found[path] = (va.fileid, IFMT[va.vtype], nlink)
            root.put(vp)
        assert root.getattr(dvp).nlink == 2 + directories

    visit("", root.root)
    numbers: dict[int, int] = {}
    return {
        path: (numbers.setdefault(found[path][0], len(numbers)), *found[path][1:])
        for path in sorted(found, key=Path)
    }


def errno_of(action: Callable[[], object]) -> int:
    try:
        action()
    except VfsError as error:
        return error.errno
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize("old", [name for name in NAMES if name not in ABSENT])
def test_rename_does_what_the_host_does(old: str, tmp_path: Path) -> None:
    for new in NAMES:
        base = tmp_path / "tree"
        base.mkdir()
        build_on_host(base)
        expected = errno_of(lambda: os.rename(base / old, base / new)), host_tree(base)  # noqa: B023
        shutil.rmtree(base)

        root = Caller(mounted())
        build(root)
        fdvp, fname = split(root, old)
        tdvp, tname = split(root, new)
        outcome = errno_of(lambda: root.rename(fdvp, fname, tdvp, tname))  # noqa: B023
        root.put(fdvp, tdvp)
        assert (outcome, tree(root)) == expected, f"{old} -> {new}"
        assert not root.mount.is_busy


@pytest.mark.parametrize("operation", ["remove", "rmdir", "link"])
def test_other_names_do_what_the_host_does(operation: str, tmp_path: Path) -> None:
    for path in NAMES:
        base = tmp_path / "tree"
        base.mkdir()
        build_on_host(base)
        root = Caller(mounted())
        build(root)
        parent, name = split(root, path)
        f = root.walk(b"f")
        action, on_host = {
            "remove": (lambda: root.remove(parent, name), lambda: os.unlink(base / path)),  # noqa: B023
            "rmdir": (lambda: root.rmdir(parent, name), lambda: os.rmdir(base / path)),  # noqa: B023
            "link": (lambda: root.link(parent, name, f), lambda: os.link(base / "f", base / path)),  # noqa: B023
        }[operation]
        if operation == "link" or path not in ABSENT:
            assert errno_of(action) == errno_of(on_host), path
            assert tree(root) == host_tree(base), path
        root.put(parent, f)
        shutil.rmtree(base)


def test_rename_keeps_times_right(root: Caller) -> None:
    source, target = root.mkdir(root.root, b"s"), root.mkdir(root.root, b"t")
    f, victim = root.create(source, b"f"), root.create(target, b"g")
    before = {vp: root.getattr(vp) for vp in (source, target, f, victim)}
    root.rename(source, b"f", target, b"g")
    after = {vp: root.getattr(vp) for vp in before}
    for vp in (source, target):
        assert after[vp].mtime > before[vp].mtime
        assert after[vp].ctime == after[vp].mtime
    for vp in (f, victim):
        assert after[vp].ctime > before[vp].ctime
        assert after[vp].mtime == before[vp].mtime
    assert after[victim].nlink == 0
    root.put(source, target, f, victim)


def test_readdir_in_pieces(root: Caller) -> None:
    names = [b"n%03d" % i for i in range(100)]
    for name in names:
        root.put(root.create(root.root, name))
    for resid in (0, 25, 51, 100, 1000):
        seen, offset, eof = [], 0, False
        while not eof:
            entries, eof = root.readdir(root.root, offset, resid)
            assert len(entries) == 1 or sum(24 + len(e.name) for e in entries) <= resid
            seen += [entry.name for entry in entries]
            if entries:
                offset = entries[-1].offset
        assert seen == [b".", b"..", *names]
    assert root.readdir(root.root, offset) == ([], True)
    with fails(EINVAL):
        root.readdir(root.root, -1)
    dot, dotdot = root.readdir(root.root)[0][:2]
    assert dot.fileid == dotdot.fileid == root.getattr(root.root).fileid
    f = root.get(root.root, b"n000")
    with fails(ENOTDIR):
        root.readdir(f)
    root.put(f)


def test_readdir_offsets_survive_changes(root: Caller) -> None:
    names = {b"n%03d" % i for i in range(200)}
    for name in sorted(names):
        root.put(root.create(root.root, name))
    seen: list[bytes] = []
    offset, eof, step = 0, False, 0
    removed: set[bytes] = set()
    while not eof:
        entries, eof = root.readdir(root.root, offset, 300)
        seen += [e.name for e in entries if e.name.startswith(b"n")]
        offset = entries[-1].offset if entries else offset
        # Remove what was seen and what was not, in numbers that make the table shrink;
        # meanwhile others come and move.
        for name in sorted(names - removed)[:: max(2, 12 - step)]:
            root.remove(root.root, name)
            removed.add(name)
        root.put(root.create(root.root, b"m%d" % step))
        root.rename(root.root, b"m%d" % step, root.root, b"o%d" % step)
        step += 1
    assert len(seen) == len(set(seen))
    assert names - removed <= set(seen)


def test_directory_does_not_grow_with_what_has_left(root: Caller) -> None:
    def churn() -> int:
        for i in range(3000):
            root.put(root.create(root.root, b"f%d" % i))
            root.remove(root.root, b"f%d" % i)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first = churn()
        assert churn() - first < 50_000
    finally:
        tracemalloc.stop()


def test_readdir_plus_gives_references(root: Caller) -> None:
    d = root.mkdir(root.root, b"d")
    f = root.create(root.root, b"f")
    root.put(f)
    assert f.usecount == 0
    entries, _ = root.readdir(root.root, flags=READDIR_PLUS)
    found = {entry.name: entry.found for entry in entries if entry.found is not None}
    assert set(found) == {b"d", b"f"}
    assert found[b"d"].vp is d
    assert d.usecount == 2
    assert found[b"f"].vp is f
    assert f.usecount == 1
    va = found[b"f"].va
    assert va is not None
    assert complete(va) == root.getattr(f)
    assert found[b"f"].va_ttl == found[b"f"].cn_ttl == TTL_FOREVER
    root.put(d, d, f)


def test_nodes_are_limited() -> None:
    root = Caller(mounted(nodes_limit=3))
    f = root.create(root.root, b"f")
    root.put(root.mkdir(root.root, b"d"))
    actions: list[Callable[[], object]] = [
        lambda: root.create(root.root, b"x"),
        lambda: root.mkdir(root.root, b"x"),
        lambda: root.symlink(root.root, b"x", b"y"),
        lambda: root.mknod(root.root, b"x", Vtype.VFIFO),
    ]
    for action in actions:
        with fails(ENOSPC):
            action()
    assert root.names(root.root) == [b"f", b"d"]
    assert root.getattr(root.root).nlink == 3
    statvfs = now(root.fs.statvfs())
    assert (statvfs.files, statvfs.ffree) == (3, 0)
    root.link(root.root, b"g", f)  # a name is no node
    root.remove(root.root, b"g")
    root.remove(root.root, b"f")
    with fails(ENOSPC):  # it is still in use
        root.create(root.root, b"x")
    root.put(f)
    root.put(root.create(root.root, b"x"))


def test_file_handles(root: Caller) -> None:
    f = root.create(root.root, b"f")
    handle = now(root.fs.vptofh(f))
    fileid = root.getattr(f).fileid
    assert now(root.fs.fhtovp(handle)) is f
    assert now(root.fs.vget(fileid)) is f
    root.put(f, f, f)
    again = now(root.fs.fhtovp(handle))  # also when nobody uses it
    root.put(again)
    root.remove(root.root, b"f")
    for errno, bad in (
        (116, handle),  # ESTALE: its file has gone
        (22, handle + b"x"),
        (22, b""),
        (116, handle[:8] + bytes(8)),  # from another file system
    ):
        with fails(errno):
            now(root.fs.fhtovp(bad))


def test_pathconf(root: Caller) -> None:
    assert now(root.fs.pathconf(root.root, os.pathconf_names["PC_NAME_MAX"])) == 255
    assert now(root.fs.pathconf(root.root, os.pathconf_names["PC_CHOWN_RESTRICTED"])) == 1
    with fails(EINVAL):
        now(root.fs.pathconf(root.root, 9999))


def test_typename_and_statvfs(root: Caller) -> None:
    assert root.fs.typename == "tmpfs"
    assert root.fs.mntfromname == b"none"
    statvfs = now(root.fs.statvfs())
    assert statvfs.bsize == statvfs.frsize == 4096
    assert statvfs.blocks == statvfs.bfree > 0
    assert statvfs.files == statvfs.ffree + 1
    assert statvfs.namemax == 255
    assert statvfs.fsid == root.getattr(root.root).fsid
    assert mounted().fs.mount.serial != root.mount.serial


def test_lookup_for_creation_is_a_plain_answer(root: Caller) -> None:
    for op in NameiOp:
        with root.shared(root.root):
            assert now(root.fs.lookup(root.root, root.cn(b"new", op))).vp is None
