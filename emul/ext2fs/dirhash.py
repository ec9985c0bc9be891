"""Dirhash: what is in a directory, so that it is read once and not at each lookup.

(UFS has one, too.) It knows names only; types and what else an entry says stay in the blocks.
"""

from __future__ import annotations

from typing import Final

_UNKNOWN: Final = 1 << 16


class Dirhash:
    """The names in one directory, and where there is room for more.

    A name leads to its inode and to where it stands, an offset in the directory, octets. `blocks`
    are the directory's blocks by their place in it, `rooms` what the largest entry is that fits
    into each, octets; more than there is does no harm, it is looked at again before it is used.
    `starts` are entries of each block before which there is no room, as positions in it.
    """

    __slots__ = ("_entries", "_places", "blocks", "rooms", "starts")

    def __init__(self) -> None:
        self._entries: dict[bytes, int] = {}  # offset << 32 | inode: one object in place of three
        self._places: dict[int, int] = {}
        self.blocks: list[int] = []
        self.rooms: list[int] = []
        self.starts: list[int] = []

    def get(self, name: bytes) -> int:
        """Return the inode of a name, 0 if there is no such name."""
        return self._entries.get(name, 0) & 0xFFFF_FFFF

    def offset(self, name: bytes) -> int:
        """Return where a name stands."""
        return self._entries[name] >> 32

    def set(self, name: bytes, offset: int, ino: int) -> None:
        """Enter a name, or change what it leads to."""
        self._entries[name] = offset << 32 | ino

    def discard(self, name: bytes) -> None:
        """Remove a name, which is there."""
        del self._entries[name]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but "." and ".."."""
        return len(self._entries) <= (b"." in self._entries) + (b".." in self._entries)

    def has_block(self, block: int) -> bool:
        """Whether a block belongs to the directory already."""
        return block in self._places

    def add_block(self, block: int) -> None:
        """Append a block, with how much room is not known."""
        self._places[block] = len(self.blocks)
        self.blocks.append(block)
        self.rooms.append(_UNKNOWN)
        self.starts.append(0)

    def widened(self, block: int) -> None:
        """Hear that an entry of a block was removed: there is more room, how much is not known."""
        place = self._places[block]
        self.rooms[place] = _UNKNOWN
        self.starts[place] = 0

    def find_room(self, need: int) -> int:
        """Return the place of the first block that may have room for `need` octets, or -1."""
        for place, room in enumerate(self.rooms):
            if room >= need:
                return place
        return -1
