"""Mounting a FileServer on the host, serving it, and ending it.

pyfuse3 knows one session a process, so `mount_and_serve` runs once at a time.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any

import pyfuse3
import trio

from ..emul.lock import VnodeLock
from ..layers.ops import FileServer
from ..native.constants import FlushOp
from ..native.records import Cookie
from .handlers import FuseEnd
from .nodes import Node
from .options import HostOptions

_log = logging.getLogger(__name__)

_READY_SECONDS = 15.0
"""How long a fresh mount may take to answer its first request."""

_DRAIN_SECONDS = 5.0
"""How long requests in progress may take when the session is told to end."""

_READ_AHEAD_KB = 1024
"""What the host may read ahead, where we may set it: one request of the largest size."""

_FREEZE_SECONDS = 1.0
"""See `_serve`."""

_WORKERS = 64
"""Most requests handled at a time. The host itself sends at most 12 in the background."""


class HostMountFailure(Enum):
    """Why the host did not mount."""

    NO_MOUNT_POINT = "no mount point"
    NOT_A_DIRECTORY = "mount point is no directory"
    BUSY = "mount point is busy"
    PERMISSION = "no permission"
    NO_FUSE = "no FUSE"
    OTHER = "other"


class HostMountError(Exception):
    """The host did not mount; nothing is left behind. The text names the cause and a next step."""

    def __init__(self, failure: HostMountFailure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


def check_mount_point(mountpoint: str) -> None:
    """Raise HostMountError unless something can be mounted on `mountpoint`.

    Called before anything else is started, and by `mount_and_serve` itself.
    """
    try:
        state = os.stat(mountpoint)
    except FileNotFoundError:
        raise HostMountError(
            HostMountFailure.NO_MOUNT_POINT,
            f"{mountpoint}: mount point does not exist (create it: mkdir -p {mountpoint})",
        ) from None
    except OSError as exc:
        stale = exc.errno == errno.ENOTCONN
        step = f" (a dead mount is left there: umount {mountpoint})" if stale else ""
        raise HostMountError(
            HostMountFailure.BUSY if stale else HostMountFailure.PERMISSION,
            f"{mountpoint}: {exc.strerror}{step}",
        ) from None
    if not os.path.isdir(mountpoint):
        raise HostMountError(
            HostMountFailure.NOT_A_DIRECTORY,
            f"{mountpoint}: mount point is not a directory (give a directory)",
        )
    if state.st_dev != os.stat(os.path.join(mountpoint, "..")).st_dev and _is_ours(mountpoint):
        raise HostMountError(
            HostMountFailure.BUSY,
            f"{mountpoint}: something is mounted there already (umount {mountpoint} first)",
        )
    if not os.path.exists("/dev/fuse"):
        raise HostMountError(
            HostMountFailure.NO_FUSE, "/dev/fuse is missing (load the kernel module: modprobe fuse)"
        )
    if os.geteuid() != 0:
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise HostMountError(
                HostMountFailure.PERMISSION,
                "no permission to open /dev/fuse (as root: chmod 0666 /dev/fuse)",
            )
        if shutil.which("fusermount3") is None:
            raise HostMountError(
                HostMountFailure.NO_FUSE, "fusermount3 is not installed (apt-get install fuse3)"
            )
        if not os.access(mountpoint, os.W_OK):
            raise HostMountError(
                HostMountFailure.PERMISSION,
                f"{mountpoint}: no write permission (a user may only mount on what he may write)",
            )


def _is_ours(mountpoint: str) -> bool:
    """Tell whether a FUSE mount already stands on exactly this directory."""
    path = os.path.realpath(mountpoint).encode()
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        if fields[4].decode("unicode_escape").encode("latin-1") == path:
            return fields[fields.index(b"-") + 1].startswith(b"fuse.")
    return False


def _words(options: HostOptions) -> set[str]:
    """Return the words for libfuse. fsname and subtype go through it as they are, `|` included."""

    def printable(text: bytes) -> str:
        # As puffs does: what is not ' '..'~' becomes '.'. Commas and backslashes are libfuse's.
        clean = "".join(chr(octet) if 32 < octet < 127 else "." for octet in text)
        return clean.replace("\\", "\\\\").replace(",", "\\,")

    words = {
        f"fsname={printable(options.fsname)}",
        f"subtype={printable(b'puffs|' + options.typename.encode())}",
    }
    words.update(options.words)
    if options.readonly:
        words.add("ro")
    for word in ("allow_other", "allow_root", "default_permissions", "debug"):
        if getattr(options, word):
            words.add(word)
    return words


class _Upcalls:
    """Flushes from below, done in the host's caches.

    The host may be holding a lock that the caller waits for (a page being read, a directory
    being changed), so what can block runs in a thread and only its caller waits.
    """

    def __init__(self, end: FuseEnd, unmount: Callable[[], None]) -> None:
        self._end = end
        self.unmount = unmount
        self.open = True

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """See layers.ops.Upcalls."""
        nodes = self._end.nodes
        node = nodes.by_cookie(cookie)
        if op == FlushOp.INVAL_NAMECACHE_ALL:
            await self._names(nodes.named())
        elif node is None:
            return
        elif op == FlushOp.INVAL_NAMECACHE_NAME:
            await self._names([(node, name)])
        elif op == FlushOp.INVAL_NAMECACHE_DIR:
            await self._names([(node, child) for child in node.children or ()])
        elif op == FlushOp.INVAL_NAMECACHE_NODE:
            if node.parent is not None:
                await self._names([(node.parent, node.name)])
        elif op == FlushOp.INVAL_ATTR_NODE:
            await self._call(lambda: pyfuse3.invalidate_inode(node.ino, attr_only=True))
        elif op == FlushOp.INVAL_PAGECACHE_NODE_RANGE:
            await self._call(lambda: pyfuse3.invalidate_inode(node.ino, attr_only=False))
        # FLUSH_PAGECACHE_NODE_RANGE: the host writes through, so it has nothing to write back.

    async def _names(self, names: list[tuple[Node, bytes]]) -> None:
        for parent, name in names:
            ino = parent.ino
            await self._call(lambda ino=ino, name=name: pyfuse3.invalidate_entry(ino, name))  # type: ignore[misc]

    async def _call(self, invalidate: Callable[[], None]) -> None:
        if not self.open:
            return
        try:
            await trio.to_thread.run_sync(invalidate, abandon_on_cancel=True)
        except OSError as exc:
            # ENOENT: the host does not hold it; ENOTCONN, EBADF, ENODEV: the mount has gone.
            if exc.errno not in (errno.ENOENT, errno.ENOTCONN, errno.EBADF, errno.ENODEV):
                raise


_end_session: Callable[[], None] | None = None
"""Ends the session of this process, while there is one (pyfuse3's is global as well)."""


def request_unmount() -> bool:
    """End the session, if there is one: `mount_and_serve` unmounts and returns.

    Returns whether there is one. Requests in progress may finish within _DRAIN_SECONDS. Harmless
    when called again.
    """
    if _end_session is None:
        return False
    _end_session()
    return True


def _raise_read_ahead(mountpoint: str) -> None:
    """Let the host read ahead as much as one request carries. Root's; for others it stays."""
    device = os.stat(mountpoint).st_dev
    knob = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        with open(knob, "r+") as file:
            if int(file.read()) < _READ_AHEAD_KB:
                file.seek(0)
                file.write(str(_READ_AHEAD_KB))
    except OSError:
        _log.debug("the host's read-ahead stays as it is: %s cannot be written", knob)


async def mount_and_serve(
    server: FileServer,
    mountpoint: str,
    options: HostOptions,
    *,
    ready: Callable[[], None],
    mounted: Callable[[], Awaitable[None]] | None = None,
    made: Callable[[FuseEnd], None] | None = None,
) -> None:
    """Mount `server` on `mountpoint`, serve until it is unmounted, and return.

    `mounted` is awaited when the host has mounted and nothing has been asked of `server` yet.
    `ready` is called once, when the mount has answered a request. `made` is called before that
    with the host's end, for who looks into the stack while it lives. Cancellation unmounts.
    `server.unmount` is awaited in any case before this returns, forced if need be; the caller
    still owns the server's own context. Raises HostMountError.
    """
    global _end_session
    check_mount_point(mountpoint)
    end = FuseEnd(server, options)
    try:
        pyfuse3.init(end, mountpoint, _words(options))
    except RuntimeError as exc:
        # libfuse has said why on standard error; we cannot know more.
        raise HostMountError(
            HostMountFailure.PERMISSION if os.geteuid() else HostMountFailure.OTHER,
            f"{mountpoint}: the host refused the mount ({exc}); "
            + (
                "allow_other needs user_allow_other in /etc/fuse.conf"
                if options.allow_other and os.geteuid()
                else "the line above says why"
            ),
        ) from None
    upcalls: _Upcalls | None = None
    try:
        if mounted is not None:
            await mounted()
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope

            def end_session() -> None:
                pyfuse3.terminate()
                scope.deadline = min(scope.deadline, trio.current_time() + _DRAIN_SECONDS)

            upcalls = _Upcalls(end, end_session)
            _end_session = end_session
            end.upcalls = upcalls
            server.attach(upcalls)
            if made is not None:
                made(end)
            nursery.start_soon(_serve, nursery)
            with trio.fail_after(_READY_SECONDS):
                await trio.to_thread.run_sync(os.stat, mountpoint, abandon_on_cancel=True)
            await trio.to_thread.run_sync(_raise_read_ahead, mountpoint, abandon_on_cancel=True)
            ready()
    except* trio.TooSlowError:
        raise HostMountError(
            HostMountFailure.OTHER, f"{mountpoint}: the mount does not answer; given up"
        ) from None
    except* OSError as group:
        raise HostMountError(
            HostMountFailure.OTHER,
            f"{mountpoint}: the mount does not answer: {group.exceptions[0]}",
        ) from None
    finally:
        _end_session = None
        if upcalls is not None:
            upcalls.open = False
        try:
            with trio.CancelScope(shield=True):
                await end.server.unmount(0)
        finally:
            pyfuse3.close(unmount=True)


class _ReadLock:
    """What pyfuse3's readers of /dev/fuse take turns by, without trio.Lock's yield at each turn.

    That yield is a trip through the scheduler for every request: 137 against 124 us of
    processor time for a GETATTR through a tmpfs stack, medians of four interleaved rounds.
    """

    def __init__(self) -> None:
        self._lock = VnodeLock()

    async def __aenter__(self) -> None:
        await self._lock.exclusive()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


class _Trio:
    """trio as pyfuse3 sees it: pyfuse3.asyncio puts another scheduler in its place as well."""

    Lock = _ReadLock

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)


async def _serve(nursery: trio.Nursery) -> None:
    """Run the session until the host unmounts, `terminate` is called, or we are cancelled.

    pyfuse3 waits until /dev/fuse is readable and then reads it in blocking mode. A request whose
    caller is killed in between is withdrawn by the host, and the read would then hold up
    everything until the next request. A timer signal ends it with EINTR, which pyfuse3 takes
    for nothing: no such freeze lasts longer than _FREEZE_SECONDS.
    """
    pyfuse3.trio = _Trio()  # type: ignore[attr-defined]
    previous = signal.signal(signal.SIGALRM, _ignore)
    signal.setitimer(signal.ITIMER_REAL, _FREEZE_SECONDS, _FREEZE_SECONDS)
    try:
        await pyfuse3.main(min_tasks=1, max_tasks=_WORKERS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    nursery.cancel_scope.cancel()


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    """Take the timer's signal; that it came is all that counts."""
