"""puffsctl on real mounts: what it finds, what it says, and that nobody else may ask."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import pyte
import pytest

from syspuffs.bin.puffsctl import main
from syspuffs.gateway.control.client import Connection, mount_at
from syspuffs.layers.trace import events

from ..support.leaks import children, command_line, descendants, fuse_mounts
from ..support.mounts import Outcome, python_command, run, unmount, wait_until
from ..support.sshd import find_sftp_server

pytestmark = pytest.mark.fuse

PUFFSCTL = python_command("puffsctl")
SYSPUFFS = python_command("syspuffs")
MOUNT_PUFFS = python_command("mount_puffs")


@pytest.fixture(autouse=True)
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own: mounts of other tests are none of its business."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return runtime / "syspuffs"


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    if str(path) in fuse_mounts():
        unmount(path)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    path = tmp_path / "origin"
    path.mkdir()
    return path


def mount(point: Path, stack: str, special: str, *words: str, wrapper: bool = False) -> None:
    options = [part for word in (*words, f"log={point.parent}/log") for part in ("-o", word)]
    prefix = SYSPUFFS if wrapper else []
    got = run([*prefix, *MOUNT_PUFFS, "-t", stack, *options, special, str(point)])
    assert (got.status, got.stderr) == (0, "")


def mount_psshfs(point: Path, origin: Path, stack: str, **kwargs: bool) -> None:
    # On a busy machine the server may seem far: nothing is to be under way that nobody asks for.
    words = f"sftp_server={find_sftp_server()},prefetch=0"
    mount(point, stack, f":{origin}", words, **kwargs)


def puffsctl(*arguments: str) -> Outcome:
    """Run puffsctl, in this process: it is asked often, and to start Python takes longest."""
    out, err = io.StringIO(), io.StringIO()
    begun = time.monotonic()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(arguments)
    return Outcome(status, out.getvalue(), err.getvalue(), time.monotonic() - begun)


def ask(*arguments: str) -> Any:
    """Return what puffsctl says for programs."""
    got = puffsctl(*arguments, "--json")
    assert (got.status, got.stderr) == (0, "")
    return json.loads(got.stdout)


def ours(found: list[dict[str, Any]], point: Path) -> list[dict[str, Any]]:
    return [one for one in found if one.get("mountpoint") == str(point)]


def test_list_and_status_say_what_is_mounted(point: Path, origin: Path, sockets: Path) -> None:
    mount_psshfs(point, origin, "puffs|p2k|puffs|psshfs")
    (one,) = ours(ask("list"), point)
    assert one["type"] == "puffs|p2k|puffs|psshfs"
    assert one["special"] == f":{origin}"
    assert one["uid"] == os.geteuid()
    (socket,) = sockets.iterdir()
    assert socket.name == str(one["pid"])
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700

    with open(point / "file", "w"):  # held, so that the host does not forget it
        (status,) = ask("status", str(point))
    assert [layer["name"] for layer in status["layers"]] == ["puffs", "p2k", "puffs", "psshfs"]
    host, _, frames, psshfs = status["layers"]
    assert host["statistics"]["nodes"] == 2
    assert frames["statistics"]["requests"]["create"] == 1
    assert psshfs["options"]["request_timeout"] == 120.0
    assert psshfs["statistics"]["connection"]["requests"] > 3
    before = psshfs["statistics"]["caches"]
    os.listdir(point)
    assert not (point / "nothing").exists()  # as the listing says
    after = ask("status", str(point))[0]["layers"][3]["statistics"]["caches"]
    assert after["names"]["hits"] > before["names"]["hits"]
    assert after["listings"]["misses"] == before["listings"]["misses"] + 1

    unmount(point)
    assert wait_until(lambda: not list(sockets.iterdir()))


def test_the_current_directory_and_paths_name_the_mount(point: Path) -> None:
    mount(point, "puffs|p2k|tmpfs", "none")
    (point / "a/b").mkdir(parents=True)
    for arguments, cwd in (((), point / "a/b"), ((str(point / "a"),), point.parent)):
        got = run([*PUFFSCTL, "status", *arguments], cwd=cwd)
        assert (got.status, got.stderr) == (0, "")
        assert got.stdout.startswith(f"none on {point} type puffs|p2k|tmpfs\n")
    linked = point.parent / "link"
    linked.symlink_to(point.parent)
    assert len(ask("status", str(linked / "mnt"))) == 1


def test_each_process_of_a_stack_says_its_part(point: Path, origin: Path) -> None:
    mount_psshfs(point, origin, "puffs|psshfs", wrapper=True)
    top, below = ask("status", str(point))
    assert (top["type"], below["type"]) == ("puffs|p2k|puffs|psshfs", "psshfs")
    assert (top["part"], below["part"]) == (False, True)
    assert [layer["name"] for layer in below["layers"]] == ["frames", "psshfs"]

    # A place is looked for in all of them, and so are requests under way.
    got = puffsctl("layer", "insert", "-m", str(point), "null", "HERE|psshfs")
    assert (got.status, got.stdout) == (0, "null|psshfs\n")
    with stopped(point):
        reader = subprocess.Popen(["ls", point / "x"], stderr=subprocess.DEVNULL)
        assert wait_until(lambda: ask("inflight", str(point))[1]["count"] == 1)
        above, beneath = (answer["requests"][0] for answer in ask("inflight", str(point)))
    reader.wait(10)
    assert (above["element"], above["path"], above["pid"]) == ("puffs", "/x", reader.pid)
    assert (beneath["element"], beneath["operation"]) == ("psshfs", "lookup")
    assert beneath["path"].endswith("/x")
    got = puffsctl("layer", "remove", "-m", str(point), "null")
    assert (got.status, got.stdout) == (0, "psshfs\n")


def test_no_mount_there(point: Path) -> None:
    got = puffsctl("status", str(point))
    assert (got.status, got.stdout) == (40, "")
    assert got.stderr.startswith(f"puffsctl: {point}: no mount of ours is there")


@contextmanager
def stopped(point: Path) -> Iterator[None]:
    """Stop the server below a mount by sftp_server for the time of a block."""
    below = {pid for one in ours(ask("list"), point) for pid in descendants(one["pid"])}
    (server,) = [pid for pid in below if command_line(pid).startswith(str(find_sftp_server()))]
    os.kill(server, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server, signal.SIGCONT)


READ_ONLY = ("list", "status", "inflight", "vnodes", "buffers", "locks", "metrics", "measure")


def test_a_silent_server_keeps_no_answer_waiting(point: Path, origin: Path) -> None:
    (origin / "file").write_text("x")
    mount_psshfs(point, origin, "puffs|p2k|puffs|psshfs")
    with stopped(point):
        reader = subprocess.Popen(["cat", point / "file"], stdout=subprocess.DEVNULL)
        assert wait_until(lambda: ask("inflight", str(point))[0]["count"] == 1)
        (found,) = mount_at(str(point))
        for command in READ_ONLY:
            begun = time.monotonic()
            with Connection(found.path) as connection:
                connection.ask(command)
            assert time.monotonic() - begun < 1.0, command
        ((waiting,),) = [answer["requests"] for answer in ask("inflight", str(point))]
        locks = ask("locks", str(point))[0]["vnodes"]
    assert reader.wait(10) == 0
    assert (waiting["operation"], waiting["path"]) == ("lookup", "/file")
    assert (waiting["pid"], waiting["command"], waiting["uid"]) == (reader.pid, "cat", 0)
    assert (waiting["layer"], waiting["element"]) == (3, "psshfs")
    assert waiting["where"].startswith("layers.psshfs.")
    assert 0 < waiting["seconds"] < 60
    # The lookup has the root locked, and that it is said to be its holder is a guess that is right.
    assert [(one["path"], one["held"]) for one in locks] == [("/", "shared 1")]
    assert locks[0]["users"] == [{"operation": "lookup", "pid": reader.pid}]
    assert ask("inflight", str(point))[0]["count"] == 0


def test_layers_come_and_go(point: Path, origin: Path, tmp_path: Path) -> None:
    mount_psshfs(point, origin, "puffs|p2k|puffs|psshfs")

    def ctl(*arguments: str) -> str:
        got = puffsctl(*arguments)
        assert (got.status, got.stderr) == (0, ""), arguments
        return got.stdout.rstrip("\n")

    at = ("-m", str(point))
    file = tmp_path / "a,trace"
    assert ctl("trace", "start", *at, str(file)) == "trace|p2k|puffs|psshfs"
    assert ctl("trace", "start", *at, "--place", "HERE|psshfs", str(file))
    assert ours(ask("list"), point)[0]["type"] == "puffs|trace|p2k|puffs|trace|psshfs"
    (point / "seen").write_text("x")
    got = puffsctl("trace", "stop", *at)
    assert got.status == 1
    assert "say which" in got.stderr
    assert ctl("trace", "stop", *at, "--place", "puffs|HERE|p2k") == "p2k|puffs|trace|psshfs"
    assert ctl("trace", "stop", *at) == "p2k|puffs|psshfs"
    (point / "unseen").write_text("x")
    found = [event for event in events(file) if event.name == "create"]
    assert sorted((event.layer, event.path) for event in found) == [(0, b"/seen"), (1, b"/seen")]

    ctl("fault", "add", *at, "op=create", "errno=ENOSPC", "name=full", "path=/no*")
    with pytest.raises(OSError, match="No space left"):
        (point / "nothing").write_text("x")
    (point / "something").write_text("x")
    (rule,) = ask("fault", "list", *at)
    assert (rule["name"], rule["taken"]) == ("full", 1)
    assert rule["rule"] == {"op": ["create"], "errno": "ENOSPC", "path": "/no*"}
    got = puffsctl("fault", "add", *at, "errno=ENOTHING")
    assert (got.status, "ENOTHING" in got.stderr) == (1, True)
    got = puffsctl("fault", "add", *at, "op=read", "errno=EIO", "place=sftp")
    assert (got.status, "-o faults=FILE" in got.stderr) == (1, True)

    # A request that hangs, and is let go.
    ctl("fault", "add", *at, "op=create", "hang=true", "name=hangs")
    maker = subprocess.Popen(["touch", point / "late"])
    assert wait_until(lambda: ask("fault", "list", *at)[1]["hanging"] == 1)
    ((waiting,),) = [answer["requests"] for answer in ask("inflight", str(point))]
    assert (waiting["element"], waiting["path"]) == ("fault", "/late")
    ctl("fault", "clear", *at)
    assert maker.wait(10) == 0
    assert ours(ask("list"), point)[0]["type"] == "puffs|p2k|puffs|psshfs"

    ctl("layer", "insert", *at, "readonly", "puffs|HERE|psshfs")
    with pytest.raises(OSError, match="Read-only"):
        (point / "nothing").write_text("x")
    ctl("layer", "remove", *at, "readonly")
    (point / "again").write_text("x")
    for arguments in (["psshfs"], ["null", "p2k|HERE"], ["null", "psshfs"], ["nulll"]):
        got = puffsctl("layer", "insert", *at, *arguments)
        assert got.status == 1, arguments
    got = puffsctl("layer", "insert", *at, "-o", "throttle_opps=1", "throttle")
    assert (got.status, "throttle_ops" in got.stderr) == (1, True)


@contextmanager
def on_a_terminal(argv: list[str], lines: int = 30, columns: int = 110) -> Iterator[Terminal]:
    """Run a command on a terminal of its own for the time of a block."""
    pid, fd = pty.fork()
    if pid == 0:
        termios.tcsetwinsize(0, (lines, columns))
        os.environ.pop("COLUMNS", None)
        os.execvpe(argv[0], argv, {**os.environ, "TERM": "xterm-256color"})
    terminal = Terminal(pid, fd, pyte.Screen(columns, lines))
    try:
        yield terminal
        terminal.read_to_end()
    finally:
        os.close(fd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


class Terminal:
    """A terminal as pyte draws it."""

    def __init__(self, pid: int, fd: int, screen: pyte.Screen) -> None:
        self.pid = pid
        self.screen = screen
        self._fd = fd
        self._stream = pyte.ByteStream(screen)

    def read_until(self, shows: Callable[[str], bool]) -> str:
        """Return what it shows as soon as that is right."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if select.select([self._fd], [], [], 0.2)[0]:
                self._stream.feed(os.read(self._fd, 65536))
            text = "\n".join(line.rstrip() for line in self.screen.display)
            if shows(text):
                return text
        raise AssertionError(text)

    def read_to_end(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody is at the other end
            while data := os.read(self._fd, 65536):
                self._stream.feed(data)

    def press(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._fd)


def test_top_on_a_terminal(point: Path, origin: Path) -> None:
    """What a person sees; the screen of the last look is kept beside the test's files."""
    (origin / "busy").write_bytes(bytes(100_000))
    mount_psshfs(point, origin, "puffs|p2k|puffs|psshfs")
    before = ours(ask("list"), point)[0]["type"]
    for leave in (b"q", b"\x03"):
        with on_a_terminal([*PUFFSCTL, "top", "--seconds", "0.3", str(point)]) as terminal:

            def shows(text: str) -> bool:
                (point / "busy").read_bytes()
                os.stat(point / "busy")
                return "/busy" in text and "3:psshfs" in text

            text = terminal.read_until(shows)
            terminal.press(leave)
        (point.parent / "screen.txt").write_text(text)
        head, sums, _, headings, *rest = text.split("\n")
        assert head == f"{point}  puffs|p2k|puffs|psshfs"
        assert " operations/s  0 errors/s  " in sums
        assert headings.split() == [
            *("LAYER", "OPERATION", "PER", "S", "ERRORS", "MB/S", "P50", "P99", "LONGEST", "BUSY")
        ]
        assert any(line.startswith("1:p2k") and " us" in line for line in rest)
    assert wait_until(lambda: ours(ask("list"), point)[0]["type"] == before)

    (once,) = ask("top", "--once", "--seconds", "0.1", str(point))
    assert [layer["name"] for layer in once["layers"]] == ["p2k", "psshfs"]
    got = puffsctl("top", str(point))
    assert (got.status, "needs a terminal" in got.stderr) == (2, True)


def test_rules_for_wires_come_to_a_mount_that_was_made_for_them(
    point: Path, origin: Path, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "never"\nplace = "sftp"\nop = "rmdir"\nerrno = "EIO"\n')
    words = [f"sftp_server={find_sftp_server()}", f"faults={rules}"]
    mount(point, "puffs|p2k|puffs|psshfs", f":{origin}", *words)
    at = ("-m", str(point))
    # The wire between the halves of the second puffs hides nothing of what is behind it.
    (status,) = ask("status", str(point))
    assert [layer["name"] for layer in status["layers"]] == ["puffs", "p2k", "puffs", "psshfs"]
    found = ask("fault", "add", *at, "place=sftp", "op=mkdir", "errno=EACCES", "name=no")
    assert [rule["name"] for rule in found] == ["never", "no"]
    with pytest.raises(PermissionError):
        (point / "dir").mkdir()
    ask("fault", "add", *at, "place=frames", "op=symlink", "errno=ENOSPC", "times=1")
    with pytest.raises(OSError, match="No space left"):
        (point / "link").symlink_to("x")
    rules.write_text('[[rule]]\nop = "create"\nerrno = "EDQUOT"\nplace = "server"\n')
    got = puffsctl("fault", "load", *at, str(rules))
    assert (got.status, "there is no place 'server'" in got.stderr) == (1, True)
    # Operations get a layer of their own.
    ask("fault", "add", *at, "--place", "HERE|psshfs", "op=create", "errno=EDQUOT")
    with pytest.raises(OSError, match="quota"):
        (point / "file").write_text("x")
    assert ask("fault", "clear", *at) == []
    (point / "dir").mkdir()
    (point / "file").write_text("x")
    assert ours(ask("list"), point)[0]["type"] == "puffs|p2k|puffs|psshfs"


def test_forget_shows_what_others_did(point: Path, origin: Path) -> None:
    (origin / "dir").mkdir()
    (origin / "dir/file").write_text("old")
    mount_psshfs(point, origin, "puffs|p2k|puffs|psshfs")
    assert (point / "dir/file").read_text() == "old"
    assert os.listdir(point / "dir") == ["file"]
    (origin / "dir/new").write_text("x")
    assert not (point / "dir/new").exists()  # for the listing holds
    got = puffsctl("forget", str(point / "dir"))
    assert (got.status, got.stderr) == (0, "")
    assert (point / "dir/new").exists()


def test_figures_on_a_port_and_a_dump_in_the_log(point: Path) -> None:
    mount(point, "puffs|p2k|tmpfs", "none", "metrics_port=0")
    (status,) = ask("status", str(point))
    address = status["notes"]["metrics"]
    assert address.startswith("http://127.0.0.1:")
    with open(point / "file", "w"):  # held, so that the host does not forget it
        page = httpx.get(address).text
    assert 'syspuffs_puffs_nodes{layer="0"} 2.0' in page
    assert 'syspuffs_p2k_kernel_vnodes{layer="1"} 2.0' in page
    got = puffsctl("metrics", str(point))
    assert got.stdout.splitlines()[0] == page.splitlines()[0]

    os.kill(status["pid"], signal.SIGUSR1)
    log = point.parent / "log"
    assert wait_until(lambda: "dump: layer 2 tmpfs" in log.read_text())
    assert "type puffs|p2k|tmpfs, 0 requests under way" in log.read_text()


def test_a_port_in_use_is_said_before_anything_is_mounted(point: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = ["-t", "puffs|p2k|tmpfs", "-o", f"metrics_port={port}"]
        got = run([*MOUNT_PUFFS, *stack, "none", str(point)])
    assert got.status == 2
    assert f"'metrics_port={port}': Address already in use" in got.stderr


def as_user(uid: int, *argv: str) -> Outcome:
    """Run a command as somebody who may read the interpreter wherever it is, and nothing else."""
    cap = "+dac_read_search"
    user = [f"--reuid={uid}", "--regid=65534", "--clear-groups"]
    before = ["setpriv", *user, f"--inh-caps={cap}", f"--ambient-caps={cap}"]
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    return run([*before, *argv], env=env)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_ordinary_users_ask_about_their_own_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    place = Path(tempfile.mkdtemp(prefix="syspuffs-test-", dir="/tmp"))
    os.chown(place, 65534, 65534)
    try:
        stack = ["-t", "puffs|p2k|tmpfs", "-o", f"log={place}.log"]
        got = as_user(65534, *MOUNT_PUFFS, *stack, "none", str(place))
        assert (got.status, got.stderr) == (0, "")
        try:
            got = as_user(65534, *PUFFSCTL, "list")
            assert f"{place}  puffs|p2k|tmpfs" in got.stdout
            assert len(ask("status", str(place))) == 1  # root may
            got = as_user(65533, *PUFFSCTL, "status", str(place))
            assert (got.status, got.stdout) == (40, "")
            assert "is user 65534's; he may ask, and root" in got.stderr
        finally:
            subprocess.run(["umount", place], check=True)
        sockets = Path("/tmp/syspuffs-65534")
        assert wait_until(lambda: not sockets.exists() or not list(sockets.iterdir()))
    finally:
        place.rmdir()
        Path(f"{place}.log").unlink(missing_ok=True)


def test_the_dead_leave_nothing_behind(point: Path, sockets: Path) -> None:
    mount(point, "puffs|p2k|tmpfs", "none")
    (one,) = ours(ask("list"), point)
    os.kill(one["pid"], signal.SIGKILL)
    assert wait_until(lambda: one["pid"] in children(os.getpid()))
    os.waitpid(one["pid"], 0)
    assert [path.name for path in sockets.iterdir()] == [str(one["pid"])]
    got = puffsctl("status", str(point / "x"))
    assert (got.status, got.stdout) == (40, "")
    assert (
        f"the mount at {point} has no process that answers: if it does not work, umount"
        in got.stderr
    )
    assert list(sockets.iterdir()) == []
    subprocess.run(["umount", "-l", point], check=True)


def test_a_process_that_hangs_is_named_and_holds_up_nobody(point: Path, sockets: Path) -> None:
    mount(point, "puffs|p2k|tmpfs", "none")
    (one,) = ours(ask("list"), point)
    os.kill(one["pid"], signal.SIGSTOP)
    try:
        got = puffsctl("status", "/")
        assert got.status == 40
        assert f"process {one['pid']} does not say what it mounts" in got.stderr or (
            "there are" in got.stderr  # mounts of other tests, for root sees all
        )
        assert got.seconds < 10
        assert "does not answer within 2 s" in puffsctl("list").stdout
    finally:
        os.kill(one["pid"], signal.SIGCONT)
