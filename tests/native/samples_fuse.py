"""Bodies of FUSE replies and notifications that are as they should be, by who takes them apart."""

from __future__ import annotations

import struct
from typing import Final

ATTR: Final = struct.pack("=6Q10I", 7, 5000, 16, 10**9, 2, 3, 1, 2, 3, 0o100644, 1, 0, 4, 9, 512, 0)
OLD_ATTR: Final = struct.pack(
    *("=3Q3q10I", 2**64 - 1, 0, 2**60, -5, -6, -7),
    *(999999999, 0, 0, 0o041777, 2, 1, 1, 0, 4096, 0),
)
ENTRY: Final = struct.pack("=4Q2I", 2**64 - 1, 3, 1, 2**40, 5, 6) + ATTR
MISSING: Final = struct.pack("=4Q2I", 0, 0, 1, 0, 0, 0) + bytes(88)
OPENED: Final = struct.pack("=QI4x", 2**63 + 1, 3)


def _dirent(name: bytes, offset: int, kind: int) -> bytes:
    size = (24 + len(name) + 7) // 8 * 8
    return (struct.pack("=QQII", 9, offset, len(name), kind) + name).ljust(size, b"\0")


DIRENTS: Final = _dirent(b".", 1, 4) + _dirent(b"..", 2, 4) + _dirent(b"n" * 255, 2**63 - 1, 0)
PLUS: Final = MISSING + _dirent(b".", 1, 4) + ENTRY + _dirent(b"file", 7, 8)

BODIES: Final[dict[str, list[bytes]]] = {
    "entry": [ENTRY, MISSING],
    "attr": [struct.pack("=QI4x", 1, 5) + ATTR, struct.pack("=QI4x", 2**63, 0) + OLD_ATTR],
    "opened": [OPENED],
    "created": [ENTRY + OPENED],
    "count": [struct.pack("=I4x", 4096)],
    "offset": [struct.pack("=Q", 2**62)],
    "statfs": [struct.pack("=5Q3I28x", 2**64 - 1, 2, 3, 4, 5, 4096, 255, 0)],
    "lock": [struct.pack("=QQII", 0, 2**63 - 1, 1, 77), struct.pack("=QQII", 5, 0, 2, 0)],
    "init": [
        struct.pack("=II", 8, 0),
        struct.pack("=4IHHI", 7, 12, 65536, 3, 12, 9, 131072),
        struct.pack("=4IHHIIHHIIH22x", 7, 38, 65536, 3, 12, 9, 131072, 1, 32, 0, 0, 0, 0),
    ],
    "dirents": [DIRENTS, DIRENTS[:-8], b""],
    "dirents_plus": [PLUS, b""],
}

NOTIFICATIONS: Final[dict[int, list[bytes]]] = {
    1: [struct.pack("=Q", 5)],
    2: [struct.pack("=Qqq", 2**63, -1, 0), struct.pack("=Qqq", 2, 0, 0)],
    3: [struct.pack("=QII", 1, 4, 0) + b"name\0"],
    4: [struct.pack("=QQI4x", 2, 4096, 4) + b"data"],
    5: [struct.pack("=QQQI4x", 3, 2, 0, 4096)],
    6: [struct.pack("=QQII", 1, 2, 4, 0) + b"name\0"],
    7: [b""],
    8: [b""],
}
