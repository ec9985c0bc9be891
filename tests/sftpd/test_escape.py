"""The path-escape battery: whatever a client sends, nothing outside its root answers or changes.

Each test works in a root that has a neighbour outside, with data in it that must never be seen and
names that must never change. The roots: a directory of a tree in memory, of this machine (local),
and of this machine behind OpenSSH's sftp-server (psshfs). A guard is in front, as for an account
with a policy.

What SFTP version 3 leaves open is not tried: over psshfs the server at the other end resolves whole
paths, so that others who change its tree by a way of their own can put a link into a path while it
walks. Sessions of ours cannot: psshfs holds them back while a rename is under way.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.sftp import Export, Session, View, exported
from syspuffs.gateway.sftp.nodes import Node
from syspuffs.layers.guard import GuardSettings, Rule, Verb, guarded
from syspuffs.layers.local import local_tree
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.psshfs import PsshfsOptions, mount_psshfs
from syspuffs.layers.psshfs.options import Symlinks
from syspuffs.native import sftp
from syspuffs.native.records import lookup_cn

from ..gateway.sftp.harness import MAKE, StatusReply, Wire, code_of
from ..support.sftp_end import SELF
from ..support.sshd import find_sftp_server

SECRET = b"this is outside"
OUTSIDE = 98765
"""Octets of the file outside: its attributes give it away, too."""
POLICY = GuardSettings(rules=(Rule(b"/no-such-place", deny=Verb.READ),), hidden=(b".hidden",))


class Jail:
    """A root with something outside. `place` is where the host has it, None in memory."""

    def __init__(self, export: Export, root: Node, place: Path | None) -> None:
        self.export = export
        self.root = root
        self.place = place

    @asynccontextmanager
    async def client(self, *, root: Node | None = None) -> AsyncIterator[Wire]:
        near, far = socket.socketpair()
        for end in (near, far):
            end.setblocking(False)
        view = View(self.export, SELF, root=self.root if root is None else root, umask=0)
        session = Session(view, far.fileno(), far.fileno())

        async def serve() -> None:
            with far:
                await session.serve()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            wire = Wire(near)
            async with wire.stream:
                await wire.greet()
                yield wire
        assert session.failures == 0

    async def outside(self) -> object:
        """What is outside, with all that could have changed."""
        if self.place is not None:
            return [
                (path, path.lstat().st_mode, path.lstat().st_size, path.lstat().st_mtime_ns)
                for path in sorted((self.place / "outside").rglob("*"))
            ], sorted(path.name for path in self.place.iterdir())
        async with self.client(root=self.export.nodes.root) as wire:
            entries = await wire.entries(b"/outside")
            return [(e.name, e.attrs) for e in entries if e.name != b".."], await wire.names(b"/")


async def _furnish(wire: Wire, at: bytes) -> None:
    """Put something inside and something outside of a root to be."""
    for name in (b"outside", b"outside/inner", b"jail", b"jail/a", b"jail/a/b"):
        await wire.ask(sftp.mkdir, at + b"/" + name)
    await wire.put(at + b"/outside/secret", SECRET.ljust(OUTSIDE), 0o644)
    await wire.put(at + b"/outside/inner/f", SECRET.ljust(OUTSIDE), 0o644)
    await wire.put(at + b"/jail/a/f", b"inside", 0o644)


@asynccontextmanager
async def _in_memory(place: Path) -> AsyncIterator[Jail]:
    async with (
        p2k_over(TmpFs(mntfromname=b"none", mode=0o755)) as server,
        guarded(server, POLICY) as guard,
        exported(guard) as export,
    ):
        nodes = export.nodes
        whole = Jail(export, nodes.root, None)
        async with whole.client() as wire:
            await _furnish(wire, b"")
        root = nodes.absorb(await guard.lookup(nodes.root.cookie, lookup_cn(b"jail", SELF)))
        yield Jail(export, root, None)
        nodes.unpin(root)


def _on_the_host(place: Path) -> Path:
    """The same in a directory of this machine; return the root to be."""
    for name in ("outside/inner", "jail/a/b"):
        (place / name).mkdir(parents=True)
    for name in ("outside/secret", "outside/inner/f"):
        (place / name).write_bytes(SECRET.ljust(OUTSIDE))
    (place / "jail/a/f").write_bytes(b"inside")
    return place / "jail"


@asynccontextmanager
async def _local(place: Path) -> AsyncIterator[Jail]:
    with local_tree(bytes(_on_the_host(place))) as server:
        async with guarded(server, POLICY) as guard, exported(guard) as export:
            yield Jail(export, export.nodes.root, place)
        await server.unmount(0)


@asynccontextmanager
async def _psshfs(place: Path) -> AsyncIterator[Jail]:
    root = _on_the_host(place)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = await trio.lowlevel.open_process(
                [find_sftp_server()], stdin=theirs, stdout=theirs
            )
        try:
            async with mount_psshfs(
                ours, bytes(root), PsshfsOptions(symlinks=Symlinks.RAW)
            ) as server:
                async with guarded(server, POLICY) as guard, exported(guard) as export:
                    yield Jail(export, export.nodes.root, place)
                await server.unmount(0)
        finally:
            ours.close()
            with trio.CancelScope(shield=True), trio.fail_after(10):
                await process.wait()


TREES = {"tmpfs": _in_memory, "local": _local, "psshfs": _psshfs}


@pytest.fixture(params=TREES)
async def jail(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Jail]:
    """A root of each kind. What is outside is the same when the test is over."""
    with trio.fail_after(60):
        async with TREES[request.param](tmp_path) as made:
            before = await made.outside()
            yield made
            assert await made.outside() == before


REQUESTS_BY_PATH: tuple[tuple[Callable[..., bytes], tuple[object, ...]], ...] = (
    (sftp.lstat, ()),
    (sftp.stat, ()),
    (sftp.opendir, ()),
    (sftp.readlink, ()),
    (sftp.realpath, ()),
    (sftp.statvfs, ()),
    (sftp.open_, (sftp.FXF_READ, sftp.Attrs())),
    (sftp.open_, (sftp.FXF_READ | sftp.FXF_WRITE, sftp.Attrs())),
    (sftp.setstat, (sftp.Attrs(mode=0o777, atime=1, mtime=1),)),
    (sftp.lsetstat, (sftp.Attrs(atime=1, mtime=1),)),
)


STAND_IN = b"\x1a"
"""What stands for NUL until a packet is made: our own client would not send one."""


def raw(encode: Callable[..., bytes], number: int, *args: object) -> bytes:
    """Return a request whose paths may have NUL in them."""
    safe = [arg.replace(b"\0", STAND_IN) if isinstance(arg, bytes) else arg for arg in args]
    made = encode(number, *safe)
    for arg, sent in zip(args, safe, strict=True):
        if isinstance(arg, bytes) and isinstance(sent, bytes) and arg != sent:
            made = made.replace(sent, arg)
    return made


async def attempt(wire: Wire, encode: Callable[..., bytes], *args: object) -> int:
    """Make a request and return the status code of its answer; a handle is closed again."""
    await wire.send(raw(encode, wire.number(), *args))
    kind, _, body = await wire.reply()
    if kind == sftp.FXP_HANDLE:
        await wire.ask(sftp.close, sftp.decode_handle(body))
    return code_of(kind, body)


def gives_away(body: bytes) -> bool:
    """Whether an answer has something of what is outside in it."""
    return SECRET in body or OUTSIDE.to_bytes(8, "big") in body or b"secret" in body


async def probe(wire: Wire, path: bytes) -> None:
    """Ask everything of a path; nothing of what is outside may come back."""
    for encode, more in REQUESTS_BY_PATH:
        number = wire.number()
        await wire.send(raw(encode, number, path, *more))
        kind, _, body = await wire.reply()
        if encode is not sftp.realpath:
            assert not gives_away(body), (encode, path, body)
        if kind == sftp.FXP_HANDLE:
            handle = sftp.decode_handle(body)
            for ask in (sftp.readdir, sftp.fstat):
                await wire.send(ask(wire.number(), handle))
                assert not gives_away((await wire.reply())[2]), (encode, path)
            await wire.send(sftp.read(wire.number(), handle, 0, 1000))
            assert SECRET not in (await wire.reply())[2], (encode, path)
            await wire.ask(sftp.close, handle)


def hostile_paths(place: Path | None) -> Iterator[bytes]:
    """Paths that lead out if anybody lets them."""
    ups = [b"..", b"../..", b"/..", b"/../..", b"a/../..", b"/a/b/../../..", b"a/f/..", b"x/.."]
    ups += [b"../" * 200, b"/" + b"../" * 1000, b"./../.", b"//..//", b"/./.././..", b"a/./../.."]
    ups += [b".. ", b"..\\", b"...", b"....//", b"%2e%2e", b"%2e%2e%2f", b"..%2f", b"..%c0%af"]
    ups += [b"..\xc0\xaf", b"\xc0\xae\xc0\xae", b"\xe0\x80\xae\xe0\x80\xae", b"\xff\xfe.\0.\0"]
    ups += [
        "\uff0e\uff0e".encode(),
        "\u2024\u2024".encode(),
        b"..\0",
        b"\0/..",
        b"a\0/../..",
        b"~/..",
    ]
    ups += [b"~root", b"~", b"~/../..", b"$HOME/..", b"..;", b"..|", b"`..`", b"-..", b"..:"]
    for up in ups:
        for rest in (b"", b"/outside", b"/outside/secret", b"/outside/inner/../secret", b"\0"):
            yield up + rest
    yield from (b"outside", b"/outside/secret", b"file:///outside/secret", b"C:\\outside\\secret")
    yield from (b"\\..\\outside\\secret", b"..\\..\\outside\\secret", b"/proc/self/root/etc/passwd")
    yield from (b"/dev/fd/0", b"/proc/self/cwd", b"/" * 1000, b"a" * 5000, b"/a" * 3000)
    if place is not None:
        outside = bytes(place / "outside")
        yield from (outside, outside + b"/secret", b"/" + outside, b"..%b/secret" % outside)
        yield from (b"../" * 40 + outside[1:] + b"/secret", b"//" + outside + b"//secret")


async def test_hostile_paths(jail: Jail) -> None:
    async with jail.client() as wire:
        for path in hostile_paths(jail.place):
            await probe(wire, path)


async def test_hostile_paths_that_change_something(jail: Jail) -> None:
    """What they make, if anything, is inside."""
    async with jail.client() as wire:
        for number, path in enumerate(hostile_paths(jail.place)):
            new = path + b"/n%d" % number if number % 2 else path
            await attempt(wire, sftp.mkdir, new)
            await attempt(wire, sftp.open_, new, MAKE, sftp.Attrs())
            await attempt(wire, sftp.symlink, b"x", new)
            await attempt(wire, sftp.setstat, path + b"/secret", sftp.Attrs(size=0))
            await attempt(wire, sftp.remove, path + b"/secret")
            await attempt(wire, sftp.rmdir, path + b"/inner")
            for request in (sftp.rename, sftp.posix_rename, sftp.hardlink):
                await attempt(wire, request, b"/a/f", new)
                await attempt(wire, request, path + b"/secret", b"/a/got")
            await attempt(wire, sftp.remove, b"/a/got")
            await wire.put(b"/a/f", b"inside")


def link_targets(place: Path | None) -> list[bytes]:
    """What a link can say that leads out."""
    found = [b"/", b"..", b"../..", b"../../..", b"/..", b"/outside/secret", b"../outside/secret"]
    found += [b"../../outside/secret", b"a/../../outside/secret", b".//..//outside", b"/proc/self"]
    found += [b"/proc/self/root", b"/proc/self/cwd/../..", b"/dev/fd", b"../" * 60 + b"outside"]
    if place is not None:
        found += [bytes(place), bytes(place / "outside"), bytes(place / "outside/secret")]
        found += [b"../" * 40 + bytes(place / "outside")[1:], bytes(place) + b"/jail/../outside"]
    return found


async def test_links_by_the_client(jail: Jail) -> None:
    async with jail.client() as wire:
        for number, target in enumerate(link_targets(jail.place)):
            link = b"/a/l%d" % number
            await wire.ask(sftp.symlink, target, link)
            for path in (link, link + b"/", link + b"/secret", link + b"/outside/secret"):
                if path != link:
                    await probe(wire, path)
            await wire.code(sftp.open_, link, MAKE, sftp.Attrs())
            await wire.code(sftp.open_, link + b"/new", MAKE, sftp.Attrs())
            await wire.code(sftp.mkdir, link + b"/new")
            await wire.code(sftp.setstat, link, sftp.Attrs(mode=0o777))
            await wire.code(sftp.setstat, link + b"/secret", sftp.Attrs(size=0))
            await wire.code(sftp.rename, b"/a/f", link + b"/f")
            await wire.code(sftp.hardlink, link + b"/secret", b"/a/got")
            assert await wire.code(sftp.stat, b"/a/got") == sftp.FX_NO_SUCH_FILE
            handle = None
            try:
                handle = await wire.open(link)
                assert SECRET not in await wire.read(handle, 0, 1000)
            except StatusReply:
                pass
            if handle is not None:
                await wire.ask(sftp.close, handle)


async def test_chains_of_links_and_links_over_links(jail: Jail) -> None:
    async with jail.client() as wire:
        await wire.ask(sftp.symlink, b"..", b"/a/up")
        await wire.ask(sftp.symlink, b"up/a/up/a/up", b"/a/more")
        await wire.ask(sftp.symlink, b"/a/more/../..", b"/most")
        await wire.ask(sftp.symlink, b"most/most/../a/up/a/up/../../outside", b"/out")
        for path in (b"/a/up/..", b"/a/more/..", b"/most/..", b"/out", b"/most/most/../../outside"):
            await probe(wire, path)
            await probe(wire, path + b"/secret")
        # Where they lead is inside, as in a chroot.
        assert (await wire.ask(sftp.realpath, b"/a/more/a/f"))[0].name == b"/a/f"
        assert await wire.get(b"/most/../most/a/up/../a/f") == b"inside"


async def test_hard_links_to_the_outside_are_not_made(jail: Jail) -> None:
    async with jail.client() as wire:
        await wire.ask(sftp.symlink, b"../outside/secret", b"/s")
        await wire.code(sftp.hardlink, b"/s", b"/h")  # of the link itself, if of anything
        for path in (b"/h", b"/s"):
            try:
                handle = await wire.open(path)
            except StatusReply:
                continue
            assert SECRET not in await wire.read(handle, 0, 1000)
            await wire.ask(sftp.close, handle)


async def test_the_root_cannot_be_moved_or_removed(jail: Jail) -> None:
    async with jail.client() as wire:
        for path in (b"/", b".", b"..", b"/..", b"/a/..", b"", b"/a/../..", b"//"):
            for request in (sftp.rename, sftp.posix_rename):
                assert await wire.code(request, path, b"/a/new") != sftp.FX_OK
                assert await wire.code(request, b"/a", path) != sftp.FX_OK
                assert await wire.code(request, path, path + b"/a/b/c") != sftp.FX_OK
            assert await wire.code(sftp.rmdir, path) != sftp.FX_OK
            assert await wire.code(sftp.remove, path) != sftp.FX_OK
        assert await wire.names(b"/") == [b".", b"..", b"a"]


async def test_a_directory_that_moves_up_while_it_is_open(jail: Jail) -> None:
    """ ".." of what was moved is where it is now, and ends at the root in any case."""
    async with jail.client() as one, jail.client() as two:
        await one.ask(sftp.mkdir, b"/a/b/c")
        handle = await one.ask(sftp.opendir, b"/a/b/c")
        await one.ask(sftp.stat, b"/a/b/c/../../..")
        await two.ask(sftp.posix_rename, b"/a/b/c", b"/c")
        await one.send(sftp.readdir(one.number(), handle))
        assert not gives_away((await one.reply())[2])
        for path in (b"/c/..", b"/c/../..", b"/c/../../outside/secret", b"/a/b/c/../../.."):
            await probe(one, path)
        await one.ask(sftp.close, handle)


async def test_two_sessions_race(jail: Jail) -> None:
    """One swaps a directory and a link that leads out; the others walk through the name."""
    async with jail.client() as setup:
        await setup.ask(sftp.mkdir, b"/a/d")
        await setup.put(b"/a/d/secret", b"decoy")
        target = b"../../outside"
        await setup.ask(sftp.symlink, target, b"/a/l")
    is_over = False
    decoys = 0

    async def swap() -> None:
        nonlocal is_over
        async with jail.client() as wire:
            for _ in range(60):
                # All at once, so that they follow each other as closely as they can.
                moves = [(b"d", b"x"), (b"l", b"d"), (b"d", b"l"), (b"x", b"d")]
                await wire.send(
                    *(sftp.posix_rename(wire.number(), b"/a/" + a, b"/a/" + b) for a, b in moves)
                )
                await wire.replies(4)
        is_over = True

    async def walk(seed: int) -> None:
        nonlocal decoys
        choose = random.Random(seed)
        async with jail.client() as wire:
            while not is_over:
                name = choose.choice((b"/a/d", b"/a/l", b"/a/x"))
                path = name + b"/secret"
                kinds = choose.choices(range(5), k=4)
                for kind in kinds:
                    number = wire.number()
                    asked = (
                        sftp.stat(number, path),
                        sftp.open_(number, path, sftp.FXF_READ, sftp.Attrs()),
                        sftp.opendir(number, name),
                        sftp.setstat(number, path, sftp.Attrs(mode=0o644)),
                        sftp.open_(number, name + b"/new", sftp.FXF_WRITE, sftp.Attrs()),
                    )
                    await wire.send(asked[kind])
                for reply, body in (await wire.replies(len(kinds))).values():
                    assert OUTSIDE.to_bytes(8, "big") not in body
                    if reply != sftp.FXP_HANDLE:
                        continue
                    handle = sftp.decode_handle(body)
                    await wire.send(sftp.read(wire.number(), handle, 0, 100))
                    data = (await wire.reply())[2]
                    assert SECRET not in data
                    decoys += b"decoy" in data
                    await wire.send(sftp.readdir(wire.number(), handle))
                    assert b"inner" not in (await wire.reply())[2]
                    await wire.ask(sftp.close, handle)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(swap)
        for seed in range(3):
            nursery.start_soon(walk, seed)
    assert decoys  # what was swapped was met


@contextmanager
def swapping(directory: Path, one: str, other: str) -> Iterator[None]:
    """Exchange two names of the host again and again, as fast as a thread can."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            for a, b in ((one, "aside"), (other, one), ("aside", other)):
                os.rename(directory / a, directory / b)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


async def test_others_race_on_the_host(tmp_path: Path) -> None:
    """The same by another program, which asks nobody: over local alone, see above."""
    async with _local(tmp_path) as jail, jail.client() as wire:
        before = await jail.outside()
        inside = tmp_path / "jail" / "a"
        (inside / "d").mkdir()
        (inside / "d" / "secret").write_bytes(b"decoy")
        (inside / "l").symlink_to(tmp_path / "outside")
        seen: set[bytes] = set()
        missed = rounds = 0
        with swapping(inside, "d", "l"), trio.fail_after(30):
            while rounds < 400 or not (seen and missed):
                rounds += 1
                await wire.code(sftp.setstat, b"/a/d/secret", sftp.Attrs(mtime=1, atime=1))
                await wire.code(sftp.remove, b"/a/d/inner")
                await wire.code(sftp.open_, b"/a/d/new", sftp.FXF_WRITE, sftp.Attrs())
                try:
                    handle = await wire.open(b"/a/d/secret")
                    data = await wire.read(handle, 0, 100)
                    await wire.ask(sftp.close, handle)
                except StatusReply:
                    missed += 1
                    continue
                seen.add(data)
                assert SECRET not in data
        assert await jail.outside() == before
        assert seen == {b"decoy"}


async def test_links_and_special_files_that_others_have_put_there(tmp_path: Path) -> None:
    async with _local(tmp_path) as jail, jail.client() as wire:
        before = await jail.outside()
        inside = tmp_path / "jail"
        for number, target in enumerate(link_targets(tmp_path)):
            (inside / f"l{number}").symlink_to(os.fsdecode(target))
        os.mkfifo(inside / "fifo")
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(os.path.relpath(inside / "socket"))
            for name in await wire.names(b"/"):
                if name not in (b".", b"..", b"a"):
                    for rest in (b"/", b"/secret", b"/outside/secret", b"/etc/passwd"):
                        await probe(wire, b"/" + name + rest)
            for special in (b"/fifo", b"/socket"):
                handle = await wire.open(special, sftp.FXF_READ | sftp.FXF_WRITE)
                assert await wire.code(sftp.read, handle, 0, 1) not in (sftp.FX_OK, sftp.FX_EOF)
                assert await wire.code(sftp.write, handle, 0, 1, payload=b"x") != sftp.FX_OK
                await wire.ask(sftp.close, handle)
                assert not stat.S_ISREG((await wire.ask(sftp.stat, special)).mode)
        assert await jail.outside() == before


async def test_a_directory_that_others_move_out(tmp_path: Path) -> None:
    """Who stands in a directory that is moved out of the root does not come along."""
    async with _local(tmp_path) as jail, jail.client() as wire:
        handle = await wire.ask(sftp.opendir, b"/a/b")
        file = await wire.open(b"/a/f")
        await wire.ask(sftp.stat, b"/a/b")
        (tmp_path / "jail" / "a").rename(tmp_path / "outside" / "a")
        (tmp_path / "outside" / "a" / "b" / "secret").write_bytes(SECRET.ljust(OUTSIDE))
        for path in (b"/a", b"/a/b", b"/a/b/secret", b"/a/b/..", b"/a/../outside"):
            await probe(wire, path)
        await wire.code(sftp.open_, b"/a/b/new", MAKE, sftp.Attrs())
        await wire.code(sftp.mkdir, b"/a/b/new")
        assert sorted(os.listdir(tmp_path / "outside" / "a" / "b")) == ["secret"]
        for opened in (handle, file):
            await wire.ask(sftp.close, opened)


async def test_at_random_from_a_seed(jail: Jail) -> None:
    """Random requests on few names, links that lead out among them."""
    choose = random.Random(int.from_bytes(b"escape"))
    names = (b"a", b"b", b"l", b"..", b".", b"outside", b"secret", b"inner", b"f", b"")
    targets = link_targets(jail.place)

    def path() -> bytes:
        return choose.choice((b"", b"/")) + b"/".join(choose.choices(names, k=choose.randrange(6)))

    some = sftp.Attrs(mode=0o755)
    packets: tuple[Callable[[int], bytes], ...] = (
        lambda n: sftp.stat(n, path()),
        lambda n: sftp.open_(n, path(), sftp.FXF_READ, sftp.Attrs()),
        lambda n: sftp.open_(n, path(), MAKE, some),
        lambda n: sftp.opendir(n, path()),
        lambda n: sftp.mkdir(n, path()),
        lambda n: sftp.symlink(n, choose.choice(targets), path()),
        lambda n: sftp.posix_rename(n, path(), path()),
        lambda n: sftp.rename(n, path(), path()),
        lambda n: sftp.hardlink(n, path(), path()),
        lambda n: sftp.remove(n, path()),
        lambda n: sftp.rmdir(n, path()),
        lambda n: sftp.setstat(n, path(), some),
    )
    async with jail.client() as one, jail.client() as two:
        for wire in itertools.islice(itertools.cycle((one, two)), 1500):
            await wire.send(choose.choice(packets)(wire.number()))
            kind, _, body = await wire.reply()
            assert OUTSIDE.to_bytes(8, "big") not in body
            if kind == sftp.FXP_HANDLE:
                handle = sftp.decode_handle(body)
                await wire.send(sftp.read(wire.number(), handle, 0, 100))
                assert SECRET not in (await wire.reply())[2]
                await wire.ask(sftp.close, handle)
            else:
                assert code_of(kind, body) is not None
