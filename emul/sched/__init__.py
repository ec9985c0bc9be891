"""Threads, locks and timers of the emulated kernel.

    kthread     curlwp; kernel threads, as tasks and as real threads; `blocking`, by which a real
                thread enters the kernel
    mutex, rwlock, condvar, sleepq      what threads wait for (the vnode lock is in emul/lock.py)
    callout, workqueue                  what is done later, and by whom
    lockdebug, lockorder, callers       the same locks, watched over, for kernels that debug

All state belongs to the thread in which trio runs, and what has no await in it is atomic: locks are
for what must not change across an await. Nothing here yields when it does not have to wait.

Which kind of thread a caller is makes no difference in here. For a real thread, what is a
coroutine function is called by `blocking(mutex.enter)`, and what is not by
`nonblocking(mutex.exit)`.

A wait that cancellation does not interrupt (Condvar.wait, tsleep without `catch`) is for what is
bound to come; everything else can be cancelled, and cancelled it has changed nothing.
"""

from .callers import Callers, callers
from .callout import Callout, Callouts, CalloutStatistics
from .condvar import Condvar
from .kthread import (
    KTHREAD_GRACE,
    Kthread,
    KthreadStatistics,
    Lwp,
    Lwp0,
    blocking,
    curlwp,
    kthread_create,
    kthread_create_real,
    lwp0,
    nonblocking,
)
from .lockdebug import (
    DebugKrwlock,
    DebugMutex,
    DebugVnodeLock,
    Hold,
    LockDebug,
    LockOrderError,
    mutex_init,
    rw_init,
)
from .mutex import Mutex
from .rwlock import RW_READER, RW_WRITER, Krwlock
from .sleepq import Sleeper, sleepers, tsleep, wakeup, wakeup_one
from .workqueue import Workqueue, WorkqueueStatistics

__all__ = [
    "KTHREAD_GRACE",
    "RW_READER",
    "RW_WRITER",
    "Callers",
    "Callout",
    "CalloutStatistics",
    "Callouts",
    "Condvar",
    "DebugKrwlock",
    "DebugMutex",
    "DebugVnodeLock",
    "Hold",
    "Krwlock",
    "Kthread",
    "KthreadStatistics",
    "LockDebug",
    "LockOrderError",
    "Lwp",
    "Lwp0",
    "Mutex",
    "Sleeper",
    "Workqueue",
    "WorkqueueStatistics",
    "blocking",
    "callers",
    "curlwp",
    "kthread_create",
    "kthread_create_real",
    "lwp0",
    "mutex_init",
    "nonblocking",
    "rw_init",
    "sleepers",
    "tsleep",
    "wakeup",
    "wakeup_one",
]
