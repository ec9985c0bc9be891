"""Run as a program of its own: where a FUSE program cannot mount, and finds our fusermount.

    python -IS stage.py FUSERMOUNT DIRECTORY PROGRAM [ARGUMENT ...]

In a mount name space of its own, FUSERMOUNT covers each fusermount of the machine; CAP_SYS_ADMIN is
taken from the bounding set, so that mount(2) fails and libfuse turns to fusermount. An ordinary
user gets a user name space for that, in which he is who he was. DIRECTORY comes first in PATH.
Imports nothing of ours: it starts with each program, and must be quick.
"""

import ctypes
import os
import sys

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SLAVE = 0x80000
_PR_CAPBSET_DROP = 24
_CAP_SYS_ADMIN = 21
_PLACES = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin")
NAMES = ("fusermount3", "fusermount", "mergerfs-fusermount")
"""Names under which programs look for the helper."""


class _Failed(Exception):
    pass


def _call(what: str, function: object, *args: object) -> None:
    if function(*args) != 0:  # type: ignore[operator]
        raise _Failed(f"{what}: {os.strerror(ctypes.get_errno())}")


def _separate(libc: ctypes.CDLL) -> None:
    """Leave the machine's mounts: changes of ours are not seen there, theirs are seen here."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        _call("mount name space", libc.unshare, _CLONE_NEWNS)
    except _Failed:
        _call("user name space", libc.unshare, _CLONE_NEWNS | _CLONE_NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _call("mounts", libc.mount, b"none", b"/", None, _MS_REC | _MS_SLAVE, None)


def main(argv: list[str]) -> None:
    """Become the program, or end with status 1 and one line."""
    ours, directory, *program = argv
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        _separate(libc)
        places = (*_PLACES, *os.environ.get("PATH", "").split(":"))
        found = {os.path.realpath(os.path.join(p, name)) for p in places if p for name in NAMES}
        for path in found:
            if os.path.isfile(path):
                _call(path, libc.mount, ours.encode(), path.encode(), None, _MS_BIND, None)
        _call("capabilities", libc.prctl, _PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0)
    except (_Failed, OSError) as exc:
        sys.exit(f"syspuffs: a FUSE program cannot be caught here ({exc}); try it as root")
    os.environ["PATH"] = directory + ":" + os.environ.get("PATH", os.defpath)
    try:
        os.execvp(program[0], program)
    except OSError as exc:
        sys.exit(f"{program[0]}: {exc.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
