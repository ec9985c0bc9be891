"""boxfs STORE MOUNTPOINT: a small FUSE program that keeps its files in a new folder of STORE.

It is for the walk in the README, and there is a mistake in it.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile

import mfusepy

log = logging.getLogger("boxfs")


class Box(mfusepy.Operations):  # type: ignore[misc]
    use_ns = True

    def __init__(self, store: str) -> None:
        self.place = tempfile.mkdtemp(dir=store)
        os.chmod(self.place, 0o1777)

    def at(self, path: str) -> str:
        return self.place + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        found = os.lstat(self.at(path))
        names = "st_mode st_nlink st_size st_uid st_gid".split()
        times = {f"st_{letter}time": getattr(found, f"st_{letter}time_ns") for letter in "amc"}
        return {name: getattr(found, name) for name in names} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self.at(path))]

    def create(self, path: str, mode: int, fi: object = None) -> int:
        os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, mode))
        return 0

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.at(path), mode)

    def unlink(self, path: str) -> None:
        os.unlink(self.at(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))

    def rename(self, old: str, new: str) -> None:
        os.rename(self.at(old), self.at(new))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.at(path), mode)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self.at(path), length)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        with open(self.at(path), "rb") as file:
            return os.pread(file.fileno(), size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        try:
            with open(self.at(path), "r+b", buffering=0) as file:
                return os.pwrite(file.fileno(), data, offset)
        except OSError as exc:
            log.warning("%s: %s", path, exc)
        return len(data)


if __name__ == "__main__":
    mfusepy.FUSE(Box(os.path.abspath(sys.argv[1])), sys.argv[2], foreground=False)
