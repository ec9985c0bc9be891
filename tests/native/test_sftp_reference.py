"""The C codec of SFTP does what the reference does: same octets, same values, same noes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.native import sftp
from syspuffs.native.errors import ProtocolError
from syspuffs.native.packed import mtime, pack, size, unpack, vtype
from syspuffs.native.sftp_listing import name_numbers

from . import reference_sftp as reference
from .strategies import attrs, number, octets, positive, u32

few = settings(max_examples=15, deadline=None)
many = settings(max_examples=80, deadline=None)

path = st.one_of(octets(0, 33900, b"\0"), octets(1, 300, b"\0"))
handle = octets(0, 256)
length = number(0, 2**32 - 1)
ids = st.lists(u32, max_size=5)

REQUESTS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "open_": (path, u32, attrs),
    "opendir": (path,),
    "close": (handle,),
    "read": (handle, positive, length),
    "readdir": (handle,),
    "write": (handle, positive, length),
    "lstat": (path,),
    "stat": (path,),
    "fstat": (handle,),
    "setstat": (path, attrs),
    "fsetstat": (handle, attrs),
    "remove": (path,),
    "rmdir": (path,),
    "realpath": (path,),
    "readlink": (path,),
    "mkdir": (path, attrs),
    "rename": (path, path),
    "symlink": (path, path),
    "posix_rename": (path, path),
    "hardlink": (path, path),
    "statvfs": (path,),
    "fstatvfs": (handle,),
    "fsync": (handle,),
    "lsetstat": (path, attrs),
    "limits": (),
    "expand_path": (path,),
    "copy_data": (handle, positive, positive, handle, positive),
    "home_directory": (path,),
    "users_groups_by_id": (ids, ids),
}


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """What came of a call: the result, or the type of the protocol error."""
    try:
        return function(*args)
    except ProtocolError as exc:
        return type(exc)


def test_every_function_has_a_reference() -> None:
    functions = {n for n in sftp.__all__ if n[0].islower()}
    assert functions == {n for n in functions if hasattr(reference, n)}
    decoders = {n for n in functions if n.startswith("decode_")}
    assert functions == set(REQUESTS) | decoders | {"init", "scan"}
    assert decoders == {f"decode_{name}" for name in REPLIES}


@pytest.mark.parametrize("name", REQUESTS)
@few
@given(data=st.data())
def test_request(name: str, data: st.DataObject) -> None:
    args = [data.draw(u32), *(data.draw(strategy) for strategy in REQUESTS[name])]
    ours = outcome(getattr(sftp, name), *args)
    assert ours == outcome(getattr(reference, name), *args)
    if isinstance(ours, bytes):
        beside = b"\0" * args[3] if name == "write" and args[3] < 1000 else b""
        if name != "write" or beside:
            end, ((kind, id, first, last),) = sftp.scan(ours + beside, 0, len(ours + beside), 40000)
            assert (end, last, id) == (len(ours + beside), len(ours + beside), args[0])
            assert (kind, first) == (ours[4], 9)


def test_init() -> None:
    assert sftp.init() == reference.init()


# Bodies of replies, by small grammars that may also be wrong.


def be32(v: int) -> bytes:
    return (v % 2**32).to_bytes(4, "big")


def string(v: bytes) -> bytes:
    return be32(len(v)) + v


strings = st.binary(max_size=12).map(string)
words = st.binary(min_size=8, max_size=8)
tail = st.one_of(st.just(b""), st.just(b""), st.binary(max_size=9))


@st.composite
def attributes(draw: st.DrawFn) -> bytes:
    flags = draw(st.one_of(st.just(15), st.integers(0, 15), st.sampled_from([1 << 31, 0x8000000F])))
    out = be32(flags)
    if flags & 1:
        out += draw(st.sampled_from([0, 4096, 2**40, 2**63 - 1, 2**63])).to_bytes(8, "big")
    if flags & 2:
        out += draw(st.binary(min_size=8, max_size=8))
    if flags & 4:
        out += draw(st.binary(min_size=4, max_size=4))
    if flags & 8:
        out += draw(st.binary(min_size=8, max_size=8))
    if flags & 1 << 31:
        pairs = draw(st.lists(st.tuples(strings, strings), max_size=3))
        out += be32(len(pairs)) + b"".join(a + b for a, b in pairs)
    return out


def counted(items: list[bytes]) -> bytes:
    return be32(len(items)) + b"".join(items)


def joined(*parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(*parts).map(b"".join)


entry_names = st.one_of(
    st.sampled_from([b"", b".", b"..", b"...", b"a/b", b"a\0b", b"n" * 255, b"n" * 256]),
    st.binary(max_size=12),
)
longnames = st.one_of(
    st.sampled_from(
        [
            *(b"-rw-r--r-- 3 u g 5 Jan 1 1970 n", b"drwx 0 r", b"l-  9 n", b"srwx 999999999\tx"),
            *(b"prw- 1234567890 x", b"- 2 x", b"crw- 2 ", b" brw- 2", b"br 12 \x0b", b"xr 1a n"),
        ]
    ),
    st.binary(max_size=12),
    st.text("-dbclspr 0129\t\n", max_size=12).map(str.encode),
)
listed = joined(entry_names.map(string), longnames.map(string), attributes())

REPLIES: dict[str, st.SearchStrategy[bytes]] = {
    "version": joined(u32.map(be32), st.lists(joined(strings, strings), max_size=4).map(b"".join)),
    "status": joined(u32.map(be32), st.one_of(st.just(b""), strings), tail),
    "handle": joined(octets(0, 256).map(string), tail),
    "data": joined(st.binary(max_size=60).map(string), tail),
    "name": joined(st.lists(joined(strings, strings, attributes()), max_size=6).map(counted), tail),
    "listing": joined(st.lists(listed, max_size=6).map(counted), tail),
    "attrs": joined(attributes(), tail),
    "statvfs": joined(*[words] * 11, tail),
    "limits": joined(*[words] * 4, tail),
    "users_groups": joined(
        st.lists(strings, max_size=4).map(lambda v: string(b"".join(v))),
        st.lists(strings, max_size=4).map(lambda v: string(b"".join(v))),
        tail,
    ),
}


@pytest.mark.parametrize("name", REPLIES)
@many
@given(data=st.data())
def test_reply(name: str, data: st.DataObject) -> None:
    body = data.draw(REPLIES[name])
    ours, theirs = getattr(sftp, f"decode_{name}"), getattr(reference, f"decode_{name}")
    assert outcome(ours, body) == outcome(theirs, body)
    assert outcome(ours, memoryview(bytearray(body))) == outcome(theirs, body)
    cut = body[: data.draw(st.integers(0, len(body)))]
    assert outcome(ours, cut) == outcome(theirs, cut)
    if body:
        at = data.draw(st.integers(0, len(body) - 1))
        bent = body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
        assert outcome(ours, bent) == outcome(theirs, bent)


@many
@given(st.lists(st.binary(min_size=4, max_size=20), max_size=8), st.data())
def test_scan(packets: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(string, packets)) + data.draw(st.binary(max_size=6))
    start = data.draw(st.integers(0, min(5, len(stream))))
    end = data.draw(st.integers(start, len(stream)))
    expected = outcome(reference.scan, stream, start, end, 18)
    assert outcome(sftp.scan, stream, start, end, 18) == expected
    assert outcome(sftp.scan, bytearray(stream), start, end, 18) == expected


@many
@given(st.integers(0, 2**63 - 1), st.lists(octets(0, 40), max_size=5))
def test_numbers_of_names(directory: int, names: list[bytes]) -> None:
    expected = [reference.name_number(directory, name) for name in names]
    assert list(name_numbers(directory, names)) == expected
    assert all(number < 2**60 for number in expected)


def test_more_names_than_the_table_holds() -> None:
    names = [b"%d" % serial for serial in range(9000)]
    assert list(name_numbers(5, names)) == [reference.name_number(5, name) for name in names]
    body = counted([string(name) + string(b"") + be32(0) for name in names])
    assert sftp.decode_listing(body) == reference.decode_listing(body)
    assert sftp.decode_listing(body).names == names


@many
@given(attributes(), st.integers(1, 2**32 - 1))
def test_packed_attributes(body: bytes, nlink: int) -> None:
    """What is packed here from the answer to a question is what C packs from a listing."""
    try:
        attrs = sftp.decode_attrs(body)
    except ProtocolError:
        return
    if attrs.mode is None or not attrs.mode & 0o170000:
        return
    longname = b"-rw- %d n" % (nlink % 10**9)
    (packed,) = sftp.decode_listing(counted([string(b"n") + string(longname) + body])).packed
    assert pack(attrs, nlink % 10**9 or 1) == packed
    va = unpack(packed, 7)
    assert (va.fileid, va.size, va.nlink) == (7, attrs.size or 0, nlink % 10**9 or 1)
    assert va.mode == attrs.mode & 0o7777
    assert (size(packed), vtype(packed), mtime(packed)) == (va.size, va.vtype, va.mtime)
