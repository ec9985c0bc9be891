"""joined: several file servers under one root, each at a path of its own.

    root = joined({b"/": home, b"/pub": pub, b"/in/alice": inbox})

Vocabulary: a *tree* is one of the file servers; a *place* is the path at which one hangs, or one
that leads to such a path. Places without a tree ("/in" above) are directories of our own: they
can be read by everybody and changed by nobody. The name of a place covers what the tree above has
under that name, a directory of our own as well: of "in" in `home` nothing is seen.

    places      paths become places
    skeleton    the directories of our own, a file server like the others
    nodes       whose node a cookie means
    nodeops     the operations on a node
    naming      those on names, and listings
    server      what concerns all trees, and what they say of their own accord

A change that would concern two trees is refused (EXDEV), one of a place as well (EBUSY, EEXIST,
EROFS).
Numbers of files are the trees' own, so that two trees may have the same one.
"""

from .server import Joined, joined

__all__ = ["Joined", "joined"]
