"""Readonly: the FileServer that changes nothing, whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from errno import EROFS
from typing import Any, Final

from ...native.constants import FWRITE, VWRITE, Vtype
from ...native.errors import VfsError
from ...native.records import Cookie, Cred, Statvfs
from ..operations import CHANGING
from ..ops import FileServer
from ..passing import Answers, Passing

_ST_RDONLY: Final = 1
_ON_THE_MEDIUM: Final = frozenset({Vtype.VREG, Vtype.VDIR, Vtype.VLNK})
"""Types of nodes that writing would change; a device or fifo is only found here."""


class Readonly(Passing):
    """A server that cannot be written to.

    Reading may still change access times below: whoever minds that mounts what is below with
    `ro` as well.
    """

    name = "readonly"

    def __init__(self, below: FileServer) -> None:
        super().__init__(below)
        for name in CHANGING:
            self.__dict__[name] = _refused(name)

    async def statvfs(self) -> Statvfs:
        """See FileServer."""
        found = await self.below.statvfs()
        return found._replace(flag=found.flag | _ST_RDONLY)

    async def statvfs_at(self, opc: Cookie) -> Statvfs:
        """See FileServer."""
        found = await self.below.statvfs_at(opc)
        return found._replace(flag=found.flag | _ST_RDONLY)

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """See FileServer. Errors: EROFS to write to what is on the medium."""
        if mode & FWRITE:
            await self._not_on_medium(opc, cred)
        return await self.below.open(opc, mode, cred)

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        """See FileServer. Errors: EROFS to write to what is on the medium."""
        if mode & VWRITE:
            await self._not_on_medium(opc, cred)
        await self.below.access(opc, mode, cred)

    async def _not_on_medium(self, opc: Cookie, cred: Cred) -> None:
        va, _ = await self.below.getattr(opc, cred)
        if va.vtype in _ON_THE_MEDIUM:
            raise VfsError(EROFS)


def _refused(name: str) -> Callable[..., Answers]:
    async def refuse(*_args: Any) -> Any:
        raise VfsError(EROFS, name)

    return refuse
