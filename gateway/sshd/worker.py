"""The SSH process: `python -m syspuffs.gateway.sshd.worker FD`, started by gateway/sftpd.

Lives as long as the other end of its control socket is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import resource
import signal
import socket
import sys
import time
from typing import Any, Final, NoReturn

import asyncssh
import uvloop

from ...layers.psshfs.ssh.splitter import Splitter
from .access import Access
from .connection import UNSENT_HIGH, Connection
from .control import (
    BadMessage,
    Configure,
    Connect,
    Message,
    Note,
    Ping,
    Pong,
    Ready,
    Refuse,
    decode_orders,
    receive,
    send,
)
from .door import Door, House, printable
from .settings import CIPHERS, KEY_EXCHANGES, MACS

_UNSENT_MAX: Final = 20000
"""Messages that may wait for the gateway; more, and it does not live any more."""
_NOTES_MAX: Final = 100
"""Lines for the log within a second; strangers decide how many there are to say."""
_TAKEN_AT_ONCE: Final = 64
_VERSION: Final = "syspuffs OpenSSH_9.9"
"""What we call ourselves. asyncssh and libssh look for OpenSSH in it, to know in which order the
arguments of SYMLINK go: ours is OpenSSH's, which is not the draft's."""
_SIGNATURES: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""What clients are told that they may sign with."""


class SshProcess:
    """Everything of one SSH process. `control`: the socket to the gateway, non-blocking."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._unsent: list[tuple[Message, int | None]] = []
        self._numbers = itertools.count(1)
        self._doors: dict[int, Door] = {}
        self._house: House | None = None
        self._access: Access | None = None
        self._options: asyncssh.SSHServerConnectionOptions | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> NoReturn:
        """Do what the gateway says until it is gone, or this process is killed."""
        self._loop.add_reader(self._control.fileno(), self.listen)
        await self._loop.create_future()
        raise AssertionError

    # To the gateway.

    def tell(self, message: Message, fd: int | None = None) -> bool:
        """Send a message, now or as soon as it goes; `fd` stays the caller's.

        False: there is no place for it. The order of messages is kept.
        """
        if not self._unsent:
            try:
                send(self._control, message, fd)
                return True
            except BlockingIOError:
                pass
            except OSError:
                _leave()
        if len(self._unsent) >= _UNSENT_MAX:
            _leave()
        try:
            kept = None if fd is None else os.dup(fd)
        except OSError:
            return False
        if not self._unsent:
            self._loop.add_writer(self._control.fileno(), self._send_rest)
        self._unsent.append((message, kept))
        return True

    def _send_rest(self) -> None:
        while self._unsent:
            message, fd = self._unsent[0]
            try:
                send(self._control, message, fd)
            except BlockingIOError:
                return
            except OSError:
                _leave()
            del self._unsent[0]
            if fd is not None:
                os.close(fd)
        self._loop.remove_writer(self._control.fileno())

    # From the gateway.

    def listen(self) -> None:
        """Do what the gateway has said until now."""
        for _ in range(_TAKEN_AT_ONCE):
            try:
                received = receive(self._control)
            except BlockingIOError:
                return
            except BadMessage:
                received = None
            if received is None:
                _leave()
            self._obey(*received)

    def _obey(self, message: Message, fd: int | None) -> None:
        match message:
            case Configure() if fd is not None:
                self._configure(fd)
                return
            case Connect() if fd is not None:
                self._connect(message, socket.socket(fileno=fd))
                return
            case Ping():
                self.tell(Pong())
            case Refuse():
                for door in self._doors.values():
                    if (session := door.sessions.get(message.session)) is not None:
                        session.farewell = message.text
        if fd is not None:
            os.close(fd)

    def _configure(self, fd: int) -> None:
        try:
            orders = decode_orders(fd)
            settings = orders.settings
            options = asyncssh.SSHServerConnectionOptions(
                server_host_keys=[asyncssh.import_private_key(key) for key in orders.host_keys],
                server_version=_VERSION,
                kex_algs=_choose(settings.key_exchanges, KEY_EXCHANGES, "kex_algs"),
                encryption_algs=_choose(settings.ciphers, CIPHERS, "encryption_algs"),
                mac_algs=_choose(settings.macs, MACS, "mac_algs"),
                compression_algs=["none"],
                signature_algs=_SIGNATURES,
                login_timeout=settings.login_grace_seconds,
                keepalive_interval=0,
                rekey_bytes=settings.rekey_bytes,
                rekey_seconds=settings.rekey_seconds,
                host_based_auth=False,
                kbdint_auth=False,
                gss_host=None,
                agent_forwarding=False,
                x11_forwarding=False,
                allow_pty=False,
                allow_scp=False,
            )
            access = Access(orders)
        except (asyncssh.Error, asyncssh.KeyImportError, ValueError) as exc:
            self.tell(Ready(f"{type(exc).__name__}: {exc}"))
            return
        old, self._access = self._access, access
        self._options = options
        self._house = House(
            settings, self._now, self.tell, self.listen, self._numbers.__next__, self._left
        )
        if old is not None:
            old.close()
        self.tell(Ready())
        for door in list(self._doors.values()):
            if door.grant is not None and door.grant.account not in orders.accounts:
                door.end("The account is gone")

    def _now(self) -> Access:
        assert self._access is not None
        return self._access

    def _left(self, door: Door) -> None:
        self._doors.pop(door.number, None)

    def _connect(self, arrival: Connect, sock: socket.socket) -> None:
        task = self._loop.create_task(self._attach(arrival, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attach(self, arrival: Connect, sock: socket.socket) -> None:
        assert self._house is not None
        assert self._options is not None
        door = Door(self._house, arrival)
        connection = Connection(self._loop, self._options, door)
        splitter = Splitter(connection)
        door.attach(splitter)
        self._doors[door.number] = door
        sock.setblocking(False)
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: splitter, sock)
        except OSError as exc:
            sock.close()
            door.connection_lost(exc)
        else:
            transport.set_write_buffer_limits(high=UNSENT_HIGH)


def _choose(wanted: tuple[str, ...], known: tuple[str, ...], option: str) -> list[str]:
    """Return what asyncssh has here of the wanted algorithms, in their order."""
    found = []
    for name in wanted:
        if name not in known:
            raise ValueError(f"{name} is none of {', '.join(known)}")
        with contextlib.suppress(ValueError):
            keywords: dict[str, Any] = {option: [name]}
            asyncssh.SSHServerConnectionOptions(**keywords)
            found.append(name)
    if not found:
        raise ValueError(f"none of {', '.join(wanted)} can be had here")
    return found


class _NoteHandler(logging.Handler):
    """Sends what is logged to the gateway, which has the log; not more than it can stand."""

    def __init__(self, process: SshProcess) -> None:
        super().__init__()
        self._process = process
        self._second = 0
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        second = int(time.monotonic())
        if second != self._second:
            if self._count > _NOTES_MAX:
                text = f"{self._count - _NOTES_MAX} more lines within a second are not shown"
                self._process.tell(Note(logging.WARNING, text))
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= _NOTES_MAX:
            lines = self.format(record).splitlines()
            # The end of a traceback says more than its beginning.
            text = " / ".join(printable(line.strip()) for line in lines[:1] + lines[1:][-12:])
            self._process.tell(Note(record.levelno, text))


def _leave() -> NoReturn:
    # Straight out: nobody is left to be told, and nothing of ours outlives the process.
    os._exit(0)


async def _run(control: socket.socket) -> None:
    process = SshProcess(control)
    root = logging.getLogger()
    root.addHandler(_NoteHandler(process))
    root.setLevel(logging.INFO)
    logging.getLogger("asyncssh").setLevel(logging.ERROR)
    await process.run()


def main(fd: int) -> None:
    """Be an SSH process; `fd` is the control socket."""
    # What ends it is the end of the gateway, which has sessions to end first. The signals of a
    # terminal, or of a service manager, go to both.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    control = socket.socket(fileno=fd)
    control.setblocking(False)
    os.set_inheritable(fd, False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(control))


if __name__ == "__main__":
    main(int(sys.argv[1]))
