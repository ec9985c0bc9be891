"""puffs: a file system whose server is somewhere else.

The kernel half (`PuffsFs`) is a file system of the emulated kernel; it turns vnode
operations into frames. The server half turns frames into operations of a FileServer.

    putter      carries frames over a descriptor, knows nothing of files; what its end means
    touser      requests in flight, directly or over a putter; cancellation, late replies
    kernel      the kernel half's operations
    requests    how it asks and complains
    nodes       which cookies it admits and what it gives back
    fromserver  flushes and unmounts that the server asks for
    server      the server half
    stream      its workers behind a putter
    join        the two put together
    comfd       the mount request that comes before the frames

Two ways to put it together:

    async with puffs_over(server) as fs:                    # in one process
    async with puffs_over_socket(sock, kargs) as fs:        # here, and at the other end
        await serve(server, sock)

Both give a FileSystem, to be mounted in an emulated kernel (or handed to p2k).
"""

from .comfd import (
    COMFD_ENV,
    MountRequest,
    answer,
    comfd,
    options_of,
    receive_request,
    request_mount,
)
from .join import puffs_over, puffs_over_socket
from .kernel import PuffsFs
from .requests import Statistics
from .server import ServerHalf, ServerStatistics
from .stream import StreamServer, serve

__all__ = [
    "COMFD_ENV",
    "MountRequest",
    "PuffsFs",
    "ServerHalf",
    "ServerStatistics",
    "Statistics",
    "StreamServer",
    "answer",
    "comfd",
    "options_of",
    "puffs_over",
    "puffs_over_socket",
    "receive_request",
    "request_mount",
    "serve",
]
