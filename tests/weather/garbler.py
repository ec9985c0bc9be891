"""An SFTP server that goes wrong: the real one with a damaged answer.

    garbler.py MODE FILE SFTP-SERVER

Passes packets both ways until FILE exists; the answers from then on are damaged as MODE says.
Run as a program by the tests, as `sftp_server` of a mount.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from typing import IO


def damaged(mode: str, packet: bytes) -> bytes:
    """Return the octets to send in place of `packet`, which is without its length."""
    length = struct.pack(">I", len(packet))
    if mode == "length-huge":
        return struct.pack(">I", 0x7FFFFFFF) + packet
    if mode == "length-zero":
        return struct.pack(">I", 0)
    if mode == "length-short":
        return struct.pack(">I", 4) + packet[:4]
    if mode == "unknown-id":
        return length + packet[:1] + struct.pack(">I", 0x7EADBEEF) + packet[5:]
    if mode == "unknown-type":
        return length + b"\xc8" + packet[1:]
    if mode == "cut":  # a whole packet by its length, with fields that reach beyond its end
        return struct.pack(">I", 9) + packet[:5] + b"\xff\xff\xff\xff"
    if mode == "noise":
        return os.urandom(200)
    raise ValueError(mode)


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    """Return `count` octets, or end the program with the stream."""
    data = stream.read(count)
    if len(data) < count:
        os._exit(0)
    return data


def forward(source: IO[bytes], sink: IO[bytes]) -> None:
    """Pass on what the client says."""
    while chunk := os.read(source.fileno(), 65536):
        sink.write(chunk)
        sink.flush()
    sink.close()


def main(mode: str, trigger: str, server: str) -> None:
    """Pass packets on, damaged when it is time."""
    process = subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    threading.Thread(target=forward, args=(sys.stdin.buffer, process.stdin), daemon=True).start()
    while True:
        (length,) = struct.unpack(">I", read_exactly(process.stdout, 4))
        packet = read_exactly(process.stdout, length)
        if not os.path.exists(trigger):
            out = struct.pack(">I", length) + packet
        elif mode == "close":
            process.kill()
            os._exit(0)
        elif mode == "silence":
            continue
        else:
            out = damaged(mode, packet)
        sys.stdout.buffer.write(out)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
