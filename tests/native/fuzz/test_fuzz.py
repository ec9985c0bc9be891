"""Each fuzzer for a short time, always the same way; `run.py` goes on for as long as one likes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def test_fuzzers_find_nothing(tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.fail("clang with its sanitizers is needed: apt-get install clang libclang-rt-dev")
    program = Path(__file__).with_name("run.py")
    command = [sys.executable, str(program), "--runs", "20000", "--keep", str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    for family in ("frames", "sftp", "served", "encode", "fuse", "device"):
        assert f"{family}: clean after 2" in done.stdout
