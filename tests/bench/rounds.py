"""The rounds: all mounts fresh, then row by row each mount in turn, again and again."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .mounts import Contender, Control, Failed, Mount, Sample, mounted
from .rows import Row, Tree
from .server import Server
from .usage import settle

_DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")
_EXPIRY: Final = 31.0
"""Seconds after which no mount believes what it was told: ours 30, sshfs 20."""

Key = tuple[str, str]
"""Row and contender."""


@dataclass
class Results:
    """What was measured. `faults` say why a cell is empty; `peaks` are octets, by contender."""

    samples: dict[Key, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    faults: dict[Key, str] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    ciphers: dict[str, str] = field(default_factory=dict)
    rounds: int = 0


def drop_caches() -> bool:
    """Empty the host's caches; return whether that is allowed to us."""
    if os.geteuid() != 0:
        return False
    with contextlib.suppress(OSError):
        _DROP_CACHES.write_text("3")
        return True
    return False


class Rounds:
    """Measures `rows` of `contenders` on `server`, `tree` being the remote directory.

    Each round mounts everything anew, so that what the daemons remember is gone; within it
    every row goes over all mounts before the next row begins, and who is first changes from
    round to round. Rows use different parts of the tree, so none warms another's. The host's
    caches are dropped before each measurement, or, where that is not allowed, the mounts are
    made anew for each row.
    """

    def __init__(
        self,
        server: Server,
        tree: Tree,
        points: Path,
        rows: Sequence[Row],
        contenders: Sequence[Contender],
        tell: Callable[[str], None],
    ) -> None:
        self._server = server
        self._tree = tree
        self._points = points
        self.rows = rows
        self.contenders = contenders
        self._tell = tell
        self._can_drop = drop_caches()
        self.results = Results()
        self.patience = 300.0

    def run(self, count: int, budget: float) -> None:
        """Do `count` rounds, or as many as fit into `budget` seconds, but at least one."""
        began = time.monotonic()
        longest = 0.0
        for number in range(count):
            start = time.monotonic()
            if number and start - began + longest > budget:
                self._tell(f"no time for round {number + 1} of {count}")
                break
            self._round(number)
            self.results.rounds = number + 1
            longest = max(longest, time.monotonic() - start)
            self._tell(f"round {number + 1} of {count}: {time.monotonic() - start:.0f} s")

    def _round(self, number: int) -> None:
        shift = number % len(self.contenders)
        order = [*self.contenders[shift:], *self.contenders[:shift]]
        for contender in order:
            self._tree.renew(contender.key)
        batches = [self.rows] if self._can_drop else [[row] for row in self.rows]
        for rows in batches:
            with self._mount_all(order) as ready:
                for row in rows:
                    if row.waits:
                        self._measure(row, ready, counts=False)
                        self._tell(f"{_EXPIRY:.0f} s until what was learnt has expired")
                        time.sleep(_EXPIRY)
                    self._measure(row, ready)
                for mount in ready:
                    if isinstance(mount, Mount):
                        peaks = self.results.peaks
                        key = mount.contender.key
                        peaks[key] = max(peaks.get(key, 0), mount.parts.peak())
        for contender in order:
            self._tree.clear(contender.key)

    @contextlib.contextmanager
    def _mount_all(self, order: Sequence[Contender]) -> Iterator[list[Mount | Control]]:
        with contextlib.ExitStack() as stack:
            ready = []
            for contender in order:
                if not any(contender.does(row.key) for row in self.rows):
                    continue
                point = self._points / contender.key
                seen = self._server.log.stat().st_size
                try:
                    mount = stack.enter_context(
                        mounted(contender, self._server, self._tree.root, point)
                    )
                except Failed as failure:
                    self._note_all(contender, str(failure))
                    continue
                self._note_cipher(contender, seen)
                ready.append(mount)
            yield ready

    def _measure(self, row: Row, ready: Sequence[Mount | Control], *, counts: bool = True) -> None:
        for mount in ready:
            contender = mount.contender
            if not contender.does(row.key):
                continue
            if not row.waits:
                drop_caches()
            settle()
            sizes = self._tree.sizes(contender.key, is_slow=contender.is_slow)
            seen = self._server.log.stat().st_size
            try:
                sample = mount.measure(row.work, sizes, self.patience)
                wrong = row.check(self._tree, self._tree.own(contender.key))
                if wrong is not None:
                    raise Failed(wrong)
            except Failed as failure:
                self._note(row, contender, str(failure))
            else:
                if counts:
                    self.results.samples[row.key, contender.key].append(sample)
            self._note_cipher(contender, seen)

    def _note_cipher(self, contender: Contender, seen: int) -> None:
        if ciphers := self._server.ciphers(seen):
            self.results.ciphers[contender.key] = ciphers[0]

    def _note(self, row: Row, contender: Contender, text: str) -> None:
        if (row.key, contender.key) not in self.results.faults:
            self._tell(f"{contender.title}, {row.title}: {text}")
        self.results.faults[row.key, contender.key] = text

    def _note_all(self, contender: Contender, text: str) -> None:
        for row in self.rows:
            if contender.does(row.key):
                self.results.faults[row.key, contender.key] = f"mount: {text}"
        self._tell(f"{contender.title}: {text}")
