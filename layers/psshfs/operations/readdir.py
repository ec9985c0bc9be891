"""Listings of directories: when they are fetched, and what readdir tells of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import trio

from ....native import sftp
from ....native.constants import READDIR_PLUS, Vtype
from ....native.packed import Files, Page, pack, unpack, vtype
from ....native.records import Cookie, Cred, Dirent
from ..mount.attrcache import AttrCache
from ..tree.attributes import vtype_of, with_vtype
from ..tree.fetching import Sink, fetch_names, is_pipelining_refused
from ..tree.listing import DOT_OFFSET, DOTDOT_OFFSET, Entry, Listing
from ..tree.node import DirectoryNode, Node
from ..wire.errmap import StatusError
from ..wire.slot import ATTRS, Slot

_log = logging.getLogger(__name__)

DIRENT_OVERHEAD: Final = 24
"""What an entry counts for in `resid` of readdir besides its name, octets."""
LACKING_TRIPS: Final = 5
"""For so many round trips longer a listing is believed that a name is not there, as its own fetch
takes two: at 200 ms a program asks for few names in a second."""
_DIRECTORY: Final = int(Vtype.VDIR)
_offset: Final = attrgetter("offset")


class ReaddirOperations(AttrCache):
    """The part of the server that lists names."""

    _has_warned = False

    async def load(self, directory: DirectoryNode) -> Listing:
        """Return the listing of a directory, fetched now unless it is fresh.

        One fetch at a time; others wait for it. Errors: the server's.
        """
        self.counts.listings += 1
        # Held while fetching; others wait and then find the listing fresh.
        lock = self.loading.setdefault(directory, trio.Lock())
        try:
            async with lock:
                return await self._load(directory)
        finally:
            if not lock.locked():
                self.loading.pop(directory, None)

    async def _load(self, directory: DirectoryNode) -> Listing:
        listing = directory.listing
        if (
            listing is not None
            and listing.is_loaded
            and self.clock() < listing.expiry
            and not listing.is_doubted
        ):
            return listing
        self.counts.listings_missed += 1
        await self.ready(directory)
        # After the wait, in which it may have had to make room for others; it stays from here on.
        listing = directory.listing
        if listing is None:
            listing = directory.listing = Listing(directory)
        stamp = self.table.changes
        listing.begin(stamp, self.table.fileids_of)
        try:
            await self._fetch_names(directory, listing)
        except BaseException:
            listing.abort()
            raise
        own = listing.end(self.table.promote)
        if listing.dropped and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "the server lists names that no file can have, %d in one directory: dropped",
                listing.dropped,
            )
        expiry = self._came(directory, listing)
        heard = listing.heard
        children = directory.children
        if children:
            entries = listing.entries
            name_expiry = heard + self.timeouts.name
            for name, child in list(children.items()):
                entry = entries.get(name)
                if self.gate.is_changing(directory, name):
                    # What is listed may be the file that a rename of ours has put there, of which
                    # we have not heard yet.
                    continue
                if entry is None:
                    if child.changed_at <= stamp:
                        self.table.drop_name(directory, name)
                elif entry.packed is None:
                    continue
                elif entry.vtype == child.vtype:
                    self.take(child, self.translator.unpacked(entry), stamp, heard)
                    child.name_expiry = name_expiry
                elif child.changed_at <= stamp:
                    self.table.drop_name(directory, name)
                    entry.fileid = self.table.fileid_at(directory, name)
        if own is not None and vtype(own) == Vtype.VDIR:
            users, groups = self.translator.users, self.translator.groups
            self.take(directory, unpack(own, directory.fileid, users, groups), stamp, heard)
            listing.expiry = expiry
        return listing

    def _came(self, directory: DirectoryNode, listing: Listing) -> int:
        """Note that the listing of a directory is complete as of now; return when it expires."""
        heard = self.clock()
        if self.table.nodes.get(directory.cookie) is directory:  # else forgotten meanwhile
            self.table.listings.count(directory, listing, heard)
        listing.heard = heard
        listing.attr_expiry = heard + self.timeouts.attr
        listing.expiry = heard + self.timeouts.directory
        listing.is_doubted = False
        # Far away it is fetched with the first name asked for: what others make there shall not
        # stay unseen longer for that. Near, several names were asked for, or it is read.
        round_trip = self.connection.round_trip
        if round_trip.is_far:
            listing.lacking_until = heard + self.timeouts.missing
            if self.options.negative_timeout_ns is None:
                listing.lacking_until += int(LACKING_TRIPS * round_trip.seconds * 10**9)
        else:
            listing.lacking_until = listing.expiry
        directory.missing = None
        return listing.expiry

    async def _fetch_names(self, directory: DirectoryNode, sink: Sink) -> None:
        path = self.table.path(directory)
        opened = self.opening.take(directory)
        try:
            await fetch_names(self.connection, path, self.readdir_depth, sink, opened)
        except StatusError as exc:
            if self.readdir_depth == 1 or not is_pipelining_refused(exc):
                raise
        else:
            return
        sink.clear()
        await fetch_names(self.connection, path, 1, sink)
        self.readdir_depth = 1  # it worked one by one, so it shall be so from now on

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        """Answer from the directory's listing, which is fetched when a reader begins and it is
        old; a reader under way goes on in the one that is there."""
        if offset == 0:
            self.walk.entered(self.table.directory(opc))
        while True:
            directory = self.table.directory(opc)
            listing = directory.listing
            if (
                listing is None
                or not listing.is_loaded
                or (offset == 0 and self.clock() >= listing.expiry)
            ):
                if self.session.statvfs and self.opening.is_worth_it:
                    self.space.ask()
                listing = await self.load(directory)
            if offset == 0:
                listing.read_at = listing.used_at = self.clock()
                listing.lacking_until = listing.expiry
                self.table.listings.use(directory, listing.read_at)
                self.prefetch.entered(directory)
            dots, chosen, is_end = self._choose(directory, listing, offset, resid)
            last = chosen[-1].serial if chosen else offset
            if flags & READDIR_PLUS:
                missing = [entry for entry in chosen if self._is_unknown(directory, entry)]
                if missing:
                    gone = await self._look_at_entries(directory, missing)
                    if directory.listing is not listing:
                        continue  # it had to make room for others meanwhile
                    known = listing.entries
                    chosen = [
                        entry
                        for entry in chosen
                        if entry not in gone and known.get(entry.name) is entry
                    ]
                result = self._told(directory, listing, dots, chosen)
                if is_end:
                    self.walk.listed(directory)
            else:
                result = dots
                for entry in chosen:
                    kind: int | None = entry.vtype
                    if kind is None:
                        child = (directory.children or {}).get(entry.name)
                        kind = Vtype.VNON if child is None else child.vtype
                    dots.append(Dirent(entry.fileid, kind or 0, entry.name, entry.serial))
            if result or is_end:
                return result, is_end
            # All that was chosen has vanished meanwhile, and an empty answer would be the end.
            offset = last

    def _choose(
        self, directory: DirectoryNode, listing: Listing, offset: int, resid: int
    ) -> tuple[list[Dirent], list[Entry], bool]:
        """Return what has room in `resid` octets after a place: "." and "..", entries, and whether
        they are the last."""
        dots: list[Dirent] = []
        room = resid
        if offset < DOT_OFFSET:
            dots.append(Dirent(directory.fileid, Vtype.VDIR, b".", DOT_OFFSET))
            room -= DIRENT_OVERHEAD + 1
        if offset < DOTDOT_OFFSET:
            if dots and room < DIRENT_OVERHEAD + 2:
                return dots, [], False
            parent = directory.parent or directory
            dots.append(Dirent(parent.fileid, Vtype.VDIR, b"..", DOTDOT_OFFSET))
            room -= DIRENT_OVERHEAD + 2
        chosen: list[Entry] = []
        for entry in listing.after(offset):
            room -= DIRENT_OVERHEAD + len(entry.name)
            if room < 0 and (chosen or dots):
                return dots, chosen, False
            chosen.append(entry)
        return dots, chosen, True

    def _is_unknown(self, directory: DirectoryNode, entry: Entry) -> bool:
        """Tell whether the server must be asked before an entry's node can be given out."""
        return entry.packed is None and entry.name not in (directory.children or {})

    def _told(
        self, directory: DirectoryNode, listing: Listing, dots: list[Dirent], chosen: list[Entry]
    ) -> Sequence[Dirent]:
        """Return entries as the kernel above gets them with READDIR_PLUS: each that is known here
        counts as a lookup. What is as the listing has it gets no node, and is not unpacked.
        """
        table, translator, children = self.table, self.translator, directory.children
        assert children is not None
        now = self.clock()
        attr_ttl = max(listing.attr_expiry - now, 0)
        name_ttl = max(listing.heard + self.timeouts.name - now, 0)
        names: list[bytes] = []
        fileids: list[int] = []
        offsets: list[int] = []
        packed: list[bytes] = []
        others: list[Dirent] = []
        tell = table.tell
        for entry in chosen:
            attrs, name = entry.packed, entry.name
            needs_node = not entry.nlookup and (
                attrs is None or vtype(attrs) == _DIRECTORY or name in children
            )
            if needs_node or not tell(entry):
                child = self._entry_node(directory, listing, entry)
                if child is None:
                    continue
                if attrs is None or not self._is_as_listed(child, listing, entry):
                    info = self.newinfo(child, now)
                    others.append(Dirent(child.fileid, info.vtype, name, entry.serial, info))
                    continue
                child.nlookup += 1
            assert attrs is not None
            names.append(name)
            fileids.append(entry.fileid)
            offsets.append(entry.serial)
            packed.append(attrs)
        page = Page(
            dots,
            Files(names, fileids, offsets, packed),
            name_ttl,
            attr_ttl,
            translator.users,
            translator.groups,
        )
        if not others:
            return page
        result = [*page, *others]
        result.sort(key=_offset)
        return result

    def _is_as_listed(self, child: Node, listing: Listing, entry: Entry) -> bool:
        """Tell whether what is known of a node is what its entry says."""
        return (
            child.expiry == listing.attr_expiry
            and child.changed_at <= listing.stamp
            and child.cookie == child.fileid == entry.fileid
            and (child.file is None or child.file.writes.is_idle)
        )

    async def _look_at_entries(self, directory: DirectoryNode, entries: list[Entry]) -> set[Entry]:
        """Ask for the attributes that the listing left out, all at once; return vanished ones."""
        connection = self.connection
        asked: list[tuple[Entry, bytes, Slot[sftp.Attrs]]] = []
        gone: set[Entry] = set()
        for entry in entries:
            name = entry.name
            await self.ready(directory, name)
            path = self.table.path_of(directory, name)
            asked.append((entry, name, connection.submit(ATTRS, sftp.lstat, path)))
        for entry, name, slot in asked:
            try:
                attrs = await slot
            except StatusError:
                gone.add(entry)
                continue
            listing = directory.listing
            if listing is not None and listing.entries.get(name) is entry:
                # Neither removed nor moved by us meanwhile: others' names changing is no matter.
                # A server that tells no type even now has a regular file there.
                attrs = attrs if vtype_of(attrs) else with_vtype(attrs, Vtype.VREG)
                entry.packed = pack(attrs, 1)
            elif (directory.children or {}).get(name) is None:
                gone.add(entry)
        return gone

    def _entry_node(self, directory: DirectoryNode, listing: Listing, entry: Entry) -> Node | None:
        children = directory.children
        assert children is not None
        child = children.get(entry.name)
        if child is not None and (
            entry.packed is None
            or child.changed_at > listing.stamp
            or child.expiry >= listing.attr_expiry
        ):
            return child
        return None if entry.packed is None else self.learn_entry(directory, listing, entry)
