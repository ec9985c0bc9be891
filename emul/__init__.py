"""The emulated kernel: what NetBSD's rump gave file systems, in user space, on trio.

A trio task is a kernel thread. Operations are coroutines; one that does not have
to wait must not yield. The rooms, by who may enter (import contracts hold the walls):

    a file system imports   vfs        FileSystem, what it offers, and the rules
                            mount      vget, vget_load, insert, vrecycle, flush
                            vnode      Vnode, vref, vrele, vput, vgone, is_modified
                            namecache  names that it has found
                            cred, unixnode, lockf   permissions, Unix nodes, advisory locks
                            uvm        pages of files, ubc_read and ubc_write
                            bio, specfs, vnops      buffers of metadata; its device, and asking it
                            sched      threads, locks, timers
    a client imports        kernel     Kernel: mount, unmount, and all that is one of a kernel
                            vfs, mount (Client), vnode, lock, vnops     operations and their locks
                            syncer     vfs_sync, sync_all
                            namei, syscalls         paths; system calls of a process
                            rumpuser   disks, for file systems that want one
    the kernel itself       dead, freelist, vopcheck; what is said to be "for the kernel" or "for
                            this package", and every name that begins with an underscore
    who lives here          tmpfs, which is also the example of how to write a file system,
                            and ext2fs

There is no uio: read and write pass offset, length and buffer, a short read is the end of
the file, a write is all or nothing, and so nothing is left of a uio to be kept.

Lock order: a mount's `renamelock`, then vnodes, parent directory before child; who needs
vnodes of which he does not know that takes them with `lock_all`, which waits with empty
hands. Then locks of a file system, then buffers. What the tables of the kernel hold (mounts,
vnodes, names, free list, worklist) is changed between two awaits and needs no lock.

Debugging: `Kernel(debug=True)`, or SYSPUFFS_DEBUG=1 in the environment, has all rules checked.
"""
