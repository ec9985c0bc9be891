"""The policy of an account over its trees, and the ledger of its quota on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from ...layers.guard import Guard, GuardSettings, LedgerError, Usage, guarded
from ...layers.ops import FileServer
from ..status import CommandError, Status
from .settings import Account

_EVERYTHING: Final = GuardSettings()


class Policies:
    """Makes guards, and knows which there are. Ledgers are files in `directory`, made here.

    After a reload an account may have two guards for a while, with two ledgers of which each sees
    one half. What they leave behind is thrown away then, and the next guard counts everything.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._guards: dict[str, list[Guard]] = {}
        self._keeping: Counter[str] = Counter()
        self._contested: set[str] = set()

    def usage(self) -> dict[str, Usage]:
        """Return what is used of the quotas that are being kept, by account."""
        found = {}
        for name, guards in self._guards.items():
            usage = guards[-1].usage
            if usage is not None:
                found[name] = usage
        return found

    @asynccontextmanager
    async def guarded(self, server: FileServer, account: Account) -> AsyncIterator[FileServer]:
        """Guard the trees of an account, unless everything is allowed.

        Errors: CommandError when a quota cannot be kept.
        """
        if account.guard == _EVERYTHING:
            yield server
            return
        with self._ledger(account) as file:
            try:
                async with guarded(server, account.guard, ledger_file=file) as guard:
                    guards = self._guards.setdefault(account.name, [])
                    guards.append(guard)
                    try:
                        yield guard
                    finally:
                        guards.remove(guard)
                        if not guards:
                            del self._guards[account.name]
            except LedgerError as exc:
                raise CommandError(Status.FAILURE, f"quota: {exc}") from exc

    @contextmanager
    def _ledger(self, account: Account) -> Iterator[Path | None]:
        """Give the file of a ledger to one guard; two at once have none that is any good."""
        name = account.name
        if not account.guard.has_quota:
            yield None
            return
        file = self._directory / f"{name}.json"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise CommandError(
                Status.FAILURE, f"quota: {self._directory}: {exc.strerror}"
            ) from None
        is_first = not self._keeping[name]
        if not is_first:
            self._contested.add(name)
        self._keeping[name] += 1
        try:
            yield file if is_first else None
        finally:
            self._keeping[name] -= 1
            if name in self._contested:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
            if not self._keeping[name]:
                del self._keeping[name]
                self._contested.discard(name)
