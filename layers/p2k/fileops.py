"""The operations on one file: its data and attributes."""

from __future__ import annotations

from errno import EOPNOTSUPP, EROFS, EXDEV
from typing import Final

from ...emul.lock import lock_all, unlock_all
from ...emul.lockf import lf_advlock
from ...native.constants import FWRITE, VWRITE, Vtype
from ...native.errors import VfsError
from ...native.records import Buffer, Cookie, Cred, Flock, Vattr
from .nodes import Nodes

_ON_MEDIUM: Final = frozenset((Vtype.VREG, Vtype.VDIR, Vtype.VLNK))
"""Types of nodes that cannot be written when the file system cannot."""


class FileOperations(Nodes):
    """The part of a P2k that works on files."""

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """See FileServer."""
        vp = self._vp(opc)
        if mode & FWRITE and self._mount.is_rdonly and vp.vtype in _ON_MEDIUM:
            raise VfsError(EROFS)
        lock = vp.lock
        if not lock.try_exclusive():
            await lock.exclusive()
        try:
            return await vp.fs.open(vp, mode, cred), 0
        finally:
            lock.release()

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        """See FileServer."""
        node = self._nodes.get(opc)
        if node is not None:
            node.vp.fs.close(node.vp, fflag, cred)

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        """See FileServer. What is behind a device or a pipe may be written on a read-only mount."""
        vp = self._vp(opc)
        if mode & VWRITE and self._mount.is_rdonly and vp.vtype in _ON_MEDIUM:
            raise VfsError(EROFS)
        await vp.lock.shared()
        try:
            await vp.fs.access(vp, mode, cred)
        finally:
            vp.lock.release()

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer."""
        vp = self._vp(opc)
        lock = vp.lock
        if not lock.try_shared():
            await lock.shared()
        try:
            return await vp.fs.getattr(vp, cred)
        finally:
            lock.release()

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        await vp.lock.exclusive()
        try:
            return await vp.fs.setattr(vp, va, cred)
        finally:
            vp.lock.release()

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """See FileServer."""
        vp = self._vp(opc)
        lock = vp.lock
        if not lock.try_shared():
            await lock.shared()
        try:
            return await vp.fs.read(vp, offset, resid, ioflag, cred)
        finally:
            lock.release()

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        lock = vp.lock
        if not lock.try_exclusive():
            await lock.exclusive()
        try:
            await vp.fs.write(vp, offset, data, ioflag, cred)
        finally:
            lock.release()

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            await vp.fs.fsync(vp, flags, offlo, offhi, cred)
        finally:
            vp.lock.release()

    async def seek(self, opc: Cookie, old: int, new: int, cred: Cred) -> None:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            await vp.fs.seek(vp, old, new, cred)
        finally:
            vp.lock.release()

    async def mmap(self, opc: Cookie, prot: int, cred: Cred) -> int:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.fs.mmap(vp, prot, cred)
        return 0

    async def poll(self, opc: Cookie, events: int) -> int:
        """See FileServer."""
        vp = self._vp(opc)
        return await vp.fs.poll(vp, events)

    async def advlock(self, opc: Cookie, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """See FileServer. What a file system has no locks for, the kernel keeps."""
        vp = self._vp(opc)
        try:
            return await vp.fs.advlock(vp, owner, op, flock, flags)
        except VfsError as exc:
            if exc.errno != EOPNOTSUPP:
                raise
        return await lf_advlock(vp, owner, op, flock, flags)

    async def getextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> bytes:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            return await vp.fs.getextattr(vp, namespace, name, cred)
        finally:
            vp.lock.release()

    async def setextattr(
        self, opc: Cookie, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        await vp.lock.exclusive()
        try:
            await vp.fs.setextattr(vp, namespace, name, value, flags, cred)
        finally:
            vp.lock.release()

    async def listextattr(self, opc: Cookie, namespace: int, cred: Cred) -> bytes:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            return await vp.fs.listextattr(vp, namespace, cred)
        finally:
            vp.lock.release()

    async def deleteextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> None:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        await vp.lock.exclusive()
        try:
            await vp.fs.deleteextattr(vp, namespace, name, cred)
        finally:
            vp.lock.release()

    async def fallocate(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        await vp.lock.exclusive()
        try:
            await vp.fs.fallocate(vp, offset, length)
        finally:
            vp.lock.release()

    async def fdiscard(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        await vp.lock.exclusive()
        try:
            await vp.fs.fdiscard(vp, offset, length)
        finally:
            vp.lock.release()

    async def seek_data(self, opc: Cookie, offset: int, whence: int, cred: Cred) -> int:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            return await vp.fs.seek_data(vp, offset, whence, cred)
        finally:
            vp.lock.release()

    async def copy_file_range(
        self, opc: Cookie, offset: int, targ: Cookie, targ_offset: int, length: int, cred: Cred
    ) -> int:
        """See FileServer. Errors: EXDEV between two file systems."""
        self._writable()
        vp, tvp = self._vp(opc), self._vp(targ)
        if vp.mount is not tvp.mount:
            raise VfsError(EXDEV)
        await lock_all(vp.lock, tvp.lock)
        try:
            return await vp.fs.copy_file_range(vp, offset, tvp, targ_offset, length, cred)
        finally:
            unlock_all(vp.lock, tvp.lock)
