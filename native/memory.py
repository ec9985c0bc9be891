"""Memory to receive into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._codec import ffi

if TYPE_CHECKING:
    from ._codec import _CData

_allocate = ffi.new_allocator(should_clear_after_alloc=False)


def allocate(length: int) -> _CData:
    """Return an array of `length` octets with arbitrary contents, which goes to C as it is."""
    return _allocate("uint8_t[]", length)


def unset_memory(length: int) -> memoryview:
    """Return `length` writable octets with arbitrary contents, for somebody who sets them all.

    A `bytearray` would be cleared first: at 1 MiB a frame that is some 5 % of all the time that
    a process spends which carries a sequential read.
    """
    return memoryview(ffi.buffer(allocate(length)))
