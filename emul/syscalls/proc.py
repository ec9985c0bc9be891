"""What every system call needs of its process: who asks, from where, and with which files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from errno import EEXIST, ENOENT, EPERM, EROFS
from itertools import count
from typing import TYPE_CHECKING, Final

from ...native.constants import NameiOp
from ...native.errors import VfsError
from ...native.records import Componentname, Cred
from ..namei import namei
from ..nameidata import FOLLOW, LOCKPARENT, NOFOLLOW, Nameidata
from ..vfs import Lookup
from ..vnode import Vnode, vref
from ..vnops import vn_rele
from .filedesc import NOFILE, FdTable

if TYPE_CHECKING:
    from ..kernel import Kernel

AT_FDCWD: Final = -100
"""As `dirfd`: relative paths start at the working directory."""
UMASK: Final = 0o022

_pids = count(1)


class Proc:
    """A process of `kernel`. Several tasks may use one at the same time, as threads do.

    `pid` is unique among all kernels. `cred` are its credentials; `umask` are the permissions that
    it never gives to what it makes, `nofile` how many descriptors it may have. It holds a
    reference on its `root`, out of which no path leads, and on its working directory `cwd`: the
    root of the kernel's first mount, unless told otherwise.
    """

    def __init__(
        self,
        kernel: Kernel,
        cred: Cred,
        *,
        umask: int = UMASK,
        root: Vnode | None = None,
        cwd: Vnode | None = None,
        nofile: int = NOFILE,
    ) -> None:
        self.kernel = kernel
        self.pid = next(_pids)
        self.cred = cred._replace(pid=self.pid)
        self.files = FdTable(nofile)
        self.has_exited = False
        self._locked: set[Vnode] = set()  # files on which it may have record locks
        self._cmask = umask
        self._rdir = kernel.mounts[0].root if root is None else root
        self._cdir = self._rdir if cwd is None else cwd
        vref(self._rdir)
        vref(self._cdir)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.pid} uid={self.cred.uid} files={len(self.files)}>"

    def _superuser(self) -> None:
        """Return if this is root. Errors: EPERM."""
        if self.cred.uid != 0:
            raise VfsError(EPERM)

    # Paths.

    async def namei(
        self, path: bytes, nameiop: int, flags: int, dirfd: int = AT_FDCWD
    ) -> Nameidata:
        """Walk `path` from the working directory or from the directory behind `dirfd`.

        Errors: ENOENT (empty path); EBADF (`dirfd`, for a relative path); what `namei` says.
        """
        cdir = self._cdir
        if dirfd != AT_FDCWD and path and not path.startswith(b"/"):
            async with self.files.get(dirfd) as file:
                cdir = file.f_vp
                return await namei(path, nameiop, flags, self.cred, atdir=cdir, rdir=self._rdir)
        return await namei(path, nameiop, flags, self.cred, atdir=cdir, rdir=self._rdir)

    async def lookup(self, path: bytes, dirfd: int = AT_FDCWD, *, follow: bool = True) -> Nameidata:
        """Find what `path` names."""
        return await self.namei(path, NameiOp.LOOKUP, FOLLOW if follow else NOFOLLOW, dirfd)

    async def make(
        self,
        path: bytes,
        dirfd: int,
        operation: Callable[[Vnode, Componentname], Awaitable[Lookup]],
        *,
        directory: bool = False,
    ) -> None:
        """Let `operation` make the last name of `path`; its directory is locked for it.

        Errors, first match wins: what the walk says; EEXIST; ENOENT (a slash behind the name of
        what is to be no `directory`); EROFS; what the operation says.
        """
        async with await self.namei(path, NameiOp.CREATE, LOCKPARENT, dirfd) as nd:
            check_new(nd, directory=directory)
            made = await operation(nd.dvp, nd.ni_cnd)
            nd.unlock_parent()
            assert made.vp is not None
            await vn_rele(made.vp)


def check_new(nd: Nameidata, *, directory: bool = False) -> None:
    """Return if the last name can be made. Errors, first match wins: EEXIST, ENOENT, EROFS."""
    if nd.is_special or nd.ni_vp is not None:
        raise VfsError(EEXIST)
    if nd.ni_slash and not directory:
        raise VfsError(ENOENT)
    check_writable(nd.dvp)


def check_writable(vp: Vnode) -> None:
    """Return if the mount of `vp` may be changed. Errors: EROFS."""
    if vp.mount.is_rdonly:
        raise VfsError(EROFS)
