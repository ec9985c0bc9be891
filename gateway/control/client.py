"""The other end of control sockets: which mounts there are, and asking one. Every wait is bounded.

Nothing here looks at a mount point itself, which may not answer: mounts are known by what they say
of themselves.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..status import CommandError, Status
from .places import directories, short_name
from .protocol import ANSWER_MAX, ControlError, decode_answer, encode_question

ASK_SECONDS: Final = 5.0
"""How long a mount may take to answer, unless its command says otherwise."""
_LIST_SECONDS: Final = 2.0
"""The same for saying what it is."""
_AT_ONCE: Final = 32
_CHUNK: Final = 65536


class Connection:
    """A connection to the mount behind a control socket. Errors: OSError when nobody is there."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._rest = bytearray()
        try:
            self._socket.settimeout(ASK_SECONDS)
            with short_name(path) as name:
                self._socket.connect(name)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, ask: str, seconds: float = ASK_SECONDS, **args: Any) -> Any:
        """Return what is answered. Errors: ControlError, its silence among them."""
        deadline = time.monotonic() + seconds
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(encode_question(ask, args))
            return decode_answer(self._line(deadline))
        except TimeoutError:
            raise ControlError(
                f"the mount's process does not answer within {seconds:g} s"
            ) from None
        except OSError as exc:
            raise ControlError(f"the mount has ended: {exc.strerror}") from None

    def _line(self, deadline: float) -> bytes:
        while True:
            at = self._rest.find(b"\n")
            if at >= 0:
                line = bytes(self._rest[:at])
                del self._rest[: at + 1]
                return line
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            more = self._socket.recv(_CHUNK)
            if not more:
                raise ControlError("the mount has ended, or does not let this user ask")
            if len(self._rest) > ANSWER_MAX:
                raise ControlError("the answer has no end")
            self._rest += more


@dataclass(frozen=True)
class Found:
    """A control socket and what its mount says of itself; `error` if it says nothing."""

    path: Path
    summary: dict[str, Any]
    error: str = ""

    @property
    def mountpoint(self) -> str:
        """Where it is mounted; empty if that is not known."""
        return str(self.summary.get("mountpoint", ""))

    @property
    def is_part(self) -> bool:
        """Whether another process has made the mount, and this one serves what is further down."""
        return bool(self.summary.get("part"))


def mounts() -> list[Found]:
    """Return all mounts that this user may ask, by mount point, upper processes of a stack first.

    Sockets of processes that have died are removed.
    """
    paths: list[Path] = []
    for directory in directories():
        with suppress(OSError):
            paths += [path for path in directory.iterdir() if path.name.isdigit()]
    # All at once: one that hangs holds up nobody else.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [one for answers in pool.map(_look, paths) for one in answers]
    # Of a stack in several processes the upper one was started first.
    return sorted(found, key=lambda one: (one.mountpoint, one.is_part, int(one.path.name)))


def _look(path: Path) -> list[Found]:
    try:
        with Connection(path) as connection:
            return [Found(path, connection.ask("list", _LIST_SECONDS))]
    except FileNotFoundError:
        return []
    except ConnectionRefusedError:
        with suppress(OSError):  # sockets get their names when they listen: it is dead
            path.unlink()
        return []
    except OSError as exc:
        return [Found(path, {}, exc.strerror or str(exc))]
    except ControlError as exc:
        return [Found(path, {}, str(exc))]


def mount_at(place: str | None) -> list[Found]:
    """Return the mount that holds `place` (None: the current directory), part by part, top first.

    Errors: CommandError when there is none, or it does not answer.
    """
    wanted = os.path.abspath(place if place is not None else _current_directory())
    all_found = mounts()
    held = _holding(wanted, all_found)
    if not held:
        # Links in the way to it; the last name is not looked at, for it may be a dead mount.
        above, name = os.path.split(wanted)
        held = _holding(os.path.join(os.path.realpath(above), name), all_found)
    if held:
        return held
    raise CommandError(Status.NOTHING_MOUNTED, f"{wanted}: {_why_not(wanted, all_found)}")


def _why_not(place: str, found: Sequence[Found]) -> str:
    """Say why there is no mount to ask at `place`, and what there is."""
    held = _in_mount_table(place)
    if held is not None:
        point, uid = held
        if uid != os.geteuid() and os.geteuid() != 0:
            return f"the mount at {point} is user {uid}'s; he may ask, and root"
        return (
            f"the mount at {point} has no process that answers: if it does not work, umount it; if "
            "it does, its log says why it has no control socket"
        )
    others = ", ".join(dict.fromkeys(one.mountpoint for one in found if one.mountpoint))
    silent = [one for one in found if one.error]
    if others:
        return f"no mount of ours is there; there are {others}"
    if silent:
        process = silent[0].path.name
        return f"process {process} does not say what it mounts: {silent[0].error}"
    return "no mount of ours is there; this user has none"


def _in_mount_table(place: str) -> tuple[str, int] | None:
    """Return mount point and user of the mount by puffs that holds `place`, if it is one.

    The kernel's table is asked, and not the mount, which may not answer.
    """
    holder: tuple[str, int] | None = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        left, _, right = line.partition(b" - ")
        point = os.fsdecode(left.split(b" ")[4].decode("unicode_escape").encode("latin-1"))
        if not (place + "/").startswith(point.rstrip("/") + "/"):
            continue
        if holder is not None and len(point) < len(holder[0]):
            continue
        kind, _, options = right.split(b" ", 2)
        uid = -1  # another file system
        if kind.startswith(b"fuse.puffs"):
            uid = int(options.partition(b"user_id=")[2].partition(b",")[0] or 0)
        holder = point, uid
    return holder if holder is not None and holder[1] >= 0 else None


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError as exc:
        raise CommandError(
            Status.NOTHING_MOUNTED, f"the current directory is gone ({exc.strerror}); name a mount"
        ) from None


def _holding(place: str, found: Sequence[Found]) -> list[Found]:
    """Return what is mounted on the longest of the mount points that hold `place`."""
    holders = {
        one.mountpoint
        for one in found
        if one.mountpoint and (place + "/").startswith(one.mountpoint.rstrip("/") + "/")
    }
    longest = max(holders, key=len, default=None)
    there = [one for one in found if one.mountpoint == longest]
    # A mount that is covered by another one, or that is ending, is not what is meant.
    tops = [one for one in there if not one.is_part]
    newest = min(tops, key=lambda one: float(one.summary["seconds"]), default=None)
    if newest is None:
        return there
    special = newest.summary["special"]
    return [newest, *(one for one in there if one.is_part and one.summary["special"] == special)]
