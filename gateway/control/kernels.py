"""The emulated kernels of a stack: their vnodes, buffers and locks, as lines of an answer.

Kernels are numbered as the layers that stand on them. Nothing is locked for it: an answer is one
moment between two steps of the tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fcntl import F_RDLCK
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from ...emul.lock import EXCLUSIVE_HOLD, SHARED_HOLD, UPGRADE, VnodeLock
from ...emul.lockf import Lockf
from ...native.constants import Vtype
from ...native.records import Cookie, Flock
from .elements import kernels
from .ends import End, Request
from .frames import frames

if TYPE_CHECKING:
    from ...emul.kernel import Kernel
    from ...emul.mount import Mount
    from ...emul.vnode import Vnode

_WANTS: Final = {SHARED_HOLD: "shared", EXCLUSIVE_HOLD: "exclusive", UPGRADE: "upgrade"}


def _mounts(kernel: Kernel) -> Iterable[Mount]:
    return (*kernel.mounts, kernel.devices)


def _vnodes(end: End) -> Iterator[tuple[int, Vnode]]:
    for number, kernel in enumerate(kernels(end), 1):
        for mount in _mounts(kernel):
            for vp in mount:
                yield number, vp


def _key(vp: Vnode) -> str:
    return vp.key.decode("utf-8", "backslashreplace") if isinstance(vp.key, bytes) else str(vp.key)


def _path(end: End, number: int, vp: Vnode) -> str:
    """Return the path of a vnode, which the end knows for the uppermost kernel alone."""
    path = end.path(Cookie(vp.serial)) if number == 1 else None
    return "" if path is None else path.decode("utf-8", "backslashreplace")


def vnodes(end: End, limit: int) -> dict[str, Any]:
    """Return at most `limit` vnodes, and how many there are."""
    rows = [
        {
            "kernel": number,
            "vnode": vp.serial,
            "fs": vp.fs.typename,
            "key": _key(vp),
            "type": Vtype(vp.vtype).name,
            "size": vp.size,
            "uses": vp.usecount,
            "lock": _lock(vp),
            "dirty_pages": vp.uobj.ndirty if vp.uobj is not None else 0,
            "dirty_buffers": len(vp.dirtyblks or ()),
            "writes": vp.numoutput,
            "is_modified": vp.is_modified,
            "path": _path(end, number, vp),
        }
        for number, vp in islice(_vnodes(end), limit)
    ]
    count = sum(len(mount) for kernel in kernels(end) for mount in _mounts(kernel))
    return {"count": count, "vnodes": rows}


def _lock(vp: Vnode) -> str:
    lock = vp.lock
    if lock.is_exclusive:
        return "exclusive"
    return f"shared {lock.shared_holds}" if lock.is_locked else ""


def buffers(end: End, limit: int) -> dict[str, Any]:
    """Return at most `limit` buffers, and how many there are."""
    found = [(number, bp) for number, kernel in enumerate(kernels(end), 1) for bp in kernel.bufs]
    rows = [
        {
            "kernel": number,
            "device": bp.vp.serial,
            "block": bp.blkno,
            "octets": bp.bcount,
            "flags": bp.flag_names,
            "error": bp.error,
            "waiting": len(bp.waiters or ()),
        }
        for number, bp in found[:limit]
    ]
    return {"count": len(found), "buffers": rows}


def locks(end: End, limit: int) -> dict[str, Any]:
    """Return the locks that are held or waited for: those of vnodes, and advisory ones of files.

    A vnode's lock counts its holders and does not know them; `users` are requests under way that
    work on the vnode and do not wait for it, so that its holders are among them.
    """
    asked = [(request, _waits(request)) for request in end.requests()]
    waiting = {wait.waiter: request for request, wait in asked if wait is not None}
    held = [
        _vnode_lock(end, number, vp, asked)
        for number, vp in islice(
            ((n, vp) for n, vp in _vnodes(end) if vp.lock.is_locked or vp.lock.waiting), limit
        )
    ]
    advisory = [
        {
            "kernel": number,
            "vnode": locked.vp.serial,
            "path": _path(end, number, locked.vp),
            "locks": [_range(flock) for flock in locked.locks],
            "waiting": [
                _range(flock) | _who(waiting.get(task)) for flock, task in locked.waiting[:limit]
            ],
        }
        for number, kernel in enumerate(kernels(end), 1)
        for locked in kernel.lockf.snapshot()[:limit]
    ]
    return {"vnodes": held, "advisory": advisory[:limit]}


class _Wait(NamedTuple):
    """What a request waits for, and the task that does: a frame says both."""

    lock: VnodeLock | None
    waiter: trio.lowlevel.Task


def _waits(request: Request) -> _Wait | None:
    for frame in frames(request.running):
        names = frame.f_locals
        if frame.f_code is _LOCK_WAIT:
            return _Wait(names["self"], names["task"])
        if frame.f_code is _LOCKF_WAIT:
            return _Wait(None, names["wait"].task)
    return None


_LOCK_WAIT: Final = VnodeLock._wait.__code__
_LOCKF_WAIT: Final = Lockf.wait.__code__


def _vnode_lock(
    end: End, number: int, vp: Vnode, asked: list[tuple[Request, _Wait | None]]
) -> dict[str, Any]:
    lock = vp.lock
    waiting = {
        wait.waiter: request for request, wait in asked if wait is not None and wait.lock is lock
    }
    return {
        "kernel": number,
        "vnode": vp.serial,
        "path": _path(end, number, vp),
        "held": _lock(vp),
        "waiting": [{"for": _WANTS[want]} | _who(waiting.get(task)) for task, want in lock.waiting],
        "users": [
            _who(request)
            for request, wait in asked
            if (wait is None or wait.lock is not lock) and _works_on(request, vp)
        ],
    }


def _works_on(request: Request, vp: Vnode) -> bool:
    """Return whether a function that a request is in knows a vnode."""
    return any(
        value is vp or value is vp.lock
        for frame in frames(request.running)
        for value in frame.f_locals.values()
    )


def _who(request: Request | None) -> dict[str, Any]:
    """Return who waits, or works; a task of the kernel's own has nobody behind it."""
    if request is None:
        return {"operation": "", "pid": None}
    return {
        "operation": request.name,
        "pid": None if request.who is None else request.who.pid,
    }


def _range(flock: Flock) -> dict[str, Any]:
    return {
        "type": "read" if flock.type == F_RDLCK else "write",
        "start": flock.start,
        "octets": flock.len or None,
        "owner": flock.pid,
    }
