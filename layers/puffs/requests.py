"""What a kernel half asks its server: requests and their replies, notes, and figures.

Every request goes through `_ask`: it is marshalled, goes the way of the `Touser`, and the
reply's result comes back or its error is raised. Operations that the server has not are
answered by ABSENT_SUCCEEDS. What in an answer breaks the protocol becomes an error note to
the server and EPROTO for the caller.
"""

from __future__ import annotations

import logging
from errno import EOPNOTSUPP, EPROTO
from typing import Any, Final, NamedTuple

from ...emul.vfs import FileSystem
from ...emul.vnode import Vnode
from ...native.constants import (
    ABSENT_SUCCEEDS,
    FLAG_FAF,
    MAXMSGLEN_MAX,
    MAXMSGLEN_MIN,
    OPCLASS_MASK,
    ErrorNote,
    KFlag,
    OpClass,
    VfsOp,
    VnOp,
)
from ...native.errors import LocalProtocolError, RemoteProtocolError, VfsError
from ...native.frames import Header, encode_request
from ...native.records import Buffer, Cookie, Kargs, Newinfo, Vattr
from ..ops import FileServer
from .nodes import Nodes, apply_setbacks
from .server import ServerHalf
from .touser import Touser

_log = logging.getLogger(__name__)

TYPE_PREFIX: Final = "puffs|"
HEAD_ROOM: Final = 4096
"""Of the longest frame, what is not for data, octets."""
UNMOUNT_WAIT: Final = 30.0
"""How long an unmount waits for the server, seconds."""

# As plain numbers: members of an enumeration are slow to reach.
_VFS: Final = int(OpClass.VFS)
_VN: Final = int(OpClass.VN)
_OPEN: Final = int(VnOp.OPEN)
_CLOSE: Final = int(VnOp.CLOSE)
_READDIR: Final = int(VnOp.READDIR)
_RECLAIM: Final = int(VnOp.RECLAIM)

_COMPLAINTS: Final = 10
"""How many breaches of the protocol are logged; all of them are counted."""

_NOTES: Final = {
    VnOp.LOOKUP: ErrorNote.LOOKUP,
    VnOp.CREATE: ErrorNote.MAKENODE,
    VnOp.MKNOD: ErrorNote.MAKENODE,
    VnOp.MKDIR: ErrorNote.MAKENODE,
    VnOp.SYMLINK: ErrorNote.MAKENODE,
    VnOp.READDIR: ErrorNote.READDIR,
    VnOp.READLINK: ErrorNote.READLINK,
    VnOp.READ: ErrorNote.READ,
    VnOp.WRITE: ErrorNote.WRITE,
    VnOp.GETEXTATTR: ErrorNote.GETEXTATTR,
    VnOp.LISTEXTATTR: ErrorNote.LISTEXTATTR,
}
"""Which kind of note complains about the answer to an operation; ERROR for the others."""


class Statistics(NamedTuple):
    """Figures of a kernel half.

    `requests` by name of operation, fire-and-forget ones included; `in_flight` without a reply,
    abandoned ones included; `notes` complaints sent; `given_back` cookies returned because nobody
    took them; `withdrawn` requests taken back before they were sent; `unknown` replies dropped
    because nobody had asked.
    """

    requests: dict[str, int]
    in_flight: int
    notes: int
    given_back: int
    withdrawn: int
    unknown: int


class KernelHalf(FileSystem):
    """A file system whose server is reached through `touser`; `PuffsFs` has its operations.

    Made by `puffs_over` and `puffs_over_socket`. Lives through: made, mounted (`start`), and
    unmounted; after that, and after the death of the server, operations end with ENXIO.
    `half` is the server half, where that is in this process: for who looks into the stack.
    `is_unmounting` while the server has been asked for an unmount: its end is no surprise then.
    """

    def __init__(self, kargs: Kargs, *, unmount_wait: float = UNMOUNT_WAIT) -> None:
        if not MAXMSGLEN_MIN <= kargs.maxmsglen <= MAXMSGLEN_MAX:
            raise LocalProtocolError(f"longest frame of {kargs.maxmsglen} octets")
        self.touser: Touser
        self.half: ServerHalf | None = None
        self.is_mounted = False
        self.is_unmounting = False
        self.kargs = kargs
        self._typename = TYPE_PREFIX + "".join(
            c if " " <= c <= "~" else "." for c in kargs.typename
        )
        all_ops = kargs.kflags & KFlag.ALLOPS
        self._has = [bool(all_ops or op in kargs.ops) for op in VnOp]
        self._inactive_on_demand = bool(kargs.kflags & KFlag.IAONDEMAND)
        self._no_pages = bool(kargs.kflags & KFlag.NOCACHE_PAGE)
        self._no_attrs = bool(kargs.kflags & KFlag.NOCACHE_ATTR)
        self._maxdata = kargs.maxmsglen - HEAD_ROOM
        self._unmount_wait = unmount_wait
        self._nodes = Nodes(self, kargs)
        self._id = 0
        self._vn_count = [0] * len(VnOp)
        self._vfs_count = [0] * len(VfsOp)
        self._notes = 0
        self._given_back = 0

    @property
    def typename(self) -> str:
        """See FileSystem: "puffs|" before the trace of the server."""
        return self._typename

    @property
    def mntfromname(self) -> bytes:
        """See FileSystem: what the server said."""
        return self.kargs.mntfromname

    @property
    def ops(self) -> frozenset[int]:
        """See FileSystem: those of the server."""
        return frozenset(op for op in VnOp if self._has[op])

    @property
    def below(self) -> FileServer | None:
        """The server, if it is in this process."""
        return None if self.half is None else self.half.server

    def stand_on(self, server: FileServer) -> None:
        """Have `server` asked in place of the one below; see layers/joint.py."""
        assert self.half is not None
        self.half.stand_on(server)

    def statistics(self) -> Statistics:
        """Return the figures of now."""
        requests = {op.name.lower(): n for op, n in zip(VnOp, self._vn_count, strict=True) if n}
        requests |= {op.name.lower(): n for op, n in zip(VfsOp, self._vfs_count, strict=True) if n}
        touser = self.touser
        return Statistics(
            requests,
            touser.in_flight,
            self._notes,
            self._given_back,
            touser.withdrawn,
            touser.unknown,
        )

    # Requests.

    async def _ask(
        self, op: int, cookie: Cookie, args: tuple[Any, ...], payload: Buffer | None = None
    ) -> Any:
        """Send a vnode operation and return its result. Errors: the server's, EPROTO, ENXIO.

        If the server has not got it: None where that is success, else EOPNOTSUPP.
        """
        if not self._has[op]:
            if op in ABSENT_SUCCEEDS:
                return None
            raise VfsError(EOPNOTSUPP, "the server does not have this operation")
        self._vn_count[op] += 1
        self._id = id = self._id + 1
        head = encode_request(_VN, op, id, cookie, args)
        try:
            header, result = await self.touser.call(head, payload, id, _VN << 6 | op, args)
        except RemoteProtocolError as exc:
            kind = _NOTES.get(VnOp(op), ErrorNote.ERROR)
            raise self.violated(kind, cookie, str(exc)) from exc
        if header.rv:
            raise VfsError(header.rv)
        return result

    async def _ask_vfs(
        self, op: int, args: tuple[Any, ...], cookie: int = 0, *, urgent: bool = False
    ) -> Any:
        """Send an operation on the whole file system and return its result."""
        self._vfs_count[op] += 1
        self._id = id = self._id + 1
        head = encode_request(_VFS, op, id, cookie, args)
        try:
            header, result = await self.touser.call(
                head, None, id, _VFS << 6 | op, args, urgent=urgent
            )
        except RemoteProtocolError as exc:
            kind = ErrorNote.VPTOFH if op == VfsOp.VPTOFH else ErrorNote.ERROR
            raise self.violated(kind, cookie, str(exc)) from exc
        if header.rv:
            raise VfsError(header.rv)
        return result

    def _post(self, op: int, cookie: Cookie, args: tuple[Any, ...]) -> None:
        """Send a vnode operation that nobody waits for, if the server has it."""
        if self._has[op]:
            self._vn_count[op] += 1
            self.touser.post(encode_request(_VN | FLAG_FAF, op, 0, cookie, args))

    def _attributes(self, vp: Vnode, answer: tuple[Vattr, int]) -> tuple[Vattr, int]:
        """Take in attributes that have come, and the size with them; return what is to be told."""
        va = answer[0]
        if va.size is not None:
            vp.size = va.size
        return (va, 0) if self._no_attrs else answer

    def give_back(self, cookie: Cookie, nlookup: int) -> None:
        """Give back lookups of a cookie that was not admitted."""
        self._given_back += 1
        self._post(_RECLAIM, cookie, (nlookup,))

    def violated(self, kind: ErrorNote, cookie: int, text: str) -> VfsError:
        """Complain to the server that its answer broke the protocol; return what to raise."""
        self._notes += 1
        if self._notes <= _COMPLAINTS:
            _log.warning("%s broke the protocol: %s (cookie %d)", self._typename, text, cookie)
        note = (EPROTO, text.encode("utf-8", "replace"))
        self.touser.post(encode_request(OpClass.ERROR, kind, 0, cookie, note))
        return VfsError(EPROTO, text)

    def late(self, header: Header, result: Any, args: tuple[Any, ...]) -> None:
        """Undo what a reply has brought for which nobody waits any more (see `QueueTouser`)."""
        if isinstance(result, Newinfo):
            self._nodes.refuse(result)
        elif header.opclass & OPCLASS_MASK != _VN:
            return
        elif header.optype == _READDIR:
            for dirent in result[0]:
                self._nodes.refuse(dirent.newinfo)
        elif header.optype == _OPEN:
            # Each open is closed, unless the node has gone meanwhile, and its opens with it.
            vp = self._nodes.live(header.cookie) if self.is_mounted else None
            if vp is not None:
                apply_setbacks(result[1], vp.data)
                self._post(_CLOSE, vp.data.cookie, args)
                self.mount.kernel.vrele_async(vp)
