"""Requests that go before all others, to make a connection whole again that was lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from ....native import sftp
from ....native.errors import VfsError
from .connection import Connection
from .slot import STATUS, Answer, Slot

T = TypeVar("T")


class Restoring:
    """Requests that pass those which a lost connection retains, to make it whole again."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.batch = connection.batch
        self.greet = connection.greet

    def set_packet_max(self, octets: int) -> None:
        """As `Connection.set_packet_max`."""
        self.connection.set_packet_max(octets)

    def submit(self, answer: Answer[T], encode: Callable[..., bytes], *args: Any) -> Slot[T]:
        """As `Connection.submit`; ENOTCONN for a slot means that the new socket is lost, too."""
        slot = Slot(self.connection, answer)
        self.connection.submit_ahead(slot, encode, *args)
        return slot

    def drop(self, wire: bytes) -> None:
        """Close what the server calls `wire`; nobody hears the answer."""
        slot = Slot(self.connection, STATUS)
        slot.is_abandoned = True
        with suppress(VfsError):  # lost, and it with it
            self.connection.submit_ahead(slot, sftp.close, wire)
