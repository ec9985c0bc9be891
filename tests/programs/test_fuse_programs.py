"""Unmodified FUSE programs under the stack, each with real data."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from syspuffs.gateway.capture.element import program_below
from syspuffs.gateway.stack import Ground
from syspuffs.native.constants import FREAD, FWRITE, NameiOp
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred, Vattr, lookup_cn

from ..support.interpreter import for_everybody
from ..support.leaks import children
from ..support.leaks import mounts as all_mounts
from ..support.mounts import (
    Mounts,
    mounted_type,
    python_command,
    run,
    unmount,
    unmount_by_force,
    wait_until,
)
from ..support.sshd import Sshd

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

CRED = Cred(os.getuid(), os.getgid())
BIG = bytes(range(256)) * 4096
MEMORY_FS = """
import errno, stat, sys, time
import mfusepy

class Memory(mfusepy.Operations):
    use_ns = True
    def __init__(self):
        now = int(time.time() * 10**9)
        self.data = {}
        self.attr = {"/": dict(st_mode=stat.S_IFDIR | 0o755, st_nlink=2, st_mtime=now)}
    def getattr(self, path, fh=None):
        if path not in self.attr:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return dict(self.attr[path], st_size=len(self.data.get(path, b"")))
    def readdir(self, path, fh):
        return [".", "..", *(name[1:] for name in self.attr if name != "/")]
    def create(self, path, mode, fi=None):
        self.attr[path] = dict(st_mode=stat.S_IFREG | mode, st_nlink=1)
        self.data[path] = b""
        return 0
    def read(self, path, size, offset, fh):
        return self.data[path][offset : offset + size]
    def write(self, path, data, offset, fh):
        old = self.data[path].ljust(offset, b"\\0")
        self.data[path] = old[:offset] + data + old[offset + len(data) :]
        return len(data)
    def truncate(self, path, length, fh=None):
        self.data[path] = self.data[path][:length].ljust(length, b"\\0")
    def unlink(self, path):
        del self.data[path], self.attr[path]

mfusepy.FUSE(Memory(), sys.argv[1], foreground=True)
"""


def need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.fail(f"{program} is missing: apt-get install {package}")


def make_tree(place: Path) -> None:
    (place / "folder").mkdir()
    (place / "hello").write_text("hello, world\n")
    (place / "folder" / "big").write_bytes(BIG)


def check_tree(place: Path) -> None:
    assert sorted(os.listdir(place)) == ["folder", "hello"]
    assert (place / "hello").read_text() == "hello, world\n"
    assert (place / "folder" / "big").read_bytes() == BIG
    assert (place / "folder").is_dir()


def change_tree(place: Path) -> None:
    """Write, overwrite, rename and remove."""
    (place / "new").write_bytes(BIG)
    with (place / "new").open("r+b") as file:
        file.seek(5000)
        file.write(b"in the middle")
    (place / "made").mkdir()
    (place / "new").rename(place / "made" / "moved")
    with (place / "hello").open("a") as file:
        file.write("again\n")
    (place / "folder" / "big").unlink()
    (place / "folder").rmdir()
    check_changed(place)


def check_changed(place: Path) -> None:
    assert sorted(set(os.listdir(place)) - {"lost+found"}) == ["hello", "made"]
    assert (place / "hello").read_text() == "hello, world\nagain\n"
    wanted = BIG[:5000] + b"in the middle" + BIG[5013:]
    assert (place / "made" / "moved").read_bytes() == wanted


@contextmanager
def mounted(argv: Sequence[str], point: Path, name: str, *, stays: bool = False) -> Iterator[Path]:
    """Mount by `syspuffs argv`, and unmount.

    The command stays if the program does. Both end with status 0, and nothing is left.
    """
    log = point.parent / "log"
    command = [*python_command("syspuffs"), "-o", f"log={log}", "--", *argv]
    with (point.parent / "said").open("w+b") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            up = wait_until(
                lambda: mounted_type(point) is not None or process.poll() not in (None, 0)
            )
            said.seek(0)
            assert up, said.read()
            assert mounted_type(point) == f"fuse.puffs|p2k|puffs|perfuse|{name}", said.read()
            if not stays:
                assert process.wait(20) == 0
            yield point
            assert not stays or process.poll() is None
            unmount(point)
            assert process.wait(20) == 0
        finally:
            unmount_by_force(point)
            if process.poll() is None:
                process.kill()
                process.wait(10)
    assert wait_until(lambda: not serving(str(point)), 20), serving(str(point))


def serving(place: str) -> list[int]:
    """Return the processes that have `place` as a word of their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if place.encode() in words.split(b"\0"):
                found.append(int(entry.name))
    return found


@pytest.fixture
def sshd(mounts: Mounts) -> Sshd:
    return mounts.sshd


@pytest.fixture
def point(tmp_path: Path) -> Path:
    place = tmp_path / "mnt"
    place.mkdir()
    return place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = tmp_path / "tree"
    place.mkdir()
    make_tree(place)
    return place


@pytest.mark.parametrize("stays", [True, False])
def test_bindfs(tree: Path, point: Path, stays: bool) -> None:
    need("bindfs", "bindfs")
    argv = ["bindfs", *["-f"] * stays, str(tree), str(point)]
    with mounted(argv, point, "bindfs", stays=stays):
        check_tree(point)
        change_tree(point)
    check_changed(tree)


@contextmanager
def another_mount(tree: Path, place: Path) -> Iterator[Path]:
    """A FUSE mount of the machine's, which has nothing to do with us; may be unmounted inside."""
    place.mkdir()
    subprocess.run(["bindfs", str(tree), str(place)], check=True)
    try:
        yield place
    finally:
        unmount_by_force(place)


def test_holds_no_other_mount(tree: Path, point: Path, tmp_path: Path) -> None:
    # The program's name space began as a copy of the machine's, mounts included.
    need("bindfs", "bindfs")
    with (
        another_mount(tree, tmp_path / "other") as other,
        mounted(["bindfs", str(tree), str(point)], point, "bindfs"),
    ):
        assert serving(str(other))
        unmount(other)
        assert wait_until(lambda: not serving(str(other)))
        check_tree(point)


@pytest.mark.parametrize("below", ["", "/folder"])
def test_over_another_mount(tree: Path, point: Path, tmp_path: Path, below: str) -> None:
    need("bindfs", "bindfs")
    with another_mount(tree, tmp_path / "other") as other:
        place = f"{other}{below}"
        with mounted(["bindfs", place, str(point)], point, "bindfs"):
            assert sorted(os.listdir(point)) == sorted(os.listdir(place))


@pytest.mark.sshd
def test_sshfs(tree: Path, point: Path, sshd: Sshd) -> None:
    need("sshfs", "sshfs")
    options = [word for option in sshd.options for word in ("-o", option)]
    at = next(i for i, word in enumerate(options) if word.startswith("User="))
    user = options[at].partition("=")[2]
    del options[at - 1 : at + 1]  # sshfs has no such option
    argv = ["sshfs", *options, f"{user}@127.0.0.1:{tree}", str(point)]
    with mounted(argv, point, "sshfs"):
        check_tree(point)
        change_tree(point)
    check_changed(tree)


def test_unionfs(tree: Path, point: Path) -> None:
    need("unionfs", "unionfs-fuse")
    with mounted(["unionfs", f"{tree}=RW", str(point)], point, "unionfs"):
        check_tree(point)
        change_tree(point)
    check_changed(tree)


def test_mergerfs(tree: Path, point: Path) -> None:
    need("mergerfs", "mergerfs")
    with mounted(["mergerfs", str(tree), str(point)], point, "mergerfs"):
        check_tree(point)
        change_tree(point)
    check_changed(tree)


def test_rclone(tree: Path, point: Path) -> None:
    need("rclone", "rclone")
    argv = ["rclone", "--config", "/dev/null", "mount", "--vfs-cache-mode", "writes"]
    argv += ["--vfs-write-back", "0s", str(tree), str(point)]
    with mounted(argv, point, "rclone", stays=True):
        check_tree(point)
        change_tree(point)
        assert wait_until(lambda: (tree / "made" / "moved").exists())
    check_changed(tree)


def test_squashfuse(tmp_path: Path, tree: Path, point: Path) -> None:
    need("squashfuse", "squashfuse")
    image = str(tmp_path / "image")
    assert run(["mksquashfs", str(tree), image, "-quiet"]).status == 0
    with mounted(["squashfuse", image, str(point)], point, "squashfuse"):
        check_tree(point)


def test_fuseiso(tmp_path: Path, tree: Path, point: Path) -> None:
    need("fuseiso", "fuseiso")
    image = str(tmp_path / "image")
    assert run(["genisoimage", "-quiet", "-R", "-o", image, str(tree)]).status == 0
    with mounted(["fuseiso", image, str(point)], point, "fuseiso"):
        check_tree(point)


def test_fuse2fs(tmp_path: Path, tree: Path, point: Path) -> None:
    need("fuse2fs", "fuse2fs")
    image = str(tmp_path / "image")
    made = run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), image, "32M"])
    assert made.status == 0, made.stderr
    with mounted(["fuse2fs", image, str(point)], point, "ext4"):
        assert (point / "folder" / "big").read_bytes() == BIG
        change_tree(point)
    checked = run(["e2fsck", "-fn", image])
    assert checked.status == 0, checked.stdout
    with mounted(["fuse2fs", "-o", "ro", image, str(point)], point, "ext4"):
        check_changed(point)


def test_exfat(tmp_path: Path, point: Path) -> None:
    need("mount.exfat-fuse", "exfat-fuse")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    assert run(["mkfs.exfat", str(image)]).status == 0
    with mounted(["mount.exfat-fuse", str(image), str(point)], point, "mount.exfat-fuse"):
        make_tree(point)
        check_tree(point)
        change_tree(point)
    assert run(["fsck.exfat", "-n", str(image)]).status == 0


def test_mfusepy(tmp_path: Path, point: Path) -> None:
    script = tmp_path / "memory.py"
    script.write_text(MEMORY_FS)
    with mounted(
        [sys.executable, str(script), str(point)], point, Path(sys.executable).name, stays=True
    ):
        (point / "new").write_bytes(BIG)
        assert os.listdir(point) == ["new"]
        assert (point / "new").read_bytes() == BIG
        (point / "new").unlink()


def test_pyfuse3(tmp_path: Path, point: Path) -> None:
    program = str(Path(__file__).with_name("memoryfs.py"))
    with mounted([sys.executable, program, str(point)], point, "memoryfs", stays=True):
        (point / "new").write_bytes(BIG)
        (point / "new").rename(point / "newer")
        assert os.listdir(point) == ["newer"]
        assert (point / "newer").read_bytes() == BIG
        os.truncate(point / "newer", 5)
        assert (point / "newer").read_bytes() == BIG[:5]
        (point / "newer").unlink()
        assert os.listdir(point) == []


@pytest.mark.parametrize("stays", [True, False])
def test_gocryptfs(tmp_path: Path, point: Path, stays: bool) -> None:
    """It opens a file in its own mount, and unmounts itself when it is told to end."""
    need("gocryptfs", "gocryptfs")
    cipher = tmp_path / "cipher"
    cipher.mkdir()
    secret = ["-q", "-extpass", "echo secret"]
    made = run(["gocryptfs", *secret, "-init", "-scryptn", "10", str(cipher)])
    assert made.status == 0, made.stderr
    argv = ["gocryptfs", *secret, *["-fg"] * stays, str(cipher), str(point)]
    with mounted(argv, point, "gocryptfs", stays=stays):
        make_tree(point)
        check_tree(point)
        change_tree(point)
    assert run(["gocryptfs", *secret, "-fsck", str(cipher)]).status == 0
    with mounted([*argv[:-2], "-ro", *argv[-2:]], point, "gocryptfs", stays=stays):
        check_changed(point)


@pytest.mark.skipif(os.geteuid() != 0, reason="set-user-id programs mount nothing for others")
def test_ntfs_3g(tmp_path: Path, point: Path) -> None:
    """It knows no fusermount, and mounts by itself."""
    need("ntfs-3g", "ntfs-3g")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    made = run(["mkntfs", "-q", "-F", str(image)])
    assert made.status == 0, made.stderr
    with mounted(["ntfs-3g", str(image), str(point)], point, "ntfs-3g"):
        make_tree(point)
        check_tree(point)
        change_tree(point)
    assert run(["ntfsfix", "-n", str(image)]).status == 0
    with mounted(["ntfs-3g", "-o", "ro", str(image), str(point)], point, "ntfs-3g"):
        check_changed(point)


def test_an_element_of_a_stack(tree: Path, point: Path, tmp_path: Path) -> None:
    need("bindfs", "bindfs")
    argv = [*python_command("mount_puffs"), "-t", "puffs|trace|perfuse"]
    argv += ["-o", f"trace={tmp_path / 'trace'}", f"bindfs {tree}", str(point)]
    done = run(argv)
    try:
        assert (done.status, done.stderr) == (0, "")
        assert mounted_type(point) == "fuse.puffs|trace|perfuse"
        check_tree(point)
        change_tree(point)
        unmount(point)
    finally:
        unmount_by_force(point)
    check_changed(tree)
    assert wait_until(lambda: not serving(str(tree)), 20)
    assert (tmp_path / "trace").stat().st_size > 1000


def test_an_element_that_is_to_be_read_only(tree: Path, point: Path) -> None:
    """What the program says to mount(2) counts, on the host and where there is none."""
    need("bindfs", "bindfs")
    argv = [*python_command("mount_puffs"), "-t", "puffs|perfuse"]
    done = run([*argv, f"bindfs -o ro,default_permissions {tree}", str(point)])
    try:
        assert (done.status, done.stderr) == (0, "")
        (line,) = [line for line in all_mounts() if line.mount_point == str(point)]
        assert line.options.split(",")[0] == "ro"
        assert ",default_permissions" in line.super_options
        check_tree(point)
        with pytest.raises(OSError, match="Read-only"):
            (point / "hello").write_text("other")
        unmount(point)
    finally:
        unmount_by_force(point)
    check_tree(tree)
    assert wait_until(lambda: not serving(str(tree)), 20)

    async def check() -> None:
        async with program_below(Ground(f"bindfs -o ro {tree}", False, {})) as server:
            root = server.kargs.root.cookie
            found = await server.lookup(root, lookup_cn(b"hello", CRED))
            for attempt in (
                server.open(found.cookie, FREAD | FWRITE, CRED),
                server.setattr(found.cookie, Vattr(mode=0o600), CRED),
                server.mkdir(root, lookup_cn(b"new", CRED, NameiOp.CREATE), Vattr(mode=0o755)),
                server.remove(root, found.cookie, lookup_cn(b"hello", CRED, NameiOp.DELETE)),
            ):
                with pytest.raises(VfsError) as caught:
                    await attempt
                assert caught.value.errno == errno.EROFS
            await server.open(found.cookie, FREAD, CRED)
            assert await server.read(found.cookie, 0, 100, 0, CRED) == b"hello, world\n"
            server.close(found.cookie, FREAD, CRED)
            server.reclaim(found.cookie, 1)
            await server.unmount(0)

    trio.run(check)
    check_tree(tree)


def test_an_element_that_does_not_start(point: Path) -> None:
    need("bindfs", "bindfs")
    argv = [*python_command("mount_puffs"), "-t", "puffs|perfuse"]
    alone = run(["bindfs", "/nonexistent", str(point)])
    below = run([*argv, "bindfs /nonexistent", str(point)])
    assert (below.status, below.stderr) == (alone.status, alone.stderr)
    for special, text in (
        ("no-such-program x", "no-such-program: no such command in PATH; check its spelling"),
        ("bindfs '", "'bindfs '' is no command line: No closing quotation"),
        (" ", "perfuse needs the command line of a FUSE program, as in 'bindfs /pub'"),
        ("true", "true ended without mounting anything; it must be a FUSE program"),
    ):
        assert run([*argv, special, str(point)]).stderr == f"mount_puffs: {text}\n"


def test_a_server_that_hangs_is_killed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, it hears neither DESTROY nor SIGTERM nor the end of its session."""
    need("bindfs", "bindfs")
    monkeypatch.setattr("syspuffs.layers.perfuse.server._LAST_SECONDS", 0.1)
    for name in ("_TERM_SECONDS", "_LEAVE_SECONDS"):
        monkeypatch.setattr(f"syspuffs.gateway.capture.program.{name}", 0.1)

    async def check() -> None:
        async with program_below(Ground(f"bindfs {tree}", False, {})) as server:
            (program,) = serving(str(tree))
            os.kill(program, signal.SIGSTOP)
            with trio.fail_after(5):
                await server.unmount(0)
        assert not serving(str(tree))

    trio.run(check)


def test_nothing_is_said_at_the_end(tree: Path, point: Path) -> None:
    """Who unmounts by umount2(2) or fusermount hears that it has worked."""
    need("bindfs", "bindfs")
    with mounted(["bindfs", "-f", str(tree), str(point)], point, "bindfs", stays=True):
        check_tree(point)
    assert (point.parent / "said").read_text() == ""


AS_A_USER = """
set -e
cd "$1"; shift
"$@"
grep -c "mnt fuse.puffs|p2k|puffs|perfuse|" /proc/self/mounts
cp tree/folder/big mnt/new
mv mnt/new mnt/moved
cmp tree/folder/big mnt/moved
cat mnt/hello
rm mnt/moved
fusermount3 -u mnt
"""


@contextmanager
def users_place() -> Iterator[Path]:
    """A directory with a tree and a mount point that belong to nobody."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        for directory in ("stage", "tree", "mnt"):
            (place / directory).mkdir()
        make_tree(place / "tree")
        for path in (place / "mnt", place / "tree", *(place / "tree").rglob("*")):
            os.chown(path, 65534, 65534)
        yield place


def check_as_user(place: Path, script: str, program: Sequence[str]) -> None:
    """Run a script as nobody, with the arguments that mount by `program`; it finds all right."""
    argv = [*for_everybody(place / "stage"), "setpriv", "--reuid=65534", "--regid=65534"]
    argv += ["--clear-groups", "sh", "-c", script, "sh", str(place)]
    done = run([*argv, *python_command("syspuffs"), *program, str(place / "mnt")])
    assert (done.status, done.stdout) == (0, "1\nhello, world\n"), done.stderr
    assert done.stderr == ""
    assert wait_until(lambda: not serving(str(place / "mnt")), 20)


@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests here run as a user then")
@pytest.mark.parametrize("options", [[], ["-o", "auto_unmount"]])
def test_as_an_ordinary_user(options: list[str]) -> None:
    """By mount(2), and by fusermount, which auto_unmount needs."""
    need("bindfs", "bindfs")
    with users_place() as place:
        program = ["bindfs", "--no-allow-other", *options, str(place / "tree")]
        check_as_user(place, AS_A_USER, program)


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody's image is made by root")
def test_ntfs_3g_as_an_ordinary_user() -> None:
    """Its set-user-id bit counts for nothing where it runs, and it needs it for nothing."""
    need("ntfs-3g", "ntfs-3g")
    with users_place() as place:
        image = place / "image"
        with image.open("wb") as file:
            file.truncate(32 << 20)
        assert run(["mkntfs", "-q", "-F", str(image)]).status == 0
        os.chown(image, 65534, 65534)
        script = AS_A_USER.replace("cat mnt/hello", "cp tree/hello mnt; cat mnt/hello")
        # Without no_def_opts it asks for allow_other.
        check_as_user(place, script, ["ntfs-3g", "-o", "no_def_opts", str(image)])
        assert run(["ntfsfix", "-n", str(image)]).status == 0


def test_a_program_that_dies_harms_nobody(tree: Path, point: Path) -> None:
    need("bindfs", "bindfs")
    command = [*python_command("syspuffs"), "-f", "--", "bindfs", "-f", str(tree), str(point)]
    with (point.parent / "said").open("w+b") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        assert wait_until(lambda: mounted_type(point) is not None)
        assert wait_until(lambda: (point / "hello").exists())
        (program,) = children(process.pid)
        os.kill(program, signal.SIGKILL)
        assert process.wait(30) != 0
    assert mounted_type(point) is None


def test_a_program_that_fails_tells_why(point: Path) -> None:
    need("bindfs", "bindfs")
    alone = run(["bindfs", "/nonexistent", str(point)])
    under = run([*python_command("syspuffs"), "bindfs", "/nonexistent", str(point)])
    assert (under.status, under.stderr) == (alone.status, alone.stderr)


def test_what_keeps_us_from_mounting_is_told_to_the_program(tree: Path, point: Path) -> None:
    need("bindfs", "bindfs")
    argv = [*python_command("syspuffs"), "bindfs", str(tree), str(point)]
    with mounted(["bindfs", str(tree), str(point)], point, "bindfs"):
        got = run([*argv, "-o", "nonempty"])
        assert got.status == 1
        assert "something is mounted there already" in got.stderr
