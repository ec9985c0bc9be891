"""Anonymous objects, the pages of tmpfs, against a plain bytearray."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from syspuffs.emul.uvm import FOLIO, UvmAobj
from syspuffs.native.constants import PAGE_SIZE

# Around the edges of pages and folios is where it goes wrong, if anywhere.
_EDGES = st.sampled_from([0, PAGE_SIZE, FOLIO, 2 * FOLIO, 3 * FOLIO + PAGE_SIZE])
offsets = st.builds(lambda edge, near: max(0, edge + near), _EDGES, st.integers(-3, 3000))
lengths = st.one_of(
    st.integers(1, 10),
    st.builds(lambda edge, near: max(1, edge + near), _EDGES, st.integers(-2, 2)),
)


class SparseFile(RuleBasedStateMachine):
    """A file that is kept in an object, as tmpfs does it, and in a bytearray."""

    def __init__(self) -> None:
        super().__init__()
        self.aobj = UvmAobj()
        self.model = bytearray()
        self.stamp = 0

    @rule(offset=offsets, length=lengths)
    def write(self, offset: int, length: int) -> None:
        self.stamp += 1
        data = bytes((self.stamp + i) % 251 + 1 for i in range(7)) * (length // 7 + 1)
        view = memoryview(data)[:length]
        before = self.aobj.allocated
        growth = self.aobj.growth(offset, length)
        self.aobj.copyin(offset, view)
        assert self.aobj.allocated == before + growth
        self._extend(offset + length)
        self.model[offset : offset + length] = view

    @rule(offset=offsets, length=lengths)
    def read(self, offset: int, length: int) -> None:
        expected = bytes(self.model[offset : offset + length])
        assert self.aobj.copyout(offset, length) == expected.ljust(length, b"\0")

    @rule(size=offsets)
    def truncate(self, size: int) -> None:
        if size < len(self.model):
            self.aobj.truncate(size)
            del self.model[size:]
        else:
            self._extend(size)

    @rule(offset=offsets, length=lengths)
    def discard(self, offset: int, length: int) -> None:
        self.aobj.discard(offset, length)
        end = min(offset + length, len(self.model))
        if offset < end:
            self.model[offset:end] = bytes(end - offset)

    @rule(offset=offsets, length=lengths)
    def reserve(self, offset: int, length: int) -> None:
        before = self.aobj.allocated
        growth = self.aobj.growth(offset, length)
        self.aobj.reserve(offset, length)
        assert self.aobj.allocated == before + growth
        self._extend(offset + length)

    @rule()
    def compare(self) -> None:
        assert bytearray(self.aobj.copyout(0, len(self.model)) or b"") == self.model

    @invariant()
    def allocates_what_it_should(self) -> None:
        assert self.aobj.allocated % PAGE_SIZE == 0
        assert self.aobj.allocated <= (len(self.model) + FOLIO) * 2
        if not self.model:
            assert self.aobj.allocated == 0

    def _extend(self, size: int) -> None:
        self.model += bytes(max(0, size - len(self.model)))


TestSparseFile = SparseFile.TestCase
TestSparseFile.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_holes_take_no_space() -> None:
    aobj = UvmAobj()
    aobj.copyin(1 << 40, b"x")
    assert aobj.allocated == PAGE_SIZE
    assert aobj.copyout((1 << 40) - 5, 6) == b"\0\0\0\0\0x"
    assert aobj.copyout(0, 3 * FOLIO) == bytes(3 * FOLIO)
    aobj.truncate(1 << 40)
    assert aobj.allocated == 0


def test_what_is_read_is_not_what_is_kept() -> None:
    aobj = UvmAobj()
    data = bytearray(b"abc" * FOLIO)
    aobj.copyin(0, data)
    before = aobj.copyout(0, FOLIO)
    across = aobj.copyout(5, 2 * FOLIO)
    data[:] = bytes(len(data))
    aobj.copyin(0, bytes(3 * FOLIO))
    assert before == (b"abc" * FOLIO)[:FOLIO]
    assert across == (b"abc" * FOLIO)[5 : 5 + 2 * FOLIO]


def test_tail_of_a_truncated_folio_reads_as_zeros() -> None:
    aobj = UvmAobj()
    aobj.copyin(0, b"x" * 100)
    aobj.truncate(10)
    aobj.copyin(50, b"y")
    assert aobj.copyout(0, 51) == b"x" * 10 + bytes(40) + b"y"
