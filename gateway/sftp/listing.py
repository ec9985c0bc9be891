"""Requests that open and list directories."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any, Final

import trio

from ...native import sftp_server as sftp
from ...native.constants import FREAD, READDIR_PLUS, Vtype
from ...native.errors import VfsError
from ...native.records import Dirent, Vattr
from .answers import Handler, Reply
from .attributes import attrs_of
from .handles import OpenDirectory
from .paths import FOLLOW
from .status import no_handle
from .turns import Turn
from .view import View

_LISTING: Final = 8 * 1024
"""What one READDIR asks the file server for, octets as readdir counts: 330 entries at most, and a
packet of 34000 octets, which every client must take."""


class ListRequests:
    """Answers the requests of one session that list directories."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._server = view.server
        self._export = view.export
        self._nodes = view.nodes
        self._handles = view.handles
        self._cred = view.cred
        self.handlers: dict[type[Any], Handler] = {
            sftp.Opendir: self.opendir,
            sftp.Readdir: self.readdir,
        }

    async def opendir(self, turn: Turn, request: sftp.Opendir) -> Reply:
        """Open a directory. Errors: ENOTDIR for anything else."""
        handles = self._handles
        handles.promise()
        try:
            with await self._view.paths.find(request.path, turn, FOLLOW) as found:
                node = found.there()
                if node.vtype != Vtype.VDIR:
                    raise VfsError(errno.ENOTDIR)
                await self._export.begin(node, FREAD, self._cred)
                if found.parent is not None:
                    parent = found.parent
                elif node.place is not None and node is not self._view.root:
                    parent, _ = node.place
                else:
                    parent = node
                pin = self._nodes.pin
                opened = OpenDirectory(pin(node), FREAD, found.path, pin(parent))
        except BaseException:
            handles.renounce()
            raise
        return sftp.handle(request.id, handles.add(opened))

    async def readdir(self, turn: Turn, request: sftp.Readdir) -> Reply:
        """Answer with the next entries and their attributes, EOF behind the last."""
        opened = turn.opened or self._handles.get(request.handle)
        if not isinstance(opened, OpenDirectory):
            raise no_handle()
        entries: list[sftp.Name] = []
        while not entries and not opened.is_at_end:
            found, is_at_end = await self._server.readdir(
                opened.node.cookie, opened.offset, _LISTING, READDIR_PLUS, self._cred
            )
            entries = await self._shown(opened, found)
            if found:
                opened.offset = found[-1].offset
            opened.is_at_end = is_at_end or not found
        if not entries:
            return sftp.status(request.id, sftp.FX_EOF, b"End of file")
        return sftp.name(request.id, entries)

    async def _shown(self, opened: OpenDirectory, found: Sequence[Dirent]) -> list[sftp.Name]:
        """Return what a client is shown of entries; the nodes that came with them go back."""
        # No file server should have such names, and no client is to be led astray by them.
        sound = [e for e in found if e.name and b"/" not in e.name and b"\0" not in e.name]
        try:
            known = await self._known(opened, sound)
        finally:
            for entry in found:
                if entry.newinfo is not None:
                    self._nodes.give_back(entry.newinfo)
        longnames = self._view.longnames
        longnames.begin()
        shown: list[sftp.Name] = []
        for entry, va in zip(sound, known, strict=True):
            if va is not None:
                attrs = attrs_of(va)
                line = longnames.line(entry.name, attrs, va.nlink)
                shown.append(sftp.Name(entry.name, line, attrs))
        return shown

    async def _known(self, opened: OpenDirectory, found: Sequence[Dirent]) -> list[Vattr | None]:
        """Return the attributes of entries, None for one that is gone by now."""
        known: list[Vattr | None] = []
        missing: list[int] = []
        for index, entry in enumerate(found):
            info = entry.newinfo
            if info is not None and info.va is not None:
                known.append(info.va)
            else:
                known.append(None)
                missing.append(index)
        if missing:
            await self._look_at(opened, found, known, missing)
        return known

    async def _look_at(
        self,
        opened: OpenDirectory,
        found: Sequence[Dirent],
        known: list[Vattr | None],
        missing: Sequence[int],
    ) -> None:
        """Ask for attributes that did not come with their entries, or are older than some change.

        As a rule there are "." and ".." among them and nothing else; more are asked for at once.
        """

        errors: list[VfsError] = []

        async def look(index: int) -> None:
            try:
                known[index] = await self._entry_attributes(opened, found[index])
            except VfsError as exc:
                errors.append(exc)

        for index in missing[:2]:
            await look(index)
        if len(missing) > 2:
            async with trio.open_nursery() as nursery:
                for index in missing[2:]:
                    nursery.start_soon(look, index)
        if errors:
            raise errors[0]

    async def _entry_attributes(self, opened: OpenDirectory, entry: Dirent) -> Vattr | None:
        """Return the attributes of an entry that came without; None when it is gone by now."""
        try:
            if entry.name == b".":
                return await self._view.node_attributes(opened.node)
            if entry.name == b"..":
                return await self._view.node_attributes(opened.parent)
            info = entry.newinfo
            if info is not None:
                va, _ = await self._server.getattr(info.cookie, self._cred)
                return va
            cn = self._view.paths.componentname(entry.name)
            info = await self._server.lookup(opened.node.cookie, cn)
            if not info.cookie:
                return None
            if info.va is not None:
                self._nodes.give_back(info)
                return info.va
            node = self._nodes.absorb(info)
            try:
                return await self._view.node_attributes(node)
            finally:
                self._nodes.unpin(node)
        except VfsError as exc:
            if exc.errno in (errno.ENOENT, errno.ESTALE, errno.EACCES):
                return None
            raise
