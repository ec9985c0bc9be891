"""The life of the daemon: start, reload, stop.

    SIGHUP              read the settings again; wrong ones change nothing
    SIGTERM, SIGINT     let nobody in, give sessions some time, write everything out, end
    a second one        end at once

Root is needed for ports below 1024 and for host keys that only root can read, and given up when
both are there.
"""

from __future__ import annotations

import logging
import os
import pwd
import resource
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from ..audit import Recorder, recording
from ..failures import explain, leaves
from ..heap import keep_large_buffers
from ..sshd.settings import Credentials
from ..status import CommandError, Status
from .accounts import Accounts
from .arrivals import Attempt
from .front import FrontError, SshFront
from .messages import message_handler, use_handler
from .notify import ready, reloading, stopping
from .policies import Policies
from .privileges import become, make_state, user_entry
from .sessions import Reception
from .settings import Settings

_FOR_A_START: Final = ("state", "run_as", "audit", "events", "metrics")
"""Settings that a reload does not change."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DaemonCommand:
    """What the command line came to.

    `load` reads the settings; its errors are CommandErrors. `announce` says what the daemon listens
    on. `is_eager`: the start fails where an account could not have its trees, or its keys.
    """

    program: str
    load: Callable[[], Settings]
    announce: Callable[[str], None]
    is_eager: bool = False


def run_daemon(command: DaemonCommand) -> int:
    """Serve until a signal ends it; return the exit status.

    Errors: those of `load`, and CommandError.
    """
    settings = command.load()
    use_handler(message_handler(settings.log, command.program))
    keep_large_buffers()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a session is one, what it opens more
    try:
        trio.run(_Daemon(command, settings).run)
    except Exception as exc:
        raise _explained(exc) from exc
    return Status.OK


def _explained(exc: Exception) -> CommandError:
    for leaf in leaves(exc):
        if isinstance(leaf, FrontError):
            return CommandError(Status.FAILURE, str(leaf))
    error = explain(exc)
    if error is None:
        _log.critical("internal error", exc_info=exc)
        error = CommandError(Status.FAILURE, f"internal error: {exc!r}; please report it")
    return error


class _Daemon:
    """One run of it."""

    def __init__(self, command: DaemonCommand, settings: Settings) -> None:
        self._command = command
        self._settings = settings
        self._front = SshFront(settings.ssh, _credentials(settings))
        self._policies = Policies(settings.state / "quota")
        self._accounts: Accounts
        self._recorder: Recorder
        self._stop = trio.Event()

    async def run(self) -> None:
        """Start, serve, stop."""
        settings = self._settings
        user = user_entry(settings.run_as)
        make_state(settings.state, user)
        try:
            await self._front.open()
            become(user)
            self._check_key_files()
            async with trio.open_nursery() as nursery:
                await nursery.start(self._take_signals, nursery.cancel_scope)
                async with self._recording(settings) as self._recorder:
                    async with trio.open_nursery() as trees:
                        self._accounts = Accounts(trees, settings, self._policies.guarded)
                        await self._serve(nursery)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._front.aclose()
        _log.info("ended")

    def _check_key_files(self) -> None:
        """See that we can read, with the rights that are left, what lets accounts in."""
        for account in self._settings.accounts.values():
            for file in account.credentials.key_files:
                if not os.access(file, os.R_OK):
                    me = pwd.getpwuid(os.geteuid()).pw_name
                    text = f"{file}: '{me}', as whom we run, cannot read it"
                    if self._command.is_eager:
                        raise CommandError(
                            Status.FAILURE, f"{text}; name another file, or another --run-as"
                        )
                    _log.warning("account %s: %s", account.name, text)

    async def _serve(self, nursery: trio.Nursery) -> None:
        if self._command.is_eager:
            await self._build_all()
        reception = Reception(self._front, self._accounts, self._recorder)
        await nursery.start(self._front.serve, reception.take)
        for kind, fingerprint in self._front.fingerprints:
            self._command.announce(f"host key {kind} {fingerprint}")
        for host, port in self._front.addresses:
            shown = f"[{host}]" if ":" in host else host
            self._command.announce(f"listening on {shown}:{port}")
        ready(f"serving {len(self._settings.accounts)} accounts")
        await self._stop.wait()
        stopping()
        _log.info("going down: %d sessions", sum(self._accounts.sessions.values()))
        self._front.stop_listening()
        await self._accounts.close(self._settings.stop_seconds)

    @asynccontextmanager
    async def _recording(self, settings: Settings) -> AsyncIterator[Recorder]:
        """Record what sessions do. Errors: CommandError."""
        try:
            async with recording(settings.audit, settings.events, settings.metrics) as recorder:
                self._front.on_attempt = lambda attempt: _record(recorder, attempt)
                if recorder.metrics is not None:
                    watch = recorder.metrics.watch
                    watch("connections", "SSH connections now", "state", self._connections)
                    watch("refused", "SSH connections refused", "reason", self._refused)
                    watch("quota_octets", "Sum of the sizes of files", "account", self._octets)
                    watch("quota_files", "Number of files", "account", self._files)
                yield recorder
        except OSError as exc:
            # No error of ours: one that comes from below the yield comes in a group.
            raise CommandError(Status.FAILURE, f"metrics.listen: {exc.strerror}") from exc

    # Figures.

    def _connections(self) -> dict[str, float]:
        figures = self._front.statistics()
        return {
            "all": figures.connections,
            "not logged in": figures.startups,
            "penalised sources": figures.penalised,
        }

    def _refused(self) -> dict[str, float]:
        return dict(self._front.statistics().refused)

    def _octets(self) -> dict[str, float]:
        return {name: usage.octets for name, usage in self._policies.usage().items()}

    def _files(self) -> dict[str, float]:
        return {name: usage.files for name, usage in self._policies.usage().items()}

    # Trees.

    async def _build_all(self) -> None:
        """Build the trees of all accounts. Errors: why the first that fails cannot be built."""
        for account in self._settings.accounts.values():
            served = self._accounts.served(account)
            await served.ready.wait()
            if served.failure is not None:
                raise served.failure

    # Signals.

    async def _take_signals(
        self, scope: trio.CancelScope, task_status: trio.TaskStatus[None]
    ) -> None:
        numbers = signal.SIGHUP, signal.SIGTERM, signal.SIGINT
        with trio.open_signal_receiver(*numbers) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    await self._reload()
                elif self._stop.is_set():
                    scope.cancel()
                else:
                    self._stop.set()

    async def _reload(self) -> None:
        """Go on with the settings as they are now, or with the old ones if the new are wrong."""
        reloading()
        try:
            settings = self._command.load()
            handler = message_handler(settings.log, self._command.program)
            await self._front.update(settings.ssh, _credentials(settings))
        except (CommandError, FrontError) as exc:
            for line in f"nothing was changed: {exc}".splitlines():
                _log.error("%s", line)
        except Exception:
            _log.exception("a reload failed in a way that it must not")
        else:
            use_handler(handler)
            for key in _FOR_A_START:
                if getattr(settings, key) != getattr(self._settings, key):
                    _log.warning("'%s' has changed; that takes a new start", key)
            self._recorder.reopen()
            self._settings = settings
            self._accounts.update(settings)
            _log.info("reloaded: %d accounts", len(settings.accounts))
        ready(f"serving {len(self._settings.accounts)} accounts")


def _record(recorder: Recorder, attempt: Attempt) -> None:
    host, port = attempt.source
    facts = {"user": attempt.user, "source": host, "port": port, "method": attempt.method}
    if attempt.is_successful:
        facts |= {"account": attempt.account, "fingerprint": attempt.fingerprint}
    recorder.login("accepted" if attempt.is_successful else "failed", **facts)


def _credentials(settings: Settings) -> Mapping[str, Credentials]:
    return {name: account.credentials for name, account in settings.accounts.items()}
