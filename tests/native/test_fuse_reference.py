"""The C codec of FUSE messages does what the reference does: same octets, values and noes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.native import fuse_replies, fuse_requests
from syspuffs.native.errors import ProtocolError
from syspuffs.native.fuse_protocol import Lock, Notify
from syspuffs.native.records import Cred

from . import reference_fuse as reference
from . import samples_fuse
from .strategies import i64, name, number, octets, pid, positive, u32, u64

few = settings(max_examples=15, deadline=None)
many = settings(max_examples=50, deadline=None)

size = number(0, 2**20)
times = st.integers(-(2**62), 2**62)
locks = st.builds(Lock, positive, positive, u32, u32)
creds = st.builds(Cred, u32, u32, st.just(()), pid)
path = octets(0, 4096, b"\0")

REQUESTS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "init": (u32, u32, u32, u64),
    "destroy": (),
    "lookup": (name,),
    "forget": (u64,),
    "batch_forget": (st.lists(st.tuples(u64, u64), max_size=60),),
    "getattr": (u32, u64),
    "setattr": (u32, u64, positive, times, times, u32, u32, u32),
    "readlink": (),
    "symlink": (name, path),
    "mknod": (name, u32, u32, u32),
    "mkdir": (name, u32, u32),
    "unlink": (name,),
    "rmdir": (name,),
    "rename": (name, u64, name),
    "rename2": (name, u64, name, u32),
    "link": (u64, name),
    "open_": (u32,),
    "opendir": (u32,),
    "create": (name, u32, u32, u32),
    "read": (u64, i64, u32, u32),
    "readdir": (u64, i64, u32, u32),
    "readdirplus": (u64, i64, u32, u32),
    "write": (u64, i64, size, u32),
    "statfs": (),
    "release": (u64, u32),
    "releasedir": (u64, u32),
    "flush": (u64, u64),
    "fsync": (u64, u32),
    "fsyncdir": (u64, u32),
    "setxattr": (name, size, u32),
    "getxattr": (name, u32),
    "listxattr": (u32,),
    "removexattr": (name,),
    "access": (u32,),
    "getlk": (u64, u64, locks),
    "setlk": (u64, u64, locks),
    "setlkw": (u64, u64, locks),
    "interrupt": (u64,),
    "poll": (u64, u64, u32, u32),
    "notify_reply": (i64, size),
    "fallocate": (u64, i64, i64, u32),
    "lseek": (u64, i64, u32),
    "copy_file_range": (u64, i64, u64, u64, i64, i64, i64),
    "syncfs": (),
}
BODIES = tuple(samples_fuse.BODIES)
NOTIFICATIONS = tuple(samples_fuse.NOTIFICATIONS)


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """What came of a call: the result, or the type of the protocol error."""
    try:
        return function(*args)
    except ProtocolError as exc:
        return type(exc)


def test_every_request_is_compared() -> None:
    assert set(REQUESTS) == set(reference.HEADS) | {"batch_forget"}
    made = {
        n for n, f in vars(fuse_requests).items() if callable(f) and n.islower() and n[0] != "_"
    }
    assert set(REQUESTS) == made - {"pack", "chain"}


@pytest.mark.parametrize("request_name", REQUESTS)
@few
@given(st.data())
def test_requests(request_name: str, data: st.DataObject) -> None:
    head = data.draw(st.tuples(u64, u64, creds))
    args = data.draw(st.tuples(*REQUESTS[request_name]))
    wanted = outcome(reference.request, request_name, *head, *args)
    assert outcome(getattr(fuse_requests, request_name), *head, *args) == wanted


@many
@given(st.binary(max_size=20), st.integers(0, 40))
def test_headers(octets_: bytes, total: int) -> None:
    assert outcome(fuse_replies.header, octets_, total) == outcome(reference.header, octets_, total)


@many
@given(number(-520, 20), u64.filter(lambda n: 0 <= n < 2**64))
def test_likely_headers(error: int, unique: int) -> None:
    packed = struct.pack("=IiQ", 16, error, unique)
    assert outcome(fuse_replies.header, packed, 16) == outcome(reference.header, packed, 16)


def damaged(data: st.DataObject, sample: bytes) -> bytes:
    """The sample, or one with a number replaced, cut, or with octets behind it."""
    changed = bytearray(sample)
    for _ in range(data.draw(st.integers(0, 2))):
        if changed:
            at = data.draw(st.integers(0, len(changed) - 1)) // 4 * 4
            word = st.sampled_from([0, 1, 2**31, 2**32 - 1, 10**9, 0o100644, 255, 256])
            changed[at : at + 4] = struct.pack("=I", data.draw(word))[: len(changed) - at]
    end = data.draw(st.one_of(st.just(len(changed)), st.integers(0, len(changed))))
    return bytes(changed[:end]) + data.draw(st.sampled_from([b"", b"", b"\0", bytes(8)]))


@pytest.mark.parametrize("body_name", BODIES)
@many
@given(st.data())
def test_bodies(body_name: str, data: st.DataObject) -> None:
    body = damaged(data, data.draw(st.sampled_from(samples_fuse.BODIES[body_name])))
    wanted = outcome(reference.body, body_name, body)
    assert outcome(getattr(fuse_replies, body_name), body) == wanted


@pytest.mark.parametrize("code", [*NOTIFICATIONS, 0, 9, 1000])
@many
@given(st.data())
def test_notifications(code: int, data: st.DataObject) -> None:
    samples = samples_fuse.NOTIFICATIONS.get(Notify(code) if 1 <= code <= 8 else code, [b""])
    body = damaged(data, data.draw(st.sampled_from(samples)))
    wanted = outcome(reference.notification, body, code)
    assert outcome(fuse_replies.notification, body, code) == wanted


@pytest.mark.parametrize("body_name", BODIES)
def test_samples_are_good(body_name: str) -> None:
    for body in samples_fuse.BODIES[body_name]:
        assert not isinstance(outcome(getattr(fuse_replies, body_name), body), type)


@pytest.mark.parametrize("code", NOTIFICATIONS)
def test_sample_notifications_are_good(code: int) -> None:
    for body in samples_fuse.NOTIFICATIONS[code]:
        assert not isinstance(outcome(fuse_replies.notification, body, code), type)
