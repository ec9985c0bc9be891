"""The fixture `tree`: files in memory, served."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .harness import Served, served


@pytest.fixture
async def tree() -> AsyncIterator[Served]:
    async with served() as tree:
        yield tree
