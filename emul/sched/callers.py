"""Who called: for reports about locks and vnode operations."""

from __future__ import annotations

import contextlib
import sys
from os.path import dirname, join
from types import CodeType, FrameType
from typing import Final

import trio

from .kthread import THREAD_BODY, curlwp, thread_behind

_DEPTH: Final = 3
_SCHED: Final = dirname(__file__)
_LOCK: Final = join(dirname(_SCHED), "lock.py")
_TRIO: Final = dirname(trio.__file__)

# What is done with a frame, by its file.
_TAKE: Final = 0
_PASS: Final = 1
_STOP: Final = 2
_verdicts: Final[dict[str, int]] = {}  # as many as there are source files


def _judge(filename: str) -> int:
    if filename.startswith(_TRIO):
        verdict = _STOP
    elif filename.startswith(_SCHED) or filename in (_LOCK, contextlib.__file__):
        verdict = _PASS
    else:
        verdict = _TAKE
    _verdicts[filename] = verdict
    return verdict


class Callers(tuple[tuple[CodeType, int], ...]):
    """Callers, innermost first: what each was executing, and in which line."""

    __slots__ = ()

    def __str__(self) -> str:
        return " < ".join(
            f"{'/'.join(code.co_filename.split('/')[-2:])}:{line} {code.co_name}"
            for code, line in self
        )


def callers(*skip: str) -> Callers:
    """Return the first callers outside of emul/sched, emul/lock.py and the files named `skip`.

    In a call of a real thread they go on with the caller in the thread. Every lock that is taken
    under LockDebug asks for them, so the words are put together when somebody reads them.
    """
    found: list[tuple[CodeType, int]] = []
    in_thread = False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        filename = code.co_filename
        verdict = _verdicts.get(filename)
        if verdict is None:
            verdict = _judge(filename)
        if verdict == _TAKE:
            if filename not in skip:
                found.append((code, frame.f_lineno))
                if len(found) == _DEPTH:
                    break
        elif code is THREAD_BODY:
            break
        elif verdict == _STOP and not in_thread:
            # The end of a task. If it is a host, its thread waits for the answer behind it.
            in_thread = True
            ident = thread_behind(curlwp())
            frame = None if ident is None else sys._current_frames().get(ident)
            continue
        frame = frame.f_back
    return Callers(found)
