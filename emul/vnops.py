"""Vnode operations with the lock that each asks for (the vn_* functions of NetBSD's kernel).

For clients of the kernel that do one operation and let go. Entry of all of them: the caller has
a reference on each vnode and no lock. They do not yield unless the lock or the file system does.
What is the same for all file systems (read-only mounts) is still the caller's to check.
"""

from __future__ import annotations

from ..native.constants import VEXEC
from ..native.records import Buffer, Cred, Vattr
from .vfs import Entry
from .vnode import Vnode, vrele, vrele_nowait


async def vn_getattr(vp: Vnode, cred: Cred) -> Vattr:
    """Return the attributes."""
    lock = vp.lock
    if not lock.try_shared():
        await lock.shared()
    try:
        return (await vp.fs.getattr(vp, cred))[0]
    finally:
        lock.release()


async def vn_setattr(vp: Vnode, va: Vattr, cred: Cred) -> None:
    """Change what is not None in `va`."""
    lock = vp.lock
    if not lock.try_exclusive():
        await lock.exclusive()
    try:
        await vp.fs.setattr(vp, va, cred)
    finally:
        lock.release()


async def vn_access(vp: Vnode, mode: int, cred: Cred) -> None:
    """Return if `cred` may do all of `mode` (VREAD, VWRITE, VEXEC). Errors: EACCES, EROFS."""
    lock = vp.lock
    if not lock.try_shared():
        await lock.shared()
    try:
        await vp.fs.access(vp, mode, cred)
    finally:
        lock.release()


async def vn_search(dvp: Vnode, cred: Cred) -> None:
    """Return if `cred` may search the directory, where no lookup asks. Errors: EACCES."""
    await vn_access(dvp, VEXEC, cred)


async def vn_readlink(vp: Vnode, cred: Cred) -> bytes:
    """Return the target of a link. Errors: EINVAL."""
    lock = vp.lock
    if not lock.try_shared():
        await lock.shared()
    try:
        return await vp.fs.readlink(vp, cred)
    finally:
        lock.release()


async def vn_open(vp: Vnode, mode: int, cred: Cred) -> None:
    """Open; each success is followed by one `fs.close` with the same mode. Errors: EACCES."""
    lock = vp.lock
    if not lock.try_exclusive():
        await lock.exclusive()
    try:
        await vp.fs.open(vp, mode, cred)
    finally:
        lock.release()


async def vn_read(vp: Vnode, offset: int, resid: int, cred: Cred) -> Buffer:
    """Return up to `resid` octets from `offset`, fewer only at the end."""
    lock = vp.lock
    if not lock.try_shared():
        await lock.shared()
    try:
        return await vp.fs.read(vp, offset, resid, 0, cred)
    finally:
        lock.release()


async def vn_fsync(vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
    """Make data stable."""
    lock = vp.lock
    if not lock.try_shared():
        await lock.shared()
    try:
        await vp.fs.fsync(vp, flags, offlo, offhi, cred)
    finally:
        lock.release()


async def vn_readdir(vp: Vnode, offset: int, resid: int, cred: Cred) -> tuple[list[Entry], bool]:
    """Return entries from `offset`, and whether that is all. Errors: ENOTDIR, ENOENT (removed)."""
    lock = vp.lock
    if not lock.try_shared():
        await lock.shared()
    try:
        entries, eof = await vp.fs.readdir(vp, offset, resid, 0, cred)
    finally:
        lock.release()
    return list(entries), eof


async def vn_rele(vp: Vnode) -> None:
    """Drop a reference, at once when it is not the last one."""
    if not vrele_nowait(vp):
        await vrele(vp)
