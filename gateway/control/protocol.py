"""Questions and answers on a control socket: one line of JSON each, in turns.

    {"v": 1, "ask": "status", "args": {}}
    {"v": 1, "result": {...}}    or    {"v": 1, "error": "what is wrong"}

A question of another version is answered with an error, in which the text says so. Unknown
arguments are errors, so that a newer client hears that its wish means nothing here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

VERSION: Final = 1
QUESTION_MAX: Final = 64 * 1024
"""Longest question, octets, its newline included."""
ANSWER_MAX: Final = 16 * 1024 * 1024
"""Longest answer."""

HERE: Final = "HERE"
"""Stands for the layer that comes, or goes, in the name of a place such as `puffs|HERE|psshfs`."""
NO_PLACE: Final = "no place like that"
"""How an error begins that says so: another process of the mount may have it."""


class ControlError(Exception):
    """A question cannot be answered; the text is for people."""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked. `args` are what the command of that name takes."""

    ask: str
    args: dict[str, Any] = {}
    v: int = VERSION


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is answered: `result`, or why there is none."""

    result: Any = None
    error: str = ""
    v: int = 0


def encode_question(ask: str, args: dict[str, Any]) -> bytes:
    """Return a question as a line."""
    return msgspec.json.encode(Question(ask, args)) + b"\n"


def decode_question(line: bytes) -> Question:
    """Return the question in a line. Errors: ControlError."""
    try:
        question = msgspec.json.decode(line, type=Question)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ControlError(f"this is no question: {exc}") from None
    if question.v != VERSION:
        raise ControlError(f"version {question.v} is asked for, version {VERSION} is spoken here")
    return question


def encode_answer(result: Any) -> bytes:
    """Return what is answered as a line; longer ones than ANSWER_MAX become an error."""
    line = msgspec.json.encode(Answer(result, v=VERSION)) + b"\n"
    if len(line) > ANSWER_MAX:
        return encode_error("the answer is too long; ask for less")
    return line


def encode_error(text: str) -> bytes:
    """Return the reason why there is no answer as a line."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    return msgspec.json.encode(Answer(error=clean, v=VERSION)) + b"\n"


def decode_answer(line: bytes) -> Any:
    """Return the result in a line. Errors: ControlError, the other end's among them."""
    try:
        answer = msgspec.json.decode(line, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ControlError("what answers on the control socket is no mount of ours") from None
    if answer.v != VERSION:
        raise ControlError(f"the mount speaks version {answer.v}, this command {VERSION}")
    if answer.error:
        raise ControlError(answer.error)
    return answer.result
