"""p2k, "puffs to kernel": serves a file system of the emulated kernel as a FileServer.

Every puffs operation becomes a vnode operation: the cookie becomes its vnode,
the locks and references that `emul.vfs` asks for are taken, the operation runs,
and the answer goes back with a cookie.

Who holds what: there is exactly one vnode reference for each live cookie, however
many lookups of it have been handed out. It is taken when the cookie is first
given out and dropped when `reclaim` brings the last lookup back.
"""

from .server import P2k, p2k_over

__all__ = ["P2k", "p2k_over"]
