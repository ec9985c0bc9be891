"""What is said while a mount that ends saves what was written last."""

from __future__ import annotations

import logging

import pytest

from syspuffs.gateway.saving import SavingLine
from syspuffs.layers.psshfs.mount.saving import Unsaved

pytestmark = pytest.mark.logs("saving")


def test_the_log_hears_of_it_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon has no terminal; what takes a moment is not worth a line."""
    monkeypatch.setattr("os.isatty", lambda fd: False)
    now = 0.0
    line = SavingLine("host:/pub", clock=lambda: now)
    with caplog.at_level(logging.WARNING):
        for octets in range(50_000_000, 28_000_000, -1_000_000):
            line(Unsaved(1 if octets < 35_000_000 else 12, octets))
            now += 1.0
        line(Unsaved(0, 0))
    assert [record.message for record in caplog.records] == [
        "host:/pub: saving 12 files, 40.0 MB left, 1.0 MB/s",
        "host:/pub: saving 1 file, 30.0 MB left, 1.0 MB/s",
    ]
