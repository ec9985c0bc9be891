"""Streams that a program of the user's choice carries: its command line, and what its death means.

Pure functions; `stream` runs what they say. OpenSSH's ssh tells its failures in words only
(the exit status is 255 for all of them), so its words are read here, and nowhere else.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence

from .failure import DEAD_AFTER, Cause, ConnectError
from .target import Target

# The child must live through what the terminal sends to the job that started it (^C, ^\, the
# hang-up), and it needs that terminal for its prompts, so it gets no session of its own. Ignored
# signals stay ignored over exec, and ssh leaves them so. The shell does it without running
# Python code between fork and exec, which threads make unsafe.
_DEAF = ("/bin/sh", "-c", 'trap "" INT QUIT HUP; exec "$@"', "sh")

_CONNECT_TIME = 30
"""ConnectTimeout, seconds: ssh's default is the kernel's patience, two minutes."""


def _alive(dead_after: float) -> tuple[tuple[str, int], ...]:
    """Give the keywords by which ssh notices a silent network: its default is never.

    It asks after each interval of silence and ends at the one after the last question.
    """
    interval = max(1, int(dead_after / 4))
    count = max(1, int(dead_after / interval) - 1)
    return (("ServerAliveInterval", interval), ("ServerAliveCountMax", count))


def split_command(option: str, text: str) -> list[str]:
    """Split a command line into words as a shell does.

    Errors: `ConnectError` BAD_CONFIG when it is empty or its quotes do not match.
    """
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise ConnectError(Cause.BAD_CONFIG, f"{option}={text}: {exc}") from None
    if not words:
        raise ConnectError(Cause.BAD_CONFIG, f"{option} is empty; give it a program to run")
    return words


def build_ssh_argv(
    target: Target,
    ssh: Sequence[str],
    *,
    port: int | None = None,
    config_file: str | None = None,
    options: Sequence[str] = (),
    compression: bool = False,
    subsystem: str = "sftp",
    ciphers: str = "",
    dead_after: float = DEAD_AFTER,
    is_set: Callable[[str], bool] = lambda keyword: False,
) -> list[str]:
    """Give the command line that makes `ssh` (already split) carry the sftp subsystem.

    ssh takes the first value it sees of each keyword, so the user's options stand before ours.
    But all options stand before the user's files: `is_set` tells what these set already.
    `ciphers` are asked for where the user has no wishes.
    """
    argv = [*_DEAF, *ssh]
    if target.user is not None:
        argv += ["-l", target.user]
    if port is not None:
        argv.append(f"-p{port}")
    if config_file is not None:
        argv += ["-F", config_file]
    if compression:
        argv.append("-C")
    for option in options:
        argv += ["-o", option]
    defaults = [("ConnectTimeout", _CONNECT_TIME)]
    if not is_set("ServerAliveInterval"):
        defaults += _alive(dead_after)
    argv += [
        "-oClearAllForwardings=yes",
        "-oRemoteCommand=none",
        "-oPermitLocalCommand=no",
        *(f"-o{word}={value}" for word, value in defaults if not is_set(word)),
        *([f"-oCiphers={ciphers}"] if ciphers and not is_set("Ciphers") else []),
        "-a",
        "-x",
    ]
    # `target` was checked for a leading dash; "--" makes sure once more.
    if "/" in subsystem:
        return [*argv, "--", target.host, subsystem]
    return [*argv, "-s", "--", target.host, subsystem]


def build_server_argv(server: Sequence[str]) -> list[str]:
    """Give the command line of a program on this machine that speaks SFTP itself."""
    return [*_DEAF, *server]


_PHRASES: tuple[tuple[re.Pattern[str], Cause, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), cause, advice)
    for pattern, cause, advice in (
        # First match wins: what goes wrong with a proxy shows itself as a closed connection too.
        (
            r"stdio forwarding failed|proxy ?command|jump ?host|kex_exchange.*UNKNOWN port"
            r"|Connection closed by UNKNOWN port"
            r"|banner exchange.* UNKNOWN port \d+: (Broken pipe|Connection reset)",
            Cause.PROXY,
            "look at ProxyJump and ProxyCommand",
        ),
        (
            r"Could not resolve hostname|Name or service not known|Temporary failure in name",
            Cause.UNKNOWN_HOST,
            "check the name",
        ),
        (r"Connection refused", Cause.REFUSED, "is an SSH server running on that port?"),
        (
            r"REMOTE HOST IDENTIFICATION HAS CHANGED|Offending .* key in"
            r"|host key for .* has changed|is marked as revoked|REVOKED HOST KEY",
            Cause.CHANGED_HOST_KEY,
            "if the change is genuine, remove the old key with ssh-keygen -R",
        ),
        (
            r"No .* host key is known for|Host key verification failed",
            Cause.UNKNOWN_HOST_KEY,
            "connect once with ssh, or set StrictHostKeyChecking=accept-new",
        ),
        (
            r"Permission denied \(|Too many authentication failures|No more authentication methods"
            r"|no authentication methods available",
            Cause.AUTHENTICATION,
            "check the user name, the keys and the agent",
        ),
        (
            r"subsystem request failed",
            Cause.NO_SUBSYSTEM,
            "ask its administrator for the sftp subsystem",
        ),
        (
            r"Bad configuration option|terminating, \d+ bad configuration|command-line: line"
            r"|Can't open user config file|Bad owner or permissions|unknown option"
            r"|unsupported option|Bad port|keyword .* (bad|missing)|illegal option|usage: ssh",
            Cause.BAD_CONFIG,
            "correct the option or the file",
        ),
        (
            r"No route to host|Network is unreachable|timed out|Host is down",
            Cause.UNREACHABLE,
            "check the network and the address",
        ),
        (
            r"no matching .* found|Bad remote protocol version|banner exchange"
            r"|Protocol major versions differ|kex_exchange_identification",
            Cause.PROTOCOL,
            "is it an SSH server?",
        ),
    )
)


_LOST = re.compile(
    r"Connection to .* closed|server .* not responding|Broken pipe$|Connection reset"
)


class StderrReader:
    """Reads along with what a program says on its stderr.

    Lines that name a cause of death are kept for the message and not shown twice.
    """

    __slots__ = ("_fatal", "_last", "_partial")

    def __init__(self) -> None:
        self._partial = b""
        self._fatal: dict[Cause, str] = {}
        self._last = ""

    def feed(self, data: bytes) -> bytes:
        """Take what came and give back what people should see of it now."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()[-4096:]
        shown = [line + b"\n" for line in lines if not self._take(line)]
        return b"".join(shown)

    def finish(self) -> bytes:
        """Say that nothing more comes; give back what people should see of the last line."""
        rest, self._partial = self._partial, b""
        return b"" if not rest or self._take(rest) else rest + b"\n"

    def _take(self, line: bytes) -> bool:
        text = line.decode(errors="replace").strip("\r\n @")
        if not text:
            return False
        self._last = text
        for pattern, cause, _ in _PHRASES:
            if pattern.search(text):
                if cause is not Cause.CHANGED_HOST_KEY:
                    self._fatal.setdefault(cause, text)
                    return True
                # A long warning, to be shown whole; the line that names the file says most.
                if text.startswith("Offending") or cause not in self._fatal:
                    self._fatal[cause] = text
                return False
        return False

    def explain(self, program: str, host: str, status: int, *, started: bool) -> ConnectError:
        """Give the error for a program that ended with `status` (negative: by that signal).

        `started` says whether the server had answered before.
        """
        if status in (126, 127) and "exec:" in self._last:  # so says the shell that starts it
            return ConnectError(Cause.NOT_FOUND, f"cannot run {program}: {self._last}")
        if not started:
            for _, cause, advice in _PHRASES:
                if cause in self._fatal:
                    text = self._fatal[cause].removeprefix("ssh: ")
                    return ConnectError(cause, f"{host}: {text}; {advice}")
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        words = next(iter(self._fatal.values()), self._last)
        detail = f" ({words})" if words else ""
        # The first octet may escape the watcher; ssh says these only when it had logged in.
        if started or _LOST.search(words):
            return ConnectError(Cause.DIED, f"connection to {host} lost: {program} {how}{detail}")
        if program.rpartition("/")[2] == "ssh" and 0 <= status < 255:
            return ConnectError(
                Cause.NO_SUBSYSTEM,
                f"{host}: the server ended its sftp subsystem with status {status} before the "
                f"first answer{detail}; ask its administrator for it",
            )
        return ConnectError(
            Cause.DIED,
            f"{host}: {program} {how} before the SFTP server answered{detail}; "
            f"run the command by hand to see why",
        )
