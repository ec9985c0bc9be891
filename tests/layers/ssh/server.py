"""An asyncssh server in a process of its own: what sshd without PAM cannot be asked to do.

`python server.py MODE HOSTKEY` prints its port and serves until its input ends. MODE is
"password" (user me, password secret), "kbdint" (two questions, secret and 42), "change"
(the password must be changed), "mute" (accepts and says nothing), "babble" (no SSH) or
"slow" (never answers an authentication).
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import asyncssh


class Server(asyncssh.SSHServer):
    """Lets `me` in, by the ways of the mode."""

    def __init__(self, mode: str) -> None:
        self._mode = mode

    def begin_auth(self, username: str) -> bool:
        """Everybody has to show who he is."""
        return True

    def password_auth_supported(self) -> bool:
        """Say whether passwords count."""
        return self._mode in ("password", "slow", "change")

    async def validate_password(self, username: str, password: str) -> bool:
        """Check a password."""
        if self._mode == "slow":
            await asyncio.sleep(3600)
        if self._mode == "change" and password == "old":
            raise asyncssh.PasswordChangeRequired("Time for another password")
        return (username, password) == ("me", "secret")

    def change_password(self, username: str, old_password: str, new_password: str) -> bool:
        """Take another password."""
        return (old_password, new_password) == ("old", "new")

    def kbdint_auth_supported(self) -> bool:
        """Say whether questions are asked."""
        return self._mode == "kbdint"

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        """Give the questions."""
        return "Quiz", "Answer two questions", "", [("Word: ", False), ("Number: ", True)]

    def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        """Check the answers."""
        return list(responses) == ["secret", "42"]


async def serve(mode: str, key: str) -> None:
    """Serve until stdin ends."""
    if mode in ("mute", "babble"):
        babble = b"220 mail.example.org ready\r\n" * 2000 if mode == "babble" else b""

        def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(babble)

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
    else:
        acceptor = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: Server(mode),
            server_host_keys=[key],
            sftp_factory=True,
            login_timeout=0,
        )
        port = acceptor.get_port()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
