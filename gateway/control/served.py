"""The end of a stack that is cut here: its frames go to another process, which has mounted it."""

from __future__ import annotations

from typing import Any

from ...layers.ops import FileServer
from ...layers.puffs import StreamServer
from ...native.records import Cookie
from .ends import Request


class ServedEnd:
    """The end of a stack whose frames go to another process."""

    def __init__(self, served: StreamServer) -> None:
        self._served = served

    @property
    def server(self) -> FileServer:
        """See End."""
        return self._served.half.server

    def stand_on(self, server: FileServer) -> None:
        """See End."""
        self._served.half.stand_on(server)

    def statistics(self) -> dict[str, Any]:
        """See End."""
        return self._served.statistics()._asdict()

    def requests(self) -> list[Request]:
        """See End. Who asks and since when the other process knows."""
        return []

    def path(self, cookie: Cookie) -> bytes | None:
        """See End: frames say cookies and single names, and nobody keeps them."""
        return None

    def known_below(self, path: bytes) -> list[Cookie]:
        """See End."""
        return []
