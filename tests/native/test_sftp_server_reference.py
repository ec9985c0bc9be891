"""The server side of SFTP does what the reference does: same records, same octets, same noes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.native import sftp
from syspuffs.native import sftp_server as server
from syspuffs.native.errors import ProtocolError

from . import reference_sftp_server as reference
from .strategies import attrs, number, octets, statvfs, u32, u64
from .test_sftp_reference import REQUESTS, outcome

few = settings(max_examples=10, deadline=None)
many = settings(max_examples=25, deadline=None)

TYPES = [*reference.TYPES, 0, 1, 2, 21, 101, 105, 200, 201, 255]
EXTENSIONS = list(reference.EXTENSIONS)
BY_CLIENT = {
    "open_": "Open",
    "limits": "LimitsRequest",
    "statvfs": "StatvfsRequest",
    "fstatvfs": "FstatvfsRequest",
}
"""Functions of the client whose record has another name."""


def plain(request: server.Request) -> Any:
    """A record without what may differ: the words of a complaint, the kind of a view."""
    if isinstance(request, server.Malformed):
        return type(request), request[:2]
    if isinstance(request, server.Write):
        return type(request), (*request[:3], bytes(request.data))
    return type(request), tuple(request)


def same(buf: bytes, type: int, id: int, start: int, end: int) -> Any:
    """What both say of a request; from octets, from writable ones, and from a view."""
    expected = plain(reference.decode_request(buf, type, id, start, end))
    for kind in (bytes, bytearray, memoryview):
        assert plain(server.decode_request(kind(buf), type, id, start, end)) == expected
    return expected


def test_every_function_has_a_reference() -> None:
    functions = {n for n in server.__all__ if n[0].islower()}
    assert functions == {n for n in functions if hasattr(reference, n)}
    assert functions == {*REPLIES, "decode_request", "scan"}


def test_every_record_is_a_request() -> None:
    shapes = [*reference.TYPES.values(), *reference.EXTENSIONS.values()]
    records = {record for record, _ in shapes} | {server.Init}
    assert {*server.Request.__args__} == records | {server.Unsupported, server.Malformed}


@pytest.mark.parametrize("name", REQUESTS)
@few
@given(data=st.data())
def test_what_the_client_sends_is_what_the_server_gets(name: str, data: st.DataObject) -> None:
    args = [data.draw(u32), *(data.draw(strategy) for strategy in REQUESTS[name])]
    try:
        packet = getattr(sftp, name)(*args)
    except ProtocolError:
        return
    if name == "write":
        args[3] = b"d" * (args[3] % 1000)
        packet = sftp.write(args[0], args[1], args[2], len(args[3])) + args[3]
    rest, ((type, id, start, end),) = server.scan(packet, 0, len(packet), 2**20)
    assert rest == len(packet)
    record, fields = same(packet, type, id, start, end)
    if record is server.Malformed:
        assert any(isinstance(arg, bytes) and len(arg) > 256 for arg in args)
        return
    assert record.__name__ == BY_CLIENT.get(name, name.title().replace("_", ""))
    assert fields == tuple(tuple(arg) if isinstance(arg, list) else arg for arg in args)


def test_init() -> None:
    packet = sftp.init()
    _, ((type, id, start, end),) = server.scan(packet, 0, len(packet), 100)
    assert server.decode_request(packet, type, id, start, end) == server.Init(3, {})


# Bodies by small grammars that may also be wrong.


def be32(v: int) -> bytes:
    return (v % 2**32).to_bytes(4, "big")


def string(v: bytes) -> bytes:
    return be32(len(v)) + v


strings = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"h" * 256, b"h" * 257, b"/a/b", b"a\0b", bytes(8)]),
).map(string)
words = st.one_of(st.binary(min_size=8, max_size=8), st.just(b"\x80" + bytes(7)), st.just(bytes(8)))


@st.composite
def attributes(draw: st.DrawFn) -> bytes:
    flags = draw(st.one_of(st.integers(0, 15), st.sampled_from([1 << 31, 0x8000000F, 16, 1 << 30])))
    out = be32(flags)
    for bit, size in ((1, 8), (2, 8), (4, 4), (8, 8)):
        if flags & bit:
            out += draw(st.one_of(st.binary(min_size=size, max_size=size), st.just(bytes(size))))
    if flags & 1 << 31:
        pairs = draw(st.lists(st.tuples(strings, strings), max_size=3))
        out += be32(len(pairs)) + b"".join(a + b for a, b in pairs)
    return out


GRAMMAR: dict[Callable[..., Any], st.SearchStrategy[bytes]] = {
    reference.Body.path: strings,
    reference.Body.handle: strings,
    reference.Body.data: strings,
    reference.Body.numbers: st.lists(u32.map(be32), max_size=4).map(b"".join).map(string),
    reference.Body.u32: u32.map(be32),
    reference.Body.u63: words,
    reference.Body.u64: words,
    reference.Body.attrs: attributes(),
}
tail = st.one_of(st.just(b""), st.just(b""), st.binary(max_size=9))


@st.composite
def bodies(draw: st.DrawFn, type: int) -> bytes:
    fields: tuple[Callable[..., Any], ...] = ()
    out = b""
    if type == 1:
        out = be32(draw(u32)) + b"".join(draw(st.lists(strings, max_size=5)))
    elif type == 200:
        extension = draw(st.one_of(st.sampled_from(EXTENSIONS), st.binary(max_size=9)))
        out = string(extension)
        fields = reference.EXTENSIONS.get(extension, (None, ()))[1]
    elif type in reference.TYPES:
        fields = reference.TYPES[type][1]
    return out + b"".join(draw(GRAMMAR[field]) for field in fields) + draw(tail)


@pytest.mark.parametrize("type", TYPES)
@many
@given(data=st.data())
def test_request(type: int, data: st.DataObject) -> None:
    body = data.draw(bodies(type))
    id = data.draw(u32) % 2**32
    same(body, type, id, 0, len(body))
    same(b"12345" + body + b"123", type, id, 5, 5 + len(body))
    end = data.draw(st.integers(0, len(body)))
    same(body, type, id, 0, end)
    if body:
        at = data.draw(st.integers(0, len(body) - 1))
        bent = body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
        same(bent, type, id, 0, len(bent))


@pytest.mark.parametrize("extension", EXTENSIONS)
@few
@given(data=st.data())
def test_extension(extension: bytes, data: st.DataObject) -> None:
    fields = reference.EXTENSIONS[extension][1]
    body = string(extension) + b"".join(data.draw(GRAMMAR[field]) for field in fields)
    same(body, 200, 7, 0, len(body))
    same(body, 200, 7, 0, data.draw(st.integers(0, len(body))))


full = st.builds(server.Attrs, number(0, 2**63 - 1), u32, u32, u32, u32, u32)
text = st.one_of(octets(0, 300), st.binary(max_size=20))
entry = st.builds(server.Name, text, text, st.one_of(full, full, attrs))
texts = st.lists(text, max_size=5)

REPLIES: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "version": (st.dictionaries(text, text, max_size=4), u32),
    "status": (u32, u32, text, text),
    "handle": (u32, octets(0, 256)),
    "data_head": (u32, number(0, 2**32 - 10)),
    "name": (u32, st.lists(entry, max_size=6)),
    "path": (u32, text),
    "attrs": (u32, st.one_of(full, attrs)),
    "statvfs": (u32, statvfs),
    "limits": (u32, st.builds(server.Limits, u64, u64, u64, u64)),
    "users_groups": (u32, texts, texts),
}


@pytest.mark.parametrize("name", REPLIES)
@many
@given(data=st.data())
def test_reply(name: str, data: st.DataObject) -> None:
    args = [data.draw(strategy) for strategy in REPLIES[name]]
    ours = outcome(getattr(server, name), *args)
    assert ours == outcome(getattr(reference, name), *args)
    if not isinstance(ours, bytes):
        return
    if name == "data_head":
        assert len(ours) == 13
        return
    _, ((_, id, start, end),) = sftp.scan(ours, 0, len(ours), 2**32 - 1)
    assert end == len(ours)
    assert id == (0 if name == "version" else args[0])
    back = getattr(sftp, f"decode_{'name' if name == 'path' else name}")(ours[start:end])
    expected: Any = tuple(args[1:])
    if name == "version":
        expected = (args[1], args[0])
    elif name == "status":
        expected = (args[1], args[2])
    elif name == "path":
        expected = [server.Name(args[1], args[1], server.NO_ATTRS)]
    elif len(args) == 2:
        expected = args[1]
    assert back == expected
