"""perfuse: an unmodified FUSE program as a FileServer.

The program has one end of a socket pair where it believes to have /dev/fuse, and we speak the
kernel's side of the protocol to it. How it comes to that belief is `gateway/capture`'s part.
"""

from __future__ import annotations

from .connection import fuse_pair
from .server import Perfuse, perfuse_on

__all__ = ["Perfuse", "fuse_pair", "perfuse_on"]
