"""Compile and run the fuzzers of the C codecs under the address and undefined-behaviour sanitizers.

    python tests/native/fuzz/run.py --seconds 300 [--seed 1] [FAMILY]...

Exit status 0 when nothing was found, 1 when something was (the input is kept, its path printed).
"""

from __future__ import annotations

import argparse
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from tests.native import samples, samples_device, samples_fuse  # noqa: E402

HERE = ROOT / "tests" / "native" / "fuzz"
NATIVE = ROOT / "native"
C_FILES = (
    "frame_ops.c",
    "frame_decode.c",
    "frame_encode.c",
    "sftp.c",
    "sftp_listing.c",
    "sftp_server.c",
    "fuse.c",
    "fuse_device.c",
)
SOURCES = [NATIVE / name for name in C_FILES]
FAMILIES = ("frames", "sftp", "served", "encode", "fuse", "device")
FLAGS = [
    "-g",
    "-O1",
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fno-omit-frame-pointer",
    "-fsanitize=fuzzer,address,undefined,implicit-conversion",
    "-fno-sanitize-recover=all",
]


def encoder_inputs() -> Iterator[bytes]:
    """Slots of the sample frames, as the family `encode` wants them."""
    from syspuffs.native import frame_replies, frame_requests
    from syspuffs.native.table import CELLS

    for direction, samples_, pack in (
        (0, samples.REQUESTS, frame_requests.PACK),
        (1, samples.REPLIES, frame_replies.PACK),
    ):
        for (opclass, optype), value in samples_.items():
            n, base, _ = pack[opclass << 6 | optype](value)
            head = bytes([direction, opclass, optype, 255, n, 0, 0, 0, 7, 11, 2, 0])
            yield head + CELLS[: n * 8] + base
    attrs = struct.pack("=7q", 1, 2, 3, 4, 5, 6, 15)
    for kind in range(12):
        yield bytes([3, kind, 0, 255, 9, *bytes(7)]) + struct.pack("=2q", 0, 4) + attrs + b"path"
        numbers = struct.pack("=7q", 0, 4, 4096, 65536, 0, 4, 0)
        yield bytes([3, kind, 0, 255, 4, *bytes(7)]) + numbers + b"path"
    for count in range(4):
        columns = [1] * count + [2] * count + [15, 4, 0][:count]
        rows = struct.pack(f"={9 * count}q", *columns, *range(6 * count))
        yield bytes([2, 0, 0, 255, 9 * count, *bytes(7)]) + rows + b"n" * count + b"l" * 2 * count


def corpus(family: str) -> list[bytes]:
    """What the fuzzer starts from."""
    if family == "frames":
        return [*samples.request_frames(), *samples.reply_frames()]
    if family == "sftp":
        packets = list(samples.packets())
        return [*packets, b"".join(packets), *(body for _, body in samples.BODIES)]
    if family == "served":
        requests = [packet for packet, _ in samples.SERVED]
        many = [b"\1\0\0\0\3" + bytes(8 * count) for count in (256, 257)]
        odd = b"\xc8\0\0\0\x1eusers-groups-by-id@openssh.com" + b"\0\0\0\1u" * 2
        bodies = [packet[4:5] + packet[9:] for packet in requests]
        return [*requests, b"".join(requests), *bodies, *many, odd]
    if family == "fuse":
        told = [body for bodies in samples_fuse.NOTIFICATIONS.values() for body in bodies]
        return [*told, *(body for bodies in samples_fuse.BODIES.values() for body in bodies)]
    if family == "device":
        slots = [
            bytes([kind, n, 255, 9]) + struct.pack(f"={n}q", *range(n))
            for kind, n in ((1, 15), (2, 13), (4, 17))
        ]
        row = struct.pack("=18q", 4, 8, 1, 7, 0, 0, *range(12))
        listing = [bytes([0, 18 * n, 255, 9]) + row * n + b"name" * n for n in range(3)]
        return [*slots, *listing, *(message for _, message, _ in samples_device.REQUESTS)]
    return list(encoder_inputs())


def compile_codec(folder: Path) -> None:
    """Compile the codec; raises when there is no clang or the code does not compile."""
    command = ["clang", *FLAGS, "-I", str(NATIVE), "-c", *map(str, SOURCES)]
    subprocess.run(command, check=True, cwd=folder)


def run(family: str, limit: str, seed: int, folder: Path, keep: Path) -> tuple[bool, str]:
    """Run one fuzzer over the compiled codec; return whether it found nothing, and its words."""
    program, inputs = folder / f"fuzz_{family}", folder / f"corpus_{family}"
    objects = [str(folder / source.with_suffix(".o").name) for source in SOURCES]
    harness = HERE / f"{family}.c"
    command = ["clang", *FLAGS, "-I", str(NATIVE), "-o", str(program), str(harness), *objects]
    subprocess.run(command, check=True)
    inputs.mkdir()
    for i, octets in enumerate(corpus(family)):
        (inputs / f"sample-{i}").write_bytes(octets)
    command = [str(program), limit, f"-seed={seed}", "-max_len=8192", "-print_final_stats=1"]
    command += ["-rss_limit_mb=2048", "-timeout=10", f"-artifact_prefix={keep}/{family}-"]
    command.append(str(inputs))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode == 0, done.stdout


def main(argv: list[str]) -> int:
    """Run the families that were asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each family")
    parser.add_argument("--runs", type=int, help="number of inputs, in place of a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path.cwd(), help="folder for findings")
    parser.add_argument("family", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    options = parser.parse_args(argv)
    unknown = [family for family in options.family if family not in FAMILIES]
    if unknown:
        parser.error(f"no such family: {unknown[0]} (there are {', '.join(FAMILIES)})")
    limit = (
        f"-max_total_time={options.seconds}" if options.runs is None else f"-runs={options.runs}"
    )
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compile_codec(folder)
        for family in options.family or FAMILIES:
            clean, words = run(family, limit, options.seed, folder, options.keep)
            executed = re.search(r"number_of_executed_units:\s*(\d+)", words)
            coverage = re.findall(r"cov: (\d+) ft: (\d+)", words)
            edges = f", {coverage[-1][0]} edges" if coverage else ""
            count = executed[1] if executed else "?"
            state = "clean" if clean else "FAILED"
            print(f"{family}: {state} after {count} inputs{edges}", flush=True)
            if not clean:
                print(words)
                failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
