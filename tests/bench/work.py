"""One measured piece of work on a mounted tree, run as a process of its own.

`python -I work.py WORK TREE JSON` prints {"seconds": ..., "amount": ...}. It is a process
of its own so that a mount which hangs costs one killed child and nothing else. It uses the
standard library only, and what it does within the measured time is what programs do: plain
system calls, `dd`, `find`. What it read is checked against what the server holds; a wrong
answer is no result.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

PAGE: Final = 4096
_SEED: Final = 20261122

Result = tuple[float, int]
"""Seconds, and how many octets, entries, files or the like were dealt with."""


def stamp(number: int) -> bytes:
    """Return the page with this number: 4096 octets that no other page has."""
    return number.to_bytes(8, "little") * (PAGE // 8)


def read_stream(tree: str, sizes: dict[str, Any]) -> Result:
    """Read one large file from its beginning to its end."""
    source = f"{tree}/stream"
    began = time.perf_counter()
    _dd(f"if={source}", "of=/dev/null")
    seconds = time.perf_counter() - began
    with open(source, "rb") as file:  # served from the page cache now, where there is one
        for number in range(0, sizes["stream"] // PAGE, 1024):
            _check(os.pread(file.fileno(), PAGE, number * PAGE) == stamp(number), source)
    return seconds, sizes["stream"]


def write_stream(tree: str, sizes: dict[str, Any]) -> Result:
    """Write one large file, fsync and close it."""
    began = time.perf_counter()
    _dd(f"if={sizes['source']}", f"of={tree}/{sizes['own']}/written", "conv=fsync")
    return time.perf_counter() - began, sizes["stream"]


def _dd(*words: str) -> None:
    subprocess.run(["dd", "bs=1M", "status=none", *words], check=True)


def read_pages(tree: str, sizes: dict[str, Any]) -> Result:
    """Read single pages of a large file in random order, one at a time, none twice."""
    total = sizes["stream"] // PAGE
    numbers = random.Random(_SEED).sample(range(total), min(sizes["pages"], total))
    fd = os.open(f"{tree}/pages", os.O_RDONLY)
    try:
        began = time.perf_counter()
        pages = [os.pread(fd, PAGE, number * PAGE) for number in numbers]
        seconds = time.perf_counter() - began
    finally:
        os.close(fd)
    for number, page in zip(numbers, pages, strict=True):
        _check(page == stamp(number), f"page {number}")
    return seconds, len(numbers)


def list_tree(tree: str, sizes: dict[str, Any]) -> Result:
    """List a tree with the attributes of everything in it."""
    began = time.perf_counter()
    output = subprocess.run(
        ["find", f"{tree}/list", "-ls"], check=True, stdout=subprocess.PIPE
    ).stdout
    seconds = time.perf_counter() - began
    entries = sizes["files"] + sizes["directories"] + 1
    _check(output.count(b"\n") == entries, f"{entries} entries")
    return seconds, entries


def read_files(tree: str, sizes: dict[str, Any]) -> Result:
    """Read all files of a tree, directory by directory, one after the other."""
    began = time.perf_counter()
    pages = []
    for directory in sorted(os.listdir(f"{tree}/small")):
        for name in sorted(os.listdir(f"{tree}/small/{directory}")):
            with open(f"{tree}/small/{directory}/{name}", "rb", buffering=0) as file:
                pages.append(file.read())
    seconds = time.perf_counter() - began
    _check(pages == [stamp(number) for number in range(sizes["files"])], "small files")
    return seconds, len(pages)


def create_files(tree: str, sizes: dict[str, Any]) -> Result:
    """Create, write and close files of one page, one after the other."""
    pages = [stamp(number) for number in range(sizes["files"])]
    each = sizes["files"] // sizes["directories"]
    began = time.perf_counter()
    for number, page in enumerate(pages):
        path = f"{tree}/{sizes['own']}/create/d{number // each:02}/f{number:05}"
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(fd, page)
        os.close(fd)
    return time.perf_counter() - began, sizes["files"]


def remove_files(tree: str, sizes: dict[str, Any]) -> Result:
    """Remove all names in the directories of a tree."""
    began = time.perf_counter()
    count = 0
    for directory in sorted(os.listdir(f"{tree}/{sizes['own']}/remove")):
        for name in sorted(os.listdir(f"{tree}/{sizes['own']}/remove/{directory}")):
            os.unlink(f"{tree}/{sizes['own']}/remove/{directory}/{name}")
            count += 1
    return time.perf_counter() - began, count


def rename_directories(tree: str, sizes: dict[str, Any]) -> Result:
    """Make a directory and rename it, many times."""
    base = f"{tree}/{sizes['own']}/rename"
    began = time.perf_counter()
    for number in range(sizes["renames"]):
        os.mkdir(f"{base}/new{number:05}", 0o755)
        os.rename(f"{base}/new{number:05}", f"{base}/old{number:05}")
    return time.perf_counter() - began, sizes["renames"]


def _check(good: bool, what: str) -> None:
    if not good:
        raise SystemExit(f"wrong answer: {what}")


WORKS: Final[dict[str, Callable[[str, dict[str, Any]], Result]]] = {
    work.__name__: work
    for work in (
        read_stream,
        write_stream,
        read_pages,
        list_tree,
        read_files,
        create_files,
        remove_files,
        rename_directories,
    )
}


def main() -> int:
    """Do the work that the command line names."""
    name, tree, sizes = sys.argv[1:]
    try:
        seconds, amount = WORKS[name](tree, json.loads(sizes))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"{error.cmd[0]} ended with status {error.returncode}", file=sys.stderr)
        return 1
    print(json.dumps({"seconds": seconds, "amount": amount}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
