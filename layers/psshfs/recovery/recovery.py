"""Making a mount whole again over a new stream, before anything else goes over it.

First the greeting; then what the changes in doubt have come to, for files are where these have put
them; then the open files; then all requests that waited, in their order.
"""

from __future__ import annotations

from typing import Final

import trio

from ..mount.parts import Parts
from ..mount.session import open_session
from ..wire.handle import Handle
from ..wire.restoring import Restoring
from .aftermath import settle
from .reopening import expected_of, reopen

SETTLING: Final = 3
"""Turns of the scheduler in which those who made the settled changes take them in: one does."""


async def restore(server: Parts) -> None:
    """Go on where the connection was lost. Wire: five round trips, and what changes in doubt need.

    Errors: those of `open_session`; then, and when the connection is lost again, nothing has been
    sent that a later attempt would not send, too.
    """
    connection = server.connection
    ahead = Restoring(connection)
    handles = [handle for handle in connection.handles if isinstance(handle, Handle)]
    server.renew(await open_session(ahead, server.session.root or b"/", server.options))
    await settle(ahead)
    for _ in range(SETTLING):
        await trio.lowlevel.checkpoint()
    opened = await reopen(ahead, handles, expected_of(server.table, ahead))
    for handle in opened:
        if handle not in connection.handles:
            ahead.drop(handle.wire)  # closed by its owner meanwhile
    for node in server.table.nodes.values():
        if node.file is not None and node.file.seen_end is not None:
            node.expiry = 0  # it may have grown
    connection.resume()
