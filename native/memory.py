"""Memory to receive into."""

from __future__ import annotations

from ._codec import ffi

_allocate = ffi.new_allocator(should_clear_after_alloc=False)


def unset_memory(length: int) -> memoryview:
    """Return `length` writable octets with arbitrary contents, for somebody who sets them all.

    A `bytearray` would be cleared first: at 1 MiB a frame that is some 5 % of all the time that
    a process spends which carries a sequential read.
    """
    return memoryview(ffi.buffer(_allocate("uint8_t[]", length)))
