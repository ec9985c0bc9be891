"""What a server asks of the kernel half: flushes, and to be unmounted.

A flush goes up through the mount to whoever caches what this file system has said. It
must not be waited for where replies are read: a cache above may only be able to fulfil
it when an operation under way has had its reply. So over a putter each has a task.
"""

from __future__ import annotations

import logging
from errno import EAGAIN, EINVAL, EIO, ENOENT, EOPNOTSUPP
from itertools import count
from typing import Final

import trio

from ...native.constants import (
    FLAG_FAF,
    FLAG_RESPONSE,
    ID_FROM_SERVER,
    OPCLASS_MASK,
    FlushOp,
    OpClass,
    Vtype,
)
from ...native.errors import RemoteProtocolError, VfsError
from ...native.frames import (
    Header,
    decode_header,
    decode_request,
    encode_error,
    encode_reply,
    encode_request,
)
from ...native.records import Buffer, Cookie
from .kernel import PuffsFs
from .touser import QueueTouser

_log = logging.getLogger(__name__)

MAX_FLUSHES: Final = 1024
"""Flushes under way at the same time; one more is answered with EAGAIN."""

_PAGE_OPS: Final = frozenset(
    {FlushOp.INVAL_PAGECACHE_NODE_RANGE, FlushOp.FLUSH_PAGECACHE_NODE_RANGE}
)
_DIR_OPS: Final = frozenset({FlushOp.INVAL_NAMECACHE_DIR, FlushOp.INVAL_NAMECACHE_NAME})


class FromServer:
    """Answers the frames that the server of `fs` sends on its own account."""

    def __init__(self, fs: PuffsFs) -> None:
        self._fs = fs
        self._flushes = 0

    # The frames of a putter.

    def dispatch(self, frame: Buffer, touser: QueueTouser, nursery: trio.Nursery) -> None:
        """Handle a frame that is no reply; a flush goes on in a task of `nursery`.

        RemoteProtocolError for what does not even say whose request it is.
        """
        try:
            header, args = decode_request(frame)
        except RemoteProtocolError:
            self._refuse(frame, touser)
            return
        opclass, optype, id, cookie = header[1:5]
        opclass &= OPCLASS_MASK
        if opclass == OpClass.UNMOUNT:
            touser.post(encode_reply(opclass, optype, id, cookie, None))
            self.unmount()
        elif opclass != OpClass.FLUSH:
            touser.post(encode_error(opclass, optype, id, cookie, EOPNOTSUPP))
        elif self._flushes >= MAX_FLUSHES:
            touser.post(encode_error(opclass, optype, id, cookie, EAGAIN))
        else:
            self._flushes += 1
            nursery.start_soon(self._flush_later, header, args, touser)

    def _refuse(self, frame: Buffer, touser: QueueTouser) -> None:
        """Answer what is no request, if it says whose it wants to be."""
        header = decode_header(frame)
        if not header.opclass & (FLAG_FAF | FLAG_RESPONSE):
            opclass = header.opclass & OPCLASS_MASK
            known = opclass in (OpClass.FLUSH, OpClass.UNMOUNT)
            errno = EINVAL if known else EOPNOTSUPP
            touser.post(encode_error(opclass, header.optype, header.id, header.cookie, errno))

    async def _flush_later(
        self, header: Header, args: tuple[int, int, bytes], touser: QueueTouser
    ) -> None:
        try:
            # A reply that came before the flush has woken its caller but may not have been
            # admitted yet; the flush must find its node.
            await trio.lowlevel.checkpoint()
            errno = await self.flush(header.optype, header.cookie, *args)
        finally:
            self._flushes -= 1
        opclass = header.opclass & OPCLASS_MASK
        if not header.opclass & FLAG_FAF:
            reply = (opclass, header.optype, header.id, header.cookie)
            touser.post(encode_error(*reply, errno) if errno else encode_reply(*reply, None))

    # What they ask for.

    async def flush(self, op: int, cookie: int, start: int, end: int, name: bytes) -> int:
        """Fulfil a flush and return 0, or an error number.

        ENOENT unknown cookie; EINVAL page operation on no regular file, directory operation on
        no directory, a range that is none, no name; other: what the caches above said.
        """
        fs = self._fs
        if not fs.is_mounted:
            return ENOENT
        if end and start >= end:
            return EINVAL
        mount = fs.mount
        try:
            if op == FlushOp.INVAL_NAMECACHE_ALL:
                await mount.flush(FlushOp.INVAL_NAMECACHE_ALL, None)
                return 0
            vp = mount.vget(cookie)
            if vp is None:
                return ENOENT
            try:
                if op in _PAGE_OPS and vp.vtype != Vtype.VREG:
                    return EINVAL
                if op in _DIR_OPS and vp.vtype != Vtype.VDIR:
                    return EINVAL
                if (op == FlushOp.INVAL_NAMECACHE_NAME) != bool(name):
                    return EINVAL
                await mount.flush(FlushOp(op), vp, start, end, name)
            finally:
                mount.kernel.vrele_async(vp)
        except VfsError as exc:
            return exc.errno
        except Exception:
            # A bug above must not take the mount with it, and the server must not wait for ever.
            _log.exception("flush %d of cookie %d failed by a bug; answered with EIO", op, cookie)
            return EIO
        return 0

    def unmount(self) -> None:
        """Fulfil the wish to be unmounted, which has been answered."""
        if self._fs.is_mounted:
            self._fs.mount.request_unmount()


class DirectUpcalls:
    """`Upcalls` of a server in the same process: frames all the same, but no task."""

    def __init__(self, from_server: FromServer) -> None:
        self._from_server = from_server
        self._ids = count(ID_FROM_SERVER + 1)

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """See Upcalls. Errors: EINVAL as in `FromServer.flush`, what the caches above said."""
        frame = encode_request(OpClass.FLUSH, op, next(self._ids), cookie, (start, end, name))
        header, args = decode_request(frame)
        errno = await self._from_server.flush(header.optype, header.cookie, *args)
        if errno not in (0, ENOENT):
            raise VfsError(errno, "answer to a flush")

    def unmount(self) -> None:
        """See Upcalls."""
        self._from_server.unmount()
