"""The C codec of puffs frames does what the reference does: same octets, same values, same noes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.native import frames
from syspuffs.native.constants import FLAG_FAF, OpClass, VnOp
from syspuffs.native.errors import LocalProtocolError, ProtocolError

from . import reference_frames as reference
from . import strategies

few = settings(max_examples=12, deadline=None)
many = settings(max_examples=100, deadline=None)
requests = pytest.mark.parametrize("op", strategies.REQUEST_OPS, ids=strategies.op_id)
replies = pytest.mark.parametrize("op", strategies.REPLY_OPS, ids=strategies.op_id)


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What came of a call: the result, or the type of the protocol error."""
    try:
        return function(*args, **kwargs)
    except ProtocolError as exc:
        return type(exc)


def payload(op: tuple[int, int], args: tuple[Any, ...]) -> bytes:
    return bytes(args[1]) if op == (OpClass.VN, VnOp.WRITE) else b""


@requests
@few
@given(data=st.data())
def test_request(op: tuple[int, int], data: st.DataObject) -> None:
    args = data.draw(strategies.arguments(op))
    id, cookie = data.draw(strategies.positive), data.draw(strategies.cookie)
    opclass = op[0] | data.draw(st.sampled_from([0, 0, FLAG_FAF]))
    kwargs = {"buflen": data.draw(strategies.u32), "pid": data.draw(strategies.pid)}
    ours = outcome(frames.encode_request, opclass, op[1], id, cookie, args, **kwargs)
    assert ours == outcome(reference.encode_request, opclass, op[1], id, cookie, args, **kwargs)
    if isinstance(ours, bytes):
        frame = ours + payload(op, args)
        header, back = frames.decode_request(frame)
        assert (header, back) == reference.decode_request(frame)
        assert (header.id, header.cookie, header.framelen) == (id, cookie, len(frame))
        assert frames.decode_request(memoryview(bytearray(frame))) == (header, back)
        if op[0] != OpClass.ERROR:  # whose text may be cut
            again = frames.encode_request(opclass, op[1], id, cookie, back, **kwargs)
            assert again == ours


@replies
@few
@given(data=st.data())
def test_reply(op: tuple[int, int], data: st.DataObject) -> None:
    result = data.draw(strategies.result(op))
    id, cookie = data.draw(strategies.positive), data.draw(strategies.positive)
    setbacks = data.draw(st.sampled_from([0, 0, 0, 0, 3]))
    ours = outcome(frames.encode_reply, *op, id, cookie, result, setbacks=setbacks)
    assert ours == outcome(reference.encode_reply, *op, id, cookie, result, setbacks=setbacks)
    if isinstance(ours, bytes):
        frame = ours + (bytes(result) if op == (OpClass.VN, VnOp.READ) else b"")
        header, back = frames.decode_reply(frame)
        assert (header, back) == reference.decode_reply(frame)
        if setbacks == 0:
            assert back == result
        assert frames.decode_reply(memoryview(bytearray(frame))) == (header, back)


@many
@given(
    st.integers(0, 9),
    st.integers(0, 70),
    strategies.u64,
    strategies.u64,
    strategies.number(0, 4095),
)
def test_error_reply(opclass: int, optype: int, id: int, cookie: int, errno: int) -> None:
    ours = outcome(frames.encode_error, opclass, optype, id, cookie, errno)
    assert ours == outcome(reference.encode_error, opclass, optype, id, cookie, errno)
    if isinstance(ours, bytes):
        assert frames.decode_reply(ours) == reference.decode_reply(ours)
        assert frames.decode_reply(ours)[1] is None


@many
@given(st.integers(-1, 300), st.integers(-1, 70000), st.booleans())
def test_unknown_operations(opclass: int, optype: int, reply: bool) -> None:
    if reply:
        if (opclass, optype) not in reference.REPLIES:
            assert outcome(frames.encode_reply, opclass, optype, 1, 1, None) is LocalProtocolError
    elif (opclass & 7, optype) not in reference.REQUESTS:
        assert outcome(frames.encode_request, opclass, optype, 1, 1, ()) is LocalProtocolError
