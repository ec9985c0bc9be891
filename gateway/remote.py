"""The bottom of a stack that ends in psshfs: from what the user typed to a served tree."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, fields
from errno import EACCES, ECONNRESET, ENOENT, ENOTCONN, ENOTDIR, EPERM, EPIPE, EPROTO, ETIMEDOUT
from typing import TYPE_CHECKING, Final

from ..layers.psshfs.options import Idmap, PsshfsOptions
from ..layers.psshfs.ssh.failure import DEAD_AFTER
from ..layers.psshfs.ssh.stream import SshOptions, Stream, open_stream
from ..layers.psshfs.ssh.target import Target, parse_target
from ..native.errors import VfsError
from .failures import leaves
from .saving import SavingLine
from .status import CommandError, Status
from .words.idfiles import group_ids, user_ids
from .words.options import Settings
from .words.sshwords import later_first

if TYPE_CHECKING:
    from ..layers.fault import Rules
    from ..layers.ops import FileServer


@dataclass(frozen=True)
class Remote:
    """What psshfs is told: how to reach the server, and how to serve its tree."""

    ssh: SshOptions
    psshfs: PsshfsOptions
    subdir: bytes = b""
    """Mount this directory below the one that was named."""
    reconnects: bool = True
    """Whether a lost connection is brought back."""


def remote(psshfs: Settings, ssh: Settings, *, readonly: bool) -> Remote:
    """Return what psshfs is told, from the settings of the two groups.

    Later words win, as everywhere behind `-o`; ssh itself takes the first value of a keyword, so
    the order is turned round, save for keywords of which it takes all.
    Errors: CommandError for a map of ids that cannot be read.
    """
    reach = SshOptions(
        port=psshfs.get("port"),
        config_file=psshfs.get("ssh_config"),
        options=later_first(ssh.get("options", [])),
        compression=psshfs.get("compression", False),
        ssh_command=psshfs.get("ssh_command"),
        sftp_server=psshfs.get("sftp_server"),
        password=psshfs.get("password"),
        subsystem=psshfs.get("subsystem", "sftp"),
        directport=psshfs.get("directport"),
        vsock=psshfs.get("vsock"),
        descriptors=psshfs.get("descriptors"),
        dead_after=psshfs.get("dead_after", DEAD_AFTER),
    )
    renamed = {"remote_uid": "uid", "remote_gid": "gid"}
    ours = {renamed.get(name, name): value for name, value in psshfs.items()}
    known = {field.name for field in fields(PsshfsOptions)}
    if ours.get("idmap") is Idmap.FILE:
        if not {"uidfile", "gidfile"} & ours.keys():
            raise CommandError(Status.USAGE, "idmap=file needs a file: give uidfile or gidfile")
        ours |= {"uids": user_ids(ours.get("uidfile")), "gids": group_ids(ours.get("gidfile"))}
    serve = PsshfsOptions(ro=readonly, **{k: v for k, v in ours.items() if k in known})
    # A descriptor that was given to us is all that there is of its connection.
    reconnects = psshfs.get("reconnects", True) and reach.descriptors is None
    return Remote(reach, serve, os.fsencode(psshfs.get("subdir", "")), reconnects=reconnects)


@asynccontextmanager
async def remote_tree(
    special: str,
    remote: Remote,
    rules: Rules | None = None,
    *,
    opened: Callable[[str], None] = lambda description: None,
) -> AsyncIterator[FileServer]:
    """Connect to `special` (`[user@]host:[path]`) and serve the tree that it names.

    `opened` is told, in one line, what carries the stream once there is one.
    A lost connection is brought back, without asking anybody anything.
    What goes wrong on the stream by `rules` (place "sftp") goes wrong from the first packet on.

    Errors: TargetError, ConnectError, and CommandError for a path that cannot be served.
    """
    from ..layers.psshfs import mount_psshfs

    reach = remote.ssh
    is_local = reach.sftp_server or reach.descriptors or reach.directport or reach.vsock
    target = parse_target(special, local=is_local is not None)
    path = target.path
    if remote.subdir:
        path = (path.rstrip(b"/") + b"/" if path.strip(b"/") else path) + remote.subdir

    @asynccontextmanager
    async def again() -> AsyncIterator[socket.socket]:
        # What was lost must not do anything behind what is asked from now on.
        for lost in streams:
            await lost.abandon()
        async with (
            open_stream(target, remote.ssh.without_questions()) as stream,
            _wire(stream.socket, rules) as wire,
        ):
            streams.append(stream)
            try:
                yield wire
            finally:
                streams.remove(stream)

    streams: list[Stream] = []
    async with open_stream(target, remote.ssh) as stream, _wire(stream.socket, rules) as wire:
        streams.append(stream)
        opened(stream.description)
        is_served = False
        try:
            async with mount_psshfs(
                wire,
                path,
                remote.psshfs,
                mntfromname=special.encode("utf-8", "surrogateescape"),
                channel_opener=_channel_opener(target, remote.ssh, streams),
                tell_unsaved=SavingLine(special),
                opener=again if remote.reconnects else None,
            ) as server:
                is_served = True
                yield server
        except Exception as exc:
            failure = next((leaf for leaf in leaves(exc) if isinstance(leaf, VfsError)), None)
            if is_served or failure is None:
                raise
            if failure.errno in _CONNECTION_ENDED:
                raise await stream.explain_end() from failure
            raise _refused(failure, target) from failure


def _channel_opener(
    target: Target, ssh: SshOptions, streams: Sequence[Stream]
) -> Callable[[], AbstractAsyncContextManager[socket.socket]] | None:
    """Return what opens further channels to the server, None where they would be of no use.

    The last of `streams` is the one that serves at present.
    """
    if ssh.sftp_server is not None or ssh.descriptors:
        return None

    @asynccontextmanager
    async def further() -> AsyncIterator[socket.socket]:
        open_channel = streams[-1].open_channel
        if open_channel is not None:
            async with open_channel() as channel:
                yield channel
        else:
            async with open_stream(target, ssh.without_questions()) as login:
                yield login.socket

    return further


def _wire(sock: socket.socket, rules: Rules | None) -> AbstractAsyncContextManager[socket.socket]:
    return nullcontext(sock) if rules is None else _faulty(sock, rules)


@asynccontextmanager
async def _faulty(sock: socket.socket, rules: Rules) -> AsyncIterator[socket.socket]:
    from ..layers.fault import faulty_wire

    async with faulty_wire(sock, "sftp", rules) as wire:
        yield wire.socket


_CONNECTION_ENDED: Final = frozenset({ENOTCONN, EPIPE, ECONNRESET})

_STATUS: Final = {
    ENOENT: (Status.REMOTE_MISSING, "there is no such directory on the server; check the path"),
    ENOTDIR: (Status.REMOTE_NOT_DIRECTORY, "this is no directory on the server; mount its parent"),
    EACCES: (Status.REMOTE_PERMISSION, "no permission on the server; log in as another user"),
    EPERM: (Status.REMOTE_PERMISSION, "no permission on the server; log in as another user"),
    ETIMEDOUT: (Status.UNREACHABLE, "the SFTP server does not answer; try again later"),
    EPROTO: (Status.CONNECTION_LOST, "what answers there is no SFTP server that we can talk to"),
}


def _refused(failure: VfsError, target: Target) -> CommandError:
    """Return what a failure to begin with the tree means."""
    status, text = _STATUS.get(failure.errno, (Status.FAILURE, str(failure)))
    detail = f" ({failure.detail})" if failure.errno == EPROTO and failure.detail else ""
    return CommandError(status, f"{target}: {text}{detail}")
