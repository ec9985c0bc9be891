"""The buffer cache: blocks of devices in memory, and the transfers that bring and take them.

buf    Buf and its flags; IoWait, by which a task waits for transfers
cache  BufferCache: which buffers there are, who has them, which may go
io     reading and writing one buffer; `biodone`; I/O buffers for pages
dirty  delayed writes: their bounds, and writing all of a vnode, or just some

For metadata: file systems keep data in pages (uvm), which use I/O buffers only. A buffer is
the property of who made it busy, from `getblk` or `bread` to `brelse`, `bwrite`, `bawrite` or
`bdwrite`; what has no await in it needs no lock. Who wants several takes them in an order
that all take them in, or lets go of one before the next.

Nothing here can be cancelled (but `bwillwrite`, which comes before the first change): a
file system is never stopped between two steps. Nothing that does not have to wait yields.

A write that fails leaves its buffer dirty, with the error: it is tried again by every sync,
and fsync says what is true now. Only `brelse(bp, B_INVAL)` and `vinvalbuf` without
`save` drop what is dirty.
"""

from __future__ import annotations

from .buf import (
    B_AGE,
    B_ASYNC,
    B_BUSY,
    B_DELWRI,
    B_DONE,
    B_INVAL,
    B_NOCACHE,
    B_ORDERED,
    B_READ,
    B_WRITE,
    Buf,
    IoWait,
)
from .cache import BUFMEM, BufferCache, Statistics, brelse, getblk, incore
from .dirty import bufs_sync, bwillwrite, vflushbuf, vinvalbuf, vwaitforio
from .io import (
    bawrite,
    bdwrite,
    biodone,
    biowait,
    bread,
    breada,
    breadn,
    bwrite,
    getiobuf,
    putiobuf,
)

__all__ = [
    "BUFMEM",
    "B_AGE",
    "B_ASYNC",
    "B_BUSY",
    "B_DELWRI",
    "B_DONE",
    "B_INVAL",
    "B_NOCACHE",
    "B_ORDERED",
    "B_READ",
    "B_WRITE",
    "Buf",
    "BufferCache",
    "IoWait",
    "Statistics",
    "bawrite",
    "bdwrite",
    "biodone",
    "biowait",
    "bread",
    "breada",
    "breadn",
    "brelse",
    "bufs_sync",
    "bwillwrite",
    "bwrite",
    "getblk",
    "getiobuf",
    "incore",
    "putiobuf",
    "vflushbuf",
    "vinvalbuf",
    "vwaitforio",
]
