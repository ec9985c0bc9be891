"""The page cache (UBC): the data of files in memory, and their way from and to the device.

folio       up to 64 KiB of a file: memory, and what is known of each page
pages       Pages: the table of folios, common to both kinds of object
object      UvmObject: the pages of a vnode, read from and written to a device
aobj        UvmAobj: pages that are all there is of the data (tmpfs)
ubc         reading, writing and zeroing a file through its pages
vnp         what a file system says: a new size, the end of a vnode
genfs       getpages and putpages for files in blocks on a device
cluster     neighbouring pages under way, with as few transfers as they need
readahead   who reads from front to back
pagedaemon  PageMemory: the bounds of a kernel's pages, and the task that keeps them

How a file system uses it
-------------------------
A regular file's vnode gets `vp.uobj = UvmObject(vp, bsize)` when it is made; `bsize` is at most
PAGE_SIZE. The file system sets `devvp`, has `bmap`, and its `getpages` and `putpages` call
`genfs_getpages` and `genfs_putpages`. Its `read` calls `ubc_read`; its `write` calls `ubc_write`
with a coroutine function that takes blocks; changing a size is `uvm_vnp_setsize`, and only then
blocks are freed; `fsync` is `putpages` with PGO_CLEANIT | PGO_SYNCIO and then what the metadata
need; `reclaim` calls `uvm_vnp_terminate`. Dirty pages put their vnode on the syncer's worklist.

`bmap` is asked for blocks of the file up to the one that holds its end, in any state of the
vnode lock, for write-back holds none. It may wait. If data or blocks change meanwhile, its answer
is not used; so it must not fail then but for EIO, and need not be right.

Who may do what when
--------------------
A reader holds the vnode lock shared, who writes or sets a size holds it exclusively. Write-back
(putpages) needs no lock: a page that is being written can be changed, and is written again
then; two writes of one page are never under way at once. Nothing of an object is changed in
two steps with an await between them.

What was written is dirty until the device has said that it has it. When it says that it will not,
the page is dirty as before, marked as failed, and tried again by every fsync and sync, which
raise an error as long as it is so; a writer of more than a little more hears it, too. A page that
could not be read stays invalid, and who wants it hears of that: it is never zeros.

Bounds: memory (`PageMemory.limit`), dirty pages (half of that), clusters of a file under way to
the device (`genfs.MAX_PAGEOUTS`), read-ahead (`readahead.RA_MAX`). A full cluster of MAXPHYS begins
its way at once, so that the device works while the writer does; NetBSD pushes each 64 KiB of a
sequential writer, and waits.

Mappings
--------
What a program maps on the host are pages of the host's page cache, which lies above us and
fills itself by reads and empties itself by writes (p2k). We never see a load or store, and have
no pages that anybody maps. So a mapping and the reads and writes of the same mount agree, for the
host sees to that, and the two caches agree as long as every change comes through the host.

A change that does not has to be told to the host, by `mount.flush` (never from within an operation,
see `Upcalls.flush`), with octets of the range:

    before a read of data that the host may have changed by a mapping or holds back:
        FLUSH_PAGECACHE_NODE_RANGE, which returns when the host has written it
    after a write, a fdiscard or a shorter size by somebody else than the host (a system call of
    this kernel, a task of the file system): INVAL_PAGECACHE_NODE_RANGE, which also drops what the
    host had not written

Who makes such changes sends them; the page cache cannot know where a write came from. Reclaim,
page daemon, read-ahead and write-back change no data and need no flush. Between the change and
the flush a mapping shows the old data; there is no lock that holds both caches still, so
programs on both sides of one file that want more than this must use a lock of their own.
"""

from __future__ import annotations

from .aobj import UvmAobj
from .folio import FOLIO
from .genfs import genfs_getpages, genfs_putpages
from .object import UvmObject
from .pagedaemon import PAGEMEM, PageMemory, Statistics
from .ubc import ubc_read, ubc_write, ubc_zerorange
from .vnp import uvm_vnp_setsize, uvm_vnp_terminate

__all__ = [
    "FOLIO",
    "PAGEMEM",
    "PageMemory",
    "Statistics",
    "UvmAobj",
    "UvmObject",
    "genfs_getpages",
    "genfs_putpages",
    "ubc_read",
    "ubc_write",
    "ubc_zerorange",
    "uvm_vnp_setsize",
    "uvm_vnp_terminate",
]
