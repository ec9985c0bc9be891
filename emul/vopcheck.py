"""VopCheck: in a kernel that debugs, stands before each file system and checks the rules of vfs.

What an operation asks for at "Entry" is checked when it is called, what it promises when it
returns; who broke a rule hears a VopError, with the lines of code that called. `vp.fs` and
`mount.fs` are such an object then, the real one is its `fs`. Vnodes are DebugVnodes, which know
who took and gave back their references.

A kernel that does not debug has none of this and pays nothing for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from inspect import iscoroutinefunction
from os.path import dirname, join
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

from ..native.constants import Vtype
from .sched.callers import Callers, callers
from .sched.lockdebug import DebugVnodeLock, Hold, LockDebug
from .vfs import FileSystem, Lookup
from .vnode import Vnode

if TYPE_CHECKING:
    from .mount import Mount

_OFFSET_MAX: Final = 2**63 - 1
_HISTORY: Final = 24
"""How many changes of a vnode's references are remembered."""
_EMUL: Final = dirname(__file__)
_NOBODY: Final = tuple(
    join(_EMUL, name)
    for name in ("vopcheck.py", "vnode.py", "mount.py", "freelist.py", "namecache.py", "vnops.py")
)
"""Files that only do what their callers want."""


class VopError(RuntimeError):
    """A vnode operation was called, or has ended, against the rules."""


# What the caller has of a vnode's lock. Every vnode is referenced and alive besides.
_UNLOCKED: Final = "the caller has no hold of it"
_SHARED: Final = "the caller holds it shared or exclusively"
_EXCLUSIVE: Final = "the caller holds it exclusively"
_LOCKED: Final = "somebody holds it"
_ANY: Final = "as you like"


class _Rule(NamedTuple):
    """One operation: the locks of its vnodes by position, and what its result must be."""

    locks: dict[int, str]
    result: Callable[[_Checker, tuple[Any, ...], Any], None] | None = None


class _Checker:
    """The rules, applied to the operations of one mounted file system."""

    def __init__(self, fs: FileSystem, debug: LockDebug) -> None:
        self.fs = fs
        self.debug = debug

    def fail(self, name: str, text: str, at: Callers) -> NoReturn:
        """Raise, and keep for the report, that a rule was broken."""
        line = f"{self.fs.typename} {name}: {text}; called at {at}"
        self.debug.complain(line)
        raise VopError(line)

    def enter(self, name: str, rule: _Rule, args: tuple[Any, ...], at: Callers) -> tuple[Hold, ...]:
        """Check what the caller has; return all the locks that he holds."""
        for position, lock in rule.locks.items():
            vp: Vnode | None = args[position]
            if vp is None:
                continue
            if vp.is_dead:
                self.fail(name, f"{vp!r} is dead: ask `vp.fs`, not a file system", at)
            if cast(VopCheck, vp.fs).fs is not self.fs:
                self.fail(name, f"{vp!r} belongs to another file system", at)
            if vp.usecount < 1:
                self.fail(name, f"{vp!r} has no reference", at)
            if not self._has(vp, lock):
                self.fail(name, f"{vp!r}: {lock}, says the rule; {self._holders(vp)}", at)
        return self.debug.held_by()

    def leave(
        self,
        name: str,
        rule: _Rule,
        args: tuple[Any, ...],
        at: Callers,
        held: tuple[Hold, ...],
    ) -> None:
        """Check that locks and references are the caller's as before."""
        now = self.debug.held_by()
        if now != held:
            lost = ", ".join(map(str, set(held) - set(now))) or "none"
            left = ", ".join(map(str, set(now) - set(held))) or "none"
            self.fail(name, f"locks that it gave away: {lost}; that it left: {left}", at)
        for position in rule.locks:
            vp: Vnode | None = args[position]
            if vp is not None and vp.usecount < 1:
                self.fail(name, f"the caller's reference on {vp!r} is gone", at)

    def _has(self, vp: Vnode, lock: str) -> bool:
        if lock is _ANY:
            return True
        if lock is _LOCKED:
            return vp.lock.is_locked
        mine = cast(DebugVnodeLock, vp.lock)
        if lock is _EXCLUSIVE:
            return self.debug.holds(mine, exclusive=True)
        return self.debug.holds(mine) is (lock is _SHARED)

    @staticmethod
    def _holders(vp: Vnode) -> str:
        holders = cast(DebugVnodeLock, vp.lock).holders
        return ", ".join(map(str, holders)) or "nobody holds it"

    # Results.

    def vnode(self, vp: Vnode) -> None:
        """Check a vnode that comes with a reference."""
        if vp.usecount < 1:
            raise ValueError(f"{vp!r} has no reference")
        if not vp.is_dead and cast(VopCheck, vp.fs).fs is not self.fs:
            raise ValueError(f"{vp!r} belongs to another file system")
        if not Vtype.VNON < vp.vtype < Vtype.VBAD:
            raise ValueError(f"{vp!r} has no type")

    def lookup(self, found: Lookup) -> None:
        """Check the answer of a lookup."""
        if found.cn_ttl < 0 or found.va_ttl < 0:
            raise ValueError(f"time-outs of {found}")
        if found.vp is None:
            if found.va is not None:
                raise ValueError("attributes of nothing")
            return
        self.vnode(found.vp)
        if found.va is not None and found.va.vtype not in (None, found.vp.vtype):
            raise ValueError(f"attributes say type {found.va.vtype}, the vnode is {found.vp!r}")


def _is_vnode(check: _Checker, args: tuple[Any, ...], vp: Vnode) -> None:
    check.vnode(vp)


def _is_lookup(check: _Checker, args: tuple[Any, ...], found: Lookup) -> None:
    check.lookup(found)


def _is_made(check: _Checker, args: tuple[Any, ...], found: Lookup) -> None:
    check.lookup(found)
    if found.vp is None:
        raise ValueError("made a node and returned none")


def _is_attributes(check: _Checker, args: tuple[Any, ...], answer: Any) -> None:
    va, ttl = answer
    if ttl < 0:
        raise ValueError(f"attributes that hold for {ttl} ns")
    if va.vtype is None or not Vtype.VNON < va.vtype < Vtype.VBAD:
        raise ValueError(f"attributes without a type: {va}")


def _is_data(check: _Checker, args: tuple[Any, ...], data: Any) -> None:
    if len(data) > args[2]:
        raise ValueError(f"{len(data)} octets read, {args[2]} asked for")


def _is_listing(check: _Checker, args: tuple[Any, ...], answer: Any) -> None:
    entries, eof = answer
    if not entries and not eof:
        raise ValueError("no entry, and not the end")
    if len(entries) > 1 and sum(24 + len(entry.name) for entry in entries) > args[2]:
        raise ValueError(f"more than the {args[2]} octets of entries asked for")
    before = {args[1]}
    for entry in entries:
        if not 0 < entry.offset <= _OFFSET_MAX or entry.offset in before:
            raise ValueError(f"an offset from which there is no way on: {entry}")
        before.add(entry.offset)
        if not entry.name or b"/" in entry.name or b"\0" in entry.name:
            raise ValueError(f"a name that cannot be: {entry}")
        if entry.found is not None:
            if entry.name in (b".", b".."):
                raise ValueError(f"a node with {entry}")
            check.lookup(entry.found)


def _is_run(check: _Checker, args: tuple[Any, ...], answer: Any) -> None:
    blkno, run = answer
    if blkno < -1 or not 0 < run <= args[2]:
        raise ValueError(f"{run} octets at block {blkno}, {args[2]} asked for")


def _one(lock: str, result: Callable[..., None] | None = None) -> _Rule:
    return _Rule({0: lock}, result)


_RULES: Final = {
    "start": _Rule({}),
    "root": _Rule({}, _is_vnode),
    "statvfs": _Rule({}),
    "sync": _Rule({}),
    "unmount": _Rule({}),
    "vget": _Rule({}, _is_vnode),
    "fhtovp": _Rule({}, _is_vnode),
    "vptofh": _one(_ANY),
    "extattrctl": _Rule({1: _ANY}),
    "suspendctl": _Rule({}),
    "lookup": _one(_SHARED, _is_lookup),
    "create": _one(_EXCLUSIVE, _is_made),
    "mknod": _one(_EXCLUSIVE, _is_made),
    "mkdir": _one(_EXCLUSIVE, _is_made),
    "symlink": _one(_EXCLUSIVE, _is_made),
    "open": _one(_EXCLUSIVE),
    "close": _one(_UNLOCKED),
    "access": _one(_SHARED),
    "getattr": _one(_SHARED, _is_attributes),
    "setattr": _one(_EXCLUSIVE, _is_attributes),
    "read": _one(_SHARED, _is_data),
    "write": _one(_EXCLUSIVE),
    "fsync": _one(_SHARED),
    "seek": _one(_SHARED),
    "mmap": _one(_UNLOCKED),
    "poll": _one(_UNLOCKED),
    "remove": _Rule({0: _EXCLUSIVE, 1: _EXCLUSIVE}),
    "link": _Rule({0: _EXCLUSIVE, 1: _EXCLUSIVE}, _is_attributes),
    "rename": _Rule({0: _EXCLUSIVE, 1: _EXCLUSIVE, 3: _EXCLUSIVE, 4: _EXCLUSIVE}),
    "rename_with": _Rule({0: _EXCLUSIVE, 1: _EXCLUSIVE, 3: _EXCLUSIVE, 4: _EXCLUSIVE}),
    "rmdir": _Rule({0: _EXCLUSIVE, 1: _EXCLUSIVE}),
    "readdir": _one(_SHARED, _is_listing),
    "readlink": _one(_SHARED),
    "abortop": _one(_ANY),
    "inactive": _one(_EXCLUSIVE),
    "print": _one(_ANY),
    "bmap": _one(_ANY, _is_run),
    "strategy": _one(_ANY),
    "getpages": _one(_LOCKED),
    "putpages": _one(_ANY),
    "pathconf": _one(_ANY),
    "advlock": _one(_UNLOCKED),
    "getextattr": _one(_SHARED),
    "setextattr": _one(_EXCLUSIVE),
    "listextattr": _one(_SHARED),
    "deleteextattr": _one(_EXCLUSIVE),
    "fallocate": _one(_EXCLUSIVE),
    "fdiscard": _one(_EXCLUSIVE),
    "seek_data": _one(_SHARED),
    "copy_file_range": _Rule({0: _EXCLUSIVE, 2: _EXCLUSIVE}),
}
"""All operations but `reclaim`, which only the kernel calls."""


def _checked(check: _Checker, name: str, rule: _Rule) -> Callable[..., Any]:
    """Return the operation `name` with its checks."""
    result = rule.result

    def returned(args: tuple[Any, ...], value: Any, at: Callers) -> Any:
        if result is not None:
            try:
                result(check, args, value)
            except ValueError as exc:
                check.fail(name, f"returned {exc}", at)
        if name == "rename":  # what was below one directory is below another
            check.debug.forget(cast(DebugVnodeLock, args[1].lock))
        return value

    if iscoroutinefunction(getattr(FileSystem, name)):

        async def waits(*args: Any) -> Any:
            at = callers(*_NOBODY)
            held = check.enter(name, rule, args, at)
            try:
                value = await getattr(check.fs, name)(*args)
            finally:
                check.leave(name, rule, args, at, held)
            return returned(args, value, at)

        return waits

    def never_waits(*args: Any) -> Any:
        at = callers(*_NOBODY)
        held = check.enter(name, rule, args, at)
        try:
            value = getattr(check.fs, name)(*args)
        finally:
            check.leave(name, rule, args, at, held)
        return returned(args, value, at)

    return never_waits


class VopCheck:
    """The file system `fs`, with checks before and after each operation."""

    def __init__(self, fs: FileSystem, debug: LockDebug) -> None:
        self.fs = fs
        check = _Checker(fs, debug)
        for name, rule in _RULES.items():
            setattr(self, name, _checked(check, name, rule))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fs, name)


def vopcheck(fs: FileSystem, debug: LockDebug) -> FileSystem:
    """Return `fs` with checks; it answers to everything that `fs` does."""
    return cast(FileSystem, VopCheck(fs, debug))


class DebugVnode(Vnode):
    """A vnode under debugging: its lock knows its holders, and `history` who changed `usecount`.

    While it has references it stands in its kernel's `debug.used`.
    """

    __slots__ = ("_debug", "_usecount", "history")

    def __init__(
        self, mount: Mount, key: Hashable, vtype: int, data: Any, size: int, rdev: int
    ) -> None:
        debug = mount.kernel.debug
        assert debug is not None
        self._debug = debug
        self._usecount = 0
        self.history: deque[tuple[int, Callers]] = deque(maxlen=_HISTORY)
        super().__init__(mount, key, vtype, data, size, rdev)
        self.lock = DebugVnodeLock(debug.locks, "vnode", f"{mount.fs.typename} {self.serial}")

    @property
    def usecount(self) -> int:
        """As a Vnode's."""
        return self._usecount

    @usecount.setter
    def usecount(self, count: int) -> None:
        if count > 0:
            self._debug.used[self] = None
            self.history.append((count - self._usecount, callers(*_NOBODY)))
        else:
            self._debug.used.pop(self, None)
            self.history.clear()
        self._usecount = count

    def __str__(self) -> str:
        """Return what it is, and a line for each change of its references, the last one first."""
        lines = [f"{delta:+d} at {at}" for delta, at in reversed(self.history)]
        return "\n    ".join([repr(self), *lines])


class KernelDebug:
    """What a kernel that debugs knows beside: its locks, and its vnodes that have references."""

    def __init__(self) -> None:
        self.locks = LockDebug()
        self.used: dict[DebugVnode, None] = {}

    def leaks(self) -> list[str]:
        """Return a text for each vnode with references, for each lock held, and each complaint.

        At the end of a kernel nothing of the kind is there.
        """
        return [f"references left: {vp}" for vp in self.used] + self.locks.report()
