"""What fsync has promised, and whether it is there after a power cut."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Promise:
    """A file whose contents were made stable by fsync at least once.

    `stable` is what it held then. `later` are writes since (offset, data), each of which may or
    may not have reached the disk, in parts, too. `names` are those under which it may be found; it
    is under at least one of them unless it `may_be_gone`.
    """

    names: set[bytes]
    stable: bytes
    later: list[tuple[int, bytes]] = field(default_factory=list)
    may_be_gone: bool = False

    def made_stable(self) -> None:
        """Take in what was written since, for an fsync has returned."""
        contents = bytearray(self.stable)
        for offset, data in self.later:
            if len(contents) < offset:
                contents += bytes(offset - len(contents))
            contents[offset : offset + len(data)] = data
        self.stable = bytes(contents)
        self.later.clear()

    def fault(self, got: bytes) -> str | None:
        """Return what is wrong with the contents `got`, or None."""
        if len(got) < len(self.stable):
            return f"{len(got)} octets, {len(self.stable)} were promised"
        if not self.later:
            if got == self.stable:
                return None
            at = next(
                (i for i, (a, b) in enumerate(zip(got, self.stable, strict=False)) if a != b), -1
            )
            if at < 0:
                return f"{len(got)} octets, {len(self.stable)} were written"
            return (
                f"wrong from octet {at} on: {got[at : at + 8]!r}, not {self.stable[at : at + 8]!r}"
            )
        possible = [
            {
                octet,
                *(
                    data[at - offset]
                    for offset, data in self.later
                    if offset <= at < offset + len(data)
                ),
            }
            for at, octet in enumerate(self.stable)
        ]
        for at, (octet, allowed) in enumerate(zip(got, possible, strict=False)):
            if octet not in allowed:
                return f"octet {at} was never written like that"
        return None
