"""Run as a program of its own: shows a caught program a mount where it has mounted.

    python -IS standin.py USER MNT DIRECTORY

USER and MNT are descriptors of the program's name spaces. Where the machine's mounts are shared,
ours is seen there by itself and nothing is done. Elsewhere the program would see the bare mount
point; what stands in for the mount is an empty directory, for nothing but a mount is what programs
look for there, but for those made with go-fuse: these open a file with a name of theirs, to learn
that poll(2) is answered.
"""

import ctypes
import os
import sys

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_GO_FUSE = ".go-fuse-epoll-hack"


def _call(function: object, *args: object) -> None:
    if function(*args) != 0:  # type: ignore[operator]
        sys.exit(os.strerror(ctypes.get_errno()))


def _is_mounted(directory: str) -> bool:
    """Look it up by name: to ask the mount itself is to wait for the program, which waits for us.

    Of what is written in octal there, only the blank is at all likely.
    """
    with open("/proc/self/mountinfo") as lines:
        points = [line.split(" ")[4].replace("\\040", " ") for line in lines]
    return directory in points


def main(argv: list[str]) -> None:
    """Do it, or end with status 1 and one line."""
    user, mnt, directory = int(argv[0]), int(argv[1]), argv[2]
    libc = ctypes.CDLL(None, use_errno=True)
    if os.fstat(user).st_ino != os.stat("/proc/self/ns/user").st_ino:
        _call(libc.setns, user, _CLONE_NEWUSER)
    _call(libc.setns, mnt, _CLONE_NEWNS)
    if _is_mounted(directory):
        return
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    place = os.fsencode(directory)
    _call(libc.mount, b"syspuffs", place, b"tmpfs", flags, b"mode=0755,size=4k,nr_inodes=4")
    with open(os.path.join(directory, _GO_FUSE), "x"):
        pass
    _call(libc.mount, None, place, None, flags | _MS_REMOUNT | _MS_RDONLY, None)


if __name__ == "__main__":
    main(sys.argv[1:])
