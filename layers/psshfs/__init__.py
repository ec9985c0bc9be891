"""psshfs: serves a tree of an SFTP server as a FileServer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_HOMES = {
    "Psshfs": "server",
    "PsshfsOptions": "options",
    "PsshfsStatistics": "server",
    "StatusError": "errmap",
    "mount_psshfs": "server",
}


def __getattr__(name: str) -> object:
    # Imported when asked for: the pump process lives in this package too, and would pay for trio
    # and the whole file server at each start.
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
