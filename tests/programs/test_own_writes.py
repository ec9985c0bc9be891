"""One mount always reads its own writes, sizes and attributes, whoever makes them.

Several processes change one tree through the mount, at random and in each other's way; then the
mount and what lies behind the server must be the same to rsync, at once and to the last
attribute. (sshfs with its default caches fails this in three of five runs.)
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..support.mounts import Mounts, mounted, run, wait_until
from ..support.stacks import PSSHFS

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.programs(rsync="rsync")]

WORK = """
import errno, os, random, sys
seed, turns = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
fair = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.EINVAL,
        errno.ESTALE, errno.EPERM, errno.EACCES}

def name():
    depth = rng.randrange(3)
    return "/".join([f"d{rng.randrange(3)}" for _ in range(depth)] + [f"f{rng.randrange(12)}"])

def directory():
    return "/".join(f"d{rng.randrange(3)}" for _ in range(rng.randrange(1, 3)))

def write(flags):
    fd = os.open(name(), flags, 0o644)
    try:
        for _ in range(rng.randrange(3)):
            os.pwrite(fd, rng.randbytes(rng.randrange(1, 9000)), rng.randrange(20000))
    finally:
        os.close(fd)

def append():
    with open(name(), "ab", buffering=0) as file:
        file.write(rng.randbytes(rng.randrange(1, 5000)))

def read():
    with open(name(), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.read()

def through(path):
    with open(path, "rb") as file:
        file.read()

def look():
    for path, dirs, files in os.walk("."):
        for each in sorted(files):
            try:
                through(os.path.join(path, each))
            except OSError as error:
                if error.errno not in fair:
                    raise

acts = [
    (6, lambda: write(os.O_WRONLY | os.O_CREAT)),
    (4, lambda: write(os.O_WRONLY | os.O_CREAT | os.O_TRUNC)),
    (3, lambda: write(os.O_RDWR | os.O_CREAT | os.O_EXCL)),
    (3, append),
    (4, read),
    (1, look),
    (3, lambda: os.truncate(name(), rng.randrange(30000))),
    (4, lambda: os.rename(name(), name())),
    (4, lambda: os.unlink(name())),
    (3, lambda: os.mkdir(directory())),
    (1, lambda: os.rmdir(directory())),
    (1, lambda: os.rename(directory(), directory())),
    (2, lambda: os.symlink("target", name())),
    (2, lambda: os.link(name(), name())),
    (2, lambda: os.chmod(name(), rng.choice([0o600, 0o644, 0o755]))),
    (2, lambda: os.utime(name(), (10**9, rng.randrange(10**9)))),
    (2, lambda: os.listdir(directory())),
]
weights = [weight for weight, _ in acts]
for _ in range(turns):
    act = rng.choices(acts, weights)[0][1]
    try:
        act()
    except OSError as error:
        if error.errno not in fair:
            raise
"""


@pytest.mark.parametrize(("word", "seed"), [("prefetch=16M", 1), ("writeback=yes", 2)])
def test_the_mount_and_the_server_agree(mounts: Mounts, word: str, seed: int) -> None:
    with mounted(PSSHFS, mounts.ground(word)) as made:
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORK, str(100 * seed + number), "100"],
                cwd=made.point,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        for worker in workers:
            _, errors = worker.communicate(timeout=60)
            assert worker.returncode == 0, errors
        compare = ["rsync", "-naicH", "--delete", f"{made.point}/", f"{made.origin}/"]
        if word == "writeback=yes":
            assert wait_until(lambda: run(compare).stdout == "")
        got = run(compare)
        assert (got.status, got.stdout, got.stderr) == (0, "", "")
        assert any(made.origin.iterdir())
