"""The one place where all mount commands end: mount, go to the background, serve, unmount.

A command says how to build what it mounts (`MountCommand.attach`); here it is mounted on
the host, or, when PUFFS_COMFD is in the environment, handed over that descriptor to the
process which set it. The exit status is that of the command.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from . import daemon
from .daemon import Foreground, in_background
from .failures import explain, refused
from .heap import keep_large_buffers
from .status import CommandError, Status
from .words.options import HostOptions, travelling_words

if TYPE_CHECKING:
    import trio

    from ..layers.fault import Rules
    from ..layers.ops import FileServer
    from .control.ends import End
    from .control.server import Living

COMFD: Final = "PUFFS_COMFD"
"""As `layers.puffs.comfd.COMFD_ENV`, which costs trio to import."""

_UNMOUNT_SECONDS: Final = 10.0
"""How long a clean unmount may wait for requests in progress before they are cancelled."""

_AGAIN_SECONDS: Final = 1.0
"""How long after a first signal a second one means "at once"."""

_MS_RDONLY: Final = 1
"""The flag of mount(2)."""

_log = logging.getLogger(__name__)


def _nothing() -> bool:
    return False


def _goes() -> bool:
    return False


async def _nobody() -> None:
    pass


@dataclass(frozen=True)
class Attachment:
    """A built file server and where it is to be mounted.

    `words` are the values of `-o` as they were given, for a mount request. `stay`, asked before
    and when the mount is up: the foreground is to wait until it ends. `mounted` is awaited when
    the host has mounted and nothing has been asked of the server yet. `forget` drops what is
    remembered below; SIGHUP asks for it, as in NetBSD's psshfs. `rules` are what is to go wrong,
    where that was asked for.
    """

    server: FileServer
    mountpoint: str
    host: HostOptions
    words: Sequence[str] = ()
    stay: Callable[[], bool] = _goes
    mounted: Callable[[], Awaitable[None]] = _nobody
    forget: Callable[[], Awaitable[None]] = _nobody
    rules: Rules | None = None


Attach = Callable[[], AbstractAsyncContextManager[Attachment]]


@dataclass(frozen=True)
class MountCommand:
    """What a mount command came to after its command line was read.

    `attach` builds what is mounted, in the process that serves it, and takes it apart again.
    `mountpoint` is checked before anything is built; None where it is not known yet.
    `metrics_port`: figures are to be had there, on the loopback.
    """

    program: str
    attach: Attach
    mountpoint: str | None = None
    foreground: bool = False
    verbose: bool = False
    logfile: str | None = None
    metrics_port: int | None = None


def run_mount(command: MountCommand) -> int:
    """Mount, serve until the end, and return the exit status of the command.

    In the background (neither `foreground` nor PUFFS_COMFD) this returns in the waiting parent
    as soon as the mount answers requests; the child does not return from here.
    """
    comfd = take_comfd()
    if comfd is None and not command.foreground:
        return in_background(
            lambda foreground: _serve(command, None, foreground), command.program, command.logfile
        )
    return _serve(command, comfd, Foreground())


def take_comfd() -> socket.socket | None:
    """Take PUFFS_COMFD out of the environment, for children must not see it, and return its socket.

    None when it is not set. Errors: CommandError when it names no stream socket.
    """
    if COMFD not in os.environ:
        return None
    from ..layers.puffs.comfd import comfd
    from ..native.errors import VfsError

    try:
        return comfd()
    except VfsError as exc:
        raise CommandError(
            Status.FAILURE,
            f"{exc.detail or exc}; it is for syspuffs to set: unset it to mount on the host",
        ) from exc
    finally:
        del os.environ[COMFD]


def _serve(command: MountCommand, comfd: socket.socket | None, foreground: Foreground) -> int:
    """Run trio with the mount in it; print what went wrong."""
    import trio

    logging.basicConfig(
        # Until the mount is up the user gets one line, from `_end`: it names the cause.
        level=logging.DEBUG if command.verbose else logging.CRITICAL,
        format=f"{command.program}: %(message)s",
        stream=sys.stderr,
    )
    keep_large_buffers()
    run = _Run(command, comfd, foreground)
    try:
        trio.run(run.run)
    except BaseException as exc:
        status = run.signalled if run.signalled is not None else _end(command, exc)
        foreground.said()
        return status
    return Status.OK if run.signalled is None else run.signalled


def _end(command: MountCommand, exc: BaseException) -> int:
    """Print (in the background: log) the one line that `exc` means and return the exit status."""
    error = explain(exc)
    if error is None:
        error = CommandError(
            Status.FAILURE, f"internal error: {exc!r}; run with -f -d and report what it prints"
        )
    if error.message:
        _log.critical("%s", error.message, exc_info=exc if command.verbose else None)
    return error.status


def check_allowed(options: HostOptions, conf: str = "/etc/fuse.conf") -> None:
    """Raise CommandError when fusermount3 would refuse to let other users in."""
    if os.geteuid() == 0 or not (options.allow_other or options.allow_root):
        return
    try:
        with open(conf, encoding="utf-8", errors="replace") as file:
            if any(line.strip() == "user_allow_other" for line in file):
                return
    except OSError:
        pass  # without the file nobody is allowed to
    word = "allow_other" if options.allow_other else "allow_root"
    raise CommandError(
        Status.FUSE_PERMISSION,
        f"{word} is for root alone on this machine; leave it out, or put a line user_allow_other "
        f"into {conf}",
    )


def _loopback(port: int) -> socket.socket:
    """Return a socket that listens on a loopback port (0: on any). Errors: CommandError."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as exc:
        listener.close()
        raise CommandError(
            Status.USAGE,
            f"option 'metrics_port={port}': {exc.strerror}; give another port, or 0 for any",
        ) from None
    listener.setblocking(False)
    return listener


class _Run:
    """One mount from its building to its end, within trio.

    `signalled` is the exit status when a signal ended the command before the mount was up.
    """

    def __init__(
        self, command: MountCommand, comfd: socket.socket | None, foreground: Foreground
    ) -> None:
        self.signalled: int | None = None
        self._command = command
        self._comfd = comfd
        self._foreground = foreground
        self._scope: trio.CancelScope
        self._serving: trio.CancelScope | None = None
        """Around the serving alone, while there is any."""
        self._nursery: trio.Nursery
        self._figures: socket.socket | None = None
        """Listens for who wants figures."""
        self._forget: Callable[[], Awaitable[None]] = _nobody
        self._living: Living | None = None
        """The mount as puffsctl knows it, from its making on."""
        self._is_up = False
        self._stays = False
        """Whether the command stays in the foreground, as its parent knows by then."""
        self._ending: float | None = None
        """When a clean unmount was asked for."""
        self._unmount: Callable[[], bool] = _nothing
        """Asks for a clean unmount; returns whether there was anything to unmount."""
        self._hasten: Callable[[], None] = lambda: None
        """Ends the waiting for what is not saved."""

    async def run(self) -> None:
        """Mount, serve, unmount."""
        import trio

        async with trio.open_nursery() as self._nursery:
            nursery = self._nursery
            await nursery.start(self._take_signals)
            if self._foreground.waiting is not None:
                nursery.start_soon(self._watch_foreground)
            with trio.CancelScope() as self._scope:
                await self._mount()
            nursery.cancel_scope.cancel()

    async def _mount(self) -> None:
        import trio

        command = self._command
        if self._comfd is None and command.mountpoint is not None:
            from .host.hostmount import check_mount_point

            check_mount_point(command.mountpoint)
        async with AsyncExitStack() as stack:
            if command.metrics_port is not None:
                self._figures = stack.enter_context(_loopback(command.metrics_port))
            attachment = await stack.enter_async_context(command.attach())
            self._forget = attachment.forget
            try:
                with trio.CancelScope() as self._serving:
                    if self._comfd is None:
                        await self._on_host(attachment)
                    else:
                        await self._over_comfd(attachment, self._comfd)
            finally:
                self._serving = None
                self._unmount = _nothing
                self._forget = _nobody

    async def _on_host(self, attachment: Attachment) -> None:
        from .host.session import hasten_unmount, mount_and_serve, request_unmount

        kargs = attachment.server.kargs
        options = replace(
            attachment.host,
            typename=kargs.typename,
            fsname=attachment.host.fsname or kargs.mntfromname,
        )

        check_allowed(options)
        if self._command.foreground or attachment.stay():
            self._stay()
        # From the first request on, before we know that it was answered: programs may be at work.
        self._unmount = request_unmount
        self._hasten = hasten_unmount
        await mount_and_serve(
            attachment.server,
            attachment.mountpoint,
            options,
            ready=lambda: self._up(attachment.stay()),
            mounted=attachment.mounted,
            made=lambda end: self._look_into(end, attachment),
        )

    def _look_into(self, end: End, attachment: Attachment, *, is_part: bool = False) -> None:
        """Let puffsctl look into the stack below `end`, as long as this process lives."""
        from .control.server import Living, serve_control

        living = Living(
            mountpoint=attachment.mountpoint,
            end=end,
            nursery=self._nursery,
            rules=attachment.rules,
            program=self._command.program,
            is_part=is_part,
        )
        self._living = living
        self._nursery.start_soon(serve_control, living)
        if self._figures is not None:
            from .control.metrics import serve_metrics

            self._nursery.start_soon(serve_metrics, living, self._figures)

    async def _over_comfd(self, attachment: Attachment, sock: socket.socket) -> None:
        """Have the other end of `sock` mount, and serve frames to it."""
        from ..layers.puffs.comfd import MountRequest, options_of, request_mount
        from ..layers.puffs.putter import Putter
        from ..layers.puffs.stream import StreamServer
        from ..native.errors import TransportError, VfsError
        from .control.served import ServedEnd

        kargs, host, command = attachment.server.kargs, attachment.host, self._command
        stay = attachment.stay() or command.foreground
        request = MountRequest(
            directory=os.fsencode(attachment.mountpoint),
            mntflags=_MS_RDONLY if host.readonly else 0,
            stay=stay,
            options=options_of(travelling_words(attachment.words)),
            kargs=kargs._replace(
                mntfromname=host.fsname or kargs.mntfromname, kflags=kargs.kflags | host.kflags
            ),
        )
        try:
            await request_mount(sock, request)
        except VfsError as exc:
            raise refused(exc.errno, exc.detail) from exc
        except TransportError as exc:
            raise CommandError(
                Status.FAILURE, "the process which set PUFFS_COMFD ended before it had mounted"
            ) from exc
        await attachment.mounted()
        half = StreamServer(attachment.server, Putter.of_socket(sock))

        def unmount() -> bool:
            half.unmount()
            return True

        if stay:
            self._stay()
        else:
            daemon.leave_terminal(command.logfile)
        self._unmount = unmount
        self._look_into(ServedEnd(half), attachment, is_part=True)
        self._up(stay)
        await half.serve()

    def _stay(self) -> None:
        """Have a waiting parent, if there is one, wait for the end of this process."""
        self._stays = True
        self._let_go(self._foreground.stay)

    def _up(self, stay: bool) -> None:
        """Note that the mount answers requests and tell the foreground."""
        self._is_up = True
        if not self._command.verbose:
            logging.getLogger().setLevel(logging.WARNING)
        if self._stays:
            return
        if stay:
            self._stay()
        else:
            self._let_go(self._foreground.mounted)

    def _let_go(self, tell: Callable[[], None]) -> None:
        """Tell the waiting parent something, which ends the watch over it."""
        import trio

        if self._foreground.waiting is not None:
            trio.lowlevel.notify_closing(self._foreground.waiting)
        try:
            tell()
        except BrokenPipeError:
            self._stop(signal.SIGPIPE)

    # Signals and the waiting parent.

    async def _take_signals(self, task_status: trio.TaskStatus[None]) -> None:
        import trio

        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
        nohup = daemon.is_nohup(signal.SIGHUP)
        with trio.open_signal_receiver(*wanted) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGUSR1:
                    self._dump()
                elif number == signal.SIGHUP and self._is_up:
                    self._nursery.start_soon(self._drop_caches)
                elif number != signal.SIGHUP or not nohup:
                    self._stop(number)

    def _dump(self) -> None:
        """Write to the log what is going on; before there is a mount, nothing is."""
        from .control.dump import dump

        if self._living is not None:
            try:
                dump(self._living)
            except Exception:
                _log.exception("SIGUSR1: the dump has met a bug")

    async def _drop_caches(self) -> None:
        try:
            await self._forget()
        except Exception:
            _log.exception("SIGHUP: not everything could be dropped")
        else:
            _log.info("SIGHUP: caches dropped")

    def _stop(self, number: int) -> None:
        """Unmount cleanly; before anything is mounted, and when asked once more, at once.

        What is up is ended from its top: only `_serving` is cancelled, for what is below takes
        part in the unmount. ^C comes twice to a command that stays in the foreground, from the
        terminal and from the parent that waits; that is asking once.
        """
        import trio

        now = trio.current_time()
        if self._ending is None:
            unmounting = self._unmount()
            if not self._is_up and not (unmounting and self._stays):
                self.signalled = Status.SIGNAL + number
            if unmounting or self._is_up:
                self._ending = now
                if self._serving is not None:
                    self._serving.deadline = now + _UNMOUNT_SECONDS
            else:
                (self._serving or self._scope).cancel()
        elif self._serving is not None and now > self._ending + _AGAIN_SECONDS:
            self._serving.cancel()
            self._hasten()

    async def _watch_foreground(self) -> None:
        """Stop when the parent that waits for the mount has gone."""
        import trio

        waiting = self._foreground.waiting
        assert waiting is not None
        try:
            await trio.lowlevel.wait_readable(waiting)
        except trio.ClosedResourceError:
            return  # the parent was told
        self._stop(signal.SIGPIPE)
