"""psshfs: serves a tree of an SFTP server as a FileServer."""

from .errmap import StatusError
from .options import PsshfsOptions
from .server import Psshfs, PsshfsStatistics, mount_psshfs

__all__ = [
    "Psshfs",
    "PsshfsOptions",
    "PsshfsStatistics",
    "StatusError",
    "mount_psshfs",
]
