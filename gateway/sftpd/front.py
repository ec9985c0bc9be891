"""The SSH front: listens, lets SSH processes find out who comes, and hands sessions over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from ..sshd.settings import Credentials, SshSettings
from .arrivals import Arrival, FrontStatistics


class SshFront:
    """Everything between the listening sockets and the sessions' byte streams.

    In this order: `open` (as root if need be: binds, and reads or makes the host keys), `serve`
    (with the rights that are left), `aclose`. A front serves once.

    `take` is called in a task of its own for each arrival and owns its descriptor. When it
    returns or raises (logged), the session is over; it is cancelled with `serve`.
    """

    def __init__(self, settings: SshSettings, accounts: Mapping[str, Credentials]) -> None:
        raise NotImplementedError

    async def open(self) -> None:
        """Bind the listening sockets and load the host keys, making one if there is none.

        Errors: `FrontError`, whose text says what is wrong and what to do.
        """
        raise NotImplementedError

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, with the ports that were free."""
        raise NotImplementedError

    @property
    def fingerprints(self) -> list[tuple[str, str]]:
        """The host keys: type and "SHA256:..."."""
        raise NotImplementedError

    async def serve(
        self,
        take: Callable[[Arrival], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Let clients in until cancelled; started when the first SSH process can take one."""
        raise NotImplementedError

    async def update(self, settings: SshSettings, accounts: Mapping[str, Credentials]) -> None:
        """Go on with other settings, or change nothing.

        New connections see all of it; those that are there keep what they agreed on, and the
        accounts count for their next attempt to log in. Connections of accounts that are gone
        are ended. Addresses that stay keep their sockets. Errors: `FrontError`.
        """
        raise NotImplementedError

    def refuse(self, arrival: Arrival, text: str) -> None:
        """Have the client told why its session ends, on its standard error, before `fd` is closed.

        To be called while the descriptor is open; without it the session just ends.
        """
        raise NotImplementedError

    def stop_listening(self) -> None:
        """Let nobody in any more; connections and sessions go on."""
        raise NotImplementedError

    def statistics(self) -> FrontStatistics:
        """Return the figures of now."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close the listening sockets and end the SSH processes, as `serve` does when cancelled."""
        raise NotImplementedError


class FrontError(Exception):
    """The front cannot be as it is asked to be; the text is for whoever wrote the settings."""
