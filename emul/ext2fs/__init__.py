"""ext2fs: ext2, revision 1, made for this kernel: data in pages, metadata in buffers.

On the medium, and nothing else (what is read is checked; nothing here waits):

    features    what a file system may have, and what then can be done with it
    super       the super block
    group       the groups, and the zones that are nobody's
    inode       inodes
    dirblock    one block of a directory
    bitmap      one bitmap

In memory:

    volume      Volume: the device, super block, groups; errors found at run time
    node        Node: an inode in memory; Inodedep, what of it is not on the device
    alloc       Allocator: blocks and inodes
    deps        in which order changes may reach the device, and what waits; read it first
    commit      Order: writing it in that order
    bmap, balloc, blocks    Blocks: where the blocks of a file are; taking them; giving them back
    dirhash, directory      Directories
    writeback   the kernel thread that writes what nobody waits for

    inodeops, vfsops, fileops, renameops, nameops   the operations; the last one has Ext2Fs
"""

from __future__ import annotations

from .nameops import Ext2Fs

__all__ = ["Ext2Fs"]
