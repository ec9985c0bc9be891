"""The system calls of the emulated kernel, for clients that want files and not vnodes.

process      Process: credentials, directories, descriptors, and all calls as methods
names        link, rename, unlink, mkdir, rmdir, symlink, readlink, mknod
attributes   stat, access, chmod, chown, utimensat, truncate
opening      open, creat
files        read, write, lseek, getdents, fsync, fallocate
descriptors  close, dup, fcntl, poll
locks        record locks
mounts       mount, unmount, statvfs, sync, file handles
filedesc     open files and the table of descriptors
proc         what all of them need of a process

Where Linux has a call with and one without "at", here is one with `dirfd`.
"""

from __future__ import annotations

from .attributes import UTIME_NOW, UTIME_OMIT, Stat
from .proc import AT_FDCWD
from .process import Process

__all__ = ["AT_FDCWD", "UTIME_NOW", "UTIME_OMIT", "Process", "Stat"]
