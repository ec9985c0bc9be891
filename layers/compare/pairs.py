"""Pairs: which node of the second server a node of the first one is.

Ours are the cookies of the first server. One node of it may have been found as several nodes of
the second, by other names; the last one counts, and all are given back with it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ...native.records import Cookie


@dataclass
class _Pair:
    """A node: how often ours was given, and nodes of the second server, as often as they were."""

    held: int = 0
    second: Cookie | None = None
    owed: Counter[Cookie] = field(default_factory=Counter)
    opens: dict[int, list[Cookie]] = field(default_factory=dict)
    """Opens of the second server's nodes, by mode, oldest first."""


class Pairs:
    """All pairs that are known. What the kernel above forgets is forgotten here."""

    def __init__(self, root: Cookie, second_root: Cookie) -> None:
        self._root = root
        self._second_root = second_root
        self._pairs = {root: _Pair(second=second_root)}
        self._firsts = {second_root: root}

    def __len__(self) -> int:
        return len(self._pairs)

    def second(self, cookie: Cookie) -> Cookie | None:
        """Return the node of the second server; None for none."""
        pair = self._pairs.get(cookie)
        return None if pair is None else pair.second

    def first(self, second: Cookie) -> Cookie | None:
        """Return the node of the first server; None for none."""
        return self._firsts.get(second)

    def found(self, cookie: Cookie, second: Cookie | None) -> None:
        """Count a lookup that was given, and one that the second server gave for it, if it did."""
        pair = self._pairs.setdefault(cookie, _Pair())
        if cookie != self._root:
            pair.held += 1
        if second is not None and cookie != self._root:
            pair.second = second
            self._firsts[second] = cookie
            if second != self._second_root:
                pair.owed[second] += 1

    def reclaim(self, cookie: Cookie, nlookup: int) -> list[tuple[Cookie, int]]:
        """Take lookups back; return those that the second server is to get back."""
        pair = self._pairs.get(cookie)
        if pair is None or cookie == self._root:
            return []
        pair.held -= nlookup
        if pair.held > 0:
            return []
        del self._pairs[cookie]
        for second in pair.owed:
            if self._firsts.get(second) == cookie:
                del self._firsts[second]
        return list(pair.owed.items())

    def opened(self, cookie: Cookie, mode: int, second: Cookie) -> None:
        """Note an open of both."""
        pair = self._pairs.setdefault(cookie, _Pair())
        pair.opens.setdefault(mode, []).append(second)

    def closed(self, cookie: Cookie, mode: int) -> Cookie | None:
        """Return the node of the second server to close; None when it was not opened."""
        pair = self._pairs.get(cookie)
        if pair is None or not pair.opens.get(mode):
            return None
        return pair.opens[mode].pop(0)
