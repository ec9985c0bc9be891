"""The journal of one session: each request to the audit, the events and the figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ...native import sftp_server as sftp
from ...native.constants import FREAD, FWRITE
from ..sftp import Journal, Session
from ..sftp.handles import Handles, OpenFile
from ..sftp.turns import Opened
from .events import Event, Events
from .lines import Who, line, normal, path_fields, timestamp
from .metrics import Metrics
from .names import status_name
from .settings import EventKind

_FLAGS: Final = (
    (sftp.FXF_READ, "read"),
    (sftp.FXF_WRITE, "write"),
    (sftp.FXF_APPEND, "append"),
    (sftp.FXF_CREAT, "create"),
    (sftp.FXF_TRUNC, "truncate"),
    (sftp.FXF_EXCL, "exclusive"),
)
_GOOD: Final = (sftp.FX_OK, sftp.FX_EOF)

# What a request is called, whether it is recorded, and which of its fields are paths.
_CHANGES, _LOOKS, _DATA = range(3)
_KINDS: Final[dict[type[Any], tuple[str, int, tuple[str, ...]]]] = {
    sftp.Open: ("open", _CHANGES, ("path",)),
    sftp.Opendir: ("list", _CHANGES, ("path",)),
    sftp.Setstat: ("setstat", _CHANGES, ("path",)),
    sftp.Lsetstat: ("lsetstat", _CHANGES, ("path",)),
    sftp.Fsetstat: ("fsetstat", _CHANGES, ()),
    sftp.Remove: ("remove", _CHANGES, ("path",)),
    sftp.Mkdir: ("mkdir", _CHANGES, ("path",)),
    sftp.Rmdir: ("rmdir", _CHANGES, ("path",)),
    sftp.Rename: ("rename", _CHANGES, ("old", "new")),
    sftp.PosixRename: ("posix-rename", _CHANGES, ("old", "new")),
    sftp.Hardlink: ("hardlink", _CHANGES, ("old", "new")),
    sftp.Symlink: ("symlink", _CHANGES, ("linkpath",)),
    sftp.CopyData: ("copy-data", _CHANGES, ()),
    sftp.Stat: ("stat", _LOOKS, ("path",)),
    sftp.Lstat: ("lstat", _LOOKS, ("path",)),
    sftp.Fstat: ("fstat", _LOOKS, ()),
    sftp.Readlink: ("readlink", _LOOKS, ("path",)),
    sftp.Realpath: ("realpath", _LOOKS, ("path",)),
    sftp.ExpandPath: ("expand-path", _LOOKS, ("path",)),
    sftp.StatvfsRequest: ("statvfs", _LOOKS, ("path",)),
    sftp.FstatvfsRequest: ("fstatvfs", _LOOKS, ()),
    sftp.Readdir: ("readdir", _LOOKS, ()),
    sftp.Read: ("read", _DATA, ()),
    sftp.Write: ("write", _DATA, ()),
    sftp.Fsync: ("fsync", _DATA, ()),
}


Put = Callable[[bytes], None]
"""Takes a line of the audit; never waits."""


class SessionJournal(Journal):
    """What the session of `who` does, whose handles are `handles` and whose start is `start`.

    `put` takes lines of the audit, None without one; `looks` and `data` say what is in it beside
    what changes something (AuditSettings). What was denied is in it in any case. `clock` gives
    seconds since 1970.
    """

    def __init__(
        self,
        who: Who,
        handles: Handles,
        *,
        start: bytes,
        put: Put | None,
        looks: bool,
        data: bool,
        events: Events,
        metrics: Metrics | None,
        clock: Callable[[], float],
    ) -> None:
        self._who = who
        self._handles = handles
        self._start = start
        self._put = put
        self._recorded = {_CHANGES: True, _LOOKS: looks, _DATA: data}
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._failed: set[Opened] = set()
        """Handles of transfers of which some part has failed."""
        self.cause = ""
        """Why the session ends, where somebody knows better than the session itself."""

    # Journal.

    def done(self, request: Any, code: int, opened: Opened | None, seconds: float) -> None:
        """See Journal."""
        kind = type(request)
        if self._metrics is not None:
            self._metrics.request(kind, code, seconds)
        if kind is sftp.Read or kind is sftp.Write or kind is sftp.CopyData:
            if code not in _GOOD:
                self._note_failure(request, opened)
        elif kind is sftp.Close:
            if opened is not None:
                self._closed(opened, code, code == sftp.FX_OK)
            return
        elif code == sftp.FX_OK and self._events.kinds:
            self._tell(kind, request)
        found = _KINDS.get(kind)
        if found is None or self._put is None:
            return
        if self._recorded[found[1]] or code == sftp.FX_PERMISSION_DENIED:
            self._record(request, code, opened, seconds)

    def left(self, opened: Opened) -> None:
        """See Journal."""
        self._closed(opened, None, False)

    # The session itself.

    def began(self) -> None:
        """Hear that the session begins."""
        if self._put is not None:
            who = self._who
            self._put(line(self._fields("session", method=who.method, client=who.client)))

    def ended(self, session: Session) -> None:
        """Hear that the session has ended."""
        if self._put is not None:
            figures = session.statistics()
            fields = self._fields("end", cause=session.cause or self.cause or "the client left")
            fields |= {"requests": figures.requests, "octets_received": figures.octets_received}
            self._put(line(fields | {"octets_sent": figures.octets_sent}))

    # The audit.

    def _fields(self, operation: str, **more: Any) -> dict[str, Any]:
        who = self._who
        return {
            "time": timestamp(self._clock()),
            "session": who.session,
            "account": who.account,
            "source": who.address,
            "operation": operation,
            **more,
        }

    def _record(self, request: Any, code: int, opened: Opened | None, seconds: float) -> None:
        assert self._put is not None
        name, _, keys = _KINDS[type(request)]
        fields = self._fields(name)
        for key, path in zip(("path", "target"), self._paths(request, keys, opened), strict=False):
            fields |= path_fields(key, path)
        kind = type(request)
        if kind is sftp.Open:
            fields["flags"] = [word for flag, word in _FLAGS if request.pflags & flag]
        elif kind is sftp.Symlink:
            fields |= path_fields("target", request.target)
        elif kind is sftp.Read:
            fields |= {"offset": request.offset, "length": request.length}
        elif kind is sftp.Write:
            fields |= {"offset": request.offset, "length": len(request.data)}
        elif kind in (sftp.Setstat, sftp.Lsetstat, sftp.Fsetstat):
            fields |= {k: v for k, v in request.attrs._asdict().items() if v is not None}
            if request.attrs.mode is not None:
                fields["mode"] = f"{request.attrs.mode & 0o7777:04o}"
        fields["result"] = "ok" if code in _GOOD else status_name(code)
        fields["seconds"] = round(seconds, 6)
        self._put(line(fields))

    def _paths(self, request: Any, keys: tuple[str, ...], opened: Opened | None) -> list[bytes]:
        if keys:
            return [normal(getattr(request, key), self._start) for key in keys]
        if type(request) is sftp.CopyData:
            handles = (request.read_handle, request.write_handle)
            return [path for path in map(self._path_of, map(self._handles.get, handles)) if path]
        return [
            path for path in [self._path_of(opened or self._handles.get(request.handle))] if path
        ]

    @staticmethod
    def _path_of(opened: Opened | None) -> bytes:
        return getattr(opened, "path", b"")

    # Transfers and events.

    def _note_failure(self, request: Any, opened: Opened | None) -> None:
        handles = [opened]
        if type(request) is sftp.CopyData:
            handles = [self._handles.get(h) for h in (request.read_handle, request.write_handle)]
        elif opened is None:
            handles = [self._handles.get(request.handle)]
        self._failed |= {handle for handle in handles if handle is not None}

    def _closed(self, opened: Opened, code: int | None, is_complete: bool) -> None:
        """Deal with what was closed: by the client, with a code, or because it has left."""
        failed = opened in self._failed
        self._failed.discard(opened)
        if not isinstance(opened, OpenFile):
            return
        is_complete = is_complete and not failed
        read, written = opened.octets_read, opened.octets_written
        if self._put is not None:
            fields = self._fields("close", **path_fields("path", opened.path))
            fields |= {"octets_read": read, "octets_written": written, "complete": is_complete}
            fields["result"] = "left" if code is None else status_name(code)
            self._put(line(fields))
        if written or (opened.mode & FWRITE and not opened.mode & FREAD):
            self._event(EventKind.UPLOAD, opened.path, octets=written, is_complete=is_complete)
        elif opened.mode & FREAD:
            self._event(EventKind.DOWNLOAD, opened.path, octets=read, is_complete=is_complete)

    def _tell(self, kind: type[Any], request: Any) -> None:
        if kind is sftp.Remove or kind is sftp.Rmdir:
            self._event(EventKind.DELETE, normal(request.path, self._start))
        elif kind is sftp.Rename or kind is sftp.PosixRename:
            target = normal(request.new, self._start)
            self._event(EventKind.RENAME, normal(request.old, self._start), target)

    def _event(
        self,
        kind: EventKind,
        path: bytes,
        target: bytes | None = None,
        *,
        octets: int | None = None,
        is_complete: bool | None = None,
    ) -> None:
        if kind in self._events.kinds:
            event = Event(kind, self._clock(), self._who, path, target, octets, is_complete)
            self._events.put(event)
