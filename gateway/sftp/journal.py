"""What a session does, in lines for a log: those of OpenSSH's sftp-server, and at its levels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from ...native import sftp_server as sftp
from .handles import OpenDirectory, OpenFile
from .session import Journal
from .turns import Opened

VERBOSE: Final = 15
"""Level between INFO and DEBUG, for what only looks."""

_STATUS: Final = {
    sftp.FX_NO_SUCH_FILE: "No such file",
    sftp.FX_PERMISSION_DENIED: "Permission denied",
    sftp.FX_FAILURE: "Failure",
    sftp.FX_BAD_MESSAGE: "Bad message",
    sftp.FX_OP_UNSUPPORTED: "Operation unsupported",
}
_FLAGS: Final = (
    (sftp.FXF_READ, "READ"),
    (sftp.FXF_WRITE, "WRITE"),
    (sftp.FXF_APPEND, "APPEND"),
    (sftp.FXF_CREAT, "CREATE"),
    (sftp.FXF_TRUNC, "TRUNCATE"),
    (sftp.FXF_EXCL, "EXCL"),
)


def shown(path: bytes) -> str:
    """Return a path for a line of a log: in quotes, without anything that ends them or the line."""
    text = path.replace(b'"', b'\\"').decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return f'"{text}"'


def _open(request: sftp.Open) -> str:
    flags = ",".join(name for flag, name in _FLAGS if request.pflags & flag)
    mode = 0o666 if request.attrs.mode is None else request.attrs.mode
    return f"open {shown(request.path)} flags {flags} mode 0{mode:o}"


def _changed(request: sftp.Setstat | sftp.Lsetstat) -> str:
    size, uid, gid, mode, _, mtime = request.attrs
    words = [f"set {shown(request.path)}"]
    if size is not None:
        words.append(f"size {size}")
    if mode is not None:
        words.append(f"mode {mode:04o}")
    if mtime is not None:
        words.append(f"modtime {mtime}")
    if uid is not None:
        words.append(f"owner {uid} group {gid}")
    return " ".join(words)


def _path(word: str) -> Callable[[Any], str]:
    return lambda request: f"{word} {shown(request.path)}"


def _two(word: str) -> Callable[[Any], str]:
    return lambda request: f"{word} old {shown(request.old)} new {shown(request.new)}"


_LINES: Final[dict[type[Any], tuple[int, Callable[[Any], str]]]] = {
    sftp.Open: (logging.INFO, _open),
    sftp.Opendir: (logging.INFO, _path("opendir")),
    sftp.Setstat: (logging.INFO, _changed),
    sftp.Lsetstat: (logging.INFO, _changed),
    sftp.Remove: (logging.INFO, _path("remove name")),
    sftp.Mkdir: (logging.INFO, _path("mkdir name")),
    sftp.Rmdir: (logging.INFO, _path("rmdir name")),
    sftp.Rename: (logging.INFO, _two("rename")),
    sftp.PosixRename: (logging.INFO, _two("posix-rename")),
    sftp.Hardlink: (logging.INFO, _two("hardlink")),
    sftp.Symlink: (
        logging.INFO,
        lambda request: f"symlink old {shown(request.target)} new {shown(request.linkpath)}",
    ),
    sftp.Stat: (VERBOSE, _path("stat name")),
    sftp.Lstat: (VERBOSE, _path("lstat name")),
    sftp.Realpath: (VERBOSE, _path("realpath")),
    sftp.Readlink: (VERBOSE, _path("readlink")),
    sftp.ExpandPath: (VERBOSE, _path("expand")),
    sftp.StatvfsRequest: (VERBOSE, _path("statvfs")),
}


def closed(opened: Opened) -> str:
    """Return the line for something that was closed."""
    if isinstance(opened, OpenFile):
        return (
            f"close {shown(opened.path)} bytes read {opened.octets_read} "
            f"written {opened.octets_written}"
        )
    assert isinstance(opened, OpenDirectory)
    return f"closedir {shown(opened.path)}"


class LogJournal(Journal):
    """Writes what a session does to a logger."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def left(self, opened: Opened) -> None:
        """Write a line for what the client has left open."""
        self._log.info("forced %s", closed(opened))

    def done(self, request: Any, code: int, opened: Opened | None, seconds: float) -> None:
        """Write a line for a request, with its status unless it went well."""
        kind = type(request)
        if kind is sftp.Close and opened is not None:
            level, text = logging.INFO, closed(opened)
        elif kind in _LINES:
            level, describe = _LINES[kind]
            if not self._log.isEnabledFor(level) and code in (sftp.FX_OK, sftp.FX_EOF):
                return
            text = describe(request)
        else:
            level, text = logging.DEBUG, kind.__name__.lower()
        if code not in (sftp.FX_OK, sftp.FX_EOF):
            level = max(level, logging.INFO)
            text = f"{text}: sent status {_STATUS.get(code, code)}"
        self._log.log(level, "%s", text)
