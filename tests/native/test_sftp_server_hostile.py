"""What an SFTP client may send by mistake or on purpose, and what we may ask for by mistake."""

from __future__ import annotations

import gc
import random
import struct
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest

from syspuffs.native import sftp
from syspuffs.native import sftp_server as server
from syspuffs.native.errors import LocalProtocolError, RemoteProtocolError

from . import reference_sftp_server as reference
from . import samples
from .test_hostile import mutants
from .test_sftp_server_reference import plain, same

ATTRS = server.Attrs(1, 2, 3, 4, 5, 6)


def string(v: bytes) -> bytes:
    return len(v).to_bytes(4, "big") + v


def decode(packet: bytes) -> server.Request:
    rest, (found,) = server.scan(packet, 0, len(packet), server.MAX_PACKET)
    assert rest == len(packet)
    return server.decode_request(packet, *found)


def test_samples_are_complete() -> None:
    found = {type(request) for _, request in samples.SERVED}
    assert found == {*server.Request.__args__} - {server.Malformed}


@pytest.mark.parametrize(
    ("packet", "request_"), samples.SERVED, ids=[type(r).__name__ for _, r in samples.SERVED]
)
def test_samples(packet: bytes, request_: server.Request) -> None:
    got = decode(packet)
    assert got == request_
    assert type(got) is type(request_)
    assert [type(field) for field in got] == [type(field) for field in request_]


def test_bodies_cut_anywhere() -> None:
    for packet, _ in samples.SERVED:
        type = packet[4]
        start = 5 if type == sftp.FXP_INIT else 9
        for end in range(start, len(packet) + 1):
            same(packet, type, 7, start, end)


def test_what_lies_behind_a_body_is_not_read() -> None:
    packet = sftp.rename(7, b"from", b"to")
    for end in range(9, len(packet)):
        got = server.decode_request(packet, 18, 7, 9, end)
        assert isinstance(got, server.Malformed)
        assert got[:2] == (7, 18)


def test_trailing_octets_are_skipped() -> None:
    for packet, request in samples.SERVED:
        if packet[4] != sftp.FXP_INIT:
            longer = packet + b"\0\xff"
            assert server.decode_request(longer, packet[4], 7, 9, len(longer)) == request


def test_bent_bodies() -> None:
    rng = random.Random(20261125)
    for packet, _ in samples.SERVED:
        for bent in mutants(packet[9:], rng) if len(packet) > 9 else ():
            same(bent, packet[4], 7, 0, len(bent))


def test_random_bodies() -> None:
    rng = random.Random(20261125)
    for _ in range(2000):
        body = rng.randbytes(rng.randrange(40))
        type = rng.randrange(22)
        same(body, type, 7, 0, len(body))
        body = string(rng.choice(list(reference.EXTENSIONS))) + body
        same(body, 200, 7, 0, len(body))


def test_bent_streams() -> None:
    stream = b"".join(packet for packet, _ in samples.SERVED)
    for bent in mutants(stream, random.Random(20261125)):
        try:
            rest, found = server.scan(bent, 0, len(bent), 65536)
        except RemoteProtocolError:
            continue
        assert (rest, found) == reference.scan(bent, 0, len(bent), 65536)
        for packet in found:
            same(bent, *packet)


@pytest.mark.parametrize("length", [0, 4, server.MAX_PACKET + 1, 2**32 - 1])
def test_absurd_length_ends_the_session(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        server.scan(length.to_bytes(4, "big") + bytes(8), 0, 12, server.MAX_PACKET)


# Each limit from both sides: a body, and whether it is one.

H256 = string(b"h" * 256)
H257 = string(b"h" * 257)
TOP = (2**63 - 1).to_bytes(8, "big")
OVER = (2**63).to_bytes(8, "big")
ZERO = bytes(8)
NUMBER = b"\0\0\0\1"


@pytest.mark.parametrize(
    ("type", "body", "good"),
    [
        (7, string(b"/" * 200_000), True),
        (7, string(b"a\0"), False),
        (7, string(b"\0"), False),
        (7, b"\xff\xff\xff\xff", False),
        (7, b"\0\0\0", False),
        (18, string(b"a") + string(b"b\0b"), False),
        (4, H256, True),
        (4, H257, False),
        (4, string(b"\0"), True),
        (5, H256 + TOP + NUMBER, True),
        (5, H256 + OVER + NUMBER, False),
        (6, H256 + TOP + string(bytes(100_000)), True),
        (6, H256 + OVER + string(b""), False),
        (6, H256 + ZERO + b"\xff\xff\xff\xffdata", False),
        (9, string(b"a") + b"\0\0\0\1" + TOP, True),
        (9, string(b"a") + b"\0\0\0\1" + OVER, False),
        (9, string(b"a") + b"\0\0\0\x10", False),
        (9, string(b"a") + b"\x40\0\0\0", False),
        (9, string(b"a") + b"\x80\0\0\0" + bytes(4), True),
        (9, string(b"a") + b"\x80\0\0\0" + b"\xff\xff\xff\xff", False),
        (9, string(b"a") + b"\x80\0\0\0" + b"\0\0\x10\0" + bytes(8 * 4096), True),
        (9, string(b"a") + b"\x80\0\0\0" + b"\0\0\x10\1" + bytes(8 * 4096), False),
        (200, string(b"copy-data") + H256 + TOP + b"\xff" * 8 + H256 + TOP, True),
        (200, string(b"copy-data") + H256 + OVER + ZERO + H256 + ZERO, False),
        (200, string(b"copy-data") + H256 + ZERO + ZERO + H257 + ZERO, False),
        (200, string(b"users-groups-by-id@openssh.com") + string(bytes(60_000)) * 2, True),
        (200, string(b"users-groups-by-id@openssh.com") + string(bytes(4)) + b"\0\0\0\1a", False),
        (200, b"\0\0\0\5name", False),
        (200, b"", False),
    ],
)
def test_limits_of_a_request(type: int, body: bytes, good: bool) -> None:
    kind, _ = same(body, type, 7, 0, len(body))
    assert (kind is not server.Malformed) == good


@pytest.mark.parametrize(("count", "good"), [(0, True), (256, True), (257, False)])
def test_extensions_of_a_client(count: int, good: bool) -> None:
    body = NUMBER + b"".join(string(b"%d" % i) * 2 for i in range(count))
    request = server.decode_request(body, 1, 0, 0, len(body))
    assert plain(request) == plain(reference.decode_request(body, 1, 0, 0, len(body)))
    if good:
        assert request == server.Init(1, {b"%d" % i: b"%d" % i for i in range(count)})
    else:
        assert isinstance(request, server.Malformed)


def test_a_name_that_only_begins_like_an_extension() -> None:
    for name in (b"copy-dat", b"copy-data\0", b"copy-data@openssh.com", b"", b"\0" * 9):
        body = string(name) + bytes(30)
        assert server.decode_request(body, 200, 7, 0, len(body)) == (7, 200, name)


@pytest.mark.parametrize("type", [-1, 0, 2, 21, 101, 201, 256, 2**31])
def test_types_that_are_no_request(type: int) -> None:
    assert server.decode_request(b"", type, 7, 0, 0) == server.Unsupported(7, type, b"")


@pytest.mark.parametrize(("start", "end"), [(0, 11), (6, 5), (-1, 5)])
def test_body_outside_of_the_buffer(start: int, end: int) -> None:
    with pytest.raises((LocalProtocolError, OverflowError)):
        server.decode_request(bytes(10), 7, 1, start, end)


def test_data_are_a_view_and_the_rest_is_not() -> None:
    buf = bytearray(sftp.write(7, b"h", 0, 4) + b"data")
    request = server.decode_request(buf, 6, 7, 9, len(buf))
    assert isinstance(request, server.Write)
    buf[-4:] = b"DATA"
    buf[13:14] = b"?"
    assert request == (7, b"h", 0, memoryview(b"DATA"))
    assert request.data.obj is buf
    request.data.release()
    buf += b"may grow again: nothing else holds it"


def test_nothing_holds_the_buffer_after_a_complaint() -> None:
    """See table.pointer: what C was given must not outlive the call, not even in a traceback."""

    class Octets(bytearray):
        pass

    buf = Octets(sftp.lstat(7, b"a b").replace(b" ", b"\0"))
    gone = weakref.ref(buf)
    malformed = server.decode_request(buf, 7, 7, 9, len(buf))
    with pytest.raises(LocalProtocolError):
        server.decode_request(buf, 7, 7, 9, len(buf) + 1)
    buf.clear()
    del buf
    gc.collect()
    assert gone() is None
    assert isinstance(malformed, server.Malformed)


# Replies: what we might ask for.


@pytest.mark.parametrize(
    "build",
    [
        lambda: server.version({b"a": cast(Any, "1")}),
        lambda: server.version({}, 2**32),
        lambda: server.status(2**32, 0),
        lambda: server.status(1, -1),
        lambda: server.status(1, 0, cast(Any, "text")),
        lambda: server.status(1, 0, cast(Any, None)),
        lambda: server.handle(1, b"h" * 257),
        lambda: server.handle(-1, b"h"),
        lambda: server.data_head(1, 2**32 - 9),
        lambda: server.data_head(1, -1),
        lambda: server.path(1, cast(Any, "a")),
        lambda: server.attrs(1, server.Attrs(uid=5)),
        lambda: server.attrs(1, server.Attrs(atime=5)),
        lambda: server.attrs(1, ATTRS._replace(gid=None)),
        lambda: server.attrs(1, ATTRS._replace(mtime=2**32)),
        lambda: server.attrs(1, ATTRS._replace(size=2**63)),
        lambda: server.attrs(1, ATTRS._replace(size=-1)),
        lambda: server.attrs(1, ATTRS._replace(size=cast(Any, "5"))),
        lambda: server.attrs(2**32, ATTRS),
        lambda: server.attrs(2**32, server.NO_ATTRS),
        lambda: server.name(2**32, []),
        lambda: server.name(1, [server.Name(b"a", b"", ATTRS._replace(uid=-1))]),
        lambda: server.name(1, [server.Name(b"a", b"", ATTRS._replace(uid=None))]),
        lambda: server.name(1, [server.Name(b"a", b"", ATTRS._replace(size=2**63))]),
        lambda: server.name(1, [server.Name(b"a", b"", ATTRS._replace(size=2**64))]),
        lambda: server.name(1, [server.Name(cast(Any, "a"), b"", ATTRS)]),
        lambda: server.name(1, [cast(Any, (b"a", b"", ATTRS, 1))]),
        lambda: server.name(1, [cast(Any, (b"a", b"", (1, 2)))]),
        lambda: server.name(1, cast(Any, [None])),
        lambda: server.statvfs(1, cast(Any, (1, 2))),
        lambda: server.limits(1, server.Limits(-1, 0, 0, 0)),
        lambda: server.users_groups(1, [cast(Any, "root")], []),
    ],
)
def test_replies_that_are_our_fault(build: Callable[[], bytes]) -> None:
    with pytest.raises(LocalProtocolError):
        build()


@pytest.mark.parametrize("count", [0, 1, 910, 911, 5000])
@pytest.mark.parametrize("attrs", [ATTRS, server.Attrs(mode=4), server.NO_ATTRS])
def test_listings_of_any_length(count: int, attrs: server.Attrs) -> None:
    """The common table holds 910 entries; 128 KiB are the common output."""
    entries = [server.Name(b"name-%d" % i, b"l" * (i % 99), attrs) for i in range(count)]
    packet = server.name(7, entries)
    assert packet == reference.name(7, entries)
    assert sftp.decode_name(packet[9:]) == entries


def test_one_name_longer_than_the_common_output() -> None:
    entries = [server.Name(b"n" * 200_000, b"l" * 100_000, ATTRS)]
    assert server.name(7, entries) == reference.name(7, entries)
    assert server.path(7, b"n" * 200_000) == reference.path(7, b"n" * 200_000)


def test_long_rows_of_users() -> None:
    users = [b"user-%d" % i for i in range(5000)]
    packet = server.users_groups(7, users, users)
    assert packet == reference.users_groups(7, users, users)
    assert sftp.decode_users_groups(packet[9:]) == (users, users)


def test_a_failure_leaves_nothing_behind() -> None:
    """The table is shared: what a failed call left in it must not show in the next message."""
    for packet, request in samples.SERVED:
        assert isinstance(server.decode_request(b"\0\0\0\1a" + b"\xff" * 40, 9, 7, 0, 45), tuple)
        with pytest.raises(LocalProtocolError):
            server.name(1, [server.Name(b"a", b"", ATTRS._replace(uid=-1))])
        assert decode(packet) == request
    assert struct.unpack(">I", server.attrs(7, ATTRS)[:4]) == (37,)
