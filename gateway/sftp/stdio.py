"""A stack served to one client on standard input and output, as sshd's Subsystem wants it."""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import pwd
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from ...native.constants import MNT_FORCE
from ...native.errors import VfsError
from ...native.records import Cred
from ..failures import explain
from ..heap import keep_large_buffers
from ..stack import Element, Ground, built
from ..status import CommandError, Status
from .export import Export, exported
from .handles import HANDLES_MAX
from .journal import VERBOSE, LogJournal
from .permitted import Permitted
from .session import Session
from .view import View

LEVELS: Final = {
    "QUIET": logging.CRITICAL + 1,
    "FATAL": logging.CRITICAL,
    "ERROR": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": VERBOSE,
    "DEBUG": logging.DEBUG,
    "DEBUG1": logging.DEBUG,
    "DEBUG2": logging.DEBUG,
    "DEBUG3": logging.DEBUG,
}
"""sshd's names of levels -> ours. It has none for warnings: they are errors to it."""

FACILITIES: Final = ("DAEMON", "USER", "AUTH", *(f"LOCAL{number}" for number in range(8)))
"""sshd's names of syslog facilities."""

_PIPE_SIZE: Final = 1024 * 1024
"""Octets; Linux gives everybody so much."""

_UNMOUNT_SECONDS: Final = 30.0
"""How long the stack may take to write out what was written last."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StdioCommand:
    """What the command line came to.

    `start` is the directory in the tree where relative paths begin; empty: its root. `umask` None:
    the process's own. `level` and `facility` are names of LEVELS and FACILITIES.
    """

    program: str
    elements: Sequence[Element]
    ground: Ground
    start: bytes = b""
    umask: int | None = None
    permitted: Permitted = field(default_factory=Permitted)
    level: str = "ERROR"
    facility: str = "AUTH"
    to_stderr: bool = False


def expand_start(text: str) -> bytes:
    """Return a start directory with "~" and the tokens of sftp-server's -d filled in.

    %d is the home directory of the user, %u the name, %U the number; %% is a percent sign.
    Errors: CommandError for any other token.
    """
    user = _own_entry()
    if text == "~" or text.startswith("~/"):
        text = "%d" + text[1:]
    tokens = {"%": "%", "d": user.pw_dir, "u": user.pw_name, "U": str(user.pw_uid)}
    first, *rest = text.split("%")
    expanded = first
    pieces = iter(rest)
    for piece in pieces:
        if not piece:  # "%%": what follows the second one is text
            expanded += "%" + next(pieces, "")
        elif piece[0] in tokens:
            expanded += tokens[piece[0]] + piece[1:]
        else:
            raise CommandError(
                Status.USAGE, f"-d: there is no token %{piece[0]}; there are %d, %u, %U and %%"
            )
    return os.fsencode(expanded)


def _own_entry() -> pwd.struct_passwd:
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return pwd.struct_passwd((str(uid), "x", uid, os.getgid(), "", "/", ""))


def run_stdio(command: StdioCommand) -> int:
    """Serve until the client leaves; return the exit status of the command."""
    _start_logging(command)
    keep_large_buffers()
    in_fd, out_fd = _take_standard_streams()
    for fd in (in_fd, out_fd):
        _enlarge(fd)
    stdio = _Stdio(command, in_fd, out_fd)
    were_blocking = os.get_blocking(in_fd), os.get_blocking(out_fd)
    os.set_blocking(in_fd, False)
    os.set_blocking(out_fd, False)
    try:
        trio.run(stdio.run)
    except BaseException as exc:
        if stdio.signalled is None:
            return _end(command, exc)
    finally:
        # They may be a terminal's, or those of who started us.
        os.set_blocking(in_fd, were_blocking[0])
        os.set_blocking(out_fd, were_blocking[1])
    if stdio.signalled is not None:
        return Status.SIGNAL + stdio.signalled
    return Status.FAILURE if stdio.is_broken else Status.OK


def _take_standard_streams() -> tuple[int, int]:
    """Return standard input and output as descriptors of our own.

    What prints to standard output from now on prints to standard error, and what the stack starts
    has an empty standard input: neither must come between the client and us.
    """
    in_fd, out_fd = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return in_fd, out_fd


def _enlarge(fd: int) -> None:
    """Give a pipe, which is what sshd has for us, more room: each time that it is full or empty
    costs a wake-up, and at first it holds two READs of 32 KiB."""
    with suppress(OSError):  # no pipe, or this user's pipes have as much as they may have
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


def _start_logging(command: StdioCommand) -> None:
    handler: logging.Handler
    if command.to_stderr:
        handler = logging.StreamHandler(sys.stderr)
        form = "%(message)s"
    else:
        facility = logging.handlers.SysLogHandler.facility_names[command.facility.lower()]
        try:
            handler = logging.handlers.SysLogHandler("/dev/log", facility)
        except OSError:
            handler = logging.NullHandler()  # as syslog(3) does where nobody listens
        form = f"{command.program}[%(process)d]: %(message)s"
    logging.raiseExceptions = False
    logging.basicConfig(level=LEVELS[command.level], handlers=[handler], format=form)


def _end(command: StdioCommand, exc: BaseException) -> int:
    """Print the one line that `exc` means, and return the exit status."""
    error = explain(exc)
    if error is None:
        _log.critical("internal error", exc_info=exc)
        error = CommandError(
            Status.FAILURE, f"internal error: {exc!r}; run with -e -l DEBUG and report what it says"
        )
    if error.message:
        print(f"{command.program}: {error.message}", file=sys.stderr)
    return error.status


class _Stdio:
    """One client from the building of its stack to the end of it."""

    def __init__(self, command: StdioCommand, in_fd: int, out_fd: int) -> None:
        self._command = command
        self._in_fd = in_fd
        self._out_fd = out_fd
        self._scope = trio.CancelScope()
        self.signalled: int | None = None
        """The signal that ended it."""
        self.is_broken = False
        """Whether the client broke the protocol."""

    async def run(self) -> None:
        """Build the stack, serve it, take it apart."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._take_signals)
            with self._scope:
                async with built(self._command.elements, self._command.ground) as stack:
                    try:
                        async with exported(stack.server) as export:
                            await self._serve(export)
                    finally:
                        with trio.move_on_after(_UNMOUNT_SECONDS, shield=True):
                            try:
                                await stack.server.unmount(0)
                            except VfsError as exc:
                                _log.error("what was written last may be lost: %s", exc)
                                await stack.server.unmount(MNT_FORCE)
            nursery.cancel_scope.cancel()

    async def _serve(self, export: Export) -> None:
        command, user = self._command, _own_entry()
        source = os.environ.get("SSH_CONNECTION", "UNKNOWN").split(" ")[0]
        who = f"for local user {user.pw_name} from [{source}]"
        umask = command.umask
        if umask is None:
            umask = os.umask(0o077)
            os.umask(umask)
        view = View(
            export,
            Cred(os.geteuid(), os.getegid(), tuple(os.getgroups()), os.getpid()),
            umask=umask,
            user=os.fsencode(user.pw_name),
            handles_max=HANDLES_MAX,
        )
        if command.start:
            try:
                await view.start_in(command.start)
            except VfsError as exc:
                _log.error("start directory %r: %s", os.fsdecode(command.start), exc)
        is_logged = logging.getLogger().isEnabledFor(logging.INFO)
        session = Session(
            view,
            self._in_fd,
            self._out_fd,
            permitted=command.permitted,
            journal=LogJournal(_log) if is_logged else None,
            label=f"session {who}",
            lingers=True,
        )
        _log.info("session opened %s", who)
        try:
            await session.serve()
        finally:
            _log.info("session closed %s", who)
        self.is_broken = session.is_broken

    async def _take_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                self.signalled = number
                self._scope.cancel()
