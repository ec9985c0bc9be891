"""puffs_sftpd as a whole, with OpenSSH's clients: starts, reloads, stops, and bad weather."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
import trio

from syspuffs.native import sftp

from ..gateway.sftp.harness import MAKE, StatusReply, Wire
from ..support.interpreter import for_everybody
from ..support.leaks import children, command_line, descendants
from ..support.sftpd import HOST, PATIENCE, Daemon, tree, user
from ..support.sshd import find_sftp_server

pytestmark = [pytest.mark.sshd, pytest.mark.slow]

ALICE = user("alice")
BOB = user("bob")


def remote(name: str, directory: Path, *options: str, path: str = "/") -> str:
    """Return a tree of this machine, served by OpenSSH's SFTP server."""
    word = f"sftp_server={find_sftp_server()}"
    return tree(name, "psshfs", f":{directory}", word, *options, path=path)


async def ended(wire: Wire) -> None:
    """Check that the session of a client ends."""
    with trio.fail_after(PATIENCE):
        try:
            while True:
                await wire.reply()
        except (EOFError, trio.BrokenResourceError):
            pass


def test_trees_under_one_root_and_rules(tmp_path: Path) -> None:
    (tmp_path / "pub/deep").mkdir(parents=True)
    (tmp_path / "pub/deep/file").write_text("published")
    (tmp_path / "pub/.secret").write_text("hidden")
    trees = remote("alice", tmp_path / "pub", path="/pub") + "readonly = true\n"
    trees += tree("alice", "p2k|tmpfs", "none", path="/in/alice")
    trees += '[[users.alice.rules]]\npath = "/in/alice/new"\nallow = ["create", "mkdir"]\n'
    trees += 'deny = ["overwrite", "append", "delete"]\n'
    lines = 'start = "/in/alice"', 'hidden = [".*"]', 'quota.bytes = "64K"', 'umask = "027"'
    with Daemon(tmp_path / "d", user("alice", *lines, trees=trees)) as daemon:
        (daemon.directory / "small").write_bytes(bytes(1000))
        (daemon.directory / "large").write_bytes(bytes(100_000))
        said = daemon.sftp(
            "alice",
            "pwd",
            "put small",
            "mkdir new",
            "put small new/once",
            "-put small new/once",
            "-rm new/once",
            "-put large",
            "-rename small /pub/small",
            "-get /pub/.secret",
            "-put small /pub/small",
            "get /pub/deep/file",
            "ls -la",
            "ls /",
            "ls -a /pub",
        )
        assert "Remote working directory: /in/alice\n" in said
        assert 'dest open "/in/alice/new/once": Permission denied' in said
        assert "remote delete /in/alice/new/once: Permission denied" in said
        assert 'write remote "/in/alice/large": Failure' in said
        assert 'dest open "/pub/small": Permission denied' in said
        assert "-rw-r-----" in said
        assert ".secret" not in said.split("ls -a /pub")[1]
        assert (daemon.directory / "file").read_text() == "published"
        assert not (daemon.directory / ".secret").exists()
    assert sorted(os.listdir(tmp_path / "pub")) == [".secret", "deep"]


def test_nothing_but_sftp(tmp_path: Path) -> None:
    with Daemon(tmp_path / "d", ALICE) as daemon:
        for words in ([HOST, "id"], [HOST], ["-s", HOST, "shell"], ["-W", "127.0.0.1:1", HOST]):
            done = subprocess.run(
                daemon.ssh("alice", *words),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode != 0
            assert done.stdout == b""
        assert "hello" in daemon.sftp("alice", "mkdir hello", "ls")


async def test_a_reload_drops_nobody(tmp_path: Path) -> None:
    with Daemon(tmp_path / "d", ALICE) as daemon:
        daemon.sftp("bob", "pwd", status=255)
        async with daemon.session("alice") as old:
            await old.put(b"/f", b"before")
            readonly = user("alice", "readonly = true")
            await trio.to_thread.run_sync(daemon.reload, readonly + BOB)
            await old.put(b"/g", b"after")
            async with daemon.session("alice") as new, daemon.session("bob") as bob:
                with pytest.raises(StatusReply):
                    await new.put(b"/g", b"x")
                await bob.put(b"/g", b"x")
            await old.put(b"/h", b"still there")
            async with daemon.session("bob") as bob:
                await trio.to_thread.run_sync(daemon.reload, readonly)
                await ended(bob)
            await old.put(b"/h", b"still there")
        daemon.sftp("bob", "pwd", status=255)


async def test_a_wrong_reload_changes_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path / "d", ALICE) as daemon:
        daemon.expect("nothing was changed: the configuration is wrong:")
        daemon.expect(r"gateway.toml:\d+: users.alice.quota.bytes: '10Q' is no size")
        daemon.expect(r"gateway.toml:\d+: users.alice.idel: there is no such key")
        async with daemon.session("alice") as old:
            daemon.configure(user("alice", "quota.bytes = '10Q'", "idel = 3") + BOB)
            daemon.signal(signal.SIGHUP)
            await trio.to_thread.run_sync(daemon.wait_said, "did you mean 'idle'")
            await old.put(b"/f", b"x")
            daemon.file.unlink()
            daemon.expect(r"nothing was changed|gateway.toml: No such file")
            daemon.signal(signal.SIGHUP)
            await trio.to_thread.run_sync(daemon.wait_said, "gateway.toml: No such file")
            async with daemon.session("alice") as new:
                assert await new.get(b"/f") == b"x"
        daemon.sftp("bob", "pwd", status=255)


async def test_a_killed_ssh_process_takes_its_sessions_only(tmp_path: Path) -> None:
    with Daemon(tmp_path / "d", ALICE) as daemon:
        daemon.expect("SSH process")
        async with daemon.session("alice") as wire:
            await wire.put(b"/f", b"x")
            (worker,) = children(daemon.pid)
            os.kill(worker, signal.SIGKILL)
            await ended(wire)
        async with daemon.session("alice") as wire:
            assert await wire.get(b"/f") == b"x"


async def test_a_tree_that_hangs_or_dies_is_nobody_elses_business(tmp_path: Path) -> None:
    (tmp_path / "pub").mkdir()
    (tmp_path / "pub/f").write_bytes(b"x")
    words = "request_timeout=1", "no_reconnect"
    users = user("alice", trees=remote("alice", tmp_path / "pub", *words)) + BOB
    with Daemon(tmp_path / "d", users) as daemon:
        daemon.expect("account alice: tree /: ")
        daemon.expect("SFTP connection lost")
        async with daemon.session("bob") as bob:
            for number in (signal.SIGSTOP, signal.SIGKILL):
                async with daemon.session("alice") as alice:
                    assert await alice.get(b"/f") == b"x"
                    servers = [
                        pid for pid in descendants(daemon.pid) if "sftp-server" in command_line(pid)
                    ]
                    os.kill(servers[-1], number)  # the last one may be on its way out
                    await alice.send(opens(alice))
                    await bob.put(b"/f", b"y")
                    await ended(alice)
            assert await bob.get(b"/f") == b"y"


async def test_a_session_outlives_the_server_of_its_tree(tmp_path: Path) -> None:
    (tmp_path / "pub").mkdir()
    (tmp_path / "pub/f").write_bytes(b"x")
    users = user("alice", trees=remote("alice", tmp_path / "pub"))
    with Daemon(tmp_path / "d", users) as daemon:
        daemon.expect("SFTP connection lost|connected again at attempt 1")
        async with daemon.session("alice") as alice:
            assert await alice.get(b"/f") == b"x"
            (server,) = (
                pid for pid in descendants(daemon.pid) if "sftp-server" in command_line(pid)
            )
            os.kill(server, signal.SIGKILL)
            await alice.put(b"/g", b"y")
            assert await alice.get(b"/g") == b"y"


def opens(wire: Wire) -> bytes:
    return sftp.open_(wire.number(), b"/f", sftp.FXF_READ, sftp.Attrs())


async def test_ten_sessions_of_one_account(tmp_path: Path) -> None:
    async def work(number: int) -> None:
        async with daemon.session("alice") as wire:
            data = bytes([number]) * 100_000
            await wire.put(b"/%d" % number, data)
            assert await wire.get(b"/%d" % number) == data

    with Daemon(tmp_path / "d", ALICE) as daemon:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(work, number)
        assert daemon.said().count("its trees are there") == 1
        assert len(daemon.sftp("alice", "ls -1").split()) >= 10


async def test_limits_of_an_account(tmp_path: Path) -> None:
    lines = "sessions = 1", "idle = '300ms'"
    with Daemon(tmp_path / "d", user("alice", *lines)) as daemon:
        daemon.expect("refused: 1 sessions of this account are open already")
        async with daemon.session("alice") as wire:
            done = await trio.run_process(
                daemon.ssh("alice"), stdin=b"", capture_stderr=True, check=False
            )
            assert b"1 sessions of this account are open already" in done.stderr
            await ended(wire)
        assert "closed (idle for 0.3 s)" in daemon.said()


async def test_the_end_writes_everything_out(tmp_path: Path) -> None:
    (tmp_path / "pub").mkdir()
    trees = remote("alice", tmp_path / "pub", "write_behind=8M")
    with Daemon(tmp_path / "d", user("alice", trees=trees), top="stop = '100ms'") as daemon:
        async with daemon.session("alice") as wire:
            handle = await wire.open(b"/f", MAKE)
            for at in range(0, 2_000_000, 200_000):
                await wire.write(handle, at, bytes(200_000))
            await trio.to_thread.run_sync(daemon.stop)
            await ended(wire)
    assert (tmp_path / "pub/f").read_bytes() == bytes(2_000_000)


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with Daemon(tmp_path / "d", ALICE) as daemon:
            daemon.reload(ALICE + BOB)
        listener.setblocking(False)
        while True:
            try:
                heard += listener.recv(4096).decode().splitlines()
            except BlockingIOError:
                break
    states = [line for line in heard if not line.startswith(("STATUS=", "MONOTONIC_USEC="))]
    assert states == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert "STATUS=serving 2 accounts" in heard


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_somebody_else() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        for directory, mode in (("pub", 0o777), ("stage", 0o755)):
            (place / directory).mkdir()
            (place / directory).chmod(mode)
        trees = remote("alice", place / "pub", path="/far")
        trees += tree("alice", "local", str(place / "pub"), path="/near")
        daemon = Daemon(
            place / "d",
            user("alice", trees=trees),
            before=for_everybody(place / "stage"),
            run_as="nobody",
        )
        with daemon:
            daemon.sftp(
                "alice", "mkdir far/made", "put keys near/made/keys", "get near/made/keys back"
            )
            for pid in (daemon.pid, *descendants(daemon.pid)):
                state = Path(f"/proc/{pid}/status").read_text()
                assert "Uid:\t65534\t65534\t65534\t65534\n" in state
                assert "Groups:\t65534 \n" in state or "Groups:\t \n" in state
                assert "NoNewPrivs:\t1\n" in state
                assert "CapPrm:\t0000000000000000\n" in state
        assert (place / "pub/made/keys").stat().st_uid == 65534
