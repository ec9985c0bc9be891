"""The operations that look at one name: lookup, readlink."""

from __future__ import annotations

import errno

from ....native import sftp
from ....native.constants import Vtype
from ....native.errors import VfsError
from ....native.records import Componentname, Cookie, Cred, Newinfo
from ..mount.attrcache import AttrCache
from ..tree.node import TARGET_MAX, DirectoryNode, Node
from ..wire.errmap import StatusError
from ..wire.slot import ATTRS, ONE_NAME


class LookOperations(AttrCache):
    """The part of the server that finds names."""

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        """Answer from the node's or the directory's cache, else ask by LSTAT: one round trip."""
        directory = self.table.directory(opc)
        name = cn.name
        now = self.clock()
        self.counts.names += 1
        if name == b"..":
            return self.newinfo(directory.parent or directory, now)
        listing = directory.listing
        if listing is not None:
            listing.used_at = now
        child = self.table.child(directory, name)
        if child is not None and now < child.name_expiry:
            return self.newinfo(child, now)
        if listing is not None and now < listing.expiry:
            entry = listing.entries.get(name)
            if entry is None:
                ttl = min(listing.expiry, listing.lacking_until) - now
                if ttl > 0:
                    ttl = min(ttl, self.timeouts.unlisted)
                    return Newinfo(Cookie(0), Vtype.VNON, cn_ttl=ttl)
                listing.is_doubted = True
            elif entry.packed is not None:
                return self.newinfo(self.learn_entry(directory, listing, entry), now)
        if listing is not None and now < listing.own_until and name not in listing.entries:
            return Newinfo(Cookie(0), Vtype.VNON, cn_ttl=listing.own_until - now)
        missing = directory.missing
        if missing is not None and now < missing.get(name, 0):
            return Newinfo(Cookie(0), Vtype.VNON, cn_ttl=missing[name] - now)
        self.counts.names_missed += 1
        child = await self._look(directory, name)
        if child is None:
            expiry = 0 if directory.missing is None else directory.missing.get(name, 0)
            return Newinfo(Cookie(0), Vtype.VNON, cn_ttl=max(0, expiry - self.clock()))
        return self.newinfo(child, self.clock())

    async def _look(self, directory: DirectoryNode, name: bytes) -> Node | None:
        """Ask the server for a name; return its node, None when there is no such name."""
        connection = self.connection
        table = self.table
        while True:
            await self.ready(directory, name)
            child = table.child(directory, name)
            if child is not None and self.clock() < child.name_expiry:
                return child  # the change that was waited for has made it
            stamp = table.changes
            path = table.path_of(directory, name)
            with connection.batch:
                looked = connection.submit(ATTRS, sftp.lstat, path)
                self.opening.open(directory, name, path)
            self.walk.missed(directory)
            try:
                attrs = await looked
                if directory.listing is not None:
                    directory.listing.used_at = self.clock()  # it may have come just now
            except StatusError as exc:
                if exc.errno != errno.ENOENT:
                    raise
                child = table.child(directory, name)
                if child is not None:
                    if child.changed_at > stamp:
                        return child  # made by us while the question was under way
                    self.forget_name(directory, name)
                if directory.changed_at <= stamp and self.timeouts.missing:
                    directory.note_missing(name, self.clock() + self.timeouts.missing)
                return None
            if directory.changed_at > stamp and table.child(directory, name) is None:
                continue  # perhaps removed by us while the question was under way
            return self.learn(directory, name, attrs, stamp, self.clock())

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        """Answer from the cache, else by READLINK: one round trip."""
        node = self.table.node(opc)
        if node.vtype != Vtype.VLNK:
            raise VfsError(errno.EINVAL)
        self.counts.links += 1
        if node.target is not None and self.clock() < node.target[1]:
            return node.target[0]
        self.counts.links_missed += 1
        await self.ready(node)
        try:
            target = await self.connection.submit(ONE_NAME, sftp.readlink, self.table.path(node))
        except StatusError as exc:
            if exc.code == sftp.FX_BAD_MESSAGE:
                raise VfsError(errno.EINVAL, exc.detail) from None
            raise
        if not target or b"\0" in target or len(target) > TARGET_MAX:
            # No link can say that; the host would not take it either.
            raise VfsError(errno.EIO, "the server's link target is none")
        node.target = target, self.clock() + self.timeouts.link
        return target
