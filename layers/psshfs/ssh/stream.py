"""SFTP byte streams: a connected socket with an SFTP server at its other end.

Three programs can hold that other end: our own pump process (asyncssh on uvloop, the
default), OpenSSH's ssh or the like (`ssh_command`), and an sftp-server on this machine
without any ssh (`sftp_server`). The stream starts it, watches it, says why it ended, and
leaves no process behind, however it is left. Or the server is reached without any program
(`directport`, `vsock`, `descriptors`).

The program keeps the terminal for its prompts until login is done and is deaf to ^C
afterwards. When this process dies, however it dies, the program reads the end of its
socket and exits. `open_stream` must run in the process that serves, after any fork.
"""

from __future__ import annotations

import socket as _socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from .byprogram import ProgramWatch, run_server, run_ssh
from .bypump import PumpWatch, run_pump
from .bysocket import SocketWatch, reach_port, reach_vsock, take_descriptors
from .carrier import LEAVE_TIME, SshOptions, Stream
from .failure import Cause, ConnectError
from .target import Target

__all__ = ["Cause", "ConnectError", "SshOptions", "Stream", "open_stream"]


@asynccontextmanager
async def open_stream(target: Target, options: SshOptions) -> AsyncIterator[Stream]:
    """Connect to the SFTP server of `target`; the stream lives as long as the block.

    With the pump the block is entered when the server has granted the sftp subsystem. Other
    programs give no sign: the block is entered when they run, and when the socket ends
    before the first answer, `Stream.explain_end` has the cause. The user may be asked
    for passwords and the like on the terminal meanwhile, without a time limit of ours.

    Leaving the block closes the socket, gives the program a second to end, then terminates
    it and kills it two seconds later. That is not cut short by cancellation. If it is left by
    an exception, nothing that the program still holds for the server arrives there later.

    Errors: `ConnectError`, see `Cause`.
    """
    watch: ProgramWatch | PumpWatch | SocketWatch
    if options.descriptors is not None:
        stream, watch = take_descriptors(target, options.descriptors)
    elif options.vsock is not None:
        stream, watch = await reach_vsock(options.vsock)
    elif options.directport is not None:
        stream, watch = await reach_port(target, options.directport, options.dead_after)
    elif options.sftp_server is not None:
        stream, watch = await run_server(target, options.sftp_server)
    elif options.ssh_command is not None:
        stream, watch = await run_ssh(target, options)
    else:
        stream, watch = await run_pump(target, options)

    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                await watch.start()
                nursery.start_soon(watch.run)
                yield stream
            except BaseException as exc:
                # Kept out of the nursery, which would wrap it into a group; raised again below.
                raised = exc
            finally:
                with trio.CancelScope(shield=True):
                    await _end(stream, gently=raised is None)
                nursery.cancel_scope.cancel()
    finally:
        # Not before: a reader whose descriptor is closed under it fails, a cancelled one ends.
        watch.close()
    if raised is not None:
        raise raised


async def _end(stream: Stream, *, gently: bool) -> None:
    """Close the socket and wait for the program's end, which comes for sure."""
    stream.is_leaving = gently
    if not gently:
        stream.discard()
    with suppress(OSError):
        # Closing alone is not enough: the watcher may hold another descriptor of it.
        stream.socket.shutdown(_socket.SHUT_RDWR)
    stream.socket.close()
    if gently and stream.has_process:
        with trio.move_on_after(LEAVE_TIME):
            await stream.process.wait()
    await stream.terminate()
    stream.release()
