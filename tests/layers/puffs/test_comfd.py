"""The mount request over PUFFS_COMFD: there and back, cut off, hostile, and of another version."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from syspuffs.layers.puffs import (
    MountRequest,
    answer,
    comfd,
    options_of,
    puffs_over_socket,
    receive_request,
    request_mount,
    serve,
)
from syspuffs.layers.puffs.comfd import encode_mount_request
from syspuffs.native.constants import MAXMSGLEN_DEFAULT, PROTOCOL_VERSION, KFlag, VnOp, Vtype
from syspuffs.native.errors import (
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    TransportBroken,
    VfsError,
)
from syspuffs.native.records import Cookie, Kargs, Newinfo

from .harness import Asked
from .memserver import MemServer

KARGS = Kargs(
    "psshfs",
    b"ftp.example.org:/pub",
    Newinfo(Cookie(2**63 - 1), Vtype.VDIR, 4096, 0, None, 5, 6),
    KFlag.CACHE_FS_TTL | KFlag.IAONDEMAND,
    frozenset({VnOp.LOOKUP, VnOp.FDISCARD}),
    MAXMSGLEN_DEFAULT,
)
REQUEST = MountRequest(
    "/mnt/ü b".encode(),
    0x2004,
    True,
    options_of([("ro", ""), ("ssh_command", "ssh -v"), ("ro", "\udcff")]),
    KARGS,
)


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def test_there_and_back(sockets: tuple[socket.socket, socket.socket]) -> None:
    kernel, server = sockets
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: request_mount(server, REQUEST))
        request = await receive_request(kernel, maxmsglen=100_000)
        assert request == REQUEST._replace(kargs=KARGS._replace(maxmsglen=100_000))
        await answer(kernel, request)
        assert await asked.wait() == KARGS._replace(maxmsglen=100_000)


async def test_the_smaller_of_the_longest_frames_counts(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    kernel, server = sockets
    small = REQUEST._replace(kargs=KARGS._replace(maxmsglen=8192))
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: request_mount(server, small))
        await answer(kernel, await receive_request(kernel))
        assert (await asked.wait()).maxmsglen == 8192


async def test_an_error_comes_back_with_its_text(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    kernel, server = sockets
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: request_mount(server, REQUEST))
        await receive_request(kernel)
        await answer(kernel, errno=errno.EACCES, text="no permission for " + "ü" * 2000)
        with pytest.raises(VfsError) as caught:
            await asked.wait()
        assert caught.value.errno == errno.EACCES
        assert caught.value.detail.startswith("no permission for üü")


async def test_another_version_is_refused_by_naming_both(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    kernel, server = sockets
    other = bytearray(encode_mount_request(REQUEST))
    other[8:12] = (7).to_bytes(4, "little")
    async with trio.open_nursery() as nursery:
        server.send(other)
        asked = Asked(nursery, lambda: receive_request(kernel))
        with pytest.raises(RemoteProtocolError, match="speaks version 1, the other one 7"):
            await asked.wait()
        head = struct.unpack("<8sIIII", server.recv(24))
        assert head[1:3] == (PROTOCOL_VERSION, errno.EPROTONOSUPPORT)
        assert b"speaks version 1, the other one 7" in server.recv(1000)


async def test_an_answer_of_another_version_is_refused(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    kernel, server = sockets
    kernel.send(struct.pack("<8sIIII", b"\x89puffs\r\n", 9, 0, 8192, 0))
    with pytest.raises(VfsError, match="version 1, the other one 9"):
        await request_mount(server, REQUEST)


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 400 Bad Request",
        struct.pack("<8sIIII", b"\x89puffs\r\n", 1, 0, 100, 0),
        struct.pack("<8sIIII", b"\x89puffs\r\n", 1, 0, 2**31, 0),
        struct.pack("<8sIIII", b"\x89puffs\r\n", 1, 0, 8192, 2**31),
    ],
)
async def test_hostile_answers(octets: bytes, sockets: tuple[socket.socket, socket.socket]) -> None:
    kernel, server = sockets
    kernel.send(octets)
    with pytest.raises(RemoteProtocolError):
        await request_mount(server, REQUEST)


async def test_truncated_at_every_length() -> None:
    whole = encode_mount_request(REQUEST)
    for length in range(len(whole)):
        kernel, server = socket.socketpair()
        with kernel:
            with server:
                server.send(whole[:length])
            with pytest.raises(TransportBroken):
                await receive_request(kernel)


async def test_nothing_is_read_ahead(sockets: tuple[socket.socket, socket.socket]) -> None:
    kernel, server = sockets
    server.send(encode_mount_request(REQUEST) + b"first frame")
    await receive_request(kernel)
    assert kernel.recv(100) == b"first frame"


@given(st.data())
async def test_no_octets_do_harm(data: st.DataObject) -> None:
    """Whatever comes is a request within its bounds or a protocol error."""
    octets = bytearray(encode_mount_request(REQUEST))
    if data.draw(st.booleans()):
        for i in data.draw(st.lists(st.integers(8, len(octets) - 1), min_size=1, max_size=8)):
            octets[i] = data.draw(st.integers(0, 255))
    else:
        body = data.draw(st.binary(max_size=300))
        octets[12:] = len(body).to_bytes(4, "little") + body
    kernel, server = socket.socketpair()
    with kernel, server:
        server.send(octets)
        server.shutdown(socket.SHUT_WR)
        try:
            request = await receive_request(kernel)
        except (ProtocolError, TransportBroken):
            return
        assert request.directory.startswith(b"/")
        assert 0 < request.kargs.root.cookie < 2**63


def _fixed(**fields: Any) -> MountRequest:
    return REQUEST._replace(**fields)


@pytest.mark.parametrize(
    "request_",
    [
        _fixed(directory=b"relative"),
        _fixed(directory=b"/with\0nul"),
        _fixed(directory=b"/" + b"x" * 5000),
        _fixed(mntflags=2**32),
        _fixed(options=tuple((b"k", b"v") for _ in range(300))),
        _fixed(options=((b"k", b"v" * 5000),)),
        _fixed(options=tuple((b"k", b"v" * 4000) for _ in range(20))),
        _fixed(kargs=KARGS._replace(maxmsglen=100)),
        _fixed(kargs=KARGS._replace(typename="")),
        _fixed(kargs=KARGS._replace(typename="two words")),
        _fixed(kargs=KARGS._replace(mntfromname=b"x" * 5000)),
        _fixed(kargs=KARGS._replace(root=Newinfo(Cookie(0), Vtype.VDIR))),
        _fixed(kargs=KARGS._replace(root=Newinfo(Cookie(1), Vtype.VBAD))),
        _fixed(kargs=KARGS._replace(root=Newinfo(Cookie(1), Vtype.VDIR, -1))),
    ],
)
def test_what_may_not_be_asked(request_: MountRequest) -> None:
    with pytest.raises(LocalProtocolError):
        encode_mount_request(request_)


def test_the_environment(sockets: tuple[socket.socket, socket.socket]) -> None:
    assert comfd({}) is None
    fd = os.dup(sockets[0].fileno())
    os.set_inheritable(fd, True)
    sock = comfd({"PUFFS_COMFD": str(fd)})
    assert sock is not None
    with sock:
        assert sock.fileno() == fd
        assert not sock.get_inheritable()


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0", "9" * 30, " 3", "٣", "123456"])
def test_no_descriptor_number(text: str) -> None:
    with pytest.raises(VfsError) as caught:
        comfd({"PUFFS_COMFD": text})
    assert caught.value.errno == errno.EINVAL


def test_no_stream_socket() -> None:
    read_end, write_end = os.pipe()
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    try:
        for fd in (read_end, ours.fileno()):
            with pytest.raises(VfsError) as caught:
                comfd({"PUFFS_COMFD": str(fd)})
            assert caught.value.errno == errno.EINVAL
    finally:
        os.close(read_end)
        os.close(write_end)
        ours.close()
        theirs.close()


async def test_frames_follow_the_answer() -> None:
    kernel, theirs = socket.socketpair()
    server = MemServer()

    async def command() -> None:
        request = MountRequest(b"/mnt", 0, True, (), server.kargs)
        await request_mount(theirs, request)
        await serve(server, theirs)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(command)
        request = await receive_request(kernel)
        await answer(kernel, request)
        async with puffs_over_socket(kernel, request.kargs) as fs:
            assert (await fs.statvfs()).blocks == 1000
            await fs.unmount(0)
    assert server.unmounted == [0]
