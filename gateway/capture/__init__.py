"""Catching an unmodified FUSE program before it mounts: `captured` starts it, `Capture` is told."""

from __future__ import annotations

from .calls import MountCall
from .catching import Capture, captured
from .namespace import NameSpace

__all__ = ["Capture", "MountCall", "NameSpace", "captured"]
