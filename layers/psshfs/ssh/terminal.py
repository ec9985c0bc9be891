"""Questions to the person at the terminal, from the pump and before login is done.

Everything here blocks: nothing else goes on in the pump while somebody types. What must not
be missed meanwhile, the death of the mounting process, is waited for beside the terminal.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress

_LINE_MAX = 4096


class Terminal:
    """Asks on /dev/tty, or by SSH_ASKPASS where there is no terminal; never with `batch`.

    `lifeline` is a descriptor that becomes readable when nobody waits for the answer any
    more; the process then exits on the spot, with the terminal as it was. `asked` is called
    after each question: the time that people take is no time-out's business.
    """

    def __init__(self, lifeline: int, asked: Callable[[], None] | None = None) -> None:
        self.batch = False
        self._is_waiting = False
        """Whether a line of `wait` is on the screen."""
        self._lifeline = lifeline
        self.asked = asked

    def tell(self, text: str) -> None:
        """Show a line on stderr."""
        self.wait("")
        print(_clean(text), file=sys.stderr, flush=True)

    def wait(self, text: str) -> None:
        """Show what is being waited for, on a terminal and nowhere else, in place of what was shown
        so before; "" takes it away. Questions and lines take it away by themselves."""
        if not (text or self._is_waiting) or not os.isatty(2):
            return
        self._is_waiting = bool(text)
        with suppress(OSError):
            os.write(2, b"\r\x1b[K" + _clean(text).encode())

    def can_ask(self) -> bool:
        """Tell whether there is anybody to ask."""
        if self.batch:
            return False
        fd = _open_tty()
        if fd is not None:
            os.close(fd)
            return True
        return bool(os.environ.get("SSH_ASKPASS"))

    def ask(self, prompt: str, *, echo: bool = False) -> str | None:
        """Ask for a line and give it without its end; None when nobody answers.

        `prompt` may hold what a server said: control characters in it are made visible.
        """
        if self.batch:
            return None
        self.wait("")
        prompt = _clean(prompt)
        require = os.environ.get("SSH_ASKPASS_REQUIRE", "")
        askpass = os.environ.get("SSH_ASKPASS")
        try:
            if askpass and require in ("force", "prefer"):
                return self._ask_program(askpass, prompt)
            fd = _open_tty()
            if fd is not None:
                try:
                    return self._ask_tty(fd, prompt, echo)
                finally:
                    os.close(fd)
            if askpass and require != "never":
                return self._ask_program(askpass, prompt)
            return None
        finally:
            if self.asked is not None:
                self.asked()

    def _ask_tty(self, fd: int, prompt: str, echo: bool) -> str | None:
        try:
            before, mode = termios.tcgetattr(fd), termios.tcgetattr(fd)
        except termios.error:
            return None
        if not echo:
            mode[3] &= ~(termios.ECHO | termios.ECHOE | termios.ECHOK | termios.ECHONL)
        mode[3] |= termios.ICANON | termios.ISIG

        def restore() -> None:
            with suppress(OSError, termios.error):  # the terminal may be gone
                termios.tcsetattr(fd, termios.TCSAFLUSH, before)
                if not echo:
                    os.write(fd, b"\n")

        # What ends or stops the job must leave a terminal that echoes. The handlers run in poll().
        def leave(number: int, frame: object) -> None:
            restore()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            # Reached after a stop only.
            signal.signal(number, leave)
            termios.tcsetattr(fd, termios.TCSAFLUSH, mode)
            os.write(fd, prompt.encode())

        caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
        handlers = [(number, signal.signal(number, leave)) for number in caught]
        # The kernel may give a signal to any thread, and one of libuv's would not wake our poll().
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before_waker = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        try:
            termios.tcsetattr(fd, termios.TCSAFLUSH, mode)
            os.write(fd, prompt.encode())
            self._wait(fd, restore, woken)
            line = os.read(fd, _LINE_MAX)
        except (OSError, termios.error):
            return None
        finally:
            restore()
            signal.set_wakeup_fd(before_waker)
            os.close(woken)
            os.close(waker)
            for number, handler in handlers:
                signal.signal(number, handler)
        return _take_line(line)

    def _ask_program(self, program: str, prompt: str) -> str | None:
        try:
            process = subprocess.Popen(
                [program, prompt], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
        except OSError as exc:
            self.tell(f"SSH_ASKPASS: cannot run {program}: {exc.strerror}")
            return None
        assert process.stdout is not None
        line = b""
        with process:
            fd = process.stdout.fileno()
            while len(line) < _LINE_MAX:
                self._wait(fd, process.kill)
                data = os.read(fd, _LINE_MAX)
                if not data:
                    break
                line += data
        return _take_line(line) if process.returncode == 0 else None

    def _wait(self, fd: int, leave: Callable[[], None], woken: int | None = None) -> None:
        """Wait until `fd` can be read; exit at once when nobody waits for us any more.

        `woken` becomes readable when a signal came; its handler runs between two turns.
        """
        poll = select.poll()
        for one in (fd, self._lifeline, woken):
            if one is not None:
                poll.register(one, select.POLLIN)
        while True:
            ready = {number for number, _ in poll.poll()}
            if self._lifeline in ready:
                leave()
                os._exit(1)
            if woken in ready and woken is not None:
                os.read(woken, 64)
            if fd in ready:
                return


def _open_tty() -> int | None:
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


def _take_line(line: bytes) -> str | None:
    """Give the text up to the end of the line; None for an end of file."""
    if not line:
        return None
    return line.split(b"\n", 1)[0].removesuffix(b"\r").decode(errors="surrogateescape")


def _clean(text: str) -> str:
    """Make control characters visible, so that a server cannot play with the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
