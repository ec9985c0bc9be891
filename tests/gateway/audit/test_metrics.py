"""The figures, and the page on which they are."""

from __future__ import annotations

import socket

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from syspuffs.gateway.audit import MetricsSettings, Recorder, exporter, recording
from syspuffs.native import sftp

from ..sftp.conftest import tree as tree  # the fixture
from ..sftp.harness import Served
from .harness import recorded

ANYWHERE = MetricsSettings(port=0)


def figures(page: bytes) -> dict[tuple[str, ...], float]:
    """Return what a page says: (name, label values...) -> figure."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


async def talk(recorder: Recorder, octets: bytes) -> bytes:
    """Say something to the page's port and return all that comes back."""
    assert recorder.port is not None
    stream = await trio.open_tcp_stream("127.0.0.1", recorder.port)
    async with stream:
        await stream.send_all(octets)
        answer = b""
        while more := await stream.receive_some(65536):
            answer += more
    return answer


async def test_what_is_counted(tree: Served) -> None:
    async with recording(metrics=ANYWHERE) as recorder:
        metrics = recorder.metrics
        assert metrics is not None
        metrics.watch("quota_octets", "Octets used", "account", lambda: {"alice": 17})
        recorder.login("accepted", account="alice")
        recorder.login("refused")
        recorder.login("refused")
        async with recorded(recorder, tree.export) as wire:
            await wire.put(b"/f", b"data")
            assert await wire.code(sftp.stat, b"/none") == sftp.FX_NO_SUCH_FILE
            living = figures(metrics.page())
            await wire.get(b"/f")
        after = figures(metrics.page())
    assert living["syspuffs_sessions", "alice"] == 1
    assert after["syspuffs_sessions", "alice"] == 0
    assert after["syspuffs_sessions_begun_total", "alice"] == 1
    assert after["syspuffs_logins_total", "refused"] == 2
    assert after["syspuffs_requests_total", "open"] == 2
    assert after["syspuffs_requests_total", "write"] == 1
    assert after["syspuffs_requests_total", "rmdir"] == 0
    assert after["syspuffs_failures_total", "no-such-file"] == 1
    assert after["syspuffs_request_seconds_count", "read"] == 2
    assert after["syspuffs_request_seconds_bucket", "+Inf", "read"] == 2 or (
        after["syspuffs_request_seconds_bucket", "read", "+Inf"] == 2
    )
    received = ("syspuffs_octets_total", "alice", "received")
    assert 0 < living[received] < after[received]
    assert after["syspuffs_octets_total", "alice", "sent"] > 4
    assert after["syspuffs_quota_octets", "alice"] == 17


async def test_the_page() -> None:
    async with recording(metrics=ANYWHERE) as recorder:
        answer = await talk(recorder, b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"text/plain; version=0.0.4" in head
        assert figures(body)["syspuffs_requests_total", "open"] == 0
        bare = await talk(recorder, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert bare.startswith(b"HTTP/1.1 200 ")
        assert bare.endswith(b"\r\n\r\n")
        for request, status in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
            (b"GET /metrics/../x HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
            (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"405"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", b"400"),
            (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),
            (b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000, b"431"),
        ):
            answer = await talk(recorder, request)
            assert answer.split(b" ", 2)[1] == status, request
        # Somebody leaves at once; the next one is served.
        stream = await trio.open_tcp_stream("127.0.0.1", recorder.port or 0)
        await stream.aclose()
        assert (await talk(recorder, b"GET /metrics HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_the_slow_and_the_many_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_SECONDS", 0.2)
    async with recording(metrics=ANYWHERE) as recorder:
        assert recorder.port is not None
        streams = [await trio.open_tcp_stream("127.0.0.1", recorder.port) for _ in range(9)]
        with trio.fail_after(5):
            for stream in reversed(streams):
                try:
                    assert await stream.receive_some(1) == b""
                except trio.BrokenResourceError:
                    pass
                await stream.aclose()
        assert b" 200 " in await talk(recorder, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            async with recording(metrics=MetricsSettings(port=taken.getsockname()[1])):
                pass


async def test_off_by_default() -> None:
    async with recording(metrics=MetricsSettings()) as recorder:
        assert recorder.port is None
        assert recorder.metrics is None
