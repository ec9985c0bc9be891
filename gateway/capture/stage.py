"""Run as a program of its own: where a FUSE program cannot mount, and finds our fusermount.

    python -IS stage.py FUSERMOUNT CALLS DIRECTORY PROGRAM [ARGUMENT ...]

In a mount name space of its own, FUSERMOUNT covers each fusermount of the machine. mount(2) and
umount2(2) are answered by whoever listens at CALLS and gets seccomp's listener; where that cannot
be, or he lets them through, they fail, for CAP_SYS_ADMIN is taken from the bounding set, and
libfuse turns to fusermount. An ordinary user gets a user name space for that, in which he is who he
was. DIRECTORY comes first in PATH. Imports nothing of ours: it starts with each program, and must
be quick.
"""

import ctypes
import os
import re
import socket
import struct
import sys

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SLAVE = 0x80000
_MNT_DETACH = 2
_PR_CAPBSET_DROP = 24
_CAP_SYS_ADMIN = 21
_PLACES = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin")
NAMES = ("fusermount3", "fusermount", "mergerfs-fusermount")
"""Names under which programs look for the helper."""
LISTENER = "listener"
"""What comes with seccomp's listener; the calls of fusermount begin with a directory."""
SYSTEM_CALLS = {
    "x86_64": (0xC000003E, 165, 166, 317),
    "aarch64": (0xC00000B7, 40, 39, 277),
}
"""By machine: its AUDIT_ARCH and the numbers of mount, umount2 and seccomp."""
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_FILTER_NEW_LISTENER = 1 << 3
_FILTER_WAIT_KILLABLE = 1 << 5


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


def _let_go(libc: ctypes.CDLL, program: list[str]) -> None:
    """Detach the FUSE mounts that the program has nothing to do with.

    Where the machine's mounts are not shared, an unmount there is not seen here, and each server
    would have to live for as long as the program does. Those of which an argument or the working
    directory speaks, or that lie below such a place, stay. In a user name space all do: it may not
    detach what it has not mounted.
    """
    named = [os.getcwd()]
    for argument in program:
        named += [os.path.realpath(piece) for piece in re.split("[,=:]", argument) if piece]
    with open("/proc/self/mountinfo", "rb") as file:
        lines = file.read().decode(errors="surrogateescape").splitlines()
    for line in reversed(lines):
        fields = line.split(" ")
        kind = fields[fields.index("-") + 1]
        if not kind.startswith("fuse") or any(word.startswith("master:") for word in fields[6:]):
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        if not any(_holds(point, place) or _holds(place, point) for place in named):
            libc.umount2(os.fsencode(point), _MNT_DETACH)


def _holds(directory: str, place: str) -> bool:
    return (place + "/").startswith(directory.rstrip("/") + "/")


def _watch(libc: ctypes.CDLL, calls: str) -> None:
    """Have who listens at `calls` answer mount(2) and umount2(2), if this kernel can do that."""
    if os.uname().machine not in SYSTEM_CALLS:
        return
    arch, mount, umount2, seccomp = SYSTEM_CALLS[os.uname().machine]
    program = (
        (_LOAD, 0, 0, 4),
        (_EQUAL, 0, 3, arch),
        (_LOAD, 0, 0, 0),
        (_EQUAL, 2, 0, mount),
        (_EQUAL, 1, 0, umount2),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NOTIFY),
    )
    text = b"".join(struct.pack("HBBI", *words) for words in program)
    where = ctypes.create_string_buffer(text, len(text))
    fprog = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(where)))
    # Before Linux 5.19 a signal may have a call made once more: then it is refused as a second one.
    for flags in (_FILTER_NEW_LISTENER | _FILTER_WAIT_KILLABLE, _FILTER_NEW_LISTENER):
        listener = libc.syscall(seccomp, 1, flags, fprog)
        if listener >= 0:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.connect(calls)
                socket.send_fds(sock, [LISTENER.encode()], [listener])
            os.close(listener)
            return


def main(argv: list[str]) -> None:
    """Become the program, or end with status 1 and one line."""
    ours, calls, directory, *program = argv
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        _separate(libc)
        _let_go(libc, program)
        places = (*_PLACES, *os.environ.get("PATH", "").split(":"))
        found = {os.path.realpath(os.path.join(p, name)) for p in places if p for name in NAMES}
        for path in found:
            if os.path.isfile(path):
                _call(path, libc.mount, ours.encode(), path.encode(), None, _MS_BIND, None)
        _call("capabilities", libc.prctl, _PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0)
        _watch(libc, calls)
    except (_Failed, OSError) as exc:
        sys.exit(f"syspuffs: a FUSE program cannot be caught here ({exc}); try it as root")
    os.environ["PATH"] = directory + ":" + os.environ.get("PATH", os.defpath)
    try:
        os.execvp(program[0], program)
    except OSError as exc:
        sys.exit(f"{program[0]}: {exc.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
