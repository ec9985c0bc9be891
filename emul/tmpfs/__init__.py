"""tmpfs: a file system in memory, complete, and the example of how to write one for this kernel.

fs     TmpFs: the operations
node   what is kept of a file, a link and a directory
store  the octets of a regular file
"""

from __future__ import annotations

from .nameops import TmpFs

__all__ = ["TmpFs"]
