"""The control socket against those who mean no good, and the directory in which it lies."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from syspuffs.gateway.control import client, places, protocol
from syspuffs.gateway.control.elements import trace
from syspuffs.gateway.control.places import is_safe, own_directory, short_name
from syspuffs.gateway.control.server import Living, serve_control

from .stacks import nested


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "syspuffs"


@asynccontextmanager
async def serving(runtime: Path) -> AsyncIterator[Living]:
    async with nested() as top, trio.open_nursery() as nursery:
        living = Living("/mnt", top, nursery, "test")
        nursery.start_soon(serve_control, living)
        with trio.fail_after(5):
            while not (runtime / str(os.getpid())).exists():
                await trio.lowlevel.checkpoint()
        yield living
        nursery.cancel_scope.cancel()


async def connected(runtime: Path) -> trio.SocketStream:
    with short_name(runtime / str(os.getpid())) as name:
        found = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await found.connect(name)
    return trio.SocketStream(found)


async def say(stream: trio.SocketStream, line: bytes) -> Any:
    """Return the answer to a line, None if the connection was closed."""
    with trio.fail_after(5):
        await stream.send_all(line)
        answer = b""
        while not answer.endswith(b"\n"):
            more = await stream.receive_some()
            if not more:
                return None
            answer += more
    return json.loads(answer)


async def test_answers_come_in_turns_on_one_connection(runtime: Path) -> None:
    async with serving(runtime), await connected(runtime) as stream:
        line = protocol.encode_question("list", {})
        assert (await say(stream, line))["result"]["type"] == "puffs|p2k|puffs|p2k|tmpfs"
        await stream.send_all(line * 3)  # at once
        answers = b""
        while answers.count(b"\n") < 3:
            answers += await stream.receive_some()
        assert answers.count(b'"error"') == 0
    assert not (runtime / str(os.getpid())).exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"\n", "no question"),
        (b"null\n", "no question"),
        (b'{"ask": "list", "v": 2}\n', "version 2 is asked for, version 1 is spoken here"),
        (b'{"ask": "nosuch"}\n', "knows no 'nosuch'"),
        (b'{"ask": "list", "args": {"x": 1}}\n', "unknown field"),
        (b'{"ask": "list", "more": 1}\n', "unknown field"),
        (b'{"ask": "vnodes", "args": {"limit": 1000000000}}\n', "limit"),
        (b'{"ask": "vnodes", "args": {"limit": "5"}}\n', "limit"),
        (b'{"ask": "forget", "args": {"path": "\xff"}}\n', "no question"),
        (b'{"ask": "insert", "args": {"name": "null", "place": "\\u0000|HERE"}}\n', "no place"),
        (b"[" * 60000 + b"\n", "no question"),
        (b'{"ask": "faults", "args": {"add": {"op": "read", "errno": "1"}}}\n', "'1' is no error"),
        (b'{"ask": "faults", "args": {"load": "= ="}}\n', "line 1"),
    ],
)
async def test_nonsense_is_answered(runtime: Path, line: bytes, said: str) -> None:
    async with serving(runtime), await connected(runtime) as stream:
        assert said in (await say(stream, line))["error"]
        # And the connection goes on, with nothing changed.
        answer = await say(stream, protocol.encode_question("list", {}))
        assert answer["result"]["type"] == "puffs|p2k|puffs|p2k|tmpfs"


async def test_a_line_without_an_end_is_the_end(runtime: Path) -> None:
    async with serving(runtime), await connected(runtime) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            assert await say(stream, b"x" * (2 * protocol.QUESTION_MAX)) is None
        async with await connected(runtime) as other:
            assert "result" in await say(other, protocol.encode_question("list", {}))


async def test_octets_by_chance(runtime: Path) -> None:
    chance = random.Random(5)
    good = protocol.encode_question("vnodes", {"limit": 5})
    async with serving(runtime):
        for _ in range(200):
            line = bytearray(good)
            for _ in range(chance.randrange(1, 4)):
                line[chance.randrange(len(line) - 1)] = chance.randrange(256)
            async with await connected(runtime) as stream:
                with trio.fail_after(5):
                    await stream.send_all(line)
                    assert (await stream.receive_some()).endswith(b"\n")


async def test_who_only_connects_keeps_nobody_out_for_ever(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syspuffs.gateway.control.server._IDLE_SECONDS", 0.3)
    async with serving(runtime):
        silent = [await connected(runtime) for _ in range(20)]
        async with await connected(runtime) as stream:
            assert "result" in await say(stream, protocol.encode_question("list", {}))
        for one in silent:
            await one.aclose()


async def test_what_was_made_for_who_asks_goes_with_him(runtime: Path) -> None:
    async with serving(runtime) as living:
        async with await connected(runtime) as stream:
            assert len((await say(stream, protocol.encode_question("measure", {})))["result"]) == 4
            (kind,) = [(await say(stream, protocol.encode_question("list", {})))["result"]["type"]]
            assert kind == "puffs|meter|p2k|puffs|meter|p2k|tmpfs"
        with trio.fail_after(5):
            while trace(living.end) != "p2k|puffs|p2k|tmpfs":
                await trio.lowlevel.checkpoint()


_AS_NOBODY = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    s.settimeout(5)
    s.sendall(b'{"ask": "list"}\\n')
    print(s.recv(100))
except OSError as exc:
    print(type(exc).__name__)
"""


@contextmanager
def passable(*directories: Path) -> Iterator[None]:
    """Let everybody through these directories for a while."""
    modes = [stat.S_IMODE(one.stat().st_mode) for one in directories]
    for one in directories:
        one.chmod(0o711)
    try:
        yield
    finally:
        for one, mode in zip(directories, modes, strict=True):
            one.chmod(mode)


def _own_parents(path: Path) -> list[Path]:
    """Return the directories that lead to a test's own and are nobody else's."""
    return [parent for parent in path.parents if parent.stat().st_mode & 0o077 == 0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.logs("user 65534 asks about /mnt and gets no answer")
async def test_nobody_else_may_ask(runtime: Path, tmp_path: Path) -> None:
    async with serving(runtime):
        path = runtime / str(os.getpid())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
        command = [sys.executable, "-I", "-S", "-c", _AS_NOBODY, str(path)]
        done = await trio.run_process(command, capture_stdout=True, cwd="/")
        assert done.stdout == b"PermissionError\n"
        # Also if the modes were wrong: the kernel says who has connected.
        path.chmod(0o777)
        # The directories of all tests are closed again: others look whether theirs is safe.
        with passable(runtime, tmp_path, *_own_parents(tmp_path)):
            done = await trio.run_process(command, capture_stdout=True, cwd="/")
        assert b"result" not in done.stdout
        assert b"Permission" not in done.stdout


def test_directories_of_others_are_not_used(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own_directory() == runtime
    runtime.chmod(0o777)
    assert not is_safe(runtime, os.geteuid())
    assert own_directory() != runtime
    runtime.rmdir()
    (tmp_path / "elsewhere").mkdir()
    runtime.symlink_to(tmp_path / "elsewhere")
    assert not is_safe(runtime, os.geteuid())
    assert runtime not in places.directories()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert own_directory().is_absolute()


def test_long_paths_of_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert own_directory() == deep / "syspuffs"
    with socket.socket(socket.AF_UNIX) as listener, short_name(deep / "syspuffs/1") as name:
        listener.bind(name)
    assert (deep / "syspuffs/1").is_socket()


def test_a_socket_that_says_nonsense_is_named(runtime: Path) -> None:
    runtime.mkdir(mode=0o700)
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen();"
        "print(flush=True); c,_=s.accept(); c.recv(999); c.sendall(b'what?\\n'); c.recv(9)"
    )
    path = runtime / str(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (found,) = [one for one in client.mounts() if one.path == path]
        assert found.error == "what answers on the control socket is no mount of ours"
    path.unlink()


@pytest.mark.logs("there is no control socket for /mnt: ")
async def test_a_mount_without_a_place_for_its_socket_lives_on(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise PermissionError("no directory")

    monkeypatch.setattr("syspuffs.gateway.control.server.own_directory", nowhere)
    async with nested() as top, trio.open_nursery() as nursery:
        await serve_control(Living("/mnt", top, nursery, "test"))
        assert top.requests() == []
