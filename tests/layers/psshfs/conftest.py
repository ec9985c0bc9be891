"""What all tests of psshfs want: a server that is near, however busy the machine is."""

from __future__ import annotations

import pytest

from syspuffs.layers.psshfs.wire import pace


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch) -> None:
    """No round trip counts as long: what is fetched ahead then would change what is counted."""
    monkeypatch.setattr(pace, "FAR", float("inf"))
