"""Compare: the FileServer that asks two and believes the first."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from errno import EIO, EOPNOTSUPP
from types import MethodType
from typing import Any, Final, NamedTuple

from ...native.constants import MNT_FORCE, READDIR_PLUS, FlushOp, KFlag
from ...native.errors import VfsError
from ...native.records import Cookie, Cred, Dirent, lookup_cn
from ..operations import BY_NAME, CHANGING, GIVING, Operation
from ..ops import FileServer, Upcalls
from ..outcomes import Seen, difference, value_of
from ..passing import Answers, Around
from ..paths import Paths
from .listing import Listing, Listings, names_of
from .pairs import Pairs

_FIRST_ALONE: Final = frozenset(
    "statvfs statvfs_at fhtonode nodetofh extattrctl seek mmap poll print pathconf "
    "seek_data".split()
)
"""Operations whose answers no two file systems have in common."""
_NEITHER: Final = frozenset({"copy_file_range", "rename_with"})
"""What one of two may lack and the other do: both get what the kernel does in its place."""
_CAREFUL: Final = KFlag.NOCACHE_NAME | KFlag.NOCACHE_PAGE | KFlag.NOCACHE_ATTR | KFlag.WTCACHE
"""What one of the two cannot stand the kernel above must not do."""
_TRIES: Final = 3
"""How often both are asked when something is changed meanwhile; then nobody can tell."""


class Mismatch(NamedTuple):
    """Where the two differ: `kind` is that of outcomes.difference, or "unsupported"."""

    operation: Operation
    args: tuple[Any, ...]
    path: bytes
    kind: str
    first: Seen
    second: Seen


Report = Callable[[Mismatch], None]


class CompareStatistics(NamedTuple):
    """What became of operations: see the attributes of `Compare`."""

    compared: int
    differed: int
    left_out: int
    undecided: int


class Compare(Around):
    """The server below, with `second` beside it. Owns neither, but attaches and unmounts both.

    `report` hears of each difference; it does not wait. `strict`: an operation that differs fails
    with EIO, after both have done it.
    """

    name = "compare"

    def __init__(
        self,
        below: FileServer,
        second: FileServer,
        report: Report,
        *,
        strict: bool = False,
        beside: tuple[Any, ...] = (),
    ) -> None:
        self.beside = beside
        """What the second server is made of, for who looks after all parts of a stack."""
        self.compared = 0
        """Operations that were done on both."""
        self.differed = 0
        self.left_out = 0
        """Operations that were done on the first alone: the second has no such node."""
        self.undecided = 0
        """Differences that may have come from changes at the same time."""
        self._second = second
        self._report = report
        self._strict = strict
        self._pairs = Pairs(below.kargs.root.cookie, second.kargs.root.cookie)
        self._paths = Paths(below.kargs.root.cookie)
        self._listings = Listings()
        self._unsupported: set[str] = set()
        self._changing = 0
        self._changed = 0
        super().__init__(below)
        careful = second.kargs.kflags & _CAREFUL
        self._kargs = self._kargs._replace(kflags=self._kargs.kflags | careful)

    def statistics(self) -> CompareStatistics:
        """Return the figures of now."""
        return CompareStatistics(self.compared, self.differed, self.left_out, self.undecided)

    def attach(self, upcalls: Upcalls) -> None:
        """See FileServer."""
        self.below.attach(upcalls)
        self._second.attach(_FromSecond(upcalls, self._pairs))

    def names_hold(self) -> bool:
        """See FileServer. Both are asked: each tells its news once."""
        held = (self.below.names_hold(), self._second.names_hold())
        return all(held)

    def around(self, operation: Operation, call: Callable[..., Answers]) -> Callable[..., Answers]:
        """See Around."""
        if operation.name in _FIRST_ALONE:
            return call
        if operation.name in _NEITHER:
            return MethodType(getattr(FileServer, operation.name), self)
        if operation.name == "readdir":
            return self._readdir
        if operation.name == "unmount":
            return self._unmount
        second = getattr(self._second, operation.name)

        async def both(*args: Any) -> Any:
            mapped = self._mapped(operation, args)
            if mapped is None:
                self.left_out += 1
                answer = await call(*args)
                self._learn(operation, args, answer, None)
                return answer
            return await self._both(operation, call, args, second, mapped)

        return both

    def around_told(self, operation: Operation, call: Callable[..., None]) -> Callable[..., None]:
        """See Around."""
        name, second = operation.name, getattr(self._second, operation.name)

        def told(*args: Any) -> None:
            self._paths.learn(operation, args, None)
            cookie = self._pairs.second(args[0])
            call(*args)
            if name == "reclaim":
                for owed, count in self._pairs.reclaim(args[0], args[1]):
                    self._second.reclaim(owed, count)
                return
            if name == "close":
                cookie = self._pairs.closed(args[0], args[1])
            if cookie is not None:
                second(cookie, *args[1:])

        return told

    def _mapped(self, operation: Operation, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return the arguments for the second server; None when it lacks a node."""
        mapped = list(args)
        for at, (_, kind) in enumerate(operation.parameters):
            if kind in (Cookie, Cookie | None) and args[at] is not None:
                mapped[at] = self._pairs.second(args[at])
                if mapped[at] is None:
                    return None
        return tuple(mapped)

    async def _both(
        self,
        operation: Operation,
        call: Callable[..., Answers],
        args: tuple[Any, ...],
        second: Callable[..., Answers],
        mapped: tuple[Any, ...],
    ) -> Any:
        """Do an operation on both, and compare."""
        name = operation.name
        changes = name in CHANGING
        for attempt in range(_TRIES):
            is_quiet, began = not self._changing, self._changed
            self._changing += changes
            try:
                answer, error = await _tried(call(*args))
                try:
                    other, other_error = await _tried(second(*mapped))
                except BaseException:
                    self._give_back(self.below, name, args, answer)
                    raise
            finally:
                self._changing -= changes
                self._changed += changes
            kind = difference(seen := _seen(name, answer, error), _seen(name, other, other_error))
            if not kind or changes or (is_quiet and began == self._changed and not self._changing):
                break
            if attempt + 1 == _TRIES:
                self.undecided += 1
                kind = ""
            else:
                self._give_back(self.below, name, args, answer)
                self._give_back(self._second, name, mapped, other)
        self.compared += 1
        told = bool(kind) and self._differs(
            Mismatch(
                operation,
                args,
                self._paths.of(operation, args),
                kind,
                seen,
                _seen(name, other, other_error),
            )
        )
        if error is not None or (told and self._strict):
            self._give_back(self._second, name, mapped, other)
        if error is not None:
            raise error
        if told and self._strict:
            self._give_back(self.below, name, args, answer)
            raise VfsError(EIO, f"compare: {kind} of {name} differs")
        self._learn(operation, args, answer, other)
        if name == "open" and other is not None:
            self._pairs.opened(args[0], args[1], mapped[0])
        return answer

    def _learn(self, operation: Operation, args: tuple[Any, ...], answer: Any, other: Any) -> None:
        self._paths.learn(operation, args, answer)
        if operation.name in GIVING:
            cookie = other.cookie if other is not None and other.cookie else None
            if answer.cookie:
                self._pairs.found(answer.cookie, cookie)
            elif cookie is not None:
                self._second.reclaim(cookie, 1)

    def _give_back(self, server: FileServer, name: str, args: tuple[Any, ...], answer: Any) -> None:
        """Give back what an answer gave that nobody will use."""
        if answer is None:
            return
        if name in GIVING and answer.cookie:
            server.reclaim(answer.cookie, 1)
        elif name == "open":
            server.close(*args)

    def _differs(self, found: Mismatch) -> bool:
        """Report a difference; return whether it is one of substance."""
        if (found.first.errno == EOPNOTSUPP) != (found.second.errno == EOPNOTSUPP):
            if found.operation.name not in self._unsupported:
                self._unsupported.add(found.operation.name)
                self._report(found._replace(kind="unsupported"))
            return False
        self.differed += 1
        self._report(found)
        return True

    async def _unmount(self, flags: int) -> None:
        """Unmount both. What the first vetoes is not asked of the second, which has no veto."""
        await self.below.unmount(flags)
        try:
            await self._second.unmount(flags)
        except VfsError as exc:
            await self._second.unmount(flags | MNT_FORCE)
            seen = Seen(exc.errno)
            self._differs(Mismatch(BY_NAME["unmount"], (flags,), b"", "errno", Seen(0), seen))

    # Listing.

    async def _readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        args = (opc, offset, resid, flags, cred)
        began = self._changed
        answer, error = await _tried(self.below.readdir(*args))
        listing = self._listings.take(opc, offset) if offset else None
        second = self._pairs.second(opc)
        other_error = None
        if not offset and second is not None:
            names, other_error = await _tried(names_of(self._second, second, cred))
            if names is not None:
                listing = Listing(names, began)
        told = False
        if second is None or (listing is None and error is None and other_error is None):
            self.left_out += 1
        else:
            told = self._compare_listings(args, answer, error, listing, other_error)
        if error is not None:
            raise error
        if told and self._strict:
            if flags & READDIR_PLUS:
                for entry in answer[0]:
                    self._give_back(self.below, "lookup", args, entry.newinfo)
            raise VfsError(EIO, "compare: names of readdir differ")
        entries, is_end = answer
        if listing is not None and not is_end and entries:
            self._listings.keep(opc, entries[-1].offset, listing)
        if flags & READDIR_PLUS:
            await self._pair_entries(opc, second, entries, cred)
        return entries, is_end

    def _compare_listings(
        self,
        args: tuple[Any, ...],
        answer: Any,
        error: VfsError | None,
        listing: Listing | None,
        other_error: VfsError | None,
    ) -> bool:
        """Compare a piece of a listing; return whether it differs."""
        first = Seen(error.errno if error is not None else 0)
        second = Seen(other_error.errno if other_error is not None else 0)
        if listing is not None and error is None:
            first_names, names = listing.add(*answer)
            first, second = Seen(0, first_names), Seen(0, names)
            if self._changing or listing.began != self._changed:
                self.undecided += 1
                return False
        self.compared += 1
        kind = difference(first, second)
        if not kind:
            return False
        operation = BY_NAME["readdir"]
        path = self._paths.of(operation, args)
        return self._differs(Mismatch(operation, args, path, kind, first, second))

    async def _pair_entries(
        self, opc: Cookie, second: Cookie | None, entries: Sequence[Dirent], cred: Cred
    ) -> None:
        """Find the nodes of the second server for those that a listing gave."""
        for entry in entries:
            if entry.newinfo is None or not entry.newinfo.cookie:
                continue
            other = None
            if second is not None and entry.name not in (b".", b".."):
                cn = lookup_cn(entry.name, cred)
                other, _ = await _tried(self._second.lookup(second, cn))
            self._learn(BY_NAME["lookup"], (opc, lookup_cn(entry.name, cred)), entry.newinfo, other)


async def _tried(running: Coroutine[Any, Any, Any]) -> tuple[Any, VfsError | None]:
    """Return the answer, or None and the failure."""
    try:
        return await running, None
    except VfsError as exc:
        return None, exc


def _seen(name: str, answer: Any, error: VfsError | None) -> Seen:
    if error is not None:
        return Seen(error.errno)
    return Seen(0, value_of(name, answer))


class _FromSecond:
    """The Upcalls of the second server: about its nodes, said of ours."""

    def __init__(self, upcalls: Upcalls, pairs: Pairs) -> None:
        self._upcalls = upcalls
        self._pairs = pairs

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        first = self._pairs.first(cookie) if cookie else cookie
        if first is not None:
            await self._upcalls.flush(op, first, start, end, name)

    def unmount(self) -> None:
        self._upcalls.unmount()
