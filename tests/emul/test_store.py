"""The sparse store of tmpfs against a plain bytearray."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from syspuffs.emul.tmpfs.store import BLOCK, PAGE, Store

# Around the edges of blocks and pages is where it goes wrong, if anywhere.
_EDGES = st.sampled_from([0, BLOCK, PAGE, 2 * PAGE, 3 * PAGE + BLOCK])
offsets = st.builds(lambda edge, near: max(0, edge + near), _EDGES, st.integers(-3, 3000))
lengths = st.one_of(
    st.integers(1, 10),
    st.builds(lambda edge, near: max(1, edge + near), _EDGES, st.integers(-2, 2)),
)


class SparseFile(RuleBasedStateMachine):
    """A file that is kept in a store, as tmpfs does it, and in a bytearray."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.model = bytearray()
        self.stamp = 0

    @rule(offset=offsets, length=lengths)
    def write(self, offset: int, length: int) -> None:
        self.stamp += 1
        data = bytes((self.stamp + i) % 251 + 1 for i in range(7)) * (length // 7 + 1)
        view = memoryview(data)[:length]
        before = self.store.allocated
        growth = self.store.growth(offset, length)
        self.store.write(offset, view)
        assert self.store.allocated == before + growth
        self._extend(offset + length)
        self.model[offset : offset + length] = view

    @rule(offset=offsets, length=lengths)
    def read(self, offset: int, length: int) -> None:
        expected = bytes(self.model[offset : offset + length])
        assert self.store.read(offset, length) == expected.ljust(length, b"\0")

    @rule(size=offsets)
    def truncate(self, size: int) -> None:
        if size < len(self.model):
            self.store.truncate(size)
            del self.model[size:]
        else:
            self._extend(size)

    @rule(offset=offsets, length=lengths)
    def discard(self, offset: int, length: int) -> None:
        self.store.discard(offset, length)
        end = min(offset + length, len(self.model))
        if offset < end:
            self.model[offset:end] = bytes(end - offset)

    @rule(offset=offsets, length=lengths)
    def reserve(self, offset: int, length: int) -> None:
        before = self.store.allocated
        growth = self.store.growth(offset, length)
        self.store.reserve(offset, length)
        assert self.store.allocated == before + growth
        self._extend(offset + length)

    @rule()
    def compare(self) -> None:
        assert self.store.read(0, len(self.model)) == self.model

    @invariant()
    def allocates_what_it_should(self) -> None:
        assert self.store.allocated % BLOCK == 0
        assert self.store.allocated <= (len(self.model) + PAGE) * 2
        if not self.model:
            assert self.store.allocated == 0

    def _extend(self, size: int) -> None:
        self.model += bytes(max(0, size - len(self.model)))


TestSparseFile = SparseFile.TestCase
TestSparseFile.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_holes_take_no_space() -> None:
    store = Store()
    store.write(1 << 40, b"x")
    assert store.allocated == BLOCK
    assert store.read((1 << 40) - 5, 6) == b"\0\0\0\0\0x"
    assert store.read(0, 3 * PAGE) == bytes(3 * PAGE)
    store.truncate(1 << 40)
    assert store.allocated == 0


def test_what_is_read_is_not_what_is_kept() -> None:
    store = Store()
    data = bytearray(b"abc" * PAGE)
    store.write(0, data)
    before = store.read(0, PAGE)
    across = store.read(5, 2 * PAGE)
    data[:] = bytes(len(data))
    store.write(0, bytes(3 * PAGE))
    assert before == (b"abc" * PAGE)[:PAGE]
    assert across == (b"abc" * PAGE)[5 : 5 + 2 * PAGE]


def test_tail_of_a_truncated_page_reads_as_zeros() -> None:
    store = Store()
    store.write(0, b"x" * 100)
    store.truncate(10)
    store.write(50, b"y")
    assert store.read(0, 51) == b"x" * 10 + bytes(40) + b"y"
