"""tmpfs: a file system in memory, complete, and the example of how to write one for this kernel.

fs     TmpFs: the operations
node   what is kept of a file, a link and a directory

The data of a file are the pages of an anonymous object (`uvm.UvmAobj`), which belongs to the node
and stays when the vnode goes.
"""

from __future__ import annotations

from .nameops import TmpFs

__all__ = ["TmpFs"]
