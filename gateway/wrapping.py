"""`syspuffs CMD...`: runs an unmodified mount command and mounts what it serves.

The command finds PUFFS_COMFD in its environment; its mount call sends a mount request
over that descriptor and then serves frames on it (layers/puffs/comfd.py). Here the
request becomes a mount of the emulated kernel, served by p2k.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from ..layers.p2k import p2k_over
from ..layers.puffs import puffs_over_socket
from ..layers.puffs.comfd import COMFD_ENV, MountRequest, answer, receive_request
from ..native.errors import RemoteProtocolError, TransportBroken
from .between import bind_rules, recorded
from .capture import Capture, MountCall, captured
from .capture.program import FuseProgram
from .commands import end_command, shell_status, start_failure
from .failures import errno_of, explain
from .mounting import Attachment
from .status import CommandError, Status
from .words.options import HOST_GROUP, HostOptions, Settings, host_options, parse_words

if TYPE_CHECKING:
    from ..layers.fault import Rules

_log = logging.getLogger(__name__)

_LEAVE_SECONDS: Final = 10.0
"""How long the command may take to end after its mount has ended."""
_MS_RDONLY: Final = 1
_OURS: Final = ("mount_psshfs", "mount_puffs", "syspuffs")


@asynccontextmanager
async def wrapped(
    argv: Sequence[str],
    words: Sequence[str],
    rules: Rules | None = None,
    trace: Settings | None = None,
) -> AsyncIterator[Attachment]:
    """Run `argv` and yield what it serves, over one more `p2k|puffs`.

    It either asks for a mount over PUFFS_COMFD, or is a FUSE program and calls fusermount. `words`
    are values of `-o`; they come after those that the command was given, so they win. By `rules`
    things go wrong between us and the command: its frames, or the messages of a FUSE program.
    `trace`, settings of TRACE_GROUP, has everything written down that the host asks.
    On exit the command has ended, by a signal if need be. Errors: CommandError, without a message
    when the command failed by itself and has told the user why.
    """
    async with AsyncExitStack() as stack, _running(argv, words, rules, stack) as attachment:
        if not trace:
            yield attachment
            return
        async with recorded(attachment.server, trace) as server:
            yield replace(attachment, server=server)


@asynccontextmanager
async def _running(
    argv: Sequence[str], words: Sequence[str], rules: Rules | None, stack: AsyncExitStack
) -> AsyncIterator[Attachment]:
    ours, theirs = socket.socketpair()
    with theirs:
        process, capture = await _start(argv, theirs, stack)
    reply: _Reply | FuseProgram | None = None
    patience = 0.0
    try:
        with ours:  # until the kernel half owns it
            request = await _request(process, ours, argv[0], capture)
            if isinstance(request, MountCall):
                assert capture is not None
                reply = FuseProgram(process, capture, argv[0], rules)
                async with reply.attached(request, words) as attachment:
                    yield attachment
                patience = _LEAVE_SECONDS
                return
            reply = _Reply(ours, request)
            async with reply:
                host = _host_options(request, words)
                async with (
                    _wire(ours, rules) as wire,
                    puffs_over_socket(wire, request.kargs) as fs,
                    p2k_over(fs, rdonly=host.readonly) as server,
                    reply,  # once more: after an unmount the stream would carry frames
                ):
                    yield Attachment(
                        server,
                        os.fsdecode(request.directory),
                        host,
                        words,
                        lambda: request.stay,
                        reply.mounted,
                        functools.partial(_forward_hangup, process),
                        rules,
                    )
        patience = _LEAVE_SECONDS
    except Exception:
        # With an answer it ends by itself, and has to tell the user why; without one it hangs.
        patience = _LEAVE_SECONDS if reply is not None else 0.0
        raise
    finally:
        with trio.CancelScope(shield=True):
            await end_command(process, patience)
        if reply is not None and reply.told_failure and (process.returncode or 0) > 0:
            # It has told the user, and knows better than we what status to end with.
            raise CommandError(process.returncode or 0, "")
    if process.returncode:
        _log.warning("%s ended with status %d after the unmount", argv[0], process.returncode)


@asynccontextmanager
async def _wire(sock: socket.socket, rules: Rules | None) -> AsyncIterator[socket.socket]:
    if rules is None:
        yield sock
        return
    from ..layers.fault import faulty_wire

    bind_rules(rules, ["frames"])
    async with faulty_wire(sock, "frames", rules) as wire:
        yield wire.socket


async def _forward_hangup(process: trio.Process) -> None:
    """Send SIGHUP to the command if it listens for it; it would be its end otherwise."""
    try:
        text = await trio.Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return  # it has gone
    caught = int(text.partition("SigCgt:")[2].split(maxsplit=1)[0], 16)
    if caught >> (signal.SIGHUP - 1) & 1:
        process.send_signal(signal.SIGHUP)


class _Reply:
    """The one answer to a mount request; as a context it answers with what goes wrong inside.

    Has a descriptor of its own, which lives until the answer was sent.
    """

    def __init__(self, sock: socket.socket, request: MountRequest) -> None:
        self.told_failure = False
        self._sock = sock.dup()
        self._request = request

    async def mounted(self) -> None:
        """Tell the command that it is mounted; it serves frames from now on."""
        with self._sock:
            await answer(self._sock, self._request)

    async def __aenter__(self) -> _Reply:
        return self

    async def __aexit__(self, _type: object, exc: BaseException | None, _trace: object) -> None:
        if self._sock.fileno() < 0:
            return
        with self._sock:
            if isinstance(exc, Exception):
                error = explain(exc) or CommandError(Status.FAILURE, f"internal error: {exc!r}")
                self.told_failure = bool(error.message)
                try:
                    await answer(self._sock, errno=errno_of(error), text=error.message)
                except TransportBroken:
                    self.told_failure = False  # it has gone; we tell the user


async def _start(
    argv: Sequence[str], theirs: socket.socket, stack: AsyncExitStack
) -> tuple[trio.Process, Capture | None]:
    """Start the command; all but our own are caught when they want to mount by FUSE."""
    environment = {**os.environ, COMFD_ENV: str(theirs.fileno())}
    program = argv[0]
    if "/" not in program and shutil.which(program) is None:
        # Our own mount commands are found although their directory is not in PATH.
        program = shutil.which(program, path=os.path.dirname(sys.executable)) or program
    command, fds = [program, *argv[1:]], [theirs.fileno()]
    try:
        if not _is_ours(argv) and shutil.which(program) is not None:
            return await stack.enter_async_context(captured(command, environment, fds))
        process = await trio.lowlevel.open_process(command, env=environment, pass_fds=fds)
    except OSError as exc:
        raise start_failure(argv[0], exc) from None
    return process, None


def _is_ours(argv: Sequence[str]) -> bool:
    """Tell whether a command is one of ours, which know PUFFS_COMFD and need not be caught."""
    if os.path.basename(argv[0]) in _OURS:
        return True
    return any(word.startswith(f"{__package__.partition('.')[0]}.bin.") for word in argv[1:3])


async def _request(
    process: trio.Process, sock: socket.socket, name: str, capture: Capture | None
) -> MountRequest | MountCall:
    """Return the mount request of the command; CommandError when it ends without one."""
    request: MountRequest | MountCall | None = None
    wrong: RemoteProtocolError | None = None
    gone = trio.Event()

    async def receive(scope: trio.CancelScope) -> None:
        nonlocal request, wrong
        try:
            request = await receive_request(sock)
        except TransportBroken:
            gone.set()  # all who held the other end have ended: the command's status says how
            return
        except RemoteProtocolError as exc:
            wrong = exc
        scope.cancel()

    async def caught(capture: Capture, scope: trio.CancelScope) -> None:
        nonlocal request
        request = await capture.mount_call()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, nursery.cancel_scope)
        if capture is not None:
            nursery.start_soon(caught, capture, nursery.cancel_scope)
        if await process.wait() != 0:
            nursery.cancel_scope.cancel()
        # With status 0 it may have left its server in the background, with the descriptor.
        await gone.wait()
        nursery.cancel_scope.cancel()
    if wrong is not None:
        raise CommandError(
            Status.WRAPPED_PROTOCOL,
            f"{name} asks for a mount in a way that makes no sense ({wrong}); "
            "are both of the same version?",
        )
    if request is not None:
        return request
    if process.returncode:
        raise CommandError(shell_status(process.returncode), "")
    raise CommandError(
        Status.NOTHING_MOUNTED,
        f"{name} ended without mounting anything; it must be a mount command that knows "
        f"{COMFD_ENV}, such as mount_psshfs, or a FUSE program",
    )


def _host_options(request: MountRequest, words: Sequence[str]) -> HostOptions:
    """Return the options of the host mount: those of the request, then our own."""
    given = [
        (os.fsdecode(key) + ("=" + os.fsdecode(value) if value else "")).replace(",", "\\,")
        for key, value in request.options
    ]
    if request.mntflags & _MS_RDONLY:
        given.insert(0, "ro")
    (settings,) = parse_words([*given, *words], [HOST_GROUP])
    return host_options(settings)
