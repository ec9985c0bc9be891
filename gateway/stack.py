"""Stacks of elements: the string `puffs|p2k|puffs|psshfs` read, checked and built.

Two interfaces join the elements (layers/ops.py and emul/vfs.py). A table says what
each element offers and needs; a string in which they do not meet is refused before
anything is connected or mounted, with the nearest string that would work. A stack is
built from its bottom up, and what the built elements report is held against what was
asked: the string is a trace, nobody's constant.
"""

from __future__ import annotations

import difflib
import functools
import heapq
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from errno import EBUSY
from typing import TYPE_CHECKING, Any, Final

from ..native.errors import VfsError
from . import between, comparing
from .status import CommandError, Status
from .words.options import Settings, WordGroup, WordSpec, number, octal, octets, takes, text
from .words.sshwords import PSSHFS_GROUP, SSH_GROUP

if TYPE_CHECKING:
    from ..emul.rumpuser import HostDisk
    from ..layers.fault import Place, Rules
    from ..layers.ops import FileServer

SEPARATOR: Final = "|"
TYPENAME_MAX: Final = 255
"""Longest string, octets: some 25 pairs of `p2k|puffs`."""


class Face(Enum):
    """What an element offers to the one above it."""

    HOST_MOUNT = "a mount on the host"
    FILE_SERVER = "a file server"
    FILE_SYSTEM = "a file system of the emulated kernel"
    BLOCK_DEVICE = "a block device"


@dataclass(frozen=True)
class Ground:
    """What the elements of a stack are told.

    `special` is what to mount, as typed. `settings` are what the words of each group came to, by
    the group's title.
    """

    special: str
    readonly: bool
    settings: Mapping[str, Settings]

    @property
    def has_faults(self) -> bool:
        """Whether things may go wrong between elements; without, nothing about it is imported."""
        return bool(self.settings.get(between.FAULT_GROUP.title))

    @functools.cached_property
    def rules(self) -> Rules:
        """What is to go wrong: the same rules for all elements, which may change at any time."""
        return between.read_rules(self.settings.get(between.FAULT_GROUP.title, {}))


Build = Callable[[Any, Ground], AbstractAsyncContextManager[Any]]
"""Builds one element over the one below it (None for the bottom)."""


@dataclass(frozen=True)
class Element:
    """One line of the table; `needs` is None for what ends a stack.

    What `may_end` a stack takes `special` itself when nothing is below it. `groups` are the words
    behind `-o` that it understands. `fault_place` is where rules of faults find it.
    """

    name: str
    offers: Face
    needs: Face | None
    build: Build
    text: str
    groups: tuple[WordGroup, ...] = ()
    may_end: bool = False
    fault_place: Place | None = None

    @property
    def is_bottom(self) -> bool:
        """Whether nothing has to be below it."""
        return self.needs is None or self.may_end

    @property
    def passes(self) -> bool:
        """Whether it stands between two of the same kind, so that a stack is one without it."""
        return self.offers is self.needs


@asynccontextmanager
async def _p2k(below: Any, ground: Ground) -> AsyncIterator[FileServer]:
    from ..layers.p2k import p2k_over

    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(p2k_over(below, rdonly=ground.readonly))
        except VfsError as exc:
            raise _no_file_system(ground, exc) from exc
        yield server


@asynccontextmanager
async def _puffs(below: Any, ground: Ground) -> AsyncIterator[Any]:
    from ..layers.puffs import puffs_over

    over = between.puffs_by_faulty_frames(below, ground.rules) if ground.has_faults else None
    async with over or puffs_over(below) as fs:
        yield fs


TMPFS_GROUP: Final = WordGroup(
    "tmpfs options",
    {
        "size": WordSpec(takes("size_limit", octets), "space for all files, octets", "SIZE"),
        "nodes": WordSpec(takes("nodes_limit", number), "how many files there may be", "N"),
        "mode": WordSpec(takes("mode", octal), "permission bits of the root, octal (1777)", "BITS"),
        "uid": WordSpec(takes("uid", number), "owner of the root (who mounts)", "N"),
        "gid": WordSpec(takes("gid", number), "group of the root (who mounts)", "N"),
    },
)


@asynccontextmanager
async def _tmpfs(_below: None, ground: Ground) -> AsyncIterator[Any]:
    from ..emul.tmpfs import TmpFs

    yield TmpFs(os.fsencode(ground.special), **ground.settings[TMPFS_GROUP.title])


_DISK_PATIENCE: Final = 3.0
"""How long a disk may be in use, seconds: umount(8) returns before who served the mount has written
everything and has let go of the disk."""
_DISK_POLL: Final = 0.05


@asynccontextmanager
async def _ext2fs(below: Any, ground: Ground) -> AsyncIterator[Any]:
    import trio

    from ..emul.ext2fs import Ext2Fs
    from ..emul.rumpuser import open_disk

    async def opened() -> HostDisk:
        deadline = trio.current_time() + _DISK_PATIENCE
        while True:
            try:
                return open_disk(mntfromname, rdonly=ground.readonly)
            except VfsError as exc:
                if exc.errno != EBUSY or trio.current_time() >= deadline:
                    raise _no_device(exc) from exc
            await trio.sleep(_DISK_POLL)

    mntfromname = os.fsencode(ground.special)
    if below is not None:
        image = ground.settings[VND_GROUP.title]["image"]
        yield Ext2Fs(below, mntfromname=mntfromname.rstrip(b"/") + b"/" + os.fsencode(image))
        return
    disk = await opened()
    try:
        yield Ext2Fs(disk)
    finally:
        with trio.CancelScope(shield=True):
            await disk.close()  # the second time, if it was mounted


VND_GROUP: Final = WordGroup(
    "vnd options",
    {
        "image": WordSpec(takes("image", text), "the file below to use as a disk", "PATH"),
    },
)


@asynccontextmanager
async def _vnd(below: Any, ground: Ground) -> AsyncIterator[Any]:
    import trio

    from ..emul.kernel import Kernel
    from ..emul.rumpuser import open_vnd

    image = ground.settings[VND_GROUP.title].get("image")
    if image is None:
        raise CommandError(
            Status.USAGE, "vnd needs to be told which file below is the disk: -o image=PATH"
        )
    async with Kernel() as kernel:
        try:
            mount = await kernel.mount(below, rdonly=ground.readonly)
            disk = await open_vnd(mount, os.fsencode(image), rdonly=ground.readonly)
        except VfsError as exc:
            exc = VfsError(exc.errno, exc.detail or image)
            raise _no_device(exc) from exc
        try:
            yield disk
        finally:
            with trio.CancelScope(shield=True):
                await disk.close()


def _no_device(exc: VfsError) -> CommandError:
    """Return the end that failing to open a disk image or device means for the command."""
    if exc.errno == EBUSY:
        return CommandError(Status.DEVICE_BUSY, f"disk {exc.detail}; unmount it there first")
    return CommandError(Status.DEVICE, f"disk {exc.detail}: {os.strerror(exc.errno)}")


def _no_file_system(ground: Ground, exc: VfsError) -> CommandError:
    """Return the end that a refused mount inside the emulated kernel means for the command."""
    return CommandError(Status.NO_FILE_SYSTEM, f"{ground.special}: {_said(exc)}")


def _said(exc: VfsError) -> str:
    return exc.detail or os.strerror(exc.errno)


@asynccontextmanager
async def _psshfs(_below: None, ground: Ground) -> AsyncIterator[FileServer]:
    from .remote import remote, remote_tree

    settings = ground.settings
    told = remote(settings[PSSHFS_GROUP.title], settings[SSH_GROUP.title], readonly=ground.readonly)
    rules = ground.rules if ground.has_faults else None
    async with remote_tree(ground.special, told, rules) as server:
        yield server


@asynccontextmanager
async def _local(_below: None, ground: Ground) -> AsyncIterator[FileServer]:
    from ..layers.local import local_tree

    with ExitStack() as stack:
        try:
            server = stack.enter_context(
                local_tree(os.fsencode(os.path.abspath(ground.special)), ro=ground.readonly)
            )
        except VfsError as exc:
            raise _no_file_system(ground, exc) from exc
        yield server


@asynccontextmanager
async def _perfuse(_below: None, ground: Ground) -> AsyncIterator[FileServer]:
    from .capture.element import program_below

    async with program_below(ground) as server:
        yield server


ELEMENTS: Final[tuple[Element, ...]] = (
    Element("p2k", Face.FILE_SERVER, Face.FILE_SYSTEM, _p2k, "serves the file system below it"),
    Element(
        "puffs",
        Face.FILE_SYSTEM,
        Face.FILE_SERVER,
        _puffs,
        "mounts what is served below it",
        (between.FAULT_GROUP,),
        fault_place="frames",
    ),
    Element(
        "psshfs",
        Face.FILE_SERVER,
        None,
        _psshfs,
        "a tree of an SFTP server",
        (between.FAULT_GROUP, PSSHFS_GROUP, SSH_GROUP),
        fault_place="sftp",
    ),
    Element("local", Face.FILE_SERVER, None, _local, "a directory of this machine"),
    Element(
        "perfuse",
        Face.FILE_SERVER,
        None,
        _perfuse,
        "what a FUSE program serves",
        (between.FAULT_GROUP,),
        fault_place="fuse",
    ),
    Element("tmpfs", Face.FILE_SYSTEM, None, _tmpfs, "files in memory", (TMPFS_GROUP,)),
    Element(
        "ext2fs",
        Face.FILE_SYSTEM,
        Face.BLOCK_DEVICE,
        _ext2fs,
        "an ext2 file system on a disk image or device",
        may_end=True,
    ),
    Element(
        "vnd",
        Face.BLOCK_DEVICE,
        Face.FILE_SYSTEM,
        _vnd,
        "a file of the tree below as a disk",
        (VND_GROUP,),
    ),
    Element("null", Face.FILE_SERVER, Face.FILE_SERVER, between.null, "passes everything on"),
    Element(
        "readonly", Face.FILE_SERVER, Face.FILE_SERVER, between.readonly, "refuses all changes"
    ),
    Element(
        "throttle",
        Face.FILE_SERVER,
        Face.FILE_SERVER,
        between.throttle,
        "takes its time",
        (between.THROTTLE_GROUP,),
    ),
    Element(
        "trace",
        Face.FILE_SERVER,
        Face.FILE_SERVER,
        between.trace,
        "writes down what is asked and answered",
        (between.TRACE_GROUP,),
    ),
    Element(
        "fault",
        Face.FILE_SERVER,
        Face.FILE_SERVER,
        between.fault,
        "goes wrong as rules say",
        (between.FAULT_GROUP,),
        fault_place="server",
    ),
    Element(
        "compare",
        Face.FILE_SERVER,
        Face.FILE_SERVER,
        comparing.compare,
        "does everything on a second stack, too, and says what differs",
        (comparing.COMPARE_GROUP,),
    ),
)
"""All elements below the first `puffs`, which is the mount on the host itself."""

_TOP: Final = Element("puffs", Face.HOST_MOUNT, Face.FILE_SERVER, _puffs, "the mount on the host")
_SERVED: Final = Element("", Face.FILE_SERVER, Face.FILE_SERVER, _puffs, "what is served")
"""What stands above a stack that is not mounted."""
_NAMES: Final = ("puffs", *(element.name for element in ELEMENTS if element.name != "puffs"))


def element_lines(*, mounted: bool = True) -> list[str]:
    """Return the table for `--help`: what each element is, offers and needs below it.

    Not `mounted`: without the mount on the host, which is on top of the others.
    """
    lines = []
    for element in (_TOP, *ELEMENTS) if mounted else ELEMENTS:
        needs = "ends a stack"
        if element.needs is not None:
            needs = f"needs {element.needs.value}" + (
                ", or ends a stack" if element.may_end else ""
            )
        lines.append(f"  {element.name:<8}{element.text}: {element.offers.value}; {needs}")
    return lines


def parse_stack(text: str) -> tuple[Element, ...]:
    """Return the elements below the first `puffs` of `text`, top first.

    Errors: CommandError (STACK) that names the element, what it needs below it, what it got, and
    the nearest string that would work.
    """
    names = _split(text, Face.HOST_MOUNT)
    if not names or names[0] != _TOP.name:
        got = f"'{names[0]}'" if names else "nothing"
        raise _misfit(names, f"a stack begins with 'puffs', the mount on the host, not with {got}")
    return _fitted(names, names[1:], _TOP, Face.HOST_MOUNT)


def parse_served(text: str) -> tuple[Element, ...]:
    """Return the elements of `text`, which is served and not mounted: no `puffs` is on top of it.

    Errors: as `parse_stack`.
    """
    names = _split(text, Face.FILE_SERVER)
    return _fitted(names, names, _SERVED, Face.FILE_SERVER)


def _split(text: str, face: Face) -> list[str]:
    if len(text) > TYPENAME_MAX:
        raise CommandError(
            Status.STACK,
            f"the stack string has {len(text)} characters; leave out pairs of 'p2k|puffs' until "
            f"it has no more than {TYPENAME_MAX}",
        )
    names = text.split(SEPARATOR) if text else []
    for name in names:
        if name not in _NAMES:
            what = f"there is no element '{name}' (there are {_listed(_NAMES)})"
            raise _misfit(names, what, face)
    return names


def _fitted(
    names: list[str], below: Sequence[str], above: Element, face: Face
) -> tuple[Element, ...]:
    """Return the elements called `below`, which fit below `above` and each other."""
    found = []
    for name in below:
        element = next(e for e in ELEMENTS if e.name == name)
        if above.needs is None:
            raise _misfit(names, f"'{above.name}' has nothing below it, but got '{name}'", face)
        if element.offers is not above.needs:
            what = f"{_wish(above)}, but got '{name}', which offers {element.offers.value}"
            raise _misfit(names, what, face)
        found.append(element)
        above = element
    if not above.is_bottom:
        raise _misfit(names, f"{_wish(above)}, but got nothing", face)
    return tuple(found)


def _wish(above: Element) -> str:
    """Say what `above` needs below it and which elements would do."""
    assert above.needs is not None
    fitting = _listed([e.name for e in ELEMENTS if e.offers is above.needs and not e.passes], "or")
    if above is _SERVED:
        return f"a stack that is served begins with {above.needs.value} ({fitting})"
    return f"'{above.name}' needs {above.needs.value} below it ({fitting})"


def _listed(names: tuple[str, ...] | list[str], word: str = "and") -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def _misfit(names: list[str], what: str, face: Face = Face.HOST_MOUNT) -> CommandError:
    near = nearest_stack(names, face)
    return CommandError(Status.STACK, f"{what}; the nearest stack that works is '{near}'")


def nearest_stack(names: list[str], offered: Face = Face.HOST_MOUNT) -> str:
    """Return the stack that offers `offered` and takes the fewest changes to `names`.

    Dijkstra over (names used up, interface needed next, whether that may be missing). Putting an
    element in costs 1; leaving one out or taking another in its place costs more, for the user
    meant something by it, but less where the name is nobody's. Of equals the one that the table
    has first.
    """
    needed: list[tuple[Face | None, bool]] = [(face, False) for face in Face]
    needed += [(None, True), *((face, True) for face in Face)]
    start = needed.index((offered, False))
    serial = itertools.count()
    queue: list[tuple[float, int, int, int, tuple[str, ...]]] = [(0.0, 0, start, 0, ())]
    done = set()

    def push(cost: float, used: int, state: int, names: tuple[str, ...]) -> None:
        heapq.heappush(queue, (cost, used, state, next(serial), names))

    while queue:
        cost, used, state, _, built_so_far = heapq.heappop(queue)
        needs, is_bottom = needed[state]
        if used == len(names) and is_bottom:
            return SEPARATOR.join(built_so_far)
        if (used, state) in done:
            continue
        done.add((used, state))
        if used < len(names):
            name = names[used]
            dropping = 2.0 if name in _NAMES else 1.5 if name else 0.1
            push(cost + dropping, used + 1, state, built_so_far)
        for element in (_TOP, *ELEMENTS):
            if element.offers is not needs:
                continue
            longer = (*built_so_far, element.name)
            after = needed.index((element.needs, element.is_bottom))
            push(cost + 1.0, used, after, longer)
            if used < len(names):
                changing = _unlikeness(names[used], element.name)
                push(cost + changing, used + 1, after, longer)
    raise AssertionError("the table of elements has no stack that works")


def _unlikeness(name: str, other: str) -> float:
    if name in _NAMES:
        return 0.0 if name == other else 3.0
    return 1.5 * (1.0 - difflib.SequenceMatcher(None, name.lower(), other).ratio())


@dataclass(frozen=True)
class Stack:
    """A built stack: what it serves, and everything that it is made of, bottom first."""

    server: FileServer
    parts: tuple[Any, ...]

    @property
    def rdonly_reasons(self) -> list[str]:
        """Why file systems in it let nobody write, where that was not asked for."""
        # p2k knows the mount of the file system below it, which is a part as well.
        found = (getattr(part, "mount", None) for part in self.parts)
        mounts = {id(mount): mount for mount in found if mount is not None}
        return [mount.rdonly_reason for mount in mounts.values() if mount.rdonly_reason]

    @property
    def host_words(self) -> frozenset[str]:
        """Words that parts want the host mount to have: `ro`, `default_permissions`."""
        return frozenset().union(*(getattr(part, "host_words", ()) for part in self.parts))

    async def forget(self) -> None:
        """Have each part that remembers something of its own accord drop it."""
        for part in self.parts:
            forget = getattr(part, "forget", None)
            if forget is not None:
                await forget()

    async def wait_broken(self) -> str:
        """Wait until a part has lost what it stands on; return why. For ever if none of them can.

        Errors: whatever comes out of a part.
        """
        import trio

        causes = []
        async with trio.open_nursery() as nursery:

            async def watch(wait: Callable[[], Awaitable[str]]) -> None:
                causes.append(await wait())
                nursery.cancel_scope.cancel()

            nursery.start_soon(trio.sleep_forever)
            for part in self.parts:
                wait = getattr(part, "wait_broken", None)
                if wait is not None:
                    nursery.start_soon(watch, wait)
        return causes[0]


@asynccontextmanager
async def built(elements: Sequence[Element], ground: Ground) -> AsyncIterator[Stack]:
    """Build `elements` (top first) from the bottom up and yield them.

    Errors: whatever an element meets, and AssertionError when the built stack does not report
    the trace that was asked for, which is a fault of an element.
    """
    if ground.has_faults:
        places = {element.fault_place for element in elements if element.fault_place}
        between.bind_rules(ground.rules, places)
    async with AsyncExitStack() as stack:
        below: Any = None
        parts = []
        for element in reversed(elements):
            below = await stack.enter_async_context(element.build(below, ground))
            parts += [*getattr(below, "beside", ()), below]
        asked = SEPARATOR.join(element.name for element in elements)
        trace = below.kargs.typename
        if trace != asked:
            raise AssertionError(f"asked for the stack '{asked}' and got '{trace}'")
        yield Stack(below, tuple(parts))
