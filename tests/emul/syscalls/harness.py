"""Processes in kernels that run no tasks: what has to wait there does not pass."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.mount import Mount
from syspuffs.emul.namei import namei
from syspuffs.emul.nameidata import NOFOLLOW, Nameidata
from syspuffs.emul.syscalls import Process
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vfs import FileSystem
from syspuffs.native.constants import NameiOp
from syspuffs.native.records import Cred

from ..caller import ROOT, now

T = TypeVar("T")


def tmpfs(**options: Any) -> TmpFs:
    return TmpFs(**({"uid": 0, "gid": 0, "mode": 0o755} | options))


def booted(fs: FileSystem | None = None, cred: Cred = ROOT, **options: Any) -> Process:
    """Return the first process of a kernel with `fs` as its root."""
    kernel = Kernel()
    now(kernel.mount(fs or tmpfs()))
    return Process(kernel, cred, **options)


def mount(process: Process, path: bytes, fs: FileSystem | None = None) -> Mount:
    return now(process.mount(fs or tmpfs(), path))


def write_file(process: Process, path: bytes, data: bytes = b"", mode: int = 0o644) -> None:
    fd = now(process.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode))
    if data:
        assert now(process.write(fd, data)) == len(data)
    now(process.close(fd))


def read_file(process: Process, path: bytes) -> bytes:
    fd = now(process.open(path, os.O_RDONLY))
    data = bytes(now(process.read(fd, 1 << 20)))
    now(process.close(fd))
    return data


def walk(
    process: Process,
    path: bytes,
    nameiop: int = NameiOp.LOOKUP,
    flags: int = NOFOLLOW,
    cred: Cred = ROOT,
) -> Coroutine[Any, Any, Nameidata]:
    """Walk from the root of the kernel."""
    root = process.kernel.mounts[0].root
    return namei(path, nameiop, flags, cred, atdir=root, rdir=root)


def check_idle(*processes: Process) -> None:
    """Check that nothing is locked, and nothing referenced but by processes and mounts."""
    directories = [vp for process in processes for vp in (process._cdir, process._rdir)]
    for mounted in processes[0].kernel.mounts:
        for vp in mounted:
            wanted = vp.is_root + (vp.mountedhere is not None) + directories.count(vp)
            assert vp.usecount == wanted, f"{vp.usecount} references instead of {wanted}: {vp!r}"
            assert not vp.lock.is_locked, f"locked: {vp!r}"
