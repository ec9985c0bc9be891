"""The emulated kernel: what NetBSD's rump gave file systems, in user space, on trio.

A trio task is a kernel thread. Operations are coroutines; one that does not have
to wait must not yield. The rooms, by who may enter:

    a file system imports   vfs (FileSystem, what it offers), mount (vget, insert, flush),
                            vnode (Vnode, vref, vrele, vput, vgone), cred
    a client imports        kernel (Kernel and its mounts), vfs, mount (Client), vnode, lock
    the kernel itself       dead, FreeList and reclaim in vnode, what is said to be "for the
                            kernel", and every name that begins with an underscore
    who lives here          tmpfs, which is also the example of how to write a file system

There is no uio: read and write pass offset, length and buffer, a short read is the end of
the file, a write is all or nothing, and so nothing is left of a uio to be kept.

Lock order: parent directory before child; of two unrelated directories, the one
with the lower vnode serial first (rename); a vnode lock before a mount's own tables.
What a mount and the free list hold is changed between two awaits and needs no lock.
"""
