"""The emulated kernel: what NetBSD's rump gave file systems, in user space, on trio.

A trio task is a kernel thread. Operations are coroutines; one that does not have
to wait must not yield. The rooms, by who may enter:

    a file system imports          vfs (FileSystem), vnode, lock, uio, tmpfs's own modules as example
    a client of the kernel imports kernel (Kernel, mounts), vfs, vnode
    private                        everything whose name starts with an underscore

Lock order: parent directory before child; of two unrelated directories, the one
with the lower vnode serial first (rename); a vnode lock before a mount's own tables.
"""
