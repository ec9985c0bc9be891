"""Fuzz whole sessions of the SFTP end, with the C codec under address and undefined sanitizers.

    python tests/gateway/sftp/fuzz.py --seconds 300 [--seed 1] [--sessions N]

Each seed is one session, or several at once, over files in memory: right requests, damaged ones,
streams of octets without sense; over a file server that answers at once and over one that takes
its time. What counts as a finding: a report of a sanitizer, a request that failed in a way nobody
foresaw, an answer too few or too many, anything that was not given back, a session that hangs.
Exit status 0 when nothing was found; 1 when something was, with the seed that finds it again.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import trio

HERE: Final = Path(__file__).resolve()
ROOT: Final = HERE.parents[3]
NATIVE: Final = ROOT / "native"
CODEC: Final = "syspuffs.native._codec"
SOURCES: Final = (
    *("frame_ops.c", "frame_decode.c", "frame_encode.c", "sftp.c", "sftp_listing.c"),
    *("sftp_server.c", "fuse.c", "fuse_device.c"),
)
FLAGS: Final = (
    *("-g", "-O1", "-std=c11", "-shared", "-fPIC", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
_SANITIZED: Final = "SYSPUFFS_SANITIZED_CODEC"
"""Names the compiled codec to the process that fuzzes."""

if __package__ in (None, ""):  # run as a script: find the package that it belongs to
    sys.path[0] = str(ROOT)
    __package__ = "tests.gateway.sftp"


def load_codec(path: str) -> None:
    """Put the codec at `path` in the place of the installed one; nothing may have used that yet."""
    import syspuffs

    assert CODEC not in sys.modules, syspuffs
    loader = importlib.machinery.ExtensionFileLoader(CODEC, path)
    spec = importlib.util.spec_from_loader(CODEC, loader)
    assert spec is not None
    sys.modules[CODEC] = module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)


if _SANITIZED in os.environ:
    load_codec(os.environ[_SANITIZED])

from syspuffs.native import sftp  # noqa: E402
from syspuffs.native.errors import RemoteProtocolError  # noqa: E402

from .harness import Served, Wire, served  # noqa: E402


class Fuzzer:
    """A client at random, from a seed: right requests and damaged ones."""

    def __init__(self, seed: int, wire: Wire) -> None:
        self.random = random.Random(seed)
        self.wire = wire
        self.handles = [b"", b"nothing"]

    def request(self) -> bytes:
        rng = self.random
        id = rng.randrange(2**32)
        path = rng.choice((b"/", b"/a", b"/a/b", b"a", b"/l", b"..", b"/\xff", b"/a/" + b"n" * 255))
        handle = rng.choice(self.handles)
        number = rng.choice((0, 1, 100, 2**31, 2**32 - 1, 2**62, 2**63 - 1))
        attrs = sftp.Attrs(
            size=rng.choice((None, 0, 10, 2**40)), mode=rng.choice((None, 0o777, 2**32 - 1))
        )
        encode: Callable[[], bytes] = rng.choice(
            (
                lambda: sftp.open_(id, path, rng.randrange(64), attrs),
                lambda: sftp.opendir(id, path),
                lambda: sftp.close(id, handle),
                lambda: sftp.read(id, handle, number, number % 2**32),
                lambda: sftp.write(id, handle, number, 5) + b"hello",
                lambda: sftp.readdir(id, handle),
                lambda: sftp.fstat(id, handle),
                lambda: sftp.fsetstat(id, handle, attrs),
                lambda: sftp.setstat(id, path, attrs),
                lambda: sftp.lsetstat(id, path, attrs),
                lambda: sftp.mkdir(id, path, attrs),
                lambda: sftp.rmdir(id, path),
                lambda: sftp.remove(id, path),
                lambda: sftp.symlink(id, path, b"/l"),
                lambda: sftp.hardlink(id, path, b"/a/b"),
                lambda: sftp.rename(id, path, b"/c"),
                lambda: sftp.posix_rename(id, path, b"/a"),
                lambda: sftp.realpath(id, path),
                lambda: sftp.expand_path(id, b"~" + path),
                lambda: sftp.copy_data(id, handle, number, 10, rng.choice(self.handles), 0),
                lambda: sftp.statvfs(id, path),
                lambda: sftp.users_groups_by_id(id, range(rng.randrange(9)), [number % 2**32]),
            )
        )
        octets = bytearray(encode())
        if rng.random() < 0.2:  # damage, but leave the length alone
            for _ in range(rng.randrange(1, 4)):
                octets[rng.randrange(4, len(octets))] = rng.randrange(256)
        return bytes(octets)

    async def run(self, count: int) -> None:
        for _ in range(count):
            batch = [self.request() for _ in range(self.random.randrange(1, 9))]
            # A packet of type INIT that is no INIT breaks the protocol: leave it out.
            batch = [octets for octets in batch if octets[4] != 1]
            await self.wire.send(*batch)
            for _ in batch:
                kind, _, body = await self.wire.reply()
                if kind == sftp.FXP_HANDLE:
                    self.handles.append(sftp.decode_handle(body))


class Slow:
    """Makes each operation of the file server take some turns of the scheduler."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng

    async def __call__(self, op: str, args: tuple[Any, ...]) -> None:
        for _ in range(self._random.randrange(6)):
            await trio.lowlevel.checkpoint()


async def senseless(rng: random.Random, tree: Served) -> None:
    """A session whose client loses its senses after a beginning that has some."""
    async with tree.raw() as (wire, session):
        await wire.greet()
        octets = bytearray(b"".join(sftp.lstat(n, b"/" * n) for n in range(1, 9)))
        for _ in range(rng.randrange(1, 5)):
            octets[rng.randrange(len(octets))] = rng.randrange(256)
        try:
            await wire.send(octets)
            await wire.stream.send_eof()
            while True:
                await wire.reply()
        except (EOFError, trio.BrokenResourceError, RemoteProtocolError):
            pass
    assert session.failures == 0


async def client(rng: random.Random, tree: Served) -> None:
    """A session of one client at random."""
    async with tree.client() as wire:
        await Fuzzer(rng.randrange(2**32), wire).run(rng.randrange(1, 60))


async def play(seed: int) -> None:
    """Do what `seed` means. Errors: whatever is a finding."""
    rng = random.Random(seed)
    async with served() as tree:
        if seed % 2:
            tree.counting.before = Slow(random.Random(seed))
        async with trio.open_nursery() as nursery:
            for _ in range(rng.randrange(1, 4)):
                nursery.start_soon(client, rng, tree)
            if seed % 3 == 0:
                nursery.start_soon(senseless, rng, tree)


def fuzz(first: int, seconds: float, sessions: int | None) -> int:
    """Play one seed after the other; return the exit status."""
    end = time.monotonic() + seconds
    seed = first
    while time.monotonic() < end if sessions is None else seed < first + sessions:
        try:
            trio.run(play, seed)
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt):
                raise
            print(f"FAILED: --seed {seed} --sessions 1", flush=True)
            sys.excepthook(type(exc), exc, exc.__traceback__)
            return 1
        seed += 1
    print(f"clean after {seed - first} seeds from {first} on", flush=True)
    return 0


def compile_codec(folder: Path) -> Path:
    """Compile the codec with sanitizers; raises where gcc or the sanitizers are missing."""
    glue, codec = folder / "_codec.c", folder / "_codec.abi3.so"
    cffi = [sys.executable, "-m", "cffi.gen_src", "read-sources", CODEC]
    subprocess.run(
        [*cffi, NATIVE / "_codec.cdef.txt", NATIVE / "_codec.csrc.c", glue],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    include = subprocess.run(
        [sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('include'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    sources = [str(NATIVE / name) for name in SOURCES]
    command = ["gcc", *FLAGS, "-I", str(NATIVE), "-I", include, "-o", str(codec), str(glue)]
    subprocess.run([*command, *sources], check=True)
    return codec


def sanitized(codec: Path) -> dict[str, str]:
    """Return the environment in which a Python process can load the codec."""
    name = ["gcc", "-print-file-name=libasan.so"]
    asan = subprocess.run(name, check=True, capture_output=True, text=True).stdout.strip()
    return {
        **os.environ,
        _SANITIZED: str(codec),
        "LD_PRELOAD": asan,
        # Python keeps much until its end, which is no leak; its own allocator would hide overruns.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }


def main(argv: Sequence[str]) -> int:
    """Run as a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="fuzz.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long (60)")
    parser.add_argument("--sessions", type=int, help="how many seeds, in place of a time")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (1)")
    options = parser.parse_args(argv)
    if _SANITIZED in os.environ:
        logging.disable(logging.ERROR)
        return fuzz(options.seed, options.seconds, options.sessions)
    with tempfile.TemporaryDirectory() as folder:
        environment = sanitized(compile_codec(Path(folder)))
        command = [sys.executable, str(HERE), *argv]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
