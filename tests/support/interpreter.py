"""Our interpreter where somebody else can reach it, too."""

from __future__ import annotations

import sys
from pathlib import Path


def for_everybody(stage: Path) -> list[str]:
    """Return what runs a command where anybody can reach our interpreter and what it imports.

    It may be in root's home, and tox keeps its folder to itself: in a name space of its own there
    are, in place of directories that are closed, open ones with nothing in them but what is needed.
    """
    needed: dict[Path, Path] = {}
    for place in (Path(sys.executable), Path(sys.executable).resolve()):
        closed = [parent for parent in place.parents if not parent.stat().st_mode & 0o001]
        if closed:
            inner = closed[0] / place.relative_to(closed[0]).parts[0]
            needed[inner] = closed[-1]
    if not needed:
        return []
    lines = ["set -e"]
    for number, inner in enumerate(needed):
        lines.append(f"mkdir {stage}/{number}; mount --rbind {inner} {stage}/{number}")
    lines += [f"mount -t tmpfs -o mode=755 none {top}" for top in dict.fromkeys(needed.values())]
    for number, inner in enumerate(needed):
        lines.append(f"mkdir -p {inner}; mount --rbind {stage}/{number} {inner}")
    script = "\n".join([*lines, 'exec "$@"'])
    return ["unshare", "--mount", "sh", "-c", script, "sh"]
