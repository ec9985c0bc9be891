"""A tree of files as people have them, made the same every time."""

from __future__ import annotations

import os
from pathlib import Path

from ..support.expect import pattern

OLD = 1_234_567_890


def make_tree(top: Path, *, special_names: bool = True) -> None:
    """Make about 60 files in a few directories, with links, modes and times of their own."""
    top.mkdir()
    for directory in ("src", "src/deep", "src/deep/deeper", "doc", "empty"):
        (top / directory).mkdir()
    for number in range(40):
        place = top / ("src", "src/deep", "doc")[number % 3]
        (place / f"file{number}.txt").write_bytes(pattern(number * 211, number))
    (top / "large.bin").write_bytes(pattern(1_500_000, 77))
    (top / "empty-file").write_bytes(b"")
    script = top / "script.sh"
    script.write_text("#!/bin/sh\necho I ran\n")
    script.chmod(0o755)
    (top / "private").write_text("for nobody else")
    (top / "private").chmod(0o600)
    (top / "link-to-file").symlink_to("src/file0.txt")
    (top / "link-to-dir").symlink_to("src/deep")
    (top / "dangling").symlink_to("nowhere/at/all")
    if special_names:
        (top / "with space").write_text("space")
        (top / "caf\u00e9 \U0001f421").write_text("not ascii")
        (top / "-dash").write_text("dash")
        (top / ".hidden").write_text("hidden")
    with (top / "sparse").open("wb") as file:
        file.seek(300_000)
        file.write(b"end")
    for number, path in enumerate(sorted(top.rglob("*"))):
        when = OLD + number
        os.utime(path, (when, when), follow_symlinks=False)
