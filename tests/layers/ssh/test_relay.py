"""Octets come through whole: with readers that lag, with every kind of cipher, over new keys."""

from __future__ import annotations

import hashlib
import random
import struct
from pathlib import Path

import pytest
import trio

from syspuffs.layers.psshfs.ssh.stream import SshOptions, open_stream
from syspuffs.layers.psshfs.ssh.target import parse_target

from ...support.sshd import Sshd
from .harness import LIMIT, talk

pytestmark = pytest.mark.sshd

PIECE = 261120
COUNT = 48
"""Pieces that are asked for or sent without looking at an answer: more than all buffers hold."""


class Client:
    """Just enough of SFTP to move octets."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.stream = trio.SocketStream(sock)
        self._buffer = bytearray()

    async def send(self, kind: int, *parts: bytes | int) -> None:
        """Send a packet: octets go with their length, numbers as 32 bits."""
        body = b"".join(
            struct.pack(">I", part) if isinstance(part, int) else part for part in parts
        )
        await self.stream.send_all(struct.pack(">IBI", len(body) + 5, kind, 7) + body)

    async def receive(self) -> tuple[int, bytes]:
        """Give type and body (after the id) of the next packet."""
        while len(self._buffer) < 4 or len(self._buffer) < self._length():
            self._buffer += await self.stream.receive_some(1 << 20)
        packet = bytes(self._buffer[4 : self._length()])
        del self._buffer[: self._length()]
        return packet[0], packet[5:]

    def _length(self) -> int:
        return 4 + int.from_bytes(self._buffer[:4], "big")

    async def open(self, path: Path, flags: int) -> bytes:
        """Open a file and give the handle as it goes into requests."""
        await self.send(3, string(bytes(path)), flags, 0)
        kind, body = await self.receive()
        assert kind == 102, body
        return body


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


async def check_transfer(options: SshOptions, host: str, directory: Path, count: int) -> None:
    """Send `count` pieces, then fetch them, both without looking at answers for a while."""
    data = random.Random(1).randbytes(PIECE * count)
    path = directory / "file"
    with trio.fail_after(LIMIT):
        async with open_stream(parse_target(f"{host}:"), options) as stream:
            await talk(stream)
            client = Client(trio.socket.from_stdlib_socket(stream.socket))
            handle = await client.open(path, 0x1A)
            for start in range(0, len(data), PIECE):
                piece = data[start : start + PIECE]
                await client.send(6, handle, struct.pack(">Q", start), string(piece))
            for _ in range(count):
                assert await client.receive() == (101, bytes(4) + string(b"Success") + bytes(4))
            assert path.read_bytes() == data
            handle = await client.open(path, 1)
            for start in range(0, len(data), PIECE):
                await client.send(5, handle, struct.pack(">QI", start, PIECE))
            digest = hashlib.sha256()
            for _ in range(count):
                kind, body = await client.receive()
                assert kind == 103
                digest.update(body[4:])
            assert digest.digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    "cipher", ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"]
)
async def test_transfer(cipher: str, sshd: Sshd, tmp_path: Path) -> None:
    options = SshOptions(config_file="none", options=(f"Ciphers={cipher}", *sshd.options))
    await check_transfer(options, sshd.host, tmp_path, COUNT)


async def test_compressed_transfer(sshd: Sshd, tmp_path: Path) -> None:
    options = SshOptions(config_file="none", options=sshd.options, compression=True)
    await check_transfer(options, sshd.host, tmp_path, 4)


async def test_transfer_over_new_keys(tmp_path: Path) -> None:
    """Both sides change keys again and again in the midst of the data."""
    with Sshd(tmp_path / "sshd", lines=("RekeyLimit 1M",)) as sshd:
        options = SshOptions(config_file="none", options=("RekeyLimit=1M", *sshd.options))
        await check_transfer(options, sshd.host, tmp_path, 24)


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"])
async def test_transfer_through_a_jump_host(cipher: str, sshd: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "config"
    lines = "".join(f"  {option.replace('=', ' ', 1)}\n" for option in sshd.options)
    file.write_text(
        f"Host hop\n  Ciphers {cipher}\nHost target\n  ProxyJump hop\n"
        f"Host *\n  HostName {sshd.host}\n{lines}"
    )
    await check_transfer(SshOptions(config_file=str(file)), "target", tmp_path, COUNT)
