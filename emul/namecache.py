"""The name cache: what file systems have found, or not found, under a name in a directory.

For file systems whose lookup costs something. They ask it after they have checked that the
caller may search the directory, enter what they find, and take out what they change:

    lookup          hit, vp = cache_lookup(dvp, cn); on a miss search and cache_enter
    create, link    cache_enter(dvp, vp, name), or cache_purge_name where there may be a negative
    remove, rmdir   cache_purge_name(dvp, name); a removed directory is purged as well
    rename          cache_purge_name for both names; cache_purge of a directory that moved

With the locks that these operations ask for no entry can be wrong: who changes a directory
excludes who reads it. Entries hold no references. They go when a vnode of theirs is
reclaimed, and least recently used ones when there are too many.

`..` needs no entries of its own: a directory has one name, and the entry which says so also
says where it is. An entry of the name ".." serves where that one is missing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from ..native.records import Componentname
    from .mount import Mount
    from .vnode import Vnode

NCHNAMLEN: Final = 255
"""Longest name that is remembered, octets."""

_MISS: Final = (False, None)
_NEGATIVE: Final = (True, None)
_DOTDOT: Final = b".."


class Namecache:
    """One entry: `vp`, or nothing if that is None, is called `name` in `dvp`.

    It stands in `dvp.ncsrc` by its name, in `vp.ncdst`, and in the cache's order of use.
    """

    __slots__ = ("dvp", "name", "vp")

    def __init__(self, dvp: Vnode, vp: Vnode | None, name: bytes) -> None:
        self.dvp = dvp
        self.vp = vp
        self.name = name


class Statistics(NamedTuple):
    """Figures of a name cache: entries now, and what became of lookups and entries so far."""

    entries: int
    hits: int
    negative_hits: int
    misses: int
    evicted: int


class NameCache:
    """The entries of one kernel, at most `limit`."""

    __slots__ = ("_entries", "evicted", "hits", "limit", "misses", "negative_hits")

    def __init__(self, limit: int) -> None:
        self._entries: OrderedDict[Namecache, None] = OrderedDict()
        self.limit = limit
        self.hits = 0
        self.negative_hits = 0
        self.misses = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def statistics(self) -> Statistics:
        """Return the figures of now."""
        return Statistics(
            len(self._entries), self.hits, self.negative_hits, self.misses, self.evicted
        )

    def lookup(self, dvp: Vnode, name: bytes) -> tuple[bool, Vnode | None]:
        """See `cache_lookup`."""
        names = dvp.ncsrc
        entry = names.get(name) if names else None
        if entry is None:
            if name != _DOTDOT or (entry := self._name_of(dvp)) is None:
                self.misses += 1
                return _MISS
            vp: Vnode | None = entry.dvp
        else:
            vp = entry.vp
        self._entries.move_to_end(entry)
        if vp is None:
            self.negative_hits += 1
            return _NEGATIVE
        self.hits += 1
        if not vp.usecount:
            vp.mount.free_list.revive(vp)
        vp.usecount += 1
        return True, vp

    @staticmethod
    def _name_of(vp: Vnode) -> Namecache | None:
        """Return the entry that names `vp` in its parent."""
        for entry in vp.ncdst or ():
            if entry.name != _DOTDOT:
                return entry
        return None

    def revlookup(self, vp: Vnode) -> tuple[Vnode, bytes] | None:
        """See `cache_revlookup`."""
        entry = self._name_of(vp)
        if entry is None:
            return None
        dvp = entry.dvp
        if not dvp.usecount:
            dvp.mount.free_list.revive(dvp)
        dvp.usecount += 1
        return dvp, entry.name

    def enter(self, dvp: Vnode, vp: Vnode | None, name: bytes) -> None:
        """See `cache_enter`."""
        if self.limit <= 0 or len(name) > NCHNAMLEN or dvp.is_dead or (vp and vp.is_dead):
            return
        self.purge_name(dvp, name)
        entry = Namecache(dvp, vp, name)
        if dvp.ncsrc is None:
            dvp.ncsrc = {}
        dvp.ncsrc[name] = entry
        if vp is not None:
            if vp.ncdst is None:
                vp.ncdst = {}
            vp.ncdst[entry] = None
        self._entries[entry] = None
        if len(self._entries) > self.limit:
            self.evicted += 1
            self._drop(next(iter(self._entries)))

    def purge_name(self, dvp: Vnode, name: bytes) -> None:
        """See `cache_purge_name`."""
        names = dvp.ncsrc
        if names and (entry := names.get(name)) is not None:
            self._drop(entry)

    def purge(self, vp: Vnode) -> None:
        """See `cache_purge`."""
        for names in (vp.ncsrc.values() if vp.ncsrc else (), vp.ncdst or ()):
            for entry in list(names):
                self._drop(entry)

    def purge_mount(self, mount: Mount) -> None:
        """See `cache_purgevfs`."""
        for entry in [entry for entry in self._entries if entry.dvp.mount is mount]:
            self._drop(entry)

    def _drop(self, entry: Namecache) -> None:
        del self._entries[entry]
        names = entry.dvp.ncsrc
        assert names is not None
        del names[entry.name]
        if entry.vp is not None:
            assert entry.vp.ncdst is not None
            del entry.vp.ncdst[entry]


# What file systems call. All of it never waits.


def cache_lookup(dvp: Vnode, cn: Componentname) -> tuple[bool, Vnode | None]:
    """Return whether it is known what `cn.name` is in `dvp`, and the vnode.

    (True, vp) with a new reference on `vp`; (True, None): there is no such name; (False, None):
    ask the medium. Entry: `dvp` locked shared or exclusive; the caller has found out that
    `cn.cred` may search it.
    """
    return dvp.mount.kernel.namecache.lookup(dvp, cn.name)


def cache_revlookup(vp: Vnode) -> tuple[Vnode, bytes] | None:
    """Return a directory with a new reference and the name of `vp` in it, or None if unknown."""
    return vp.mount.kernel.namecache.revlookup(vp)


def cache_enter(dvp: Vnode, vp: Vnode | None, name: bytes) -> None:
    """Remember that `vp`, or nothing if that is None, is called `name` in `dvp`.

    Takes the place of what was known before. Entry: `dvp` locked, shared if it was searched.
    """
    dvp.mount.kernel.namecache.enter(dvp, vp, name)


def cache_purge(vp: Vnode) -> None:
    """Forget all names of `vp`, and all names in it if it is a directory."""
    vp.mount.kernel.namecache.purge(vp)


def cache_purge_name(dvp: Vnode, name: bytes) -> None:
    """Forget what is called `name` in `dvp`."""
    dvp.mount.kernel.namecache.purge_name(dvp, name)


def cache_purgevfs(mount: Mount) -> None:
    """Forget all names of a mount."""
    mount.kernel.namecache.purge_mount(mount)
