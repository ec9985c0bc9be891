"""Going to the background, with real forks and trivial bodies."""

import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from syspuffs.gateway.daemon import Foreground

COMMAND = """
import os, signal, sys, time
from syspuffs.gateway.daemon import in_background
{before}
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
def idle():
    while True:
        time.sleep(0.01)  # a signal just before a sleep is heard of behind it
def body(foreground):
{body}
status = in_background(body, "prog", {logfile!r})
print("parent ends with", status, flush=True)
sys.exit(status)
"""


class Command:
    """A command in a session of its own, as under a shell; `pipe` tells what its child does."""

    def __init__(self, body: str, logfile: str | None = None, before: str = "") -> None:
        self.pipe, theirs = os.pipe()
        text = COMMAND.format(
            body=textwrap.indent(
                f"tell = lambda text: os.write({theirs}, text)\n" + textwrap.dedent(body), "    "
            ),
            logfile=logfile,
            before=textwrap.dedent(before),
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs],
            start_new_session=True,
            text=True,
        )
        os.close(theirs)

    def told(self, seconds: float = 20) -> bytes:
        """Return what the child tells next; nothing when it has ended."""
        ready, _, _ = select.select([self.pipe], [], [], seconds)
        assert ready, "the child tells nothing"
        return os.read(self.pipe, 4096)

    def end(self) -> tuple[int, str, str]:
        """Wait for the command; return status, standard output and standard error."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def run(body: str, logfile: str | None = None, before: str = "") -> Command:
        started.append(Command(body, logfile, before))
        return started[-1]

    yield run
    for command in started:
        with suppress(ProcessLookupError):
            os.killpg(command.process.pid, signal.SIGKILL)  # its child holds its output open
        command.process.communicate()
        os.close(command.pipe)


def test_the_parent_leaves_when_the_mount_is_up(start: Callable[..., Command]) -> None:
    command = start(
        """
        tell(b"%d" % os.getpid())
        foreground.mounted()
        tell(b" %d %d %s" % (os.getsid(0), os.fstat(0) == os.fstat(2), os.getcwd().encode()))
        signal.sigwait([signal.SIGUSR1])
        return 0
        """
    )
    child = int(command.told())
    # Standard output ends although the child lives: it does not hold it open.
    assert command.end() == (0, "parent ends with 0\n", "")
    assert command.told() == b" %d 1 /" % child
    os.kill(child, signal.SIGUSR1)
    assert command.told() == b""


def test_until_then_the_child_keeps_terminal_directory_and_session(
    start: Callable[..., Command],
) -> None:
    command = start(
        """
        tell(b"%d %s" % (os.getsid(0), os.getcwd().encode()))
        print("Password:", file=sys.stderr)
        foreground.said()
        return 15
        """
    )
    assert command.told() == b"%d %s" % (command.process.pid, os.fsencode(Path.cwd()))
    assert command.end() == (15, "parent ends with 15\n", "Password:\n")


def test_a_failure_is_the_parents_status_after_the_child_has_ended(
    start: Callable[..., Command],
) -> None:
    command = start(
        """
        foreground.said()
        time.sleep(0.2)
        tell(b"gone")
        return 21
        """
    )
    assert command.end()[0] == 21
    assert command.told() == b"gone"


def test_a_mount_that_stays_keeps_the_parent(start: Callable[..., Command]) -> None:
    command = start(
        """
        foreground.stay()
        tell(b"%d" % os.getpid())
        signal.sigwait([signal.SIGUSR1])
        return 0
        """
    )
    child = int(command.told())
    assert os.getsid(child) == command.process.pid
    assert command.process.poll() is None
    os.kill(child, signal.SIGUSR1)
    assert command.end() == (0, "parent ends with 0\n", "")


def test_where_processes_have_no_descriptors(start: Callable[..., Command]) -> None:
    """Old kernels, and containers that forbid them."""
    before = """
        import errno
        def refuse(*_):
            raise OSError(errno.ENOSYS, "no pidfd_open")
        os.pidfd_open = refuse
        """
    command = start("foreground.said(); return 21", before=before)
    assert command.end()[0] == 21


def test_a_mount_that_is_killed_while_it_stays(start: Callable[..., Command]) -> None:
    command = start("foreground.stay(); os.kill(os.getpid(), signal.SIGKILL)")
    message = "prog: the process of the mount was killed by SIGKILL; umount its mount point\n"
    assert command.end() == (137, "parent ends with 137\n", message)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL"),
        ("os._exit(0)", 1, "ended with status 0 without saying why"),
        ("os._exit(7)", 7, "ended with status 7 without saying why"),
    ],
)
def test_a_child_that_dies_without_a_word(
    start: Callable[..., Command], body: str, status: int, message: str
) -> None:
    code, _, err = start(body).end()
    assert code == status
    assert err == (
        f"prog: the process of the mount {message}; "
        "nothing is mounted; try again with -f -d to see more\n"
    )


def test_a_bug_in_the_child_shows(start: Callable[..., Command]) -> None:
    code, _, err = start("raise RuntimeError('unforeseen')").end()
    assert code == 1
    assert err.endswith("RuntimeError: unforeseen\n")
    assert "prog:" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_to_the_waiting_parent_ends_both(
    start: Callable[..., Command], number: signal.Signals
) -> None:
    command = start(
        """
        signal.signal(signal.SIGTERM, lambda *_: (tell(b"term"), os._exit(3)))
        tell(b"ready")
        idle()
        """
    )
    assert command.told() == b"ready"
    command.process.send_signal(number)
    assert command.end() == (128 + number, f"parent ends with {128 + number}\n", "")
    assert command.told() == b"term"


def test_a_second_signal_does_not_ask(start: Callable[..., Command]) -> None:
    command = start(
        """
        signal.signal(signal.SIGTERM, lambda *_: tell(b"no"))
        tell(b"ready")
        idle()
        """
    )
    assert command.told() == b"ready"
    command.process.send_signal(signal.SIGTERM)
    assert command.told() == b"no"
    command.process.send_signal(signal.SIGINT)
    assert command.end()[0] == 128 + signal.SIGINT
    assert command.told() == b""


def test_a_second_signal_just_behind_the_first(start: Callable[..., Command]) -> None:
    """It must not fall between the handling of the first one and the next system call."""
    body = """
        parent = os.getppid()
        signal.signal(signal.SIGTERM, lambda *_: os.kill(parent, signal.SIGINT))
        tell(b"ready")
        idle()
        """
    commands = [start(body) for _ in range(10)]
    for command in commands:
        assert command.told() == b"ready"
        command.process.send_signal(signal.SIGTERM)
    for command in commands:
        assert command.end()[0] == 128 + signal.SIGINT


def test_the_child_learns_that_nobody_waits_any_more(start: Callable[..., Command]) -> None:
    command = start(
        """
        import select
        tell(b"ready")
        select.select([foreground.waiting], [], [])
        try:
            foreground.mounted()
        except BrokenPipeError:
            tell(b"alone")
        return 0
        """
    )
    assert command.told() == b"ready"
    command.process.kill()
    assert command.told() == b"alone"


def test_messages_go_to_a_file_afterwards(start: Callable[..., Command], tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = start(
        """
        import logging
        logging.basicConfig()
        foreground.mounted()
        logging.getLogger("syspuffs.x").warning("the server is gone")
        return 0
        """,
        logfile=str(log),
    )
    assert command.end() == (0, "parent ends with 0\n", "")
    assert command.told() == b""
    assert log.read_text().endswith("WARNING: the server is gone\n")


def test_without_a_parent_nothing_happens() -> None:
    foreground = Foreground()
    assert foreground.waiting is None
    before = (os.getsid(0), os.getcwd(), os.fstat(0))
    foreground.mounted()
    foreground.stay()
    foreground.said()
    assert (os.getsid(0), os.getcwd(), os.fstat(0)) == before


def test_a_word_to_a_parent_that_is_gone() -> None:
    ours, childs = socket.socketpair()
    ours.close()
    foreground = Foreground(childs)
    foreground.said()  # nobody is left to be told: no error
    with pytest.raises(BrokenPipeError):
        foreground.stay()
    childs.close()
