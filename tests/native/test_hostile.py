"""What a peer may send by mistake or on purpose: cut, bent, too long. An answer or an error."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from syspuffs.native import frames, sftp
from syspuffs.native.constants import MAXMSGLEN_MAX, OpClass, VnOp
from syspuffs.native.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from syspuffs.native.records import Cookie, Dirent, Newinfo, Vattr

from . import reference_frames, reference_sftp, samples
from .strategies import op_id

REQUESTS = list(samples.request_frames())
REPLIES = list(samples.reply_frames())
DECODERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "request": (frames.decode_request, reference_frames.decode_request),
    "reply": (frames.decode_reply, reference_frames.decode_reply),
}
both = pytest.mark.parametrize(
    ("direction", "samples_"), [("request", REQUESTS), ("reply", REPLIES)]
)


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except RemoteProtocolError:
        return RemoteProtocolError


def relength(frame: bytes) -> bytes:
    """Make the header agree with the octets that are there, so that the body is looked at."""
    return struct.pack("<I", len(frame)) + frame[4:]


def test_samples_are_complete() -> None:
    assert samples.REQUESTS.keys() == reference_frames.REQUESTS.keys()
    assert samples.REPLIES.keys() == reference_frames.REPLIES.keys()


@pytest.mark.parametrize("op", samples.REQUESTS, ids=op_id)
def test_sample_requests_come_back(op: tuple[int, int]) -> None:
    args = samples.REQUESTS[op]
    frame = frames.encode_request(*op, 7, 11, args)
    if op == (OpClass.VN, VnOp.WRITE):
        header, back = frames.decode_request(frame, args[1])
        assert back[1] is args[1]
        assert frames.decode_request(frame + args[1])[1] == args
    else:
        header, back = frames.decode_request(frame)
    assert back == args
    assert [type(arg) for arg in back] == [type(arg) for arg in args]
    assert (header.opclass & 7, header.optype, header.id, header.cookie) == (*op, 7, 11)


@pytest.mark.parametrize("op", samples.REPLIES, ids=op_id)
def test_sample_replies_come_back(op: tuple[int, int]) -> None:
    result = samples.REPLIES[op]
    frame = frames.encode_reply(*op, 7, 11, result)
    if op == (OpClass.VN, VnOp.READ):
        header, back = frames.decode_reply(frame, result)
        assert back is result
        header, back = frames.decode_reply(frame + result)
        assert isinstance(back, memoryview)
    else:
        header, back = frames.decode_reply(frame)
    assert back == result
    assert (header.opclass & 7, header.optype, header.id, header.cookie) == (*op, 7, 11)


@both
def test_frames_cut_anywhere(direction: str, samples_: list[bytes]) -> None:
    ours, theirs = DECODERS[direction]
    for frame in samples_:
        for n in range(len(frame)):
            with pytest.raises(RemoteProtocolError):
                ours(frame[:n])
            cut = relength(frame[:n]) if n >= 4 else frame[:n]
            assert outcome(ours, cut) == outcome(theirs, cut)
        longer = relength(frame + b"\0")
        assert outcome(ours, longer) == outcome(theirs, longer)


def mutants(frame: bytes, rng: random.Random) -> Iterator[bytes]:
    """Versions of `frame` with some octets changed, put in or taken out."""
    for _ in range(60):
        bent = bytearray(frame)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(bent))
            kind = rng.random()
            if kind < 0.4:
                bent[at] ^= 1 << rng.randrange(8)
            elif kind < 0.7:
                bent[at] = rng.choice((0, 1, 0x2F, 0x7F, 0x80, 0xFF))
            elif kind < 0.85:
                del bent[at : at + rng.choice((1, 4, 8))]
                if not bent:
                    bent.append(0)
            else:
                bent[at:at] = rng.choice((b"\0", b"\xff" * 4, b"\0" * 8))
        yield bytes(bent)


@both
def test_bent_frames(direction: str, samples_: list[bytes]) -> None:
    ours, theirs = DECODERS[direction]
    rng = random.Random(20261122)
    for frame in samples_:
        for bent in mutants(frame, rng):
            assert outcome(ours, bent) == outcome(theirs, bent)
            right = relength(bent) if len(bent) >= 48 else bent
            assert outcome(ours, right) == outcome(theirs, right)


def test_random_frames() -> None:
    rng = random.Random(20261122)
    for ours, theirs in DECODERS.values():
        for _ in range(300):
            frame = relength(bytes(4) + rng.randbytes(rng.randrange(200)))
            assert outcome(ours, frame) == outcome(theirs, frame)
            head = struct.pack("<IHHQQ", 0, 2, rng.randrange(52), 1, 1) + bytes(24)
            frame = relength(head + rng.randbytes(rng.randrange(100)))
            assert outcome(ours, frame) == outcome(theirs, frame)


def test_bodies_cut_anywhere() -> None:
    for name, body in samples.BODIES:
        ours, theirs = getattr(sftp, f"decode_{name}"), getattr(reference_sftp, f"decode_{name}")
        for n in range(len(body) + 1):
            assert outcome(ours, body[:n]) == outcome(theirs, body[:n])


def test_bent_bodies() -> None:
    rng = random.Random(20261122)
    for name, body in samples.BODIES:
        ours, theirs = getattr(sftp, f"decode_{name}"), getattr(reference_sftp, f"decode_{name}")
        for bent in mutants(body, rng):
            assert outcome(ours, bent) == outcome(theirs, bent)


def test_streams_cut_anywhere() -> None:
    stream = b"".join(samples.packets())
    for end in range(len(stream) + 1):
        assert sftp.scan(stream, 0, end, 65536) == reference_sftp.scan(stream, 0, end, 65536)


def test_bent_streams() -> None:
    rng = random.Random(20261122)
    for bent in mutants(b"".join(samples.packets()), rng):
        args = (bent, 0, len(bent), 65536)
        assert outcome(sftp.scan, *args) == outcome(reference_sftp.scan, *args)


# Limits.


@pytest.mark.parametrize("length", [0, 47, MAXMSGLEN_MAX + 1, 2**32 - 1])
def test_absurd_frame_length(length: int) -> None:
    start = length.to_bytes(4, "little")
    with pytest.raises(RemoteProtocolError):
        frames.frame_length(b"xx" + start, 2, 6)
    with pytest.raises(RemoteProtocolError):
        frames.decode_header(start + bytes(44))


def test_frame_length_needs_four_octets() -> None:
    assert frames.frame_length(b"\x30\0\0\0", 0, 3) == 0
    assert frames.frame_length(b"\x30\0\0\0", 0, 4) == 48
    assert frames.frame_length(bytearray(b"__\0\0\x20\0"), 2, 6) == MAXMSGLEN_MAX


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0b", b"/", b"n" * 256])
def test_names_that_are_none(name: bytes) -> None:
    cn = samples.CN._replace(name=name)
    with pytest.raises(LocalProtocolError):
        frames.encode_request(OpClass.VN, VnOp.LOOKUP, 1, 2, (cn,))
    with pytest.raises(LocalProtocolError):
        frames.encode_reply(OpClass.VN, VnOp.READDIR, 1, 2, ((Dirent(1, 1, name, 1),), True))
    if name:  # of the same length, in place of a good one
        good = frames.encode_reply(
            *(OpClass.VN, VnOp.READDIR, 1, 2),
            ((Dirent(1, 1, b"n" * min(len(name), 255), 1),), True),
        )
        bad = good.replace(b"n" * min(len(name), 255), name)
        with pytest.raises(RemoteProtocolError):
            frames.decode_reply(relength(bad))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((None,), {}),
        ((), {}),
        ((samples.CRED, 1), {}),
        ((samples.CRED._replace(uid=-1),), {}),
        ((samples.CRED._replace(uid=2**64),), {}),
        ((samples.CRED._replace(groups=tuple(range(65))),), {}),
        ((samples.CRED._replace(groups=cast(Any, ("wheel",))),), {}),
        ((samples.CRED,), {"payload_len": 1}),
        ((samples.CRED,), {"buflen": 2**32}),
        ((samples.CRED,), {"buflen": None}),
    ],
)
def test_requests_that_are_our_fault(args: Any, kwargs: Any) -> None:
    with pytest.raises(LocalProtocolError):
        frames.encode_request(OpClass.VN, VnOp.GETATTR, 1, 2, args, **kwargs)


def test_payload_must_agree_with_data() -> None:
    args = (0, b"abc", 0, samples.CRED)
    head = frames.encode_request(OpClass.VN, VnOp.WRITE, 1, 2, args, payload_len=3)
    assert head == frames.encode_request(OpClass.VN, VnOp.WRITE, 1, 2, args)
    none = (0, None, 0, samples.CRED)
    assert head == frames.encode_request(OpClass.VN, VnOp.WRITE, 1, 2, none, payload_len=3)
    assert frames.decode_header(head).framelen == len(head) + 3
    with pytest.raises(LocalProtocolError):
        frames.encode_request(OpClass.VN, VnOp.WRITE, 1, 2, args, payload_len=4)
    with pytest.raises(RemoteProtocolError):
        frames.decode_request(head, b"abcd")
    with pytest.raises(RemoteProtocolError):
        frames.decode_request(head + b"abcd")


def test_frame_too_long() -> None:
    with pytest.raises(LocalProtocolError):
        frames.encode_reply(OpClass.VN, VnOp.READ, 1, 2, None, payload_len=MAXMSGLEN_MAX - 47)
    head = frames.encode_reply(OpClass.VN, VnOp.READ, 1, 2, None, payload_len=MAXMSGLEN_MAX - 48)
    assert frames.decode_header(head).framelen == MAXMSGLEN_MAX


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("count", [272, 273, 1637, 1638, 4000])
def test_listings_longer_than_the_table(plus: bool, count: int) -> None:
    info = Newinfo(Cookie(5), 1, va=Vattr(1, 0o644)) if plus else None
    entries = tuple(Dirent(i, 1, b"name-%d" % i, i + 1, info) for i in range(count))
    frame = frames.encode_reply(OpClass.VN, VnOp.READDIR, 1, 2, (entries, False))
    assert frame == reference_frames.encode_reply(OpClass.VN, VnOp.READDIR, 1, 2, (entries, False))
    assert frames.decode_reply(frame)[1] == (entries, False)
    assert frames.decode_reply(memoryview(bytearray(frame)))[1] == (entries, False)


def test_listing_longer_than_a_frame() -> None:
    entries = [Dirent(i, 1, b"n" * 255, i) for i in range(8000)]
    with pytest.raises(LocalProtocolError):
        frames.encode_reply(OpClass.VN, VnOp.READDIR, 1, 2, (entries, False))


@pytest.mark.parametrize("count", [744, 745, 2000])
def test_names_longer_than_the_table(count: int) -> None:
    (entry,) = [body[4:] for name, body in samples.BODIES if name == "name" and body[3] == 1]
    body = count.to_bytes(4, "big") + entry * count
    assert sftp.decode_name(body) == reference_sftp.decode_name(body)
    with pytest.raises(RemoteProtocolError):
        sftp.decode_name(body[:-1])


def test_users_longer_than_the_table() -> None:
    names = b"\0\0\0\1u" * 5000
    body = len(names).to_bytes(4, "big") + names + bytes(4)
    assert sftp.decode_users_groups(body) == ([b"u"] * 5000, [])


def test_scan_of_more_packets_than_the_table_holds() -> None:
    stream = b"\0\0\0\5\x65\0\0\0\7" * 5000
    expected = reference_sftp.scan(stream, 9, len(stream), 5)
    assert sftp.scan(stream, 9, len(stream), 5) == expected
    assert len(expected[1]) == 4999


@pytest.mark.parametrize(("start", "end"), [(0, 11), (6, 5), (-1, 5)])
def test_scan_outside_of_the_buffer(start: int, end: int) -> None:
    with pytest.raises((LocalProtocolError, OverflowError)):
        sftp.scan(bytes(10), start, end, 100)


@pytest.mark.parametrize(
    "build",
    [
        lambda: sftp.lstat(1, b"a\0b"),
        lambda: sftp.lstat(1, b"p" * 34000),
        lambda: sftp.close(1, b"h" * 34000),
        lambda: sftp.lstat(2**32, b"a"),
        lambda: sftp.lstat(-1, b"a"),
        lambda: sftp.limits(2**70),
        lambda: sftp.read(1, b"h", -1, 5),
        lambda: sftp.write(1, b"h", 0, 2**32 - 1),
        lambda: sftp.setstat(1, b"a", sftp.Attrs(uid=5)),
        lambda: sftp.setstat(1, b"a", sftp.Attrs(mtime=5)),
        lambda: sftp.setstat(1, b"a", sftp.Attrs(atime=-1, mtime=5)),
        lambda: sftp.users_groups_by_id(1, [2**32], []),
        lambda: sftp.users_groups_by_id(1, range(9000), []),
    ],
)
def test_sftp_requests_that_are_our_fault(build: Callable[[], bytes]) -> None:
    with pytest.raises(LocalProtocolError):
        build()


def test_longest_sftp_request() -> None:
    path = b"p" * (34000 - 9)
    assert len(sftp.lstat(1, path)) == 34004


def test_a_failure_leaves_nothing_behind() -> None:
    """The table is shared: what a failed call left in it must not show in the next message."""
    expected = [frames.encode_request(*op, 7, 11, args) for op, args in samples.REQUESTS.items()]
    got = []
    for op, args in samples.REQUESTS.items():
        with pytest.raises(ProtocolError):
            frames.encode_request(OpClass.VN, VnOp.MKNOD, 1, 0, (samples.CN, samples.FULL))
        with pytest.raises(ProtocolError):
            frames.decode_reply(REPLIES[0][:-1] + b"\xff")
        got.append(frames.encode_request(*op, 7, 11, args))
    assert got == expected
