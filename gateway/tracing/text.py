"""Events of a trace as lines of text, as strace(1) writes system calls."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import Any, Final

from ...layers.operations import Operation
from ...layers.trace import CANCELLED, UNFINISHED, Event
from ...native.constants import (
    FAPPEND,
    FREAD,
    FSYNC_CACHE,
    FSYNC_CLOSE,
    FSYNC_DATAONLY,
    FSYNC_LAZY,
    FSYNC_VFS,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    IO_SYNC,
    READDIR_PLUS,
    VEXEC,
    VREAD,
    VWRITE,
    NameiOp,
    OpenFlag,
    Setback,
    Vtype,
)
from ...native.records import Componentname, Cred, Dirent, Flock, Newinfo, Statvfs, Vattr

_SHOWN_MAX: Final = 32
"""Octets of a value that are shown, and entries of a directory."""

_BITS: Final[dict[tuple[str, str], dict[int, str]]] = {
    ("open", "mode"): {FREAD: "FREAD", FWRITE: "FWRITE", FAPPEND: "FAPPEND"},
    ("close", "fflag"): {FREAD: "FREAD", FWRITE: "FWRITE", FAPPEND: "FAPPEND"},
    ("access", "mode"): {VREAD: "VREAD", VWRITE: "VWRITE", VEXEC: "VEXEC"},
    ("read", "ioflag"): {IO_SYNC: "IO_SYNC", IO_APPEND: "IO_APPEND"},
    ("write", "ioflag"): {IO_SYNC: "IO_SYNC", IO_APPEND: "IO_APPEND"},
    ("readdir", "flags"): {READDIR_PLUS: "READDIR_PLUS"},
    ("fsync", "flags"): {
        FSYNC_WAIT: "FSYNC_WAIT",
        FSYNC_DATAONLY: "FSYNC_DATAONLY",
        FSYNC_LAZY: "FSYNC_LAZY",
        FSYNC_VFS: "FSYNC_VFS",
        FSYNC_CACHE: "FSYNC_CACHE",
        FSYNC_CLOSE: "FSYNC_CLOSE",
    },
}
_SETBACKS: Final = {int(bit): str(bit.name) for bit in Setback}
_OPEN_FLAGS: Final = {int(bit): str(bit.name) for bit in OpenFlag}
_TIMES: Final = frozenset({"atime", "mtime", "ctime", "birthtime"})
_TELLING_SETBACK: Final = frozenset({"remove", "rmdir", "inactive", "mmap"})


def line(event: Event, *, layers: int = 1) -> str:
    """Return one line: when, who, operation, result, and how long it took in seconds.

    With several `layers` in the trace the line says which one it was.
    """
    cred = event.operation.cred(event.args)
    seconds, ns = divmod(event.when, 10**9)
    stamp = time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{ns // 1000:06}"
    who = f"{cred.pid:>7}" if cred is not None and cred.pid > 0 else " " * 7
    where = f" {event.layer}:" if layers > 1 else ""
    shown = call(event.operation, event.args, event.path)
    return f"{stamp} {who}{where} {shown} = {outcome(event)} <{event.duration / 1e9:.6f}>"


def call(operation: Operation, args: tuple[Any, ...], path: bytes) -> str:
    """Return an operation with its arguments: the path in place of the first node and name."""
    return f"{operation.name}({', '.join(_arguments(operation, args, path))})"


def outcome(event: Event) -> str:
    """Return what an operation ended with."""
    if event.outcome == UNFINISHED:
        return "? (no answer)"
    if event.outcome == CANCELLED:
        return "? (cancelled)"
    if event.outcome < 0:
        return "? (failed as it must not)"
    if event.outcome:
        name = errno.errorcode.get(event.outcome, str(event.outcome))
        return f"-1 {name} ({os.strerror(event.outcome)})"
    if event.name == "open":
        flags, setback = event.result
        return " ".join([_bits(flags, _OPEN_FLAGS), *_setback(setback)])
    if event.name in _TELLING_SETBACK:
        return " ".join(["0", *_setback(event.result)])
    return _value(event.result)


def _setback(bits: int) -> list[str]:
    return [_bits(bits, _SETBACKS)] if bits else []


def _arguments(operation: Operation, args: tuple[Any, ...], path: bytes) -> list[str]:
    shown = []
    path_shown = False
    for (name, _), value in zip(operation.parameters, args, strict=True):
        if name in ("opc", "cn", "cn_src") and path:
            if not path_shown:
                shown.append(quoted(path))
                path_shown = True
        elif isinstance(value, Cred):
            if value.uid or value.gid:
                shown.append(f"{value.uid}:{value.gid}")
        elif (operation.name, name) in _BITS:
            shown.append(_bits(value, _BITS[operation.name, name]))
        elif name in ("targ", "src", "targ_dir"):
            shown.append(f"{name}=#{value}")
        else:
            shown.append(_value(value))
    return shown


def _bits(value: int, names: dict[int, str]) -> str:
    found = [name for bit, name in names.items() if value & bit]
    rest = value & ~sum(names)
    if rest or not found:
        found.append(hex(rest) if rest else "0")
    return "|".join(found)


def quoted(octets: bytes, limit: int | None = None) -> str:
    """Return octets as a string of C, with dots behind it where it was cut."""
    cut = octets if limit is None else octets[:limit]
    text = cut.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() and c != '"' else _escaped(c) for c in text)
    return f'"{text}"' + ("..." if len(cut) < len(octets) else "")


def _escaped(character: str) -> str:
    return '\\"' if character == '"' else character.encode("unicode_escape").decode()


def _value(value: Any) -> str:
    for kind, show in _SHOWN:
        if isinstance(value, kind):
            return show(value)
    return str(value)


def _newinfo(info: Newinfo) -> str:
    if not info.cookie:
        return "none"
    size = f" size {info.size}" if info.vtype == Vtype.VREG else ""
    return f"#{info.cookie} {_vtype(info.vtype)}{size}"


def _vtype(vtype: int) -> str:
    return Vtype(vtype).name if vtype in Vtype.__members__.values() else f"vtype {vtype}"


def _vattr(va: Vattr) -> str:
    shown = []
    for name, value in zip(va._fields, va, strict=True):
        if value is None:
            continue
        if name == "vtype":
            shown.append(_vtype(value))
        elif name == "mode":
            shown.append(f"mode={value:04o}")
        elif name in _TIMES:
            shown.append(f"{name}={value / 1e9:.6f}")
        else:
            shown.append(f"{name}={value}")
    return "{" + " ".join(shown) + "}"


def _tuple(value: tuple[Any, ...]) -> str:
    first, second = value
    if isinstance(first, Vattr):
        return _vattr(first)
    if isinstance(second, bytes):  # data that were kept as a digest
        return f"{first} [{second.hex()}]"
    entries = [quoted(entry.name) for entry in first[:_SHOWN_MAX]]
    more = ["..."] if len(first) > _SHOWN_MAX else []
    return f"{len(first)} [{', '.join(entries + more)}]" + (" end" if second else "")


_SHOWN: Final[tuple[tuple[type, Callable[[Any], str]], ...]] = (
    (Vattr, _vattr),
    (Newinfo, _newinfo),
    (Componentname, lambda cn: f"{quoted(cn.name)} for {NameiOp(cn.nameiop & 3).name}"),
    (Statvfs, lambda found: f"{found.bfree}/{found.blocks} blocks free"),
    (Flock, lambda lock: f"{{type={lock.type} start={lock.start} len={lock.len} pid={lock.pid}}}"),
    (Dirent, lambda entry: quoted(entry.name)),
    (bytes, lambda octets: quoted(octets, _SHOWN_MAX)),
    (memoryview, lambda view: quoted(bytes(view), _SHOWN_MAX)),
    (tuple, _tuple),
    (list, lambda values: ", ".join(map(_value, values))),
    (type(None), lambda _: "0"),
)
