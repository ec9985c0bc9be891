"""Runs shell scripts on a mount, each step with a time-out."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

TIMEOUT = 60


class Shell:
    """A shell whose $M is a directory of the mount and whose $L is one of the host."""

    def __init__(self, mount: Path, local: Path, origin: Path | None) -> None:
        self.mount = mount
        self.local = local
        self.origin = origin

    def run(self, script: str, *, timeout: float = TIMEOUT) -> str:
        """Run `script` with `sh -eu`; return what it printed. AssertionError when it fails."""
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "HOME": str(self.local),
            "M": str(self.mount),
            "L": str(self.local),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.org",
        }
        process = subprocess.Popen(
            ["sh", "-eu", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=self.local,
            text=True,
            errors="replace",
            process_group=0,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise AssertionError(f"not done after {timeout} s:\n{script}\n{output}") from None
        assert process.returncode == 0, f"status {process.returncode}:\n{script}\n{output}"
        return output
