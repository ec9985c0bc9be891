"""The authentication command: a program of the administrator's that is asked who a client is.

It runs once for each attempt that the accounts' own credentials do not let in, without a shell, and
gets one JSON object on its standard input:

    {"user": "alice", "method": "publickey", "source": "192.0.2.7", "port": 50022,
     "key": "ssh-ed25519 AAAA...", "fingerprint": "SHA256:...", "signed": true}
    {"user": "alice", "method": "password", "source": "192.0.2.7", "port": 50022,
     "password": "secret"}

A key is asked about twice: when the client offers it, and, `signed`, when it is about to prove
that it has it. On standard output it answers {"allow": true}, or with "account" when it is another
one than the user's name. Anything else is a no: another answer, another exit status than 0, no
answer in time. The account must be there, and its `methods` and `networks` hold.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_log = logging.getLogger(__name__)

ANSWER_MAX: Final = 1 << 16
"""Longest answer, octets."""
AT_ONCE: Final = 8
"""Commands that one SSH process runs at once; other attempts wait."""


class Hook:
    """Asks one command."""

    def __init__(self, command: tuple[str, ...], seconds: float) -> None:
        self._command = command
        self._seconds = seconds
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def ask(self, question: Mapping[str, object]) -> str | None:
        """Return the account to let the client in as, or None.

        Cancelled: the command is killed, with all that it has started.
        """
        async with self._turns:
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._run(question)
            except TimeoutError:
                _log.warning("auth_command %s: no answer in time", self._command[0])
            except OSError as exc:
                _log.error("auth_command %s: %s", self._command[0], exc.strerror)
        return None

    async def _run(self, question: Mapping[str, object]) -> str | None:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode())
            process.stdin.close()
            answer = b""
            while len(answer) <= ANSWER_MAX and (more := await process.stdout.read(ANSWER_MAX)):
                answer += more
            if len(answer) > ANSWER_MAX:
                _log.warning("auth_command %s: its answer is too long", self._command[0])
                return None
            status = await process.wait()
        finally:
            # The whole group, and also after a good end: what it left behind would hold the pipes.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
        if status != 0:
            _log.info("auth_command %s: exit status %d", self._command[0], status)
            return None
        return self._read(answer, str(question["user"]))

    def _read(self, answer: bytes, user: str) -> str | None:
        try:
            values = json.loads(answer)
            allow, account = values.get("allow"), values.get("account", user)
        except (ValueError, AttributeError, RecursionError):
            allow, account = None, None
        if type(allow) is not bool or type(account) is not str:
            _log.warning("auth_command %s: its answer is not what it must be", self._command[0])
            return None
        return account if allow else None
