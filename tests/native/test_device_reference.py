"""The C codec of a daemon's FUSE messages does what the reference does, and the kernel's side
takes apart what it makes."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.native import device_replies, fuse_replies
from syspuffs.native.device_requests import HEADER_LEN, RequestBuffer, take
from syspuffs.native.errors import LocalProtocolError, ProtocolError
from syspuffs.native.fuse_protocol import InvalEntry, InvalInode, Notify
from syspuffs.native.packed import PACKED_LEN, Files, unpack
from syspuffs.native.records import VTYPE_TO_IFMT, Statvfs

from . import reference_device as reference
from .samples_device import REQUESTS, message
from .test_fuse_reference import damaged

few = settings(max_examples=25, deadline=None)
many = settings(max_examples=60, deadline=None)

signed = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**33))
unsigned = st.integers(0, 2**32 - 1)
attr = st.tuples(*[signed] * 12)
names = st.lists(st.binary(min_size=1, max_size=255), max_size=12)
states = st.builds(Statvfs, *[signed] * 11)

REPLIES: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "error": (st.integers(0, 511),),
    "data_head": (st.integers(0, 2**20),),
    "entry": (signed, signed, signed, attr),
    "created": (signed, signed, signed, attr, signed, unsigned),
    "attributes": (signed, attr),
    "opened": (st.integers(0, 2**63 - 1), unsigned),
    "count": (unsigned,),
    "offset": (st.integers(0, 2**63 - 1),),
    "lock": (*[st.integers(0, 2**63 - 1)] * 2, unsigned, unsigned),
    "statfs": (states,),
    "init": (unsigned, unsigned, unsigned, unsigned, st.integers(0, 2**16 - 1)),
}


def received(octets: bytes) -> Any:
    """What `take` says of a message, with data out of the buffer."""
    buffer = RequestBuffer(max(len(octets), 1))
    buffer.view[: len(octets)] = octets
    try:
        request = take(buffer, len(octets))
    except ProtocolError as exc:
        return type(exc)
    return request._replace(
        args=tuple(bytes(arg) if isinstance(arg, memoryview) else arg for arg in request.args)
    )


def expected(octets: bytes) -> Any:
    try:
        return reference.take(octets)
    except ProtocolError as exc:
        return type(exc)


@pytest.mark.parametrize(("opcode", "octets", "args"), REQUESTS)
def test_requests_say_what_the_kernel_meant(
    opcode: int, octets: bytes, args: tuple[Any, ...]
) -> None:
    assert received(octets) == (opcode, 3, 7, 1000, 100, 42, args)
    assert expected(octets) == (opcode, 3, 7, 1000, 100, 42, args)


def test_every_known_opcode_has_a_sample() -> None:
    assert set(reference.HEADS) <= {opcode for opcode, _, _ in REQUESTS}


@pytest.mark.parametrize(("opcode", "octets", "args"), REQUESTS)
@few
@given(st.data())
def test_damaged_requests(
    opcode: int, octets: bytes, args: tuple[Any, ...], data: st.DataObject
) -> None:
    body = damaged(data, octets[HEADER_LEN:])
    whole = message(opcode, body, data.draw(st.integers(0, 2**64 - 1)))
    assert received(whole) == expected(whole)


@many
@given(st.data())
def test_damaged_headers(data: st.DataObject) -> None:
    _, octets, _ = data.draw(st.sampled_from(REQUESTS))
    octets = damaged(data, octets)
    assert received(octets) == expected(octets)


@pytest.mark.parametrize("name", REPLIES)
@many
@given(st.data())
def test_replies(name: str, data: st.DataObject) -> None:
    unique = data.draw(signed)
    args = data.draw(st.tuples(*REPLIES[name]))
    function: Callable[..., bytes] = getattr(device_replies, name)
    assert function(unique, *args) == reference.reply(name, unique, *args)


@many
@given(signed, names, st.data())
def test_directories(unique: int, entries: list[bytes], data: st.DataObject) -> None:
    rows = [(len(name), *data.draw(st.tuples(*[signed] * 5)), *data.draw(attr)) for name in entries]
    joined = b"".join(entries)
    got = device_replies.dirents(unique, rows, joined)
    assert got == reference.reply("dirents", unique, rows, joined)
    assert len(got) == 16 + sum(device_replies.dirent_length(len(name)) for name in entries)


def test_the_longest_directory_fits() -> None:
    rows = [(255, 8, 1, 7, 0, 0, *device_replies.NO_ATTR)] * device_replies.ROWS_MAX
    got = device_replies.dirents(1, rows, b"n" * 255 * len(rows))
    assert len(got) == 16 + 408 * len(rows)


@pytest.mark.parametrize(("lengths", "joined"), [([0], b""), ([2], b"a"), ([1], b"ab")])
def test_lengths_that_contradict_names(lengths: list[int], joined: bytes) -> None:
    rows = [(length, 8, 1, 7, 0, 0, *device_replies.NO_ATTR) for length in lengths]
    with pytest.raises(LocalProtocolError):
        device_replies.dirents(1, rows, joined)


def test_numbers_of_more_than_64_bits_are_ours_to_mend() -> None:
    for function, args in (
        (device_replies.entry, (2**64, 0, 0, device_replies.NO_ATTR)),
        (device_replies.created, (1, 0, 0, device_replies.NO_ATTR, 2**64, 0)),
        (device_replies.attributes, (2**64, device_replies.NO_ATTR)),
        (device_replies.dirents, ([(1, 8, 2**64, 7, 0, 0, *device_replies.NO_ATTR)], b"n")),
    ):
        with pytest.raises(LocalProtocolError):
            function(1, *args)


def test_the_kernels_side_reads_what_the_daemons_writes() -> None:
    shown = (7, 5000, 16, 10**18, -1, 3, 0o100644, 2, 1000, 100, 0, 4096)
    got = device_replies.created(9, 7, 10**9, 5, shown, 11, 3)
    assert fuse_replies.header(got[:16], len(got)) == (0, 9)
    entry, opened = fuse_replies.created(got[16:])
    assert (entry.nodeid, entry.entry_ttl, entry.attr_ttl) == (7, 10**9, 5)
    va = entry.va
    assert (va.fileid, va.size, va.bytes, va.nlink) == (7, 5000, 8192, 2)
    assert (va.atime, va.mtime, va.ctime) == (10**18, -1, 3)
    assert (va.vtype, va.mode, va.uid, va.gid, va.blocksize) == (1, 0o644, 1000, 100, 4096)
    assert opened == (11, 3)


def test_notifications() -> None:
    got = device_replies.inval_entry(5, b"name")
    assert fuse_replies.header(got[:16], len(got)) == (Notify.INVAL_ENTRY, 0)
    assert fuse_replies.notification(got[16:], Notify.INVAL_ENTRY) == InvalEntry(5, b"name")
    got = device_replies.inval_inode(5, -1, 0)
    assert fuse_replies.header(got[:16], len(got)) == (Notify.INVAL_INODE, 0)
    assert fuse_replies.notification(got[16:], Notify.INVAL_INODE) == InvalInode(5, -1, 0)


def test_a_buffer_is_used_again() -> None:
    buffer = RequestBuffer(4096)
    for name in (b"first", b"other"):
        octets = message(1, name + b"\0")
        buffer.view[: len(octets)] = octets
        assert take(buffer, len(octets)).args == (name,)
    assert struct.unpack_from("=I", buffer.view)[0] == 46


@st.composite
def files(draw: st.DrawFn) -> Files:
    files = draw(st.lists(st.tuples(names_of_files, st.integers(2, 2**60 - 1), packed), max_size=9))
    offsets = range(3, 3 + len(files))
    numbers = [number for _, number, _ in files]
    return Files([name for name, _, _ in files], numbers, offsets, [one for _, _, one in files])


names_of_files = st.binary(min_size=1, max_size=255)
packed = st.builds(
    lambda size, rest, mode, vtype: struct.pack(
        "<Q16sIHB", size, rest, 3, mode | VTYPE_TO_IFMT[vtype], vtype
    ),
    st.integers(0, 2**63 - 1),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 0o7777),
    st.sampled_from(list(VTYPE_TO_IFMT)),
)


@many
@given(files(), st.integers(0, 3000), st.tuples(signed, signed), st.integers(-1, 5))
def test_a_page_is_what_its_entries_are(
    files: Files, room: int, ttls: tuple[int, int], uid: int
) -> None:
    """As many as there is room for, each as READDIRPLUS has it one by one."""
    octets, count = device_replies.page(files, 0, room, ttls, (uid, -1))
    rows: list[Any] = []
    size = 0
    for name, fileid, offset, one in zip(*files, strict=True):
        size += device_replies.dirent_length(len(name))
        if size > room:
            break
        va = unpack(one, fileid)
        assert va.size is not None
        assert va.vtype is not None
        assert va.mode is not None
        mode = VTYPE_TO_IFMT[va.vtype] | va.mode  # type: ignore[index]
        rows.append(
            (
                *(len(name), mode >> 12, offset, fileid, *ttls, fileid, va.size),
                *(va.size + 511 >> 9, va.atime, va.mtime, va.ctime, mode, va.nlink),
                *(va.uid if uid < 0 else uid, va.gid, 0, 4096),
            )
        )
    assert count == len(rows)
    expected = device_replies.dirents(7, rows, b"".join(files.names[:count]))
    assert octets == expected[16:]
    dots = device_replies.dirents(7, [(1, 4, 1, 0, 0, 0, *device_replies.NO_ATTR)], b".")
    both = device_replies.dirents_and_page(dots, octets)
    assert both == (len(dots) + len(octets)).to_bytes(4, sys.byteorder) + dots[4:] + octets
    if count > 1:
        rest, left = device_replies.page(files, 1, 10**6, ttls, (uid, -1))
        assert left == len(files.names) - 1
        assert rest.startswith(octets[device_replies.dirent_length(len(files.names[0])) :])


def test_a_page_must_fit_its_columns() -> None:
    files = Files([b"n"], [2**63], [3], [bytes(PACKED_LEN)])
    with pytest.raises(LocalProtocolError):
        device_replies.page(files, 0, 500, (0, 0), (-1, -1))
    with pytest.raises(LocalProtocolError):
        device_replies.page(files._replace(fileids=[5], packed=[b""]), 0, 500, (0, 0), (-1, -1))
