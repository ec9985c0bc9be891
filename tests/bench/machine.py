"""What the figures were taken on: processor, kernel, versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe() -> list[tuple[str, str]]:
    """Return the lines of the description, each with its title."""
    return [
        ("machine", f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {_memory()}"),
        ("kernel", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("load", f"{os.getloadavg()[0]:.2f} before the first round"),
        ("sshfs", _said(["sshfs", "--version"], r"SSHFS version (\S+)")),
        ("OpenSSH", _said(["ssh", "-V"], r"(OpenSSH_\S+)")),
        ("Python", platform.python_version()),
        ("packages", ", ".join(map(_package, _PACKAGES))),
    ]


_PACKAGES = ("syspuffs", "trio", "asyncssh", "uvloop", "cffi")


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} missing"


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*: (.*)", text)
    aes = ", AES instructions" if re.search(r"^flags.*\baes\b", text, re.MULTILINE) else ""
    return (found[1] if found else "unknown processor") + aes


def _memory() -> str:
    found = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return f"{int(found[1]) / 1024**2:.0f} GiB" if found else "unknown memory"


def _said(argv: list[str], pattern: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True)
    except OSError:
        return "missing"
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "unknown"
