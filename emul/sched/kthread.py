"""Kernel threads: tasks of trio, and real threads for code that blocks.

The kernel has one virtual CPU, the thread in which trio runs: all of its state is changed there,
between two awaits, and needs no other protection. A real thread enters the kernel by `blocking`,
which carries a call over to that CPU and waits for its end. It runs there in a task of the
thread's own, its host: `curlwp` is the same for all calls of one thread, and every lock that
knows its owner works for both kinds.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, cast

import trio
from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    Task,
    checkpoint_if_cancelled,
    current_task,
    current_trio_token,
    reschedule,
    start_thread_soon,
    wait_task_rescheduled,
)

if TYPE_CHECKING:
    from ..kernel import Kernel

_log = logging.getLogger(__name__)

T = TypeVar("T")

KTHREAD_GRACE: Final = 5.0
"""How long the end of a kernel waits for a real thread, seconds."""


class Lwp0:
    """Who runs where there is no scheduler: a kernel is set up, or asked what needs no waiting.

    There is one, `lwp0`. It cannot wait.
    """

    __slots__ = ()

    name: Final = "lwp0"

    def __repr__(self) -> str:
        return "<lwp0>"


lwp0: Final = Lwp0()

Lwp: TypeAlias = Task | Lwp0
"""Who may hold a lock: a task, the host of a real thread among them."""


def curlwp() -> Lwp:
    """Return who runs; in a kernel call of a real thread that is its host."""
    try:
        return current_task()
    except RuntimeError:
        return lwp0


class KthreadStatistics(NamedTuple):
    """Figures of a kernel thread: how often it entered the kernel (a real thread only)."""

    calls: int


class Kthread:
    """A kernel thread. Made by `kthread_create` and `kthread_create_real`.

    It ends when its function returns, when it is stopped, or with its kernel. A function that
    fails ends the kernel, as everything does that fails in the kernel's nursery, unless the thread
    was made with `mustjoin`: then `join` raises it, and the kernel goes on.
    """

    kind: Literal["task", "thread"] = "task"

    def __init__(self, name: str, *, mustjoin: bool) -> None:
        self.name = name
        self._mustjoin = mustjoin
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._lwp: Task | None = None
        self._result: Any = None
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Kthread {self.name} {self.kind}{'' if self.is_alive else ' ended'}>"

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended. A real thread that its kernel gave up counts as ended."""
        return not self._done.is_set()

    def statistics(self) -> KthreadStatistics:
        """Return the figures of now."""
        return KthreadStatistics(0)

    def stop(self) -> None:
        """Cancel it; `join` waits for its end.

        A task gets `trio.Cancelled` from where it waits. So does a real thread, or from its next
        `blocking` call when it is outside the kernel. Nothing happens when called twice or late.
        """
        self._scope.cancel()

    async def join(self) -> Any:
        """Wait for its end; return what its function returned, None if it was cancelled.

        Does not yield when it has ended. Raises what the function raised, each time it is asked.
        """
        if not self._done.is_set():
            if self._lwp is not None and self._lwp is curlwp():
                raise RuntimeError(f"{self!r} would wait for its own end")
            await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result

    async def _run(self, afn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Be the thread."""
        self._lwp = current_task()
        try:
            with self._scope:
                self._result = await afn(*args)
        except Exception as exc:
            self._error = exc
            if not self._mustjoin:
                raise
        finally:
            self._done.set()


class _RealKthread(Kthread):
    """A real thread and its two tasks: the host runs its kernel calls, the guard limits its end.

    Thread and host take turns: what they hand over (`_call`, `_answer`, `_ended`) the one writes
    while the other waits.
    """

    kind = "thread"

    idents: Final[dict[Lwp, int]] = {}
    """The thread behind each host, as `threading.get_ident` names it."""

    def __init__(self, name: str, *, mustjoin: bool) -> None:
        super().__init__(name, mustjoin=mustjoin)
        self._token = current_trio_token()
        self._calls = 0
        self._call: Callable[[], Awaitable[object]] | None = None
        self._answer: tuple[object, BaseException | None] = (None, None)
        self._answered = threading.Lock()  # locked but when there is an answer to be fetched
        self._answered.acquire()
        self._ended = False
        self._is_abandoned = False
        self._is_idle = False  # the host waits for the thread to say something

    def statistics(self) -> KthreadStatistics:
        """Return the figures of now."""
        return KthreadStatistics(self._calls)

    # In the thread.

    def _body(self, fn: Callable[..., object], args: tuple[object, ...]) -> None:
        _local.kthread = self
        try:
            self._answer = (fn(*args), None)
        except BaseException as exc:
            self._answer = (None, exc)
        finally:
            del _local.kthread
            self._ended = True

    def _deliver(self, _: object) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._wake)

    def enter(self, call: Callable[[], Awaitable[object]]) -> Any:
        """Have the host make a call; return or raise what came of it."""
        self._call = call
        try:
            self._token.run_sync_soon(self._wake)
        except trio.RunFinishedError:
            raise self._outlived() from None
        self._answered.acquire()
        return self._fetch()

    def _fetch(self) -> Any:
        result, error = self._answer
        self._answer = (None, None)
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # its traceback has this frame

    def _outlived(self) -> RuntimeError:
        return RuntimeError(f"the kernel of {self!r} has gone")

    # In the kernel.

    def _wake(self) -> None:
        """Hear that the thread has called or has ended."""
        if self._is_idle:
            self._is_idle = False
            assert self._lwp is not None
            reschedule(self._lwp)
        elif not self._ended:  # given up: there is no host any more
            self._answer = (None, self._outlived())
            self._answered.release()

    async def _host(self, fn: Callable[..., object], args: tuple[object, ...]) -> None:
        """Start the thread and make its calls until it has ended or was given up."""
        lwp = self._lwp = current_task()
        context = copy_context()

        def body() -> None:
            self.idents[lwp] = threading.get_ident()
            context.run(self._body, fn, args)

        try:
            with self._scope:
                await checkpoint_if_cancelled()
                start_thread_soon(body, self._deliver, self.name)
                await self._serve()
                if self._ended:
                    self._result = self._fetch()
                else:
                    _log.error("%s does not end; it goes on without its kernel", self.name)
        except Exception as exc:
            self._error = exc
            if not self._mustjoin:
                raise
        finally:
            self.idents.pop(lwp, None)
            self._done.set()

    async def _serve(self) -> None:
        while not self._is_abandoned:
            self._is_idle = True
            await wait_task_rescheduled(_not_interrupted)
            if self._ended or self._is_abandoned:
                return
            self._calls += 1
            call, self._call = self._call, None
            assert call is not None
            try:
                self._answer = (await call(), None)
            except BaseException as exc:
                self._answer = (None, exc)
            self._answered.release()

    async def _guard(self) -> None:
        """Give the thread KTHREAD_GRACE seconds from the end of the kernel on, then give it up."""
        try:
            await self._done.wait()
        except trio.Cancelled:
            with trio.move_on_after(KTHREAD_GRACE, shield=True):
                await self._done.wait()
            self._is_abandoned = True
            if self._is_idle:
                self._is_idle = False
                assert self._lwp is not None
                reschedule(self._lwp)
            raise


class _Local(threading.local):
    kthread: _RealKthread | None = None


_local: Final = _Local()


def _not_interrupted(_: RaiseCancelT) -> Abort:
    return Abort.FAILED


def kthread_create(
    kernel: Kernel,
    afn: Callable[..., Awaitable[object]],
    *args: object,
    name: str,
    mustjoin: bool = False,
) -> Kthread:
    """Start a kernel thread that is a task of trio: it runs `afn(*args)`."""
    kthread = Kthread(name, mustjoin=mustjoin)
    kernel.nursery.start_soon(kthread._run, afn, args, name=name)
    return kthread


def kthread_create_real(
    kernel: Kernel,
    fn: Callable[..., object],
    *args: object,
    name: str,
    mustjoin: bool = False,
) -> Kthread:
    """Start a kernel thread that is a real one: it runs `fn(*args)`, which may block the thread.

    It uses the kernel by `blocking` and `nonblocking` only. It is started at once, however many
    there are. At its end the kernel stops it as it does every thread, and goes without it when
    it has not ended KTHREAD_GRACE seconds later, which is logged.
    """
    kthread = _RealKthread(name, mustjoin=mustjoin)
    kernel.nursery.start_soon(kthread._host, fn, args, name=name)
    kernel.nursery.start_soon(kthread._guard, name=f"guard of {name}")
    return kthread


def _current() -> _RealKthread:
    kthread = _local.kthread
    if kthread is None:
        raise RuntimeError("this is no real thread of a kernel (a task just awaits)")
    return kthread


def blocking(afn: Callable[..., Awaitable[T]], *args: Any, shield: bool = False) -> T:
    """Call `afn(*args)` in the kernel, from a real thread; return or raise what it does.

    Every such call is a checkpoint in trio's sense: in a thread that was stopped it raises
    `trio.Cancelled` without having begun, and what waits is cancelled when the thread is stopped.
    With `shield` neither happens: for what must not be left undone, as dropping a reference.
    RuntimeError: not called from a real thread of a kernel, or the kernel has gone.
    """

    async def call() -> T:
        if shield:
            with trio.CancelScope(shield=True):
                return await afn(*args)
        await checkpoint_if_cancelled()
        return await afn(*args)

    return cast(T, _current().enter(call))


def nonblocking(fn: Callable[..., T], *args: Any) -> T:
    """Call `fn(*args)`, which never waits, in the kernel, from a real thread.

    Works in a thread that was stopped: it is how such a thread lets go of its locks.
    RuntimeError: as `blocking`. TypeError: `fn` is a coroutine function.
    """

    async def call() -> T:
        result = fn(*args)
        if isinstance(result, Coroutine):
            result.close()
            raise TypeError(f"{fn!r} may wait: call it by blocking()")
        return result

    return cast(T, _current().enter(call))


THREAD_BODY: Final = _RealKthread._body.__code__
"""What the functions of real threads are called by."""


def thread_behind(lwp: Lwp) -> int | None:
    """Return the identifier of the real thread whose host `lwp` is, None if it is none."""
    return _RealKthread.idents.get(lwp)
