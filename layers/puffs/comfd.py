"""PUFFS_COMFD: the mount call of a server that is not to mount on the host itself.

A mount command that finds PUFFS_COMFD in its environment sends its mount request over
the descriptor named there, waits for the answer, and serves frames on it from then on.
Who reads the request at the other end (syspuffs, a test) mounts in its place.

    request:  magic (8 octets), version u32, length of the rest u32, the rest
    answer:   magic (8 octets), version u32, errno u32, maxmsglen u32, length of text u32, text

Numbers are little-endian. The rest is numbers of fixed size, then strings with their
length in front (u32). Nothing is longer than its bound below, and nothing may be left
over. The first two fields will stay what they are in all versions: an end that speaks
another version refuses by naming both. NetBSD's protocol of this name has no version,
no bounds and no answer, and is another one.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from errno import EINVAL, EPROTO, EPROTONOSUPPORT
from typing import Final, NamedTuple

import trio

from ...native.constants import (
    MAXMSGLEN_MAX,
    MAXMSGLEN_MIN,
    NAME_MAX,
    PATH_MAX,
    PROTOCOL_VERSION,
    Vtype,
)
from ...native.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    TransportBroken,
    VfsError,
)
from ...native.records import Cookie, Kargs, Newinfo

COMFD_ENV: Final = "PUFFS_COMFD"

TYPENAME_MAX: Final = 255
OPTIONS_MAX: Final = 256
OPTION_MAX: Final = 4096
"""Longest key or value of a mount option, octets."""
TEXT_MAX: Final = 1024
"""Longest text of an answer, octets."""
REQUEST_MAX: Final = 64 * 1024
"""Longest request after its head, octets."""

_MAGIC: Final = b"\x89puffs\r\n"  # a text, or a stream cooked by a terminal, is not mistaken for it
_HEAD: Final = struct.Struct("<8sII")
_FIXED: Final = struct.Struct("<IBIQIQIQQQQI")
_ANSWER: Final = struct.Struct("<8sIIII")
_LENGTH: Final = struct.Struct("<I")


class MountRequest(NamedTuple):
    """What a mount command asks for.

    `directory` is the absolute path of the mount point; `mntflags` are mount(2)'s; `stay`: the
    server stays in the foreground. `options` are mount options as key and value, in order, value
    empty for a word alone. Of `kargs.root`, `va` is not carried: the kernel half asks for it.
    """

    directory: bytes
    mntflags: int
    stay: bool
    options: tuple[tuple[bytes, bytes], ...]
    kargs: Kargs


def comfd(environ: Mapping[str, str] = os.environ) -> socket.socket | None:
    """Return the stream socket that PUFFS_COMFD names, or None when it is not set.

    The socket is made close-on-exec. Errors: EINVAL when it is no decimal number of an open
    stream socket.
    """
    text = environ.get(COMFD_ENV)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise VfsError(EINVAL, f"{COMFD_ENV}={text!r} is no descriptor number")
    fd = int(text)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise VfsError(EINVAL, f"{COMFD_ENV}={text}: descriptor {fd} is no socket")
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except OSError as exc:
        raise VfsError(EINVAL, f"{COMFD_ENV}={text}: {exc.strerror}") from exc
    if sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise VfsError(EINVAL, f"{COMFD_ENV}={text}: descriptor {fd} is no stream socket")
    return sock


# Encoding and decoding.


def encode_mount_request(request: MountRequest) -> bytes:
    """Return the octets of a request. LocalProtocolError when something is over its bound."""
    kargs = request.kargs
    root = kargs.root
    ops = 0
    for op in kargs.ops:
        ops |= 1 << op
    try:
        fixed = _FIXED.pack(
            request.mntflags,
            request.stay,
            kargs.kflags,
            ops,
            kargs.maxmsglen,
            root.cookie,
            root.vtype,
            root.size,
            root.rdev,
            root.va_ttl,
            root.cn_ttl,
            len(request.options),
        )
    except struct.error as exc:
        raise LocalProtocolError(f"mount request: {exc}") from exc
    strings = [request.directory, kargs.typename.encode("ascii", "replace"), kargs.mntfromname]
    for pair in request.options:
        strings.extend(pair)
    body = fixed + b"".join(_LENGTH.pack(len(s)) + s for s in strings)
    try:
        if len(body) > REQUEST_MAX:
            raise RemoteProtocolError(f"{len(body)} octets")
        _decode_mount_request(body)
    except RemoteProtocolError as exc:  # the peer would refuse it
        raise LocalProtocolError(f"mount request: {exc}") from exc
    return _HEAD.pack(_MAGIC, PROTOCOL_VERSION, len(body)) + body


def _decode_mount_request(body: bytes) -> MountRequest:
    if len(body) < _FIXED.size:
        raise RemoteProtocolError("mount request too short")
    fixed = _FIXED.unpack_from(body)
    mntflags, stay, kflags, mask, maxmsglen, cookie, vtype, size, rdev = fixed[:9]
    va_ttl, cn_ttl, noptions = fixed[9:]
    if not 0 < cookie < 1 << 63 or not Vtype.VNON < vtype < Vtype.VBAD:
        raise RemoteProtocolError(f"root with cookie {cookie}, type {vtype}")
    if max(size, rdev, va_ttl, cn_ttl) >= 1 << 63 or stay > 1:
        raise RemoteProtocolError("number out of range")
    if not MAXMSGLEN_MIN <= maxmsglen <= MAXMSGLEN_MAX:
        raise RemoteProtocolError(f"longest frame of {maxmsglen} octets")
    if noptions > OPTIONS_MAX:
        raise RemoteProtocolError(f"{noptions} options")
    at = _FIXED.size

    def string(limit: int, what: str) -> bytes:
        nonlocal at
        start = at + _LENGTH.size
        if start > len(body):
            raise RemoteProtocolError(f"no {what}")
        (length,) = _LENGTH.unpack_from(body, at)
        at = start + length
        if length > limit or at > len(body):
            raise RemoteProtocolError(f"{what} of {length} octets")
        if b"\0" in body[start:at]:
            raise RemoteProtocolError(f"{what} with NUL")
        return body[start:at]

    directory = string(PATH_MAX - 1, "mount point")
    typename = string(TYPENAME_MAX, "type")
    mntfromname = string(PATH_MAX, "name of what is mounted")
    options = tuple(
        (string(NAME_MAX, "option"), string(OPTION_MAX, "value of an option"))
        for _ in range(noptions)
    )
    if at != len(body):
        raise RemoteProtocolError("octets behind the mount request")
    if not directory.startswith(b"/"):
        raise RemoteProtocolError("mount point is no absolute path")
    if not typename or not _printable(typename):
        raise RemoteProtocolError(f"type {typename!r}")
    root = Newinfo(Cookie(cookie), vtype, size, rdev, None, va_ttl, cn_ttl)
    ops = frozenset(op for op in range(64) if mask >> op & 1)
    kargs = Kargs(typename.decode("ascii"), mntfromname, root, kflags, ops, maxmsglen)
    return MountRequest(directory, mntflags, bool(stay), options, kargs)


def _printable(text: bytes) -> bool:
    return all(0x20 < octet < 0x7F for octet in text)


# The server's side.


async def request_mount(sock: socket.socket, request: MountRequest) -> Kargs:
    """Ask the other end of `sock` to mount; return the agreed mount arguments.

    They are those of the request with the longest frame that both take. Afterwards `sock`
    carries frames. Errors: what the other end answered, with its text; EPROTONOSUPPORT for
    another version; TransportBroken, RemoteProtocolError.
    """
    sock.setblocking(False)
    await _send_all(sock, encode_mount_request(request))
    magic, version, errno, maxmsglen, length = _ANSWER.unpack(
        await _receive_exactly(sock, _ANSWER.size)
    )
    if magic != _MAGIC:
        raise RemoteProtocolError("this is no answer to a mount request")
    if length > TEXT_MAX:
        raise RemoteProtocolError(f"answer with a text of {length} octets")
    text = (await _receive_exactly(sock, length)).decode("utf-8", "replace")
    if errno:
        raise VfsError(errno if errno < 4096 else EPROTO, text)
    if version != PROTOCOL_VERSION:
        raise VfsError(EPROTONOSUPPORT, _versions(version))
    if not MAXMSGLEN_MIN <= maxmsglen <= request.kargs.maxmsglen:
        raise RemoteProtocolError(f"longest frame of {maxmsglen} octets")
    return request.kargs._replace(maxmsglen=maxmsglen)


def _versions(theirs: int) -> str:
    return f"puffs protocol: this end speaks version {PROTOCOL_VERSION}, the other one {theirs}"


# The kernel half's side.


async def receive_request(sock: socket.socket, *, maxmsglen: int = MAXMSGLEN_MAX) -> MountRequest:
    """Return the mount request that comes over `sock`; the caller must `answer` it.

    `kargs.maxmsglen` in it is the longest frame that both ends take, given that this end takes
    `maxmsglen`. What is no mount request, or one of another version, is answered here before it
    is raised. Errors: RemoteProtocolError, TransportBroken.
    """
    sock.setblocking(False)
    magic, version, length = _HEAD.unpack(await _receive_exactly(sock, _HEAD.size))
    if magic != _MAGIC:
        raise RemoteProtocolError("this is no mount request")
    try:
        if version != PROTOCOL_VERSION:
            raise RemoteProtocolError(_versions(version))
        if length > REQUEST_MAX:
            raise RemoteProtocolError(f"mount request of {length} octets")
        request = _decode_mount_request(await _receive_exactly(sock, length))
    except RemoteProtocolError as exc:
        errno = EINVAL if version == PROTOCOL_VERSION else EPROTONOSUPPORT
        with suppress(TransportBroken):  # whether it hears that or not
            await answer(sock, errno=errno, text=str(exc))
        raise
    kargs = request.kargs
    return request._replace(kargs=kargs._replace(maxmsglen=min(maxmsglen, kargs.maxmsglen)))


async def answer(
    sock: socket.socket, request: MountRequest | None = None, *, errno: int = 0, text: str = ""
) -> None:
    """Answer a mount request: `request` as `receive_request` gave it, or an error and its text."""
    octets = text.encode()[:TEXT_MAX]
    maxmsglen = 0 if request is None else request.kargs.maxmsglen
    head = _ANSWER.pack(_MAGIC, PROTOCOL_VERSION, errno, maxmsglen, len(octets))
    await _send_all(sock, head + octets)


# Exact transfers. Nothing is read ahead: what follows belongs to the putter.


async def _receive_exactly(sock: socket.socket, length: int) -> bytes:
    got = bytearray()
    while len(got) < length:
        try:
            piece = sock.recv(length - len(got))
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
            continue
        except OSError as exc:
            raise TransportBroken("reading failed") from exc
        if not piece:
            raise TransportBroken(
                "end of the stream in the middle of a mount request or its answer"
            )
        got += piece
    return bytes(got)


async def _send_all(sock: socket.socket, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        except OSError as exc:
            raise TransportBroken("writing failed") from exc


def options_of(words: Iterable[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    """Return mount options as a request carries them."""
    return tuple((os.fsencode(key), os.fsencode(value)) for key, value in words)
