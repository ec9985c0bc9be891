"""namei: what it finds, what it holds, what it refuses; on tmpfs it never yields."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EACCES, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR

import pytest

from syspuffs.emul.namei import MAXSYMLINKS, namei, relookup
from syspuffs.emul.nameidata import (
    FOLLOW,
    LOCKLEAF,
    LOCKPARENT,
    LOCKSHARED,
    NOFOLLOW,
    REQUIREDIR,
    WANTPARENT,
    Nameidata,
)
from syspuffs.emul.syscalls import Process
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vfs import Lookup
from syspuffs.emul.vnode import Vnode
from syspuffs.native.constants import ISDOTDOT, ISLASTCN, NAME_MAX, PATH_MAX, NameiOp
from syspuffs.native.records import Componentname, lookup_cn

from ..caller import ANN, ROOT, fails, now
from .harness import booted, check_idle, mount, tmpfs, walk, write_file

LOOKUP, CREATE, DELETE, RENAME = NameiOp.LOOKUP, NameiOp.CREATE, NameiOp.DELETE, NameiOp.RENAME


@pytest.fixture
def init() -> Iterator[Process]:
    """A kernel with a small tree."""
    process = booted()
    now(process.mkdir(b"d"))
    now(process.mkdir(b"d/e"))
    write_file(process, b"d/f")
    write_file(process, b"f")
    now(process.symlink(b"d", b"to-d"))
    now(process.symlink(b"f", b"to-f"))
    now(process.symlink(b"missing", b"dangling"))
    yield process
    check_idle(process)


def number(process: Process, path: bytes) -> int:
    return now(process.lstat(path)).st_ino


def found(process: Process, path: bytes, flags: int = NOFOLLOW) -> int:
    """Return the number of what a walk finds."""
    nd = now(walk(process, path, LOOKUP, flags))
    assert nd.ni_dvp is None
    ino = nd.vp.key
    now(nd.release())
    assert isinstance(ino, int)
    return ino


def test_walk(init: Process) -> None:
    ino = number(init, b"d/e")
    for path in (b"d/e", b"/d/e", b"d//e", b"//d///e", b"./d/./e", b"d/../d/e", b"d/e/", b"d/e/."):
        assert found(init, path) == ino, path
    assert found(init, b"d/e/..") == number(init, b"d")
    root = number(init, b"/")
    for path in (b"/", b"//", b".", b"..", b"../..", b"d/..", b"/.", b"/..", b"d/e/../.."):
        assert found(init, path) == root, path


def test_what_is_no_path(init: Process) -> None:
    with fails(ENOENT):
        now(walk(init, b""))
    with fails(ENAMETOOLONG):
        now(walk(init, b"/" * PATH_MAX))
    assert found(init, b"/" * (PATH_MAX - 1)) == number(init, b"/")
    with fails(EINVAL):
        now(walk(init, b"f\0"))
    for path in (b"n" * (NAME_MAX + 1), b"d/" + b"n" * (NAME_MAX + 1), b"n" * 300 + b"/f"):
        for op in (LOOKUP, CREATE):
            with fails(ENAMETOOLONG):
                now(walk(init, path, op, LOCKPARENT))
    with fails(ENOENT):
        now(walk(init, b"n" * NAME_MAX))


def test_start_that_is_no_directory(init: Process) -> None:
    nd = now(walk(init, b"f"))
    root = init.kernel.mounts[0].root
    with fails(ENOTDIR):
        now(namei(b"x", LOOKUP, FOLLOW, ROOT, atdir=nd.vp, rdir=root))
    absolute = now(namei(b"/d", LOOKUP, FOLLOW, ROOT, atdir=nd.vp, rdir=root))
    now(absolute.release())
    now(nd.release())


@pytest.mark.parametrize(
    ("path", "flags", "want"),
    [
        (b"missing", NOFOLLOW, ENOENT),
        (b"missing/", NOFOLLOW, ENOENT),
        (b"missing/x", NOFOLLOW, ENOENT),
        (b"f/", NOFOLLOW, ENOTDIR),
        (b"f/.", NOFOLLOW, ENOTDIR),
        (b"f/..", NOFOLLOW, ENOTDIR),
        (b"f/x", NOFOLLOW, ENOTDIR),
        (b"f", REQUIREDIR, ENOTDIR),
        (b"d", REQUIREDIR, b"d"),
        (b"to-d", NOFOLLOW, b"to-d"),
        (b"to-d", FOLLOW, b"d"),
        (b"to-d/", NOFOLLOW, b"d"),
        (b"to-d/.", NOFOLLOW, b"d"),
        (b"to-d/e", NOFOLLOW, b"d/e"),
        (b"to-d", REQUIREDIR, ENOTDIR),
        (b"to-d", REQUIREDIR | FOLLOW, b"d"),
        (b"to-f", NOFOLLOW, b"to-f"),
        (b"to-f", FOLLOW, b"f"),
        (b"to-f/", NOFOLLOW, ENOTDIR),
        (b"to-f/x", NOFOLLOW, ENOTDIR),
        (b"dangling", NOFOLLOW, b"dangling"),
        (b"dangling", FOLLOW, ENOENT),
        (b"dangling/", NOFOLLOW, ENOENT),
    ],
)
def test_lookup(init: Process, path: bytes, flags: int, want: bytes | int) -> None:
    if isinstance(want, int):
        with fails(want):
            now(walk(init, path, LOOKUP, flags))
    else:
        assert found(init, path, flags) == number(init, want)


def test_locked_parent(init: Process) -> None:
    """Of a name that is there and of one that is not; both stay true while the lock is held."""
    d = number(init, b"d")
    for path, is_there in ((b"d/f", True), (b"d/new", False), (b"to-d/f", True)):
        nd = now(walk(init, path, CREATE, LOCKPARENT))
        dvp = nd.dvp
        assert dvp.key == d
        assert dvp.lock.is_exclusive
        assert (nd.ni_vp is not None) is is_there
        assert nd.ni_cnd == Componentname(CREATE, path.rpartition(b"/")[2], ROOT, ISLASTCN)
        assert not nd.is_special
        assert dvp.usecount == 1
        now(nd.release())
        assert not dvp.lock.is_locked


def test_locked_leaf(init: Process) -> None:
    nd = now(walk(init, b"d/f", LOOKUP, LOCKLEAF))
    vp = nd.vp
    assert vp.lock.is_exclusive
    now(nd.release())
    assert not vp.lock.is_locked
    nd = now(walk(init, b"d/f", LOOKUP, LOCKLEAF | LOCKSHARED))
    assert vp.lock.is_locked
    assert not vp.lock.is_exclusive
    now(nd.release())
    nd = now(walk(init, b"d/f", DELETE, LOCKPARENT | LOCKLEAF))
    dvp = nd.dvp
    assert dvp.lock.is_exclusive
    assert vp.lock.is_exclusive
    nd.unlock_parent()
    assert not dvp.lock.is_locked
    now(nd.release())
    nd = now(walk(init, b"d/new", CREATE, LOCKPARENT | LOCKLEAF))
    assert nd.ni_vp is None
    now(nd.release())


def test_taken_leaf_is_the_callers(init: Process) -> None:
    nd = now(walk(init, b"d/f", LOOKUP, LOCKLEAF))
    vp = nd.take()
    now(nd.release())
    now(nd.release())  # once more does nothing
    assert vp.usecount == 1
    assert vp.lock.is_exclusive
    vp.lock.release()
    nd = Nameidata(None, vp, Componentname(LOOKUP, b"f", ROOT), slash=False)
    now(nd.release())


def test_wanted_parent(init: Process) -> None:
    for path in (b"d/f", b"d/new"):
        nd = now(walk(init, path, RENAME, WANTPARENT))
        assert nd.ni_vp is None
        assert not nd.dvp.lock.is_locked
        assert nd.dvp.lock.try_shared()
        vp = now(relookup(nd.dvp, nd.ni_cnd))
        nd.dvp.lock.release()
        assert (vp is not None) is (path == b"d/f")
        nd.ni_vp = vp
        now(nd.release())


@pytest.mark.parametrize("path", [b"/", b"//", b".", b"..", b"d/.", b"d/..", b"d/e/../", b"/.."])
@pytest.mark.parametrize("op", [CREATE, DELETE, RENAME])
def test_names_that_are_none(init: Process, path: bytes, op: NameiOp) -> None:
    for flags in (LOCKPARENT, WANTPARENT, LOCKPARENT | LOCKLEAF):
        nd = now(walk(init, path, op, flags))
        assert nd.is_special
        assert nd.ni_vp is None
        assert not nd.dvp.lock.is_locked
        now(nd.release())


@pytest.mark.parametrize("op", [CREATE, DELETE])
def test_slashes_behind_a_name_that_is_meant(init: Process, op: NameiOp) -> None:
    """They are told, and neither follow a link nor ask for a directory."""
    for path, want in ((b"d/", b"d"), (b"f//", b"f"), (b"to-d/", b"to-d"), (b"new/", None)):
        nd = now(walk(init, path, op, LOCKPARENT))
        assert nd.ni_slash
        assert nd.ni_cnd.name == path.rstrip(b"/")
        ino = None if nd.ni_vp is None else nd.ni_vp.key
        now(nd.release())
        assert ino == (None if want is None else number(init, want))


def test_creation_follows_links(init: Process) -> None:
    """What is to be made is where the link leads; its directory comes back locked."""
    now(init.symlink(b"../new", b"d/e/l"))
    d = number(init, b"d")
    nd = now(walk(init, b"d/e/l", CREATE, LOCKPARENT | FOLLOW))
    assert nd.ni_vp is None
    assert nd.dvp.key == d
    assert nd.dvp.lock.is_exclusive
    assert nd.ni_cnd.name == b"new"
    now(nd.release())
    now(init.symlink(b"d/sub/", b"slash"))
    nd = now(walk(init, b"slash", CREATE, LOCKPARENT | FOLLOW))
    assert nd.ni_slash
    assert nd.ni_cnd.name == b"sub"
    now(nd.release())
    now(init.symlink(b"/", b"top"))
    nd = now(walk(init, b"top", CREATE, LOCKPARENT | FOLLOW))
    assert nd.is_special
    now(nd.release())
    assert found(init, b"top", FOLLOW) == number(init, b"/")
    assert found(init, b"top/d") == number(init, b"d")


def test_slash_of_a_link_on_the_way(init: Process) -> None:
    """It asks for a directory there, and says nothing about what follows."""
    now(init.symlink(b"d/", b"l"))
    assert found(init, b"l/f") == number(init, b"d/f")
    assert found(init, b"l", FOLLOW) == number(init, b"d")
    now(init.symlink(b"f/", b"m"))
    with fails(ENOTDIR):
        now(walk(init, b"m", LOOKUP, FOLLOW))


def test_links_of_links(init: Process) -> None:
    now(init.symlink(b"f", b"l1"))
    for i in range(2, MAXSYMLINKS + 2):
        now(init.symlink(b"l%d" % (i - 1), b"l%d" % i))
    assert found(init, b"l%d" % MAXSYMLINKS, FOLLOW) == number(init, b"f")
    with fails(ELOOP):
        now(walk(init, b"l%d" % (MAXSYMLINKS + 1), LOOKUP, FOLLOW))
    now(init.symlink(b"self", b"self"))
    now(init.symlink(b"b", b"a"))
    now(init.symlink(b"a", b"b"))
    for path in (b"self", b"a", b"self/x", b"b/"):
        for op, flags in ((LOOKUP, NOFOLLOW), (LOOKUP, FOLLOW), (CREATE, LOCKPARENT | FOLLOW)):
            if flags & FOLLOW or b"/" in path:
                with fails(ELOOP):
                    now(walk(init, path, op, flags))


def test_link_count_is_for_the_whole_walk(init: Process) -> None:
    now(init.symlink(b".", b"here"))
    assert found(init, b"here/" * MAXSYMLINKS + b"f") == number(init, b"f")
    with fails(ELOOP):
        now(walk(init, b"here/" * (MAXSYMLINKS + 1) + b"f"))


def test_expanded_path_too_long(init: Process) -> None:
    """Targets count with what follows them, so that a walk's memory has a bound."""
    long = b"./" * 2000 + b"d"
    now(init.symlink(long, b"long"))
    assert found(init, b"long/f") == number(init, b"d/f")
    rest = b"/." * ((PATH_MAX - len(long)) // 2 + 1)
    with fails(ENAMETOOLONG):
        now(walk(init, b"long" + rest))


def test_absolute_link(init: Process) -> None:
    now(init.symlink(b"/d/f", b"d/e/abs"))
    assert found(init, b"d/e/abs", FOLLOW) == number(init, b"d/f")
    root = now(walk(init, b"d"))
    with fails(ENOENT):  # below another root there is no /d
        now(namei(b"e/abs", LOOKUP, FOLLOW, ROOT, atdir=root.vp, rdir=root.vp))
    now(root.release())


def test_permission_to_search(init: Process) -> None:
    now(init.chmod(b"d", 0o644))
    for path in (b"d/f", b"d/missing", b"d/.", b"d/..", b"d/e/x", b"to-d/f"):
        with fails(EACCES):
            now(walk(init, path, cred=ANN))
        if path[-1:] != b".":
            with fails(EACCES):
                now(walk(init, path, CREATE, LOCKPARENT, cred=ANN))
    now(now(walk(init, b"d", cred=ANN)).release())
    now(now(walk(init, b"d/", cred=ANN)).release())


class Recorder(TmpFs):
    """Remembers what was looked up."""

    def __init__(self) -> None:
        super().__init__(uid=0, gid=0, mode=0o755)
        self.seen: list[Componentname] = []

    async def lookup(self, dvp: Vnode, cn: Componentname) -> Lookup:
        self.seen.append(cn)
        return await super().lookup(dvp, cn)


def test_what_the_file_system_is_told() -> None:
    fs = Recorder()
    init = booted(fs)
    now(init.mkdir(b"d"))
    now(init.mkdir(b"d/e"))
    fs.seen.clear()
    found(init, b"./d/e/../e")
    assert fs.seen == [
        Componentname(LOOKUP, b"d", ROOT, 0),
        Componentname(LOOKUP, b"e", ROOT, 0),
        Componentname(LOOKUP, b"..", ROOT, ISDOTDOT),
        Componentname(LOOKUP, b"e", ROOT, ISLASTCN),
    ]
    fs.seen.clear()
    now(now(walk(init, b"d/e", DELETE, LOCKPARENT)).release())
    assert fs.seen == [
        Componentname(LOOKUP, b"d", ROOT, 0),
        Componentname(DELETE, b"e", ROOT, ISLASTCN),
    ]
    fs.seen.clear()
    assert found(init, b"d/e/..", FOLLOW) == number(init, b"d")
    assert fs.seen[2] == Componentname(LOOKUP, b"..", ROOT, ISLASTCN | ISDOTDOT)
    check_idle(init)


def test_makecn() -> None:
    """NetBSD's t_p2kifs: a name given to a file system is not changed by what its caller does."""
    fs = Recorder()
    init = booted(fs)
    path = bytearray(b"name")
    cn = lookup_cn(bytes(path), ROOT)
    root = init.kernel.mounts[0].root
    assert root.lock.try_shared()
    assert now(root.fs.lookup(root, cn)).vp is None
    root.lock.release()
    path[:] = b"else"
    assert fs.seen == [Componentname(LOOKUP, b"name", ROOT, ISLASTCN)]
    with pytest.raises(AttributeError):
        fs.seen[0].name = b"else"  # type: ignore[misc]


# Mounts.


def test_mount_is_crossed(init: Process) -> None:
    inner = mount(init, b"d/e")
    nd = now(walk(init, b"d/e"))
    assert nd.vp is inner.root
    now(nd.release())
    write_file(init, b"d/e/new")
    nd = now(walk(init, b"d/e/new"))
    assert nd.vp.mount is inner
    now(nd.release())
    nd = now(walk(init, b"d/e", DELETE, LOCKPARENT))
    assert nd.vp is inner.covered
    assert nd.vp.mountedhere is inner
    now(nd.release())
    nd = now(walk(init, b"d/e", CREATE, LOCKPARENT))
    assert nd.vp is inner.root
    now(nd.release())


def test_dotdot_out_of_a_mount(init: Process) -> None:
    mount(init, b"d/e")
    d = number(init, b"d")
    assert found(init, b"d/e/..") == d
    assert found(init, b"d/e/../f") == number(init, b"d/f")
    assert found(init, b"d/e/../../d") == d
    now(init.mkdir(b"d/e/sub"))
    assert found(init, b"d/e/sub/..") == number(init, b"d/e")
    assert found(init, b"d/e/sub/../..") == d


def test_mounts_on_mounts(init: Process) -> None:
    """One over the root of another, and one in it: both ways lead through all of them."""
    first = mount(init, b"d")
    second = mount(init, b"d")
    assert second.covered is first.root
    now(init.mkdir(b"d/x"))
    third = mount(init, b"d/x")
    nd = now(walk(init, b"d/x"))
    assert nd.vp is third.root
    now(nd.release())
    nd = now(walk(init, b"d/x/.."))
    assert nd.vp is second.root
    now(nd.release())
    assert found(init, b"d/x/../..") == number(init, b"/")
    assert found(init, b"d/..") == number(init, b"/")


def test_dotdot_stops_at_the_root_of_the_process(init: Process) -> None:
    root = now(walk(init, b"d"))
    mount(init, b"d/e")
    for path in (b"..", b"../..", b"e/..", b"e/../..", b"/..", b"../e/.."):
        nd = now(namei(path, LOOKUP, FOLLOW, ROOT, atdir=root.vp, rdir=root.vp))
        assert nd.vp is root.vp, path
        now(nd.release())
    now(root.release())


def test_root_of_the_process_is_the_root_of_a_mount(init: Process) -> None:
    inner = mount(init, b"d/e")
    nd = now(namei(b"../../..", LOOKUP, FOLLOW, ROOT, atdir=inner.root, rdir=inner.root))
    assert nd.vp is inner.root
    now(nd.release())


def test_walk_that_fails_in_a_mount_leaves_nothing(init: Process) -> None:
    mount(init, b"d/e", tmpfs(mode=0o700))
    for path in (b"d/e/x", b"d/e/x/y", b"d/e/.", b"d/e/.."):
        with fails(EACCES):
            now(walk(init, path, cred=ANN))
    with fails(ENOENT):
        now(walk(init, b"d/e/x"))
