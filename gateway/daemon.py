"""Going to the background: the command returns when the mount answers requests, not before.

The process forks early, before trio and before anything is connected. The parent
waits in the foreground. The child keeps terminal, directory and session, so that
passwords can be asked, until the mount is up; then it lets go of all three and
tells the parent, which exits with the true status.

    child -> parent    MOUNTED                     the mount is up: exit 0
                       STAY                        the mount is up, but keep waiting for its end
                       SAID                        an error message was printed: exit as I do
                       end of file without a word  the child died; the parent says so
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from .status import Status

MOUNTED: Final = b"M"
STAY: Final = b"W"
SAID: Final = b"E"


_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals to the waiting parent that end the child."""


class Foreground:
    """The child's end of the link to the waiting parent; in a process without one, all is a no-op.

    `mounted`, `stay` and `said` may each be called once, before the child ends.
    """

    def __init__(self, link: socket.socket | None = None, logfile: str | None = None) -> None:
        self._link = link
        self._logfile = logfile

    @property
    def waiting(self) -> socket.socket | None:
        """The link while a parent waits for the mount: readable means that it has gone."""
        return self._link

    def mounted(self) -> None:
        """Leave terminal, directory and session, then let the parent exit with 0.

        Raises BrokenPipeError when the parent has gone meanwhile: whoever started the mount
        does not wait for it any more, and it should be taken down again.
        """
        if self._link is None:
            return
        leave_terminal(self._logfile)
        self._tell(MOUNTED)
        self._link.close()
        self._link = None

    def stay(self) -> None:
        """Have the parent wait for the end of this process and exit with its status."""
        if self._link is not None:
            self._tell(STAY)
            self._link.close()
            self._link = None

    def said(self) -> None:
        """Note that the reason of a failure has been printed."""
        if self._link is not None:
            try:
                self._tell(SAID)
            except BrokenPipeError:
                pass  # nobody is left who could print more

    def _tell(self, word: bytes) -> None:
        assert self._link is not None
        self._link.setblocking(True)
        try:
            self._link.sendall(word)
        except ConnectionError as exc:
            raise BrokenPipeError from exc


def in_background(
    body: Callable[[Foreground], int], program: str, logfile: str | None = None
) -> int:
    """Run `body` in a child process and return the exit status of the command.

    Returns 0 as soon as the child reports its mount, else when the child has ended. SIGINT,
    SIGTERM, SIGHUP and SIGQUIT sent to the parent meanwhile end the child, too (a second one at
    once, with SIGKILL), and the status is 128+n.
    """
    ours, childs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal between the fork and the handlers of the parent must not be lost on the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ours.close()
        _run_child(body, Foreground(childs, logfile))
    childs.close()
    with ours:
        return _Waiter(child, program).wait(ours, before)


def _run_child(body: Callable[[Foreground], int], foreground: Foreground) -> NoReturn:
    """Run `body` and end the process, whatever comes out, without the parent's exit handlers."""
    status = int(Status.FAILURE)
    try:
        status = body(foreground)
    except KeyboardInterrupt:
        status = Status.SIGNAL + signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
        foreground.said()
    finally:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass  # the terminal has gone
        os._exit(status)


class _Waiter:
    """The parent: waits for the child's word or end and passes signals on.

    A signal that comes just before the system call that waits would be heard of after it, which may
    be never; so signals also write to a pipe, and both are waited for.
    """

    def __init__(self, child: int, program: str) -> None:
        self._child = child
        self._program = program
        self._signalled: int | None = None
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)

    def wait(self, link: socket.socket, mask: set[int | signal.Signals]) -> int:
        """Return the exit status of the command; `mask` is the signal mask to wait with."""
        try:
            ended = os.pidfd_open(self._child)
        except OSError:  # before Linux 5.3, or forbidden in a container
            ended = -1
        wakeup = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        before = {
            number: signal.signal(number, self._pass_on)
            for number in _PASSED_ON
            if not is_nohup(number)
        }
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            words = self._words(link)
            if words.endswith(MOUNTED) and self._signalled is None:
                return Status.OK
            if ended >= 0:
                self._until(ended)
            _, waited = os.waitpid(self._child, 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            for end in (ended, self._woken, self._waker):
                if end >= 0:
                    os.close(end)
        return self._status(words, os.waitstatus_to_exitcode(waited))

    def _until(self, fd: int) -> None:
        """Wait until `fd` can be read, handling signals."""
        poll = select.poll()
        for each in (fd, self._woken):
            poll.register(each, select.POLLIN)
        while fd not in (ready := [each for each, _ in poll.poll()]):
            if self._woken in ready:
                os.read(self._woken, 64)

    def _words(self, link: socket.socket) -> bytes:
        """Return what the child says until it ends or lets us go."""
        words = b""
        while not words.endswith((MOUNTED, STAY)):
            self._until(link.fileno())
            try:
                word = link.recv(1)
            except ConnectionError:
                break
            if not word:
                break
            words += word
        return words

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        kill = signal.SIGTERM if self._signalled is None else signal.SIGKILL
        self._signalled = number
        try:
            os.kill(self._child, kill)
        except ProcessLookupError:
            pass  # it is ending by itself; the status comes from waitpid

    def _status(self, words: bytes, code: int) -> int:
        if self._signalled is not None and not words.endswith(STAY):
            return Status.SIGNAL + self._signalled
        if code < 0:
            self._complain(f"was killed by {signal.Signals(-code).name}", words)
            return Status.SIGNAL - code
        if not words and code < Status.SIGNAL:
            self._complain(f"ended with status {code} without saying why", words)
            return code or Status.FAILURE
        return code

    def _complain(self, what: str, words: bytes) -> None:
        step = (
            "umount its mount point"
            if words.endswith(STAY)
            else "nothing is mounted; try again with -f -d to see more"
        )
        print(f"{self._program}: the process of the mount {what}; {step}", file=sys.stderr)


def is_nohup(number: int) -> bool:
    """Tell whether `number` is SIGHUP and ignored: by nohup(1), before this process began."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def leave_terminal(logfile: str | None) -> None:
    """Become a session of our own in / without a terminal; messages go to `logfile` or syslog."""
    try:
        os.setsid()
    except PermissionError:
        pass  # already the leader of a process group: started by a supervisor, nothing to leave
    log_to(logfile)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)


def log_to(logfile: str | None, program: str = "syspuffs") -> None:
    """Send log messages of this process to `logfile`, or to syslog, in place of standard error.

    Without a syslog socket on the machine they go nowhere.
    """
    handler: logging.Handler
    if logfile is not None:
        handler = logging.FileHandler(logfile)
        line = f"%(asctime)s {program}[%(process)d] %(levelname)s: %(message)s"
    else:
        from logging.handlers import SysLogHandler

        line = f"{program}[%(process)d]: %(message)s"
        try:
            handler = SysLogHandler("/dev/log", SysLogHandler.LOG_DAEMON)
        except OSError:
            handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter(line))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
