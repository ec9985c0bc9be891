"""A file server whose users and groups go by their names: idmap=name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...native.constants import READDIR_PLUS
from ...native.records import Componentname, Cookie, Cred, Dirent, Newinfo, Vattr
from .server import Psshfs
from .tree.idmap import PENDING, FarNames


class PsshfsByName(Psshfs):
    """Psshfs that asks for names before an answer with an id that it does not know goes out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        users, groups = self.translator.users, self.translator.groups
        assert users is not None
        assert groups is not None
        self._names = FarNames(users, groups, offered=self.session.users_groups)

    async def _named(self) -> None:
        """Learn the names that are owed, and give the nodes that waited for them their owners."""
        await self._names.ask(self.connection)
        translator = self.translator
        for node in self.table.nodes.values():
            va = node.va
            if (va.uid or 0) >= PENDING or (va.gid or 0) >= PENDING:
                node.va = translator.settled(va)

    async def _info(self, info: Newinfo) -> Newinfo:
        if self._names.is_owed:
            await self._named()
        if info.va is None or not _is_pending(info.va):
            return info
        return info._replace(va=self.translator.settled(info.va))

    async def _attributes(self, answer: tuple[Vattr, int]) -> tuple[Vattr, int]:
        if self._names.is_owed:
            await self._named()
        va, ttl = answer
        return (self.translator.settled(va) if _is_pending(va) else va), ttl

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        """As psshfs; one round trip more for an owner or group not seen before, as all of these."""
        return await self._info(await super().lookup(opc, cn))

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """As psshfs."""
        return await self._info(await super().create(opc, cn, va))

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """As psshfs."""
        return await self._info(await super().mknod(opc, cn, va))

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """As psshfs."""
        return await self._info(await super().mkdir(opc, cn, va))

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        """As psshfs."""
        return await self._info(await super().symlink(opc, cn, va, target))

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        """As psshfs."""
        return await self._attributes(await super().link(opc, targ, cn))

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """As psshfs."""
        return await self._attributes(await super().getattr(opc, cred))

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """As psshfs. Errors: EPERM for an owner or group that the server has no id for."""
        if va.uid is not None or va.gid is not None:
            # Half of the pair may be filled in from what is known.
            await self.getattr(opc, cred)
            await self._names.find_far(self.connection, va.uid, va.gid)
        return await self._attributes(await super().setattr(opc, va, cred))

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        """As psshfs."""
        entries, is_end = await super().readdir(opc, offset, resid, flags, cred)
        if flags & READDIR_PLUS:
            entries = list(entries)  # made now, so that all names are owed at once
            if self._names.is_owed:
                await self._named()
            entries = [
                entry
                if entry.newinfo is None
                or entry.newinfo.va is None
                or not _is_pending(entry.newinfo.va)
                else entry._replace(newinfo=await self._info(entry.newinfo))
                for entry in entries
            ]
        return entries, is_end


def _is_pending(va: Vattr) -> bool:
    return (va.uid or 0) >= PENDING or (va.gid or 0) >= PENDING
