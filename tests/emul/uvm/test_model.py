"""Files in pages against files in bytes, on a disk that answers in any order."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.emul.uvm import FOLIO
from syspuffs.native.constants import (
    PAGE_SIZE,
    PGO_CLEANIT,
    PGO_DEACTIVATE,
    PGO_FREE,
    PGO_SYNCIO,
)

from .bench import Bench, bench, put
from .slowdisk import KIB, MIB

FILES = 2


class Operation(NamedTuple):
    kind: str
    file: int
    offset: int
    length: int


# Around the edges of blocks, pages and folios is where it goes wrong, if anywhere.
_EDGES = st.sampled_from([0, KIB, PAGE_SIZE, 3 * PAGE_SIZE, FOLIO, 2 * FOLIO, 3 * FOLIO])
offsets = st.builds(lambda edge, near: max(0, edge + near), _EDGES, st.integers(-5, 5000))
lengths = st.one_of(
    st.integers(1, 10),
    st.integers(1, 9000),
    st.builds(lambda edge, near: max(1, edge + near), _EDGES, st.integers(-2, 2)),
)
kinds = st.sampled_from(
    ["read", "write", "write", "truncate", "fsync", "clean", "free", "deactivate", "cold"]
)
operations = st.lists(
    st.builds(Operation, kinds, st.integers(0, FILES - 1), offsets, lengths), max_size=40
)


class Model:
    """The files of a bench, and what must be in them."""

    def __init__(self, here: Bench) -> None:
        self.here = here
        self.vps = [here.fs.vnode(number + 1) for number in range(FILES)]
        self.files = [bytearray() for _ in self.vps]
        self.stamp = 0

    async def do(self, operation: Operation) -> None:
        kind, file, offset, length = operation
        vp, model, here = self.vps[file], self.files[file], self.here
        if kind == "read":
            assert await here.read(vp, offset, length) == model[offset : offset + length]
        elif kind == "write":
            self.stamp += 1
            data = bytes((self.stamp + i) % 251 + 1 for i in range(7)) * (length // 7 + 1)
            data = data[:length]
            await here.write(vp, offset, data)
            model += bytes(max(0, offset + length - len(model)))
            model[offset : offset + length] = data
        elif kind == "truncate":
            await here.truncate(vp, offset)
            del model[offset:]
            model += bytes(offset - len(model))
        elif kind == "fsync":
            await here.fsync(vp)
            assert here.fs.on_disk(vp)[: vp.size] == model
        elif kind == "clean":
            await here.putpages(vp, PGO_CLEANIT, offset, offset + length)
        elif kind == "free":
            await here.putpages(vp, PGO_CLEANIT | PGO_FREE)
        elif kind == "deactivate":
            await here.putpages(vp, PGO_DEACTIVATE, offset, offset + length)
        else:
            await here.putpages(vp, PGO_CLEANIT | PGO_FREE | PGO_SYNCIO)
            assert vp.uobj is not None
            assert all(folio.reading for folio in vp.uobj.folios.values())  # ahead
        if kind in ("read", "write", "truncate"):  # which had the lock
            assert vp.size == len(model)

    async def check(self) -> None:
        """Check all that can be seen, then what is on the disk."""
        for vp, model in zip(self.vps, self.files, strict=True):
            assert await self.here.read(vp) == model
            await self.here.fsync(vp)
            assert vp.uobj is not None
            assert vp.uobj.is_clean
            tail = -len(model) % self.here.fs.bsize
            assert self.here.fs.on_disk(vp) == model + bytes(tail)
            await self.here.putpages(vp, PGO_FREE)
            assert await self.here.read(vp) == model
        memory = self.here.memory
        figures = memory.statistics()
        assert figures.dirty == figures.writing == figures.failed == 0
        self.here.check_accounts()
        assert not memory.dirty_objects
        await put(*self.vps)


@given(
    ops=operations,
    bsize=st.sampled_from([1 * KIB, 2 * KIB, 4 * KIB]),
    limit=st.sampled_from([32 * KIB, 200 * KIB, 64 * MIB]),
    seed=st.integers(0, 1 << 30),
    lazy=st.booleans(),
)
@settings(max_examples=120)
def test_one_after_the_other(
    ops: Sequence[Operation], bsize: int, limit: int, seed: int, lazy: bool
) -> None:
    async def main() -> None:
        async with bench(
            bsize=bsize, size=4 * MIB, limit=limit, seed=seed, contiguity=0.8, lazy=lazy
        ) as here:
            model = Model(here)
            for operation in ops:
                await model.do(operation)
            await model.check()

    trio.run(main)


# Several tasks, which give up now and then.


def _random_operation(rng: Random) -> Operation:
    kind = rng.choice(["read"] * 4 + ["write"] * 4 + ["truncate", "fsync", "clean", "free"])
    edge = rng.choice([0, KIB, PAGE_SIZE, 3 * PAGE_SIZE, FOLIO, 2 * FOLIO, 5 * FOLIO])
    offset = max(0, edge + rng.randint(-5, 5000))
    length = rng.choice([rng.randint(1, 10), rng.randint(1, 9000), rng.choice([PAGE_SIZE, FOLIO])])
    return Operation(kind, rng.randrange(FILES), offset, length)


@pytest.mark.parametrize("seed", range(24))
async def test_all_at_once(seed: int) -> None:
    rng = Random(seed)
    bsize = rng.choice([1 * KIB, 2 * KIB, 4 * KIB])
    limit = rng.choice([100 * KIB, 300 * KIB, 64 * MIB])

    async def cancel(scope: trio.CancelScope) -> None:
        for _ in range(rng.randrange(12)):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with bench(
        bsize=bsize, size=4 * MIB, limit=limit, seed=seed, contiguity=0.8, lazy=True
    ) as here:
        model = Model(here)

        async def work(tasks: trio.Nursery) -> None:
            for _ in range(25):
                with trio.CancelScope() as scope:
                    if rng.random() < 0.2:
                        tasks.start_soon(cancel, scope)
                    # Cancelled, it has changed nothing, and the model has not either.
                    await model.do(_random_operation(rng))

        with trio.fail_after(60):
            async with trio.open_nursery() as tasks:
                for _ in range(6):
                    tasks.start_soon(work, tasks)
            await model.check()
