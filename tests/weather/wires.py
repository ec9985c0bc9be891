"""Mounts whose server is at the far end of a wire, and the weather of packets there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..support.mounts import Ground, MountCommand, Mounted, mount
from ..support.sshd import Sshd
from ..support.wire import Wire
from .storm import DEAD_AFTER, HANG, Sky


@dataclass(frozen=True)
class AtFarEnd(Ground):
    """Ground whose server has an address of its own."""

    @property
    def special(self) -> str:
        """As for every ground, with the server's address."""
        return f"{Wire.FAR}:{self.origin}"


class WireSky(Sky):
    """What happens to packets. Each kind ends before DEAD_AFTER or after it, by chance."""

    kinds = ("loss", "reset", "hole", "hole up", "hole down", "unreachable", "unplugged")

    def __init__(self, seed: int, wire: Wire) -> None:
        super().__init__(seed)
        self._wire = wire

    def let(self, what: str) -> None:
        """Let this go wrong, and be well again."""
        wire = self._wire
        longest = DEAD_AFTER + 1
        match what:
            case "loss":
                percent = self.chance.choice((3, 10, 30))
                self.past[-1] += f" {percent} %"
                wire.rule(f"numgen random mod 100 < {percent} drop")
            case "reset":
                wire.rule("meta l4proto tcp reject with tcp reset")
                longest = 1.0  # each attempt to connect is refused at once
            case "hole":
                wire.rule("drop")
            case "hole up":
                wire.rule("tcp flags & (syn | fin | rst) == 0 drop")
            case "hole down":
                wire.rule("drop", hook="output")
            case "unreachable":
                wire.rule("reject with icmp type host-unreachable")
            case "unplugged":
                wire.link(on=False)
        self.wait(0.1, longest)
        if what == "unplugged":
            wire.link(on=True)
        else:
            wire.clear()


@contextmanager
def at_far_end(
    place: Path, command: MountCommand, *extra: str
) -> Iterator[tuple[Wire, Sshd, Mounted]]:
    """A mount at the near end of a wire; that connections were lost is not held against it."""
    with Wire() as wire, Sshd(place / "sshd", host=wire.FAR, within=wire.far) as sshd:
        origin = place / "origin"
        origin.mkdir()
        words = (f"dead_after={DEAD_AFTER:g}", f"on_disconnect=wait:{HANG:g}", *extra)
        ground = AtFarEnd(origin, place / "mnt", place / "log", sshd, words)
        here = replace(command, argv=lambda ground: [*wire.near, *command.argv(ground)])
        made = mount(here, ground)
        try:
            yield wire, sshd, made
            made.log_read = sys.maxsize
            made.close()
        finally:
            made.destroy()
