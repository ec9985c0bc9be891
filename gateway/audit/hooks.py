"""How hooks are told: a command is run, or an address is posted to."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
from typing import Final

import httpx
import trio

from .events import DeliveryError, Event, EventQueue
from .settings import CommandHook, HttpHook

_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_FIRST_WAIT: Final = 1.0
"""Seconds before an event is posted for the second time; doubled each time."""
_LONGEST_WAIT: Final = 60.0
_TRIED_AGAIN: Final = frozenset((408, 425, 429))
"""Answers beside 5xx that say that it may work later."""


def queue_of(hook: CommandHook | HttpHook) -> EventQueue:
    """Return the queue of a hook."""
    if isinstance(hook, CommandHook):
        name, deliver = f"the command {hook.argv[0]}", _Command(hook).deliver
    else:
        name, deliver = f"the address {_shown(hook.url)}", _Post(hook).deliver
    return EventQueue(name, hook.kinds, deliver, parallel=hook.parallel, queue_max=hook.queue_max)


def _shown(url: str) -> str:
    """Return an address without the user, password and query in it, which may be secrets."""
    return str(httpx.URL(url).copy_with(username=None, password=None, query=None, fragment=None))


class _Command:
    def __init__(self, hook: CommandHook) -> None:
        self._hook = hook

    async def deliver(self, event: Event) -> None:
        """Run the command; it takes the event by ending with status 0 in time.

        What it says on its standard error goes where the gateway's goes.
        """
        hook = self._hook
        if b"\0" in event.path or b"\0" in (event.target or b""):
            raise DeliveryError("no environment variable can have this path")
        environment = {"PATH": _PATH, "LANG": "C.UTF-8", **event.as_environment()}
        with trio.move_on_after(hook.timeout_seconds) as scope:
            try:
                done = await trio.run_process(
                    hook.argv,
                    stdin=event.as_json(),
                    stdout=subprocess.DEVNULL,
                    check=False,
                    deliver_cancel=_kill_all,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as exc:
                raise DeliveryError(f"it cannot be run: {exc.strerror}") from exc
        if scope.cancelled_caught:
            raise DeliveryError(f"it ran for {hook.timeout_seconds:g} seconds and was killed")
        if done.returncode:
            what = f"status {done.returncode}"
            if done.returncode < 0:
                what = signal.Signals(-done.returncode).name
            raise DeliveryError(f"it ended with {what}")


async def _kill_all(process: trio.Process) -> None:
    """Kill a command and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class _Post:
    def __init__(self, hook: HttpHook) -> None:
        self._hook = hook
        is_secure = hook.url.startswith("https:")
        self._context = ssl.create_default_context() if is_secure else False

    async def deliver(self, event: Event) -> None:
        """Post the event until it is taken, or is not going to be."""
        wait, why = _FIRST_WAIT, ""
        for number in range(self._hook.tries):
            if number:
                await trio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            try:
                status = await self._post(event.as_json())
            except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as exc:
                why = f"{type(exc).__name__} {exc}".rstrip()
                continue
            if 200 <= status < 300:
                return
            why = f"it answered with status {status}"
            if status < 500 and status not in _TRIED_AGAIN:
                break
        raise DeliveryError(why)

    async def _post(self, octets: bytes) -> int:
        """Post once and return the status of the answer, whose body nobody wants."""
        hook = self._hook
        headers = {"Content-Type": "application/json", **hook.headers}
        with trio.fail_after(hook.timeout_seconds):
            # A client for each: events are rare, and a connection that is kept may be a dead one.
            async with (
                httpx.AsyncClient(verify=self._context, trust_env=False, timeout=None) as client,
                client.stream("POST", hook.url, content=octets, headers=headers) as answer,
            ):
                return answer.status_code
