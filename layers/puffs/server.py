"""The server half without a carrier: a frame in, an operation of a FileServer, a reply out.

In one process the kernel half awaits `ServerHalf.handle` directly (`touser.DirectTouser`);
behind a descriptor it is called by the workers of `stream.StreamServer`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from errno import EIO, EOPNOTSUPP, EPROTO
from typing import Any, Final, NamedTuple, TypeAlias

from ...native.constants import (
    FLAG_FAF,
    FLAG_RESPONSE,
    MNT_FORCE,
    OPCLASS_MASK,
    OpClass,
    VfsOp,
    VnOp,
)
from ...native.errors import RemoteProtocolError, VfsError
from ...native.frames import decode_header, decode_request, encode_error, encode_reply
from ...native.records import Buffer, Cookie
from ..ops import FileServer

_log = logging.getLogger(__name__)

MAX_ERRNO: Final = 4095
_COMPLAINTS: Final = 10
"""How many requests that are none are logged as warnings; all of them are counted."""

# As plain numbers: members of an enumeration are slow to reach.
_VFS: Final = int(OpClass.VFS)
_VN: Final = int(OpClass.VN)
_ERROR: Final = int(OpClass.ERROR)
_READ: Final = int(VnOp.READ)
_SYNC_OPS: Final = frozenset({int(VnOp.CLOSE), int(VnOp.RECLAIM), int(VnOp.ABORTOP)})

Answer: TypeAlias = tuple[bytes, Buffer | None]
"""A reply: its head, and its payload where it has one."""


class ServerStatistics(NamedTuple):
    """Figures of a server half: requests handled, refused as no requests, and crashed."""

    requests: int
    refused: int
    crashes: int


class ServerHalf:
    """Calls `server` for frames. `has_ended` is True once an unmount has been granted."""

    def __init__(self, server: FileServer) -> None:
        self.has_ended = False
        self._requests = 0
        self._refused = 0
        self._crashes = 0
        self._crashed: set[tuple[int, int, type[Exception]]] = set()
        self.stand_on(server)

    def stand_on(self, server: FileServer) -> None:
        """Call `server` from now on, which knows the same cookies; see layers/joint.py."""
        self.server = server
        # Looked up once: the method of each operation, by its number.
        self._vnode_ops: list[Callable[..., Any]] = [
            getattr(server, op.name.lower(), _absent) for op in VnOp
        ]
        self._vfs_ops: dict[int, Callable[..., Awaitable[Any]]] = {
            VfsOp.STATVFS: server.statvfs,
            VfsOp.SYNC: server.sync,
            VfsOp.UNMOUNT: self._unmount,
            VfsOp.FHTOVP: server.fhtonode,
        }

    def statistics(self) -> ServerStatistics:
        """Return the figures of now."""
        return ServerStatistics(self._requests, self._refused, self._crashes)

    async def handle(self, frame: Buffer, payload: Buffer | None = None) -> Answer | None:
        """Do what a request asks for and return the reply; None where none is wanted.

        `payload` belongs to the frame and is not in it. Errors become replies; what does not even
        say whose request it is raises RemoteProtocolError, for somebody may wait for an answer
        that cannot be given. Else nothing is raised but cancellation.
        """
        try:
            header, args = decode_request(frame, payload)
        except RemoteProtocolError as exc:
            return self._refuse(frame, exc)
        opclass, optype, id, cookie = header[1:5]
        self._requests += 1
        try:
            if opclass == _VN:
                result = await self._vnode_ops[optype](cookie, *args)
                if optype == _READ:
                    return encode_reply(_VN, _READ, id, cookie, result), result
                return encode_reply(_VN, optype, id, cookie, result), None
            if not opclass & FLAG_FAF:
                result = await self._vfs(opclass, optype, Cookie(cookie), args)
                return encode_reply(opclass, optype, id, cookie, result), None
            opclass &= OPCLASS_MASK
            if self._fire(opclass, optype, Cookie(cookie), args):
                pass
            elif opclass == _VN:
                await self._vnode_ops[optype](cookie, *args)
            else:
                await self._vfs(opclass, optype, Cookie(cookie), args)
            return None
        except VfsError as exc:
            errno = exc.errno
            if not 0 < errno <= MAX_ERRNO:
                self._crash(opclass, optype, exc)
                errno = EIO
        except Exception as exc:
            self._crash(opclass, optype, exc)
            errno = EIO
        if header.opclass & FLAG_FAF:
            return None
        return encode_error(opclass, optype, id, cookie, errno), None

    def fire(self, frame: Buffer) -> bool:
        """Do what a fire-and-forget frame asks for if that cannot wait; return whether it is done.

        False: the operation may have to wait and is for `handle`.
        """
        try:
            header, args = decode_request(frame)
        except RemoteProtocolError as exc:
            self._refuse(frame, exc)
            return True
        opclass = header.opclass & OPCLASS_MASK
        try:
            done = self._fire(opclass, header.optype, Cookie(header.cookie), args)
        except Exception as exc:
            self._crash(opclass, header.optype, exc)
            done = True
        self._requests += done
        return done

    def _fire(self, opclass: int, optype: int, cookie: Cookie, args: tuple[Any, ...]) -> bool:
        if opclass == _VN:
            if optype not in _SYNC_OPS:
                return False
            self._vnode_ops[optype](cookie, *args)
        elif opclass == _ERROR:
            errno, text = args
            self.server.error_note(optype, errno, text.decode("utf-8", "replace"), cookie)
        else:
            return False
        return True

    async def _vfs(self, opclass: int, optype: int, cookie: Cookie, args: tuple[Any, ...]) -> Any:
        if opclass != _VFS:
            raise VfsError(EOPNOTSUPP)  # flushes go the other way
        method = self._vfs_ops.get(optype)
        if method is not None:
            return await method(*args)
        if optype == VfsOp.VPTOFH:
            return await self.server.nodetofh(cookie)
        if optype == VfsOp.EXTATTRCTL:
            cmd, namespace, name = args
            return await self.server.extattrctl(cmd, cookie, namespace, name)
        raise VfsError(EOPNOTSUPP)

    async def _unmount(self, flags: int) -> None:
        try:
            await self.server.unmount(flags)
        except VfsError:
            # Forced: the kernel half ignores what we say, and nothing will be asked any more.
            self.has_ended = bool(flags & MNT_FORCE)
            raise
        self.has_ended = True

    def _refuse(self, frame: Buffer, error: RemoteProtocolError) -> Answer | None:
        """Answer what is no request, if it says whose request it wants to be."""
        self._refused += 1
        level = logging.WARNING if self._refused <= _COMPLAINTS else logging.DEBUG
        header = decode_header(frame)
        _log.log(level, "request refused: %s (class %d, type %d)", error, *header[1:3])
        opclass, optype = header.opclass & OPCLASS_MASK, header.optype
        if header.opclass & (FLAG_FAF | FLAG_RESPONSE) or opclass not in (_VFS, _VN):
            return None
        known = optype in self._vfs_ops if opclass == _VFS else optype < len(self._vnode_ops)
        errno = EPROTO if known else EOPNOTSUPP
        return encode_error(opclass, optype, header.id, header.cookie, errno), None

    def _crash(self, opclass: int, optype: int, error: Exception) -> None:
        """Count what should not have come out of an operation; log each kind once."""
        self._crashes += 1
        kind = (opclass, optype, type(error))
        if kind not in self._crashed:
            self._crashed.add(kind)
            _log.error(
                "operation %d of class %d of %s failed by a bug; answered with EIO",
                optype,
                opclass & OPCLASS_MASK,
                type(self.server).__name__,
                exc_info=error,
            )


async def _absent(*args: Any) -> Any:
    raise VfsError(EOPNOTSUPP)
