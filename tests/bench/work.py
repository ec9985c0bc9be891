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
import tempfile
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


def _shares(tree: str, name: str, sizes: dict[str, Any]) -> list[str]:
    """Return the directories of small files that are to be read."""
    count = sizes["small"] // sizes["each"]
    return [f"{tree}/{name}/d{number:02}" for number in range(count)]


def tar_files(tree: str, sizes: dict[str, Any]) -> Result:
    """Pack small files with tar; into a pipe, for it reads nothing for /dev/null."""
    wanted = _shares(tree, "tar", sizes)
    began = time.perf_counter()
    tar = subprocess.Popen(["tar", "-P", "-cf", "-", *wanted], stdout=subprocess.PIPE)
    assert tar.stdout is not None
    amount = 0
    while data := tar.stdout.read(1 << 20):
        amount += len(data)
    status = tar.wait()
    seconds = time.perf_counter() - began
    _check(status == 0 and amount > sizes["small"] * (PAGE + 512), "tar")
    return seconds, sizes["small"]


def copy_files(tree: str, sizes: dict[str, Any]) -> Result:
    """Copy small files with cp to where nothing of ours is."""
    wanted = _shares(tree, "cp", sizes)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="syspuffs-copy-", dir=memory) as place:
        began = time.perf_counter()
        subprocess.run(["cp", "-r", *wanted, place], check=True)
        seconds = time.perf_counter() - began
        for number in range(sizes["small"]):
            path = f"{place}/d{number // sizes['each']:02}/f{number:05}"
            with open(path, "rb") as file:
                _check(file.read() == stamp(number), path)
    return seconds, sizes["small"]


def grep_files(tree: str, sizes: dict[str, Any]) -> Result:
    """Look for what is in none of them with grep."""
    wanted = _shares(tree, "grep", sizes)
    began = time.perf_counter()
    done = subprocess.run(["grep", "-r", "not to be found", *wanted], capture_output=True)
    seconds = time.perf_counter() - began
    _check(done.returncode == 1 and not done.stderr, "grep")
    return seconds, sizes["small"]


def read_crowd(tree: str, sizes: dict[str, Any]) -> Result:
    """Read small files, eight processes at once, each the files of its own directory."""
    base = f"{tree}/crowd"
    began = time.perf_counter()
    children = []
    for directory in sorted(os.listdir(base)):
        pid = os.fork()
        if not pid:
            os._exit(_read_all(f"{base}/{directory}"))
        children.append(pid)
    good = [os.waitpid(pid, 0)[1] == 0 for pid in children]
    seconds = time.perf_counter() - began
    _check(all(good) and len(good) == 8, "small files")
    return seconds, sizes["crowd"]


def _read_all(directory: str) -> int:
    for name in sorted(os.listdir(directory)):
        with open(f"{directory}/{name}", "rb", buffering=0) as file:
            if file.read() != stamp(int(name[1:])):
                return 1
    return 0


def git_status(tree: str, sizes: dict[str, Any]) -> Result:
    """Have git look whether anything has changed in a checkout."""
    place = f"{tree}/{sizes['own']}/checkout"
    began = time.perf_counter()
    done = subprocess.run(["git", "-C", place, "status", "--porcelain"], capture_output=True)
    seconds = time.perf_counter() - began
    _check(done.returncode == 0 and not done.stdout, done.stderr.decode() or "git status")
    return seconds, sizes["checkout"]


def create_files(tree: str, sizes: dict[str, Any]) -> Result:
    """Create, write and close files of one page, one after the other."""
    pages = [stamp(number) for number in range(sizes["creates"])]
    began = time.perf_counter()
    for number, page in enumerate(pages):
        path = f"{tree}/{sizes['own']}/create/d{number // sizes['each']:02}/f{number:05}"
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(fd, page)
        os.close(fd)
    return time.perf_counter() - began, sizes["creates"]


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
        tar_files,
        copy_files,
        grep_files,
        read_crowd,
        git_status,
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
