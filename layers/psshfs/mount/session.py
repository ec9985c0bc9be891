"""The first packets of an SFTP session, and what they tell about the server."""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from ....native import sftp
from ....native.constants import Vtype
from ....native.errors import VfsError
from ..options import Idmap, PsshfsOptions
from ..tree.attributes import vtype_of
from ..wire.connection import PACKET_MAX, Connection
from ..wire.errmap import StatusError
from ..wire.restoring import Restoring
from ..wire.slot import ATTRS, LIMITS, ONE_NAME

DATA_DEFAULT: Final = 32 * 1024
"""Octets of file data in one packet that every server takes (draft-02, section 3)."""
HEAD_ROOM: Final = 4096
"""What a packet of file data may have besides the data; generous."""


class Session(NamedTuple):
    """What a server has said at the beginning; constant while the connection lives."""

    root: bytes
    """Absolute path of the mounted directory, without a '/' at its end ("/" is empty)."""
    root_attrs: sftp.Attrs
    extensions: dict[bytes, bytes]
    max_read: int
    max_write: int
    max_handles: int
    posix_rename: bool
    statvfs: bool
    hardlink: bool
    fsync: bool
    lsetstat: bool
    users_groups: bool
    home: tuple[int | None, int | None]
    """Owner and group of the login directory, where idmap=user asks for them."""


def _has(extensions: dict[bytes, bytes], name: bytes, revision: bytes) -> bool:
    """Tell whether an extension is there in the revision that we know."""
    return extensions.get(name) == revision


async def open_session(
    connection: Connection | Restoring, path: bytes, options: PsshfsOptions
) -> Session:
    """Greet the server, learn its limits and find the directory `path` (empty: the login one).

    Errors, told apart so that a user can be told what to do:
        EPROTO            no SFTP server, or one that speaks another version
        ENOTCONN          the connection ended; ETIMEDOUT: the server is silent
        ENOENT            no such directory
        ENOTDIR           `path` is something else
        EACCES            the directory may not be entered
    Wire: INIT, then LIMITS, REALPATH and STAT (of the login directory, too, for idmap=user)
    together: two round trips.
    """
    version, extensions = await connection.greet()
    if version != 3:
        raise VfsError(errno.EPROTO, f"the server speaks SFTP version {version}, not 3")
    wanted = path or b"."
    with connection.batch:
        limits_slot = None
        if _has(extensions, sftp.EXT_LIMITS, b"1"):
            limits_slot = connection.submit(LIMITS, sftp.limits)
        real_slot = connection.submit(ONE_NAME, sftp.realpath, wanted)
        # STAT, not LSTAT: a symbolic link to a directory may be mounted.
        attrs_slot = connection.submit(ATTRS, sftp.stat, wanted)
        home_slot = attrs_slot
        if options.idmap is Idmap.USER and path:
            home_slot = connection.submit(ATTRS, sftp.stat, b".")
    max_read = max_write = DATA_DEFAULT
    max_packet = max_handles = 0
    if limits_slot is not None:
        try:
            limits = await limits_slot
        except StatusError:
            pass  # announced and refused: as if it were not there
        else:
            max_read = limits.max_read or DATA_DEFAULT
            max_write = limits.max_write or DATA_DEFAULT
            max_packet = limits.max_packet
            max_handles = limits.max_handles
    if max_packet:
        # A server may state data limits that do not fit into its own packets.
        fits = max(DATA_DEFAULT, max_packet - 1024)
        max_read = min(max_read, fits)
        max_write = min(max_write, fits)
    max_read = max(1, min(max_read, options.max_read))
    max_write = max(1, min(max_write, options.max_write))
    connection.set_packet_max(max(PACKET_MAX, max_read + HEAD_ROOM))
    attrs = await attrs_slot
    real = await real_slot
    try:
        home = await home_slot
    except StatusError as exc:
        raise VfsError(exc.errno, "idmap=user: the login directory cannot be looked at") from None
    if vtype_of(attrs) not in (Vtype.VDIR, None):
        raise VfsError(errno.ENOTDIR, "the remote path is no directory")
    if not real.startswith(b"/") or b"\0" in real:
        raise VfsError(errno.EPROTO, "the server's absolute path is none")
    return Session(
        root=real.rstrip(b"/"),
        root_attrs=attrs,
        extensions=extensions,
        max_read=max_read,
        max_write=max_write,
        max_handles=max_handles,
        posix_rename=_has(extensions, sftp.EXT_POSIX_RENAME, b"1"),
        statvfs=_has(extensions, sftp.EXT_STATVFS, b"2"),
        hardlink=_has(extensions, sftp.EXT_HARDLINK, b"1"),
        fsync=_has(extensions, sftp.EXT_FSYNC, b"1"),
        lsetstat=_has(extensions, sftp.EXT_LSETSTAT, b"1"),
        users_groups=_has(extensions, sftp.EXT_USERS_GROUPS, b"1"),
        home=(home.uid, home.gid),
    )
