"""What messages may carry, for hypothesis: mostly legal, now and then just over a limit."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from syspuffs.native.constants import OpClass, VfsOp, VnOp
from syspuffs.native.records import (
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Flock,
    Newinfo,
    Statvfs,
    Vattr,
)
from syspuffs.native.sftp import Attrs

from . import reference_frames


def number(low: int, high: int) -> st.SearchStrategy[int]:
    """Numbers from `low` to `high`, the ends among them, and rarely one beyond."""
    return st.one_of(
        st.integers(low, high),
        st.integers(low, min(high, low + 300)),
        st.sampled_from([low, high]),
        st.integers(0, 40).map(lambda i: (low - 1, high + 1)[i] if i < 2 else low),
    )


u32 = number(0, 2**32 - 1)
# Not one below: -2**63 is how the codec says None.
i64 = number(-(2**63) + 1, 2**63 - 1).filter(lambda n: n > -(2**63))
positive = number(0, 2**63 - 1)
u64 = number(0, 2**64 - 1)
cookie = number(1, 2**63 - 1)
pid = st.one_of(st.integers(-2, 2**22), st.sampled_from([0, 2**31 - 1]))


def octets(low: int, high: int, bad: bytes = b"") -> st.SearchStrategy[bytes]:
    """Strings of `low` to `high` octets, rarely one octet too short or long, or with bad ones."""
    short = st.binary(min_size=low, max_size=min(high, 20))
    clean = short.map(lambda s: bytes(b if b not in bad else 0x61 for b in s))
    return st.one_of(
        clean,
        clean,
        clean,
        short,
        st.integers(0, 9).map(
            lambda i: b"n" * ((max(low, 1) - 1, high, high + 1)[i] if i < 3 else max(low, 1))
        ),
    )


name = octets(1, 255, b"/\0")
xattr = octets(1, 255, b"\0")
groups = st.one_of(
    st.just(()),
    st.lists(u32, max_size=4).map(tuple),
    st.integers(60, 65).map(lambda n: tuple(range(n))),
)


def cred(pid: int) -> st.SearchStrategy[Cred]:
    return st.builds(Cred, u32, u32, groups, st.just(pid))


def cn(pid: int) -> st.SearchStrategy[Componentname]:
    return st.builds(Componentname, number(0, 3), name, cred(pid), u32)


def _optional(strategy: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.one_of(strategy, st.none())


_VATTR_FIELDS = {
    "vtype": number(1, 7),
    "mode": number(0, 0o7777),
    "uid": u32,
    "gid": u32,
    **dict.fromkeys(("atime", "mtime", "ctime", "birthtime"), i64),
}
vattr = st.one_of(
    st.builds(Vattr, *(_optional(_VATTR_FIELDS.get(f, positive)) for f in Vattr._fields)),
    st.builds(Vattr, *(_VATTR_FIELDS.get(f, positive) for f in Vattr._fields)),
)
newinfo = st.builds(
    Newinfo,
    st.one_of(cookie, st.just(0)).map(Cookie),
    number(0, 7),
    positive,
    positive,
    st.one_of(vattr, st.none()),
    positive,
    positive,
)
dirent = st.builds(
    Dirent, positive, number(0, 7), name, positive, st.one_of(st.none(), st.none(), newinfo)
)
flock = st.builds(Flock, number(0, 2), positive, positive, i64)
statvfs = st.builds(Statvfs, *(u64 for _ in Statvfs._fields))

_TIMES = st.one_of(st.tuples(u32, u32), st.just((None, None)), st.tuples(u32, st.none()))
_OWNER = st.one_of(st.tuples(u32, u32), st.just((None, None)), st.tuples(st.none(), u32))
attrs = st.builds(
    lambda size, owner, mode, times: Attrs(size, owner[0], owner[1], mode, times[0], times[1]),
    _optional(positive),
    _OWNER,
    _optional(u32),
    _TIMES,
)

_R = reference_frames


def _field(field: Any, pid: int) -> st.SearchStrategy[Any]:
    table: list[tuple[Any, st.SearchStrategy[Any]]] = [
        (_R.U32, u32),
        (_R.U64, u64),
        (_R.I64, i64),
        (_R.OFFSET, positive),
        (_R.RESID, number(0, 2 * 1024 * 1024)),
        (_R.COOKIE, cookie),
        (_R.COOKIE_OR_NONE, st.one_of(st.none(), cookie)),
        (_R.NAME, name),
        (_R.NAME_OR_EMPTY, octets(0, 255, b"/\0")),
        (_R.XATTR, xattr),
        (_R.XATTR_OR_EMPTY, octets(0, 255, b"\0")),
        (_R.TARGET, octets(1, 4095, b"\0")),
        (_R.LINK, octets(0, 4095, b"\0")),
        (_R.BLOB, octets(0, 65536)),
        (_R.HANDLE, octets(1, 1020)),
        (_R.TEXT, octets(0, 256)),
        (_R.CRED, cred(pid)),
        (_R.CN, cn(pid)),
        (_R.VATTR, vattr),
        (_R.VATTR_TTL, st.tuples(vattr, positive)),
        (_R.NEWINFO, newinfo),
        (_R.FLOCK, flock),
        (_R.STATVFS, statvfs),
        (_R.DIRENTS, st.tuples(st.lists(dirent, max_size=6).map(tuple), st.booleans())),
        (_R.PAYLOAD, st.binary(max_size=40)),
        (_R.SETBACKS, number(0, 15)),
        (_R.OPEN, st.tuples(u32, number(0, 15))),
        (_R.NOTHING, st.none()),
    ]
    for known, strategy in table:
        if field is known:
            return strategy
    raise AssertionError("a field without a strategy")


@st.composite
def arguments(draw: st.DrawFn, op: tuple[int, int]) -> tuple[Any, ...]:
    """Arguments of a request; all credentials in it have one pid."""
    who = draw(pid)
    return tuple(draw(_field(field, who)) for field in reference_frames.REQUESTS[op])


def result(op: tuple[int, int]) -> st.SearchStrategy[Any]:
    """Results for a reply."""
    return _field(reference_frames.REPLIES[op], 0)


REQUEST_OPS = sorted(reference_frames.REQUESTS)
REPLY_OPS = sorted(reference_frames.REPLIES)


def op_id(op: tuple[int, int]) -> str:
    """Name an operation in the list of tests."""
    opclass, optype = op
    if opclass == OpClass.VN:
        return VnOp(optype).name.lower()
    if opclass == OpClass.VFS:
        return VfsOp(optype).name.lower()
    return f"{OpClass(opclass).name.lower()}-{int(optype)}"
