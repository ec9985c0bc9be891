"""readonly: what is below can be read and not be changed (EROFS)."""

from .server import Readonly

__all__ = ["Readonly"]
