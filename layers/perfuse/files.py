"""Operations on files: opened, read, written, made stable, locked; and on attributes."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from errno import EINVAL, EIO, EMSGSIZE, ENOENT, EOPNOTSUPP, ESTALE
from fcntl import F_GETLK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK
from typing import Final

import trio

from ...native import fuse_replies, fuse_requests
from ...native.constants import (
    F_FLOCK,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FREAD,
    FSYNC_CLOSE,
    FSYNC_DATAONLY,
    FWRITE,
    IO_APPEND,
    IO_SYNC,
    OpenFlag,
    Setback,
    Vtype,
)
from ...native.errors import VfsError
from ...native.fuse_protocol import (
    FSYNC_FDATASYNC,
    GETATTR_FH,
    LK_FLOCK,
    FopenFlag,
    Lock,
    Valid,
)
from ...native.memory import unset_memory
from ...native.records import FSCRED, VTYPE_TO_IFMT, Buffer, Cookie, Cred, Flock, Vattr
from .connection import SPLICED_MAX, Slot, data
from .names import NameOperations
from .nodes import Handle, Node

_XATTR_MAX: Final = 65536
"""Longest value or list of extended attributes, as Linux has it, octets."""
_SHORT_READ: Final = 16384
"""A read up to here has nothing read ahead behind it, octets."""


class FileOperations(NameOperations):
    """See the module."""

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """See FileServer. One OPEN each, but for the first after CREATE."""
        node = self.node(opc)
        mode &= FREAD | FWRITE
        fopen = 0
        if node.vtype in (Vtype.VREG, Vtype.VDIR):
            handle = next((loan for loan in node.loans if loan.mode & mode == mode), None)
            if handle is not None and node.vtype == Vtype.VREG:
                node.loans.remove(handle)
                handle.mode = mode
            else:
                handle, fopen = await self.open_at_server(node, mode, cred)
            node.handles.append(handle)
        flags = 0
        if fopen & FopenFlag.DIRECT_IO:
            flags |= OpenFlag.IO_DIRECT
        if fopen & FopenFlag.KEEP_CACHE:
            flags |= OpenFlag.IO_KEEP
        return flags, Setback.INACT_N1

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        """See FileServer. RELEASE follows a FLUSH where one is due."""
        node = self.nodes.known(opc)
        if node is None:
            return
        mode = fflag & (FREAD | FWRITE)
        fitting = [handle for handle in node.handles if handle.mode == mode]
        if fitting:
            # One that has written goes first: whoever closes was told by fsync how that went.
            # One through which somebody has locks goes last.
            handle = max(fitting, key=lambda handle: (handle.owner is None, handle.is_unsynced))
            node.handles.remove(handle)
            self.nodes.release(node, handle)

    async def inactive(self, opc: Cookie) -> int:
        """See FileServer. A file whose last name went is recycled, so that its data may go."""
        node = self.node(opc)
        self.return_loans(node)
        if not node.is_removed:
            return 0
        try:
            va, _ = await self.attributes(node, FSCRED)
        except VfsError as exc:
            return Setback.NOREF_N1 if exc.errno in (ENOENT, ESTALE) else 0
        return 0 if va.nlink else Setback.NOREF_N1

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """See FileServer. What is more than one message carries is asked for all at once."""
        node = self.node(opc)
        size = self.session.read_max
        with await self.handle_for(node, FREAD, cred) as handle:
            if not self.connection.splices:
                try:
                    return await self._read(node, handle, offset, resid, size, cred)
                except VfsError as exc:
                    if exc.errno != EMSGSIZE or not self.connection.splices:
                        raise
            size = min(size, SPLICED_MAX)
            return await self._read(node, handle, offset, resid, size, cred)

    async def _read(
        self, node: Node, handle: Handle, offset: int, resid: int, size: int, cred: Cred
    ) -> Buffer:
        """Read in pieces of `size`. Errors: EMSGSIZE when an answer came in pieces."""
        if resid <= size:
            args = (handle.fh, offset, resid, handle.flags)
            # The host reads ahead: the next request is there before this one's answer.
            is_long = resid > _SHORT_READ
            piece: Buffer = await self.ask(
                *(fuse_requests.read, node, cred, *args), decode=data, is_long=is_long
            )
            if len(piece) > resid:
                raise VfsError(EIO, "the FUSE server told more than was asked for")
            return piece
        whole = unset_memory(resid)
        slots: list[Slot] = []
        end = offset + resid
        try:
            for at in range(offset, end, size):
                await self.connection.room()
                args = (handle.fh, at, min(size, end - at), handle.flags)
                slots.append(
                    self.connection.submit(
                        fuse_requests.read,
                        *(node.nodeid, cred, *args),
                        decode=data,
                        into=whole[at - offset : at - offset + size],
                    )
                )
            # The last one first: the others have come then as a rule, and wake nobody. What it
            # says does not matter behind a short one.
            with suppress(VfsError):
                await slots[-1].wait()
            length = full = 0
            for slot in slots:
                full = min(full + size, resid)
                length += await slot.wait()
                if length < full:
                    break
        finally:
            for slot in slots:
                slot.abandon()
        return whole[:length]

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """See FileServer. With IO_APPEND the server is asked where the end is."""
        node = self.node(opc)
        with await self.handle_for(node, FWRITE, cred) as handle:
            if not ioflag & IO_APPEND:
                await self._write(node, handle, offset, data, cred)
            else:
                if node.appending is None:
                    node.appending = trio.Lock()
                async with node.appending:
                    va, _ = await self.attributes(node, cred)
                    await self._write(node, handle, va.size or 0, data, cred)
        if ioflag & IO_SYNC:
            await self.sync_node(node, 0, cred)

    async def _write(
        self, node: Node, handle: Handle, offset: int, data: Buffer, cred: Cred
    ) -> None:
        handle.is_dirty = handle.is_unsynced = True
        view = memoryview(data)
        while view:
            piece = view[: self.session.write_max]
            written: int = await self.ask(
                fuse_requests.write,
                *(node, cred, handle.fh, offset, len(piece), handle.flags),
                payload=piece,
                decode=fuse_replies.count,
            )
            if not 0 < written <= len(piece):
                raise VfsError(EIO, "the FUSE server wrote nothing, or more than it was given")
            view = view[written:]
            offset += written

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """See FileServer. FSYNC_CLOSE is a FLUSH of each handle that has written."""
        node = self.node(opc)
        if not flags & FSYNC_CLOSE:
            await self.sync_node(node, FSYNC_FDATASYNC if flags & FSYNC_DATAONLY else 0, cred)
            return
        for handle in [*node.handles, *node.loans]:
            if handle.is_dirty:
                await self.flush_handle(node, handle, cred)

    # Attributes.

    def _fh(self, node: Node, need: int) -> Handle | None:
        every = (*node.handles, *node.loans)
        return next((handle for handle in every if handle.mode & need), None)

    async def attributes(self, node: Node, cred: Cred) -> tuple[Vattr, int]:
        """Ask for attributes; of a removed file through an open one, if there is any."""
        is_open = node.is_removed and node.vtype == Vtype.VREG
        handle = self._fh(node, FREAD | FWRITE) if is_open else None
        args = (0, 0) if handle is None else (GETATTR_FH, handle.fh)
        with handle or nullcontext():
            answer = await self.ask(
                fuse_requests.getattr, node, cred, *args, decode=fuse_replies.attr
            )
        return self._checked(node, answer)

    def _checked(self, node: Node, answer: tuple[Vattr, int]) -> tuple[Vattr, int]:
        if answer[0].vtype != node.vtype:
            raise VfsError(EIO, "the FUSE server changed the type of a node in use")
        return answer

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer."""
        return await self.attributes(self.node(opc), cred)

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer. A change of size goes through a file that is open for writing."""
        node = self.node(opc)
        valid, fh = 0, 0
        for bit, value in (
            (Valid.MODE, va.mode),
            (Valid.UID, va.uid),
            (Valid.GID, va.gid),
            (Valid.SIZE, va.size),
            (Valid.ATIME, va.atime),
            (Valid.MTIME, va.mtime),
        ):
            if value is not None:
                valid |= bit
        if not valid:
            return await self.attributes(node, cred)
        handle = None if va.size is None else self._fh(node, FWRITE)
        if handle is not None:
            valid, fh = valid | Valid.FH, handle.fh
            handle.is_dirty = handle.is_unsynced = True
        with handle or nullcontext():
            answer = await self.ask(
                fuse_requests.setattr,
                *(node, cred, valid, fh, va.size or 0, va.atime or 0, va.mtime or 0),
                VTYPE_TO_IFMT[Vtype(node.vtype)] | (va.mode or 0),
                *(va.uid or 0, va.gid or 0),
                decode=fuse_replies.attr,
            )
        return self._checked(node, answer)

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        """See FileServer. A server without ACCESS lets everybody do everything."""
        await self.ask_if_there(fuse_requests.access, self.node(opc), cred, mode)

    async def getextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> bytes:
        """See FileServer."""
        args = (self.node(opc), cred, name, _XATTR_MAX)
        value: bytes = await self.ask(fuse_requests.getxattr, *args, decode=fuse_replies.octets)
        return value

    async def setextattr(
        self, opc: Cookie, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """See FileServer."""
        args = (self.node(opc), cred, name, len(value), flags)
        await self.ask(fuse_requests.setxattr, *args, payload=value)

    async def listextattr(self, opc: Cookie, namespace: int, cred: Cred) -> bytes:
        """See FileServer. Errors: EIO for a list whose last name has no end."""
        args = (self.node(opc), cred, _XATTR_MAX)
        names: bytes = await self.ask(fuse_requests.listxattr, *args, decode=fuse_replies.octets)
        if names and names[-1]:
            raise VfsError(EIO, "the FUSE server told a list of attributes without an end")
        return names

    async def deleteextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> None:
        """See FileServer."""
        await self.ask(fuse_requests.removexattr, self.node(opc), cred, name)

    # Space and locks.

    async def _allocate(self, opc: Cookie, offset: int, length: int, mode: int) -> None:
        node = self.node(opc)
        with await self.handle_for(node, FWRITE, FSCRED) as handle:
            handle.is_dirty = handle.is_unsynced = True
            args = (handle.fh, offset, length, mode)
            await self.ask(fuse_requests.fallocate, node, FSCRED, *args)

    async def fallocate(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        await self._allocate(opc, offset, length, 0)

    async def fdiscard(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        await self._allocate(opc, offset, length, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

    async def seek_data(self, opc: Cookie, offset: int, whence: int, cred: Cred) -> int:
        """See FileServer."""
        node = self.node(opc)
        with await self.handle_for(node, FREAD, cred) as handle:
            args = (handle.fh, offset, whence)
            found: int = await self.ask(
                fuse_requests.lseek, node, cred, *args, decode=fuse_replies.offset
            )
        return found

    async def copy_file_range(
        self, opc: Cookie, offset: int, targ: Cookie, targ_offset: int, length: int, cred: Cred
    ) -> int:
        """See FileServer. Errors: EIO for more than was asked for."""
        source, target = self.node(opc), self.node(targ)
        with (
            await self.handle_for(source, FREAD, cred) as reading,
            await self.handle_for(target, FWRITE, cred) as writing,
        ):
            writing.is_dirty = writing.is_unsynced = True
            args = (reading.fh, offset, target.nodeid, writing.fh, targ_offset, length, 0)
            copied: int = await self.ask(
                fuse_requests.copy_file_range, source, cred, *args, decode=fuse_replies.count
            )
        if copied > length:
            raise VfsError(EIO, "the FUSE server copied more than it was told")
        return copied

    async def _handle_of(self, node: Node, owner: int, need: int) -> Handle:
        """Return the handle through which `owner` has locks, or one that nobody has any through."""
        every = (*node.handles, *node.loans)
        for handle in every:
            if handle.owner == owner:
                return handle
        # An unlock needs no mode, and a flock(2) for writing none of FWRITE.
        free = [handle for handle in every if handle.owner is None]
        if free:
            return max(free, key=lambda handle: handle.mode & need)
        handle, _ = await self.open_at_server(node, need, FSCRED)
        if self.nodes.known(node.cookie) is not node:
            self.nodes.release(node, handle)
            raise VfsError(EIO, "a node was given back while in use")
        node.loans.append(handle)
        return handle

    async def advlock(self, opc: Cookie, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """See FileServer. Errors: EOPNOTSUPP where the server leaves locks to the kernel.

        Each owner has a handle of his own, for a server may lock the file that is behind it.
        """
        is_flock = bool(flags & F_FLOCK)
        if not (self.session.flocks if is_flock else self.session.locks):
            raise VfsError(EOPNOTSUPP)
        encode = {
            F_GETLK: fuse_requests.getlk,
            F_SETLK: fuse_requests.setlk,
            F_SETLKW: fuse_requests.setlkw,
        }.get(op)
        if encode is None or flock.start < 0 or flock.len < 0:
            raise VfsError(EINVAL)
        node = self.node(opc)
        handle = await self._handle_of(node, owner, FWRITE if flock.type == F_WRLCK else FREAD)
        args = (handle.fh, owner, Lock.of(flock), LK_FLOCK if is_flock else 0)
        with handle:
            if op != F_GETLK:
                handle.owner = owner
                await self.ask(encode, node, FSCRED, *args)
                if flock.type == F_UNLCK and not flock.start and not flock.len:
                    handle.owner = None
                return flock
            found: Lock = await self.ask(encode, node, FSCRED, *args, decode=fuse_replies.lock)
        if found.type == F_UNLCK:
            return flock._replace(type=F_UNLCK)
        return found.flock()
