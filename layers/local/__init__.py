"""local: serves a directory of this machine as a FileServer.

Everything is done relative to descriptors of directories and one name at a time, and no name of
another's choosing is ever followed: neither a link, nor "..", nor a rename leads out. The rights
are the process's own, whoever asks: owners are shown as they are, what the process may not do
fails. Other programs may change the tree at any time: no attribute may be remembered above, and
names of directories only by who asks whether they hold. What is mounted below the directory is
part of the tree.

Vocabulary: a node's *place* is the directory and the name at which it was last seen; a *path
descriptor* is one opened with O_PATH, which holds on to a node and cannot read or write it.

    libc         system calls that Python has not
    node         nodes, by cookie and by device and inode
    places       from a node to the host's file: descriptors of directories, kept and checked
    watches      which directories others have moved
    attributes   from the host's attributes to ours
    pace         data: in place while that is quick, by threads when it is not
    openfile     descriptors of open files
    names        the operations on names
    listing      readdir
    files        the operations on what files hold
    attrops      the operations on attributes
    server       the rest, and `Local` itself

What is in place blocks the whole process, which is wanted: a stat takes 2.5 us, a trip to a thread
and back 130 us. A host's file system that hangs, a dead NFS server's, makes the process hang, as
it does each process that goes there.
"""

from .server import Local, local_tree

__all__ = ["Local", "local_tree"]
