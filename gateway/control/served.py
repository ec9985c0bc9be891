"""The end of a stack that is cut here: its frames go to another process, which has mounted it."""

from __future__ import annotations

from types import FrameType
from typing import Any, Final

from ...layers.ops import FileServer, Upcalls
from ...layers.puffs import ServerHalf, StreamServer
from ...native.constants import OPCLASS_MASK, OpClass, VfsOp, VnOp
from ...native.records import Componentname, Cookie, Cred
from .ends import Request, tasks
from .frames import frames

_HANDLE: Final = ServerHalf.handle.__code__


class ServedEnd:
    """The end of a stack whose frames go to another process."""

    def __init__(self, served: StreamServer) -> None:
        self._served = served

    @property
    def server(self) -> FileServer:
        """See End."""
        return self._served.half.server

    @property
    def upcalls(self) -> Upcalls:
        """See End."""
        return self._served

    def stand_on(self, server: FileServer) -> None:
        """See End."""
        self._served.half.stand_on(server)

    def statistics(self) -> dict[str, Any]:
        """See End."""
        return self._served.statistics()._asdict()

    def requests(self) -> list[Request]:
        """See End. Since when, and from where in the tree, the other process knows."""
        found = []
        for task in tasks():
            for frame in frames(task.coro):
                if frame.f_code is _HANDLE and frame.f_locals.get("self") is self._served.half:
                    found.append(_request(frame, task.coro))
                    break
        return found

    def path(self, cookie: Cookie) -> bytes | None:
        """See End: frames say cookies and single names, and nobody keeps them."""
        return None

    def known_below(self, path: bytes) -> list[Cookie]:
        """See End."""
        return []


def _request(frame: FrameType, running: Any) -> Request:
    """Return what a frame of ServerHalf.handle works on."""
    header, args = frame.f_locals["header"], frame.f_locals["args"]
    kinds = VnOp if header.opclass & OPCLASS_MASK == OpClass.VN else VfsOp
    path, who = b"#%d" % header.cookie, None
    for argument in args:
        if isinstance(argument, Componentname):
            path, who = path + b"/" + argument.name, argument.cred
        elif isinstance(argument, Cred):
            who = argument
    return Request(kinds(header.optype).name.lower(), path, who, 0, running)
