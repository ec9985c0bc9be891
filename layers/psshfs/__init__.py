"""psshfs: serves a tree of an SFTP server as a FileServer.

Its rooms, each of which knows only those below it:

    server      the file server itself, and its mount
    operations  what the kernel above calls    recovery  a lost connection, brought back
    mount       what there is once for a mount: the session, what is believed and for how long
    ahead       what is asked for before its time    data  what files hold, on its way
    tree        nodes, names, attributes
    wire        requests and answers over byte streams
    ssh         where the byte streams come from
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .options import PsshfsOptions
    from .server import Psshfs, PsshfsStatistics, mount_psshfs
    from .wire.errmap import StatusError

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
    "StatusError": "wire.errmap",
    "mount_psshfs": "server",
}


if not TYPE_CHECKING:  # who asks for a name that is not here is told so by mypy

    def __getattr__(name: str) -> object:
        # Imported when asked for: the pump process lives in this package too, and would pay for
        # trio and the whole file server at each start.
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
