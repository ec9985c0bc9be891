"""Process: all system calls, and the life of who makes them."""

from __future__ import annotations

from collections.abc import Sequence
from errno import ENOTDIR
from types import TracebackType

import trio

from ...native.constants import NameiOp, Vtype
from ...native.errors import VfsError
from ..nameidata import FOLLOW, REQUIREDIR
from ..vnode import Vnode, vref
from ..vnops import vn_rele, vn_search
from .attributes import AttributeCalls
from .descriptors import DescriptorCalls
from .files import FileCalls
from .mounts import MountCalls
from .names import NameCalls


class Process(NameCalls, AttributeCalls, MountCalls, FileCalls, DescriptorCalls):
    """A process and its system calls; as `async with`, it exits at the end.

    Paths are octets, failure is VfsError with the errno of Linux; where several apply, the one
    which comes first there. A call that is cancelled has happened or has not, or was a read or
    write of which a part has; the file system says more.
    """

    # Credentials.

    def setuid(self, uid: int) -> None:
        """Change the user; root may. Errors: EPERM."""
        if uid != self.cred.uid:
            self._superuser()
            self.cred = self.cred._replace(uid=uid)

    def setgid(self, gid: int) -> None:
        """Change the group; root may. Errors: EPERM."""
        if gid != self.cred.gid:
            self._superuser()
            self.cred = self.cred._replace(gid=gid)

    def setgroups(self, groups: Sequence[int]) -> None:
        """Set the further groups; root may. Errors: EPERM."""
        self._superuser()
        self.cred = self.cred._replace(groups=tuple(groups))

    def umask(self, mask: int) -> int:
        """Set which permissions are never given to what is made; return the last such mask."""
        before, self._cmask = self._cmask, mask & 0o777
        return before

    # Directories.

    async def chdir(self, path: bytes) -> None:
        """Change the working directory. Errors: ENOTDIR, EACCES."""
        await self._move(await self._directory(path))

    async def fchdir(self, fd: int) -> None:
        """Change the working directory to an open one. Errors: EBADF, ENOTDIR, EACCES."""
        async with self.files.get(fd) as file:
            vp = file.f_vp
            if vp.vtype != Vtype.VDIR:
                raise VfsError(ENOTDIR)
            await vn_search(vp, self.cred)
            vref(vp)
            await self._move(vp)

    async def chroot(self, path: bytes) -> None:
        """Change the root, out of which no path leads; the working directory stays.

        Errors: ENOTDIR, EACCES, EPERM (not root).
        """
        vp = await self._directory(path)
        try:
            self._superuser()
        except VfsError:
            await vn_rele(vp)
            raise
        before, self._rdir = self._rdir, vp
        await vn_rele(before)

    async def _directory(self, path: bytes) -> Vnode:
        """Return a directory that may be searched, with a reference."""
        async with await self.namei(path, NameiOp.LOOKUP, FOLLOW | REQUIREDIR) as nd:
            await vn_search(nd.vp, self.cred)
            return nd.take()

    async def _move(self, vp: Vnode) -> None:
        before, self._cdir = self._cdir, vp
        await vn_rele(before)

    # Life.

    def fork(self) -> Process:
        """Return another process with the same credentials, directories and open files.

        The files are shared, positions and all; record locks stay with the parent.
        """
        child = Process(self.kernel, self.cred, umask=self._cmask, root=self._rdir, cwd=self._cdir)
        child.files = self.files.copy()
        return child

    async def exit(self) -> None:
        """Close everything, errors unheard, and let go of the directories; not cancellable.

        No call of this process is under way, and none is made afterwards. Once is enough.
        """
        if self.has_exited:
            return
        self.has_exited = True
        with trio.CancelScope(shield=True):
            for fd in self.files:
                try:
                    await self.close(fd)
                except VfsError:
                    pass  # nobody is left who could be told
            await vn_rele(self._cdir)
            await vn_rele(self._rdir)

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.exit()
