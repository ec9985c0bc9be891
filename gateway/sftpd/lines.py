"""Where in a TOML document each key stands: tomllib tells what it holds, and nothing of lines.

The document has been parsed already, so it is valid, and what makes it valid need not be checked a
second time: a header, a key, a string or a bracket is known by its first character.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Final

Place = tuple[str | int, ...]
"""The way to a value: keys of tables and indices of arrays."""

_BLANKS: Final = " \t\r\n"
_KEY_ENDS: Final = " \t.=]"
_VALUE_ENDS: Final = ",]}#\r\n"


def lines_of(document: str) -> dict[Place, int]:
    """Return the line, from 1 on, on which each key and each element of `document` begins.

    A table that several headers speak of is where the first of them is.
    """
    scanner = _Scanner(document)
    scanner.scan()
    return scanner.lines


def line_of(lines: Mapping[Place, int], place: Place) -> int:
    """Return the line of `place`, or of the nearest thing around it; 1 for the document."""
    while place:
        if place in lines:
            return lines[place]
        place = place[:-1]
    return 1


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._lined = 0
        """Up to where line ends have been counted."""
        self._last: dict[Place, int] = {}
        """The last index of each array of tables."""

    def scan(self) -> None:
        """Go through the document once."""
        table: Place = ()
        while self._blank():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _blank(self) -> bool:
        """Skip blanks, line ends and comments; return whether anything follows."""
        text = self._text
        while self._at < len(text):
            if text[self._at] == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            elif text[self._at] in _BLANKS:
                self._at += 1
            else:
                return True
        return False

    def _here(self, place: Place) -> None:
        self._line += self._text.count("\n", self._lined, self._at)
        self._lined = self._at
        self.lines.setdefault(place, self._line)

    def _header(self) -> Place:
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        place: Place = ()
        keys = self._keys()
        for key in keys[:-1]:
            place = self._within((*place, key))
        place = (*place, keys[-1])
        if is_array:
            self._here(place)
            self._last[place] = self._last.get(place, -1) + 1
        place = self._within(place)
        self._here(place)
        self._at += 2 if is_array else 1
        return place

    def _within(self, place: Place) -> Place:
        """Note a table on the way; return where keys go that are said to be in it."""
        self._here(place)
        return (*place, self._last[place]) if place in self._last else place

    def _pair(self, table: Place) -> None:
        place = table
        for key in self._keys():
            place = (*place, key)
            self._here(place)
        self._at += 1  # the equals sign
        self._value(place)

    def _keys(self) -> list[str]:
        """Take a dotted key, and the blanks around its parts."""
        keys = []
        while True:
            self._blank()
            keys.append(self._key())
            self._blank()
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _key(self) -> str:
        start = self._at
        if self._text[start] in "\"'":
            self._string()
            quoted = self._text[start : self._at]
            return str(tomllib.loads(f"key = {quoted}")["key"])
        while self._text[self._at] not in _KEY_ENDS:
            self._at += 1
        return self._text[start : self._at]

    def _value(self, place: Place) -> None:
        self._blank()
        first = self._text[self._at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._at += 1
            index = 0
            while self._more("]"):
                self._here((*place, index))
                self._value((*place, index))
                index += 1
        elif first == "{":
            self._at += 1
            while self._more("}"):
                self._pair(place)
        else:
            while self._at < len(self._text) and self._text[self._at] not in _VALUE_ENDS:
                self._at += 1

    def _more(self, end: str) -> bool:
        """Skip to the next element; return whether there is one, and skip `end` if not."""
        while True:
            self._blank()
            if self._text[self._at] == end:
                self._at += 1
                return False
            if self._text[self._at] != ",":
                return True
            self._at += 1

    def _string(self) -> None:
        quote = self._text[self._at]
        if self._text.startswith(quote * 3, self._at):
            self._at += 3
            while not self._text.startswith(quote * 3, self._at):
                self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
            self._at += 3
            # One or two quotes may stand before the three that end it.
            while self._text.startswith(quote, self._at):
                self._at += 1
            return
        self._at += 1
        while self._text[self._at] != quote:
            self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
        self._at += 1
