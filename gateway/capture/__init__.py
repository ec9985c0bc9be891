"""Catching an unmodified FUSE program before it mounts: `captured` starts it, `Capture` is told."""

from __future__ import annotations

from .catching import Capture, MountCall, captured

__all__ = ["Capture", "MountCall", "captured"]
