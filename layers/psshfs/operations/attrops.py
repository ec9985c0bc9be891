"""The operations on attributes: getattr and setattr."""

from __future__ import annotations

import errno
from typing import Final

from ....native import sftp
from ....native.constants import Vtype
from ....native.errors import VfsError
from ....native.records import Cookie, Cred, Vattr
from ..data.writeback import Birth
from ..mount.attrcache import AttrCache
from ..tree.attributes import SIZE_MAX
from ..tree.node import Node
from ..wire.errmap import StatusError
from ..wire.slot import ATTRS, STATUS


class AttrOperations(AttrCache):
    """The part of the server that tells and changes attributes."""

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """Answer from the cache, else by LSTAT: one round trip."""
        node = self.table.node(opc)
        now = self.clock()
        if now >= node.expiry:
            if node.file is not None and node.file in self.writeback:
                return node.va, 0  # the server knows less of it than we do
            await self.fetch(node)
            return node.va, self.attr_ttl(node)
        return node.va, node.expiry - now

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Change by SETSTAT, and ask for the outcome in the same round trip.

        Half of a pair (uid and gid, atime and mtime) is filled from the present attributes,
        which costs one more round trip when they are old. Errors: EPERM for what only an owner
        may do, EACCES for a truncation; EOPNOTSUPP for a mode of a symbolic link, and for
        anything of it without lsetstat@openssh.com.
        """
        node = self.table.node(opc)
        self.require_writable()
        if va.size is not None:
            self.regular(opc)
            if va.size > SIZE_MAX:
                raise VfsError(errno.EFBIG)
        file = node.file
        if file is not None and file.birth is not None:
            if (va.uid is None) == (va.gid is None):
                later = self.translator.attrs(va, node.va)
                if self.writeback.may_set_later(later):
                    return self._set_later(node, file.birth, va, later)
            await file.birth.wait()
        if file is not None and not file.writes.is_idle:
            # Neither may a late write extend what was truncated, nor move a time that was set.
            await file.writes.drain()
        translator = self.translator
        now = await self.present_va(node) if translator.needs_present(va) else None
        attrs = translator.attrs(va, now)
        if attrs == sftp.NO_ATTRS:
            return await self.getattr(opc, cred)
        if node.vtype == Vtype.VLNK and (attrs.mode is not None or not self.session.lsetstat):
            raise VfsError(errno.EOPNOTSUPP, "SFTP cannot change a symbolic link so")
        connection = self.connection
        await self.ready(node)
        handle = file.writer if file is not None else None
        path = b"" if node.is_gone else self.table.path(node)
        if node.is_gone and handle is None:
            handle = file.handle if file is not None else None
            if handle is None:
                raise VfsError(errno.ESTALE, "the last name of the node is gone")
        self.table.changed(node)
        node.expiry = 0
        if va.size is not None and file is not None:
            file.drop_blocks()
        with connection.batch:
            if handle is not None and (va.size is not None or node.is_gone):
                changed = connection.submit(STATUS, sftp.fsetstat, handle, attrs)
            elif node.vtype == Vtype.VLNK:
                changed = connection.submit(STATUS, sftp.lsetstat, path, attrs)
            else:
                changed = connection.submit(STATUS, sftp.setstat, path, attrs)
            stamp = self.table.changes
            if path:
                looked = connection.submit(ATTRS, sftp.lstat, path)
            else:
                looked = connection.submit(ATTRS, sftp.fstat, handle)
        try:
            await changed.after(looked)
        except StatusError as exc:
            by_owner = va.size is None
            raise await self.refiner.changed(
                exc, path or self.any_path(node), by_owner=by_owner
            ) from None
        after = await looked
        if va.size is not None:
            node.va = node.va._replace(size=va.size)
            if file is not None:
                file.writes.resized(va.size)
        if va.size is not None or va.mtime is not None:
            # A new mtime is our doing, and whose change it hides nobody can tell.
            node.is_modified = True
        if _shows(after, attrs):
            self.take_attrs(node, after, stamp)
        else:
            # A server that works on several requests at once may have looked too early.
            await self.fetch(node)
        return node.va, self.attr_ttl(node)

    def _set_later(
        self, node: Node, birth: Birth, va: Vattr, attrs: sftp.Attrs
    ) -> tuple[Vattr, int]:
        """Set attributes of a file that is being made when it is there; nobody waits."""
        self.writeback.set_later(birth, attrs)
        self.table.changed(node)
        names = ("mode", "uid", "gid", "atime", "mtime")
        present = {name: getattr(va, name) for name in names if getattr(va, name) is not None}
        node.va = node.va._replace(**present)
        return node.va, 0


def _shows(after: sftp.Attrs, wanted: sftp.Attrs) -> bool:
    """Tell whether attributes look as if the change had been made."""
    return all(
        want is None or have is None or (have ^ want) & mask == 0
        for have, want, mask in zip(after, wanted, _SHOWN, strict=True)
    )


# A server may clear set-id and sticky bits of a mode: what remains must agree.
_SHOWN: Final = (-1, -1, -1, 0o777, -1, -1)
