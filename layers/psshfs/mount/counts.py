"""How often what is remembered answered, for people who look into a mount."""

from __future__ import annotations

from typing import NamedTuple


class Found(NamedTuple):
    """Questions that a cache answered, and those for which the server was asked."""

    hits: int
    misses: int


class CacheStatistics(NamedTuple):
    """What each cache did. `files` are small ones that were read before anybody opened them; of
    these `wasted` were never used."""

    names: Found
    attributes: Found
    listings: Found
    links: Found
    files: int
    wasted: int


class Counts:
    """Counts questions and misses; hits are the difference, so that a hit counts one thing."""

    __slots__ = (
        "attributes",
        "attributes_missed",
        "links",
        "links_missed",
        "listings",
        "listings_missed",
        "names",
        "names_missed",
    )

    def __init__(self) -> None:
        self.names = self.names_missed = 0
        self.attributes = self.attributes_missed = 0
        self.listings = self.listings_missed = 0
        self.links = self.links_missed = 0

    def statistics(self, files: int, wasted: int) -> CacheStatistics:
        """Return the figures of now."""
        return CacheStatistics(
            Found(self.names - self.names_missed, self.names_missed),
            Found(self.attributes - self.attributes_missed, self.attributes_missed),
            Found(self.listings - self.listings_missed, self.listings_missed),
            Found(self.links - self.links_missed, self.links_missed),
            files,
            wasted,
        )
