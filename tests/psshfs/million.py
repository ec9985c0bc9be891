"""What a mount costs that knows a million files: resident octets and processor time for each.

    python -m tests.psshfs.million [FILES [FILES_IN_EACH_DIRECTORY]]

As root. OpenSSH's sftp-server answers, without SSH. Exit status 1 when a million files would need
more than a gigabyte.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

SFTP_SERVER: Final = "/usr/lib/openssh/sftp-server"
GIGABYTE: Final = 10**9
_MOUNT_TIME: Final = 20.0
_MEMORY: Final = Path("/dev/shm")  # a million files are written there in half a minute


def fill(tree: Path, files: int, each: int) -> None:
    """Make files of which each has a name, a size and times of its own."""
    for serial in range(files):
        directory = tree / f"d{serial // each:06}"
        if serial % each == 0:
            directory.mkdir()
        fd = os.open(directory / f"file-{serial:09}.txt", os.O_CREAT | os.O_WRONLY, 0o644)
        os.truncate(fd, serial)
        os.utime(fd, (1_500_000_000 + serial, 1_600_000_000 + serial))
        os.close(fd)


def octets(pid: int) -> int:
    """Return the octets of memory that a process has written to and nobody shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell what memory a process has")


def seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def known(point: Path) -> int:
    """Return how many nodes a mount knows."""
    control = [str(Path(sys.executable).with_name("puffsctl")), "status", str(point)]
    said = subprocess.run(control, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^ *nodes (\d+),", said, re.MULTILINE)
    assert found is not None, said
    return int(found[1])


def measure(tree: Path, point: Path, files: int) -> float:
    """Mount `tree`, look at everything, print what that cost; return octets for each file."""
    script = Path(sys.executable).with_name("mount_psshfs")
    argv = [str(script), "-f", "-o", f"sftp_server={SFTP_SERVER}", f":{tree}", str(point)]
    process = subprocess.Popen(argv)
    try:
        deadline = time.monotonic() + _MOUNT_TIME
        while not point.is_mount():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the mount did not come")
            time.sleep(0.05)
        before, used, since = octets(process.pid), seconds(process.pid), time.monotonic()
        with open(os.devnull, "wb") as nowhere:
            subprocess.run(["find", point, "-ls"], stdout=nowhere, check=True)
        took = time.monotonic() - since
        each = (octets(process.pid) - before) / files
        used = (seconds(process.pid) - used) / files * 1e6
        if (nodes := known(point)) < files:
            # Somebody drops the host's caches, or memory is short: this says nothing.
            raise SystemExit(f"the host has forgotten {files - nodes} of {files} files")
    finally:
        subprocess.run(["umount", point])
        process.wait(60)
    print(f"{files} files known: {each:.0f} octets and {used:.1f} us each; find -ls {took:.1f} s")
    return each


def main(argv: list[str]) -> int:
    """See above."""
    files = int(argv[1]) if len(argv) > 1 else 1_000_000
    in_each = int(argv[2]) if len(argv) > 2 else 1000
    where = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as top:
        tree, point = Path(top, "tree"), Path(top, "mnt")
        tree.mkdir()
        point.mkdir()
        fill(tree, files, in_each)
        return int(measure(tree, point, files) * 1_000_000 > GIGABYTE)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
