"""Hooks: real commands and a real HTTP server, good and bad ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
import trio.testing

from syspuffs.gateway.audit import CommandHook, EventKind, HttpHook, events, hooks
from syspuffs.gateway.audit.events import DeliveryError, Event, EventQueue
from syspuffs.gateway.audit.hooks import queue_of
from syspuffs.gateway.audit.settings import EVERY_KIND

from .harness import WHO, wait_for


def upload(path: bytes = b"/f", **more: Any) -> Event:
    return Event(EventKind.UPLOAD, 0.0, WHO, path, octets=3, is_complete=True, **more)


@asynccontextmanager
async def running(queue: EventQueue) -> AsyncIterator[EventQueue]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        yield queue
        nursery.cancel_scope.cancel()


def script(place: Path, text: str) -> str:
    file = place / "hook"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


# Commands.


async def test_a_command_is_told_everything(tmp_path: Path) -> None:
    command = script(tmp_path, f'cat > {tmp_path}/json; env > {tmp_path}/env; echo "$@" "$PWD"')
    hook = CommandHook((command, "a b", "$c"))
    async with running(queue_of(hook)) as queue:
        rename = Event(EventKind.RENAME, 1.5, WHO, b"/a\xff b", b"/c\n")
        queue.put(rename)
        await wait_for(lambda: queue.statistics().delivered == 1)
    assert json.loads((tmp_path / "json").read_text()) == {
        "event": "rename",
        "time": "1970-01-01T00:00:01.500000Z",
        "session": "s1",
        "account": "alice",
        "source": "192.0.2.1:50222",
        "path": "/a� b",
        "path_octets": "2f61ff2062",
        "target": "/c\n",
    }
    environment = (tmp_path / "env").read_bytes()
    for wanted in (b"EVENT=rename", b"ACCOUNT=alice", b"PATH=/a\xff b", b"TARGET=/c\n\n"):
        assert b"SYSPUFFS_" + wanted in environment
    assert b"HOME=" not in environment


@pytest.mark.logs("was not told: it ended with status 3|it ended with SIGTERM|cannot be run")
async def test_commands_that_fail(tmp_path: Path) -> None:
    for text in ("exit 3", "kill -TERM $$", None):
        command = str(tmp_path / "none") if text is None else script(tmp_path, text)
        async with running(queue_of(CommandHook((command,)))) as queue:
            queue.put(upload())
            await wait_for(lambda queue=queue: queue.statistics().dead == 1)  # type: ignore[misc]


@pytest.mark.logs("it ran for 0.2 seconds and was killed")
async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    command = script(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/pid; wait")
    async with running(queue_of(CommandHook((command,), timeout_seconds=0.2))) as queue:
        queue.put(upload())
        await wait_for(lambda: queue.statistics().dead == 1)
    child = int((tmp_path / "pid").read_text())

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().split()[2] in "ZX"
        except FileNotFoundError:
            return True

    await wait_for(is_gone)


@pytest.mark.logs("no environment variable can have this path")
async def test_a_path_that_no_environment_can_have(tmp_path: Path) -> None:
    async with running(queue_of(CommandHook(("/bin/true",)))) as queue:
        queue.put(upload(b"/a\0b"))
        await wait_for(lambda: queue.statistics().dead == 1)


async def test_a_command_that_reads_nothing(tmp_path: Path) -> None:
    async with running(queue_of(CommandHook(("/bin/true",)))) as queue:
        for _ in range(5):
            queue.put(upload(b"/" + b"x" * 4000))
        await wait_for(lambda: queue.statistics().delivered == 5)


# Queues.


@pytest.mark.logs("was not told: too many events wait")
async def test_a_bound_on_what_waits_and_on_what_runs() -> None:
    at_once = most = 0
    go = trio.Event()

    async def deliver(event: Event) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await go.wait()
        at_once -= 1

    queue = EventQueue("test", EVERY_KIND, deliver, parallel=2, queue_max=3)
    async with running(queue):
        for _ in range(5):
            queue.put(upload())
            await trio.testing.wait_all_tasks_blocked()
        assert queue.statistics() == (0, 0, 5)
        queue.put(upload())
        assert queue.statistics() == (0, 1, 5)
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert queue.statistics() == (5, 1, 0)
        assert most == 2


@pytest.mark.logs("was not told: the gateway ends")
async def test_the_end_waits_a_while(autojump_clock: trio.testing.MockClock) -> None:
    async def deliver(event: Event) -> None:
        await trio.sleep(event.octets or 0)

    queue = EventQueue("test", EVERY_KIND, deliver, parallel=1, queue_max=10)
    began = trio.current_time()
    async with running(queue):
        for seconds in (1, 2, 100, 1):
            queue.put(Event(EventKind.DELETE, 0.0, WHO, b"/f", octets=seconds))
        await trio.sleep(0.5)  # in the midst of the first, which is begun once more
    assert trio.current_time() - began == pytest.approx(0.5 + events.END_SECONDS)
    assert queue.statistics() == (2, 2, 0)


@pytest.mark.logs("a fault of ours")
async def test_a_fault_of_ours_ends_nothing() -> None:
    async def deliver(event: Event) -> None:
        if event.path == b"/bad":
            raise ZeroDivisionError

    async with running(EventQueue("test", EVERY_KIND, deliver, parallel=1, queue_max=9)) as queue:
        queue.put(upload(b"/bad"))
        queue.put(upload(b"/good"))
        await trio.testing.wait_all_tasks_blocked()
        assert queue.statistics() == (1, 1, 0)


# HTTP.


class Web:
    """A server that answers with the statuses that it is told, one after the other.

    0: it closes the connection without an answer; -1: it never answers.
    """

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[dict[bytes, bytes], bytes]] = []
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            connection = h11.Connection(h11.SERVER)
            headers: dict[bytes, bytes] = {}
            body = b""
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some(65536))
                elif isinstance(event, h11.Request):
                    assert event.method == b"POST"
                    headers = dict(event.headers)
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                else:
                    break
            self.got.append((headers, body))
            status = self.statuses.pop(0)
            if status < 0:
                await trio.sleep_forever()
            if status:
                extra = [("Location", self.url + "/elsewhere")] if status == 302 else []
                answer = connection.send(
                    h11.Response(status_code=status, headers=[("Content-Length", "0"), *extra])
                )
                await stream.send_all(answer)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Web]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self.serve, [listener])
            yield self
            nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_FIRST_WAIT", 0.01)


async def test_an_address_is_posted_to() -> None:
    async with Web(204).up() as web:
        hook = HttpHook(web.url + "/hook?token=x", headers={"Authorization": "Bearer secret"})
        async with running(queue_of(hook)) as queue:
            queue.put(upload())
            await wait_for(lambda: queue.statistics().delivered == 1)
        ((headers, body),) = web.got
        assert headers[b"content-type"] == b"application/json"
        assert headers[b"authorization"] == b"Bearer secret"
        assert json.loads(body)["path"] == "/f"
        assert "token" not in queue.name


async def test_what_may_work_later_is_tried_again() -> None:
    async with Web(500, 429, 0, 503, 200).up() as web:
        async with running(queue_of(HttpHook(web.url, tries=5))) as queue:
            queue.put(upload())
            await wait_for(lambda: queue.statistics().delivered == 1)
        assert len(web.got) == 5


@pytest.mark.logs("it answered with status 403|status 302|status 500|TooSlowError")
async def test_what_will_not_work_is_a_dead_letter() -> None:
    for statuses in ((403,), (302,), (500, 500), (-1, -1)):
        async with Web(*statuses).up() as web:
            hook = HttpHook(web.url, tries=2, timeout_seconds=0.2)
            async with running(queue_of(hook)) as queue:
                queue.put(upload())
                await wait_for(lambda queue=queue: queue.statistics().dead == 1)  # type: ignore[misc]
            assert len(web.got) == len(statuses)


@pytest.mark.logs("ConnectError")
async def test_nobody_is_there() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with running(queue_of(HttpHook(f"http://127.0.0.1:{port}/", tries=2))) as queue:
        queue.put(upload())
        await wait_for(lambda: queue.statistics().dead == 1)


async def test_waits_double_and_have_an_end(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(hooks, "_FIRST_WAIT", 1.0)

    async def post(self: object, octets: bytes) -> int:
        return 500

    monkeypatch.setattr(hooks._Post, "_post", post)
    deliver = hooks._Post(HttpHook("http://127.0.0.1/", tries=9)).deliver
    began = trio.current_time()
    with pytest.raises(DeliveryError):
        await deliver(upload())
    assert trio.current_time() - began == 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60


def test_settings_that_make_no_sense() -> None:
    for wrong in (
        lambda: CommandHook(()),
        lambda: CommandHook(("true",)),
        lambda: CommandHook(("/bin/true",), timeout_seconds=0),
        lambda: HttpHook("ftp://x"),
        lambda: HttpHook("http://x", tries=0),
        lambda: HttpHook("http://x", parallel=0),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            wrong()
