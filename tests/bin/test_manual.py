"""The manual pages and `--help` speak of the same options, words and exit statuses."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest

from syspuffs.bin import mount_psshfs, mount_puffs, puffs_sftp_server, syspuffs

PAGES = Path(__file__).resolve().parents[2] / "bin" / "man"
COMMANDS = {
    "mount_psshfs.8": mount_psshfs.main,
    "mount_puffs.8": mount_puffs.main,
    "puffs_sftp_server.8": puffs_sftp_server.main,
    "syspuffs.1": syspuffs.main,
}
SERVER = "puffs_sftp_server.8"
"""What serves a stack and mounts nothing."""


def _help(page: str, capsys: pytest.CaptureFixture[str]) -> str:
    with suppress(SystemExit):
        COMMANDS[page](["--help"])
    return capsys.readouterr().out


def _documented(page: str) -> str:
    """Return the page with those that it refers to for the rest."""
    names = [page, "mount_psshfs.8", "mount_puffs.8"] if page == SERVER else [page]
    if page not in (SERVER, "mount_psshfs.8"):
        names.append("mount_psshfs.8")
    return "\n".join((PAGES / name).read_text() for name in names)


@pytest.mark.parametrize("page", COMMANDS)
def test_every_option_is_in_the_manual(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (PAGES / page).read_text()
    options = set(re.findall(r"^  -(\w)\b", _help(page, capsys), re.MULTILINE))
    assert options >= {"h", "V", "o"}
    described = set(re.findall(r"^\.It Fl (\w)", text, re.MULTILINE))
    described |= set(re.findall(r"^\.It Fl \w[^\n]*, Fl (\w)", text, re.MULTILINE))
    assert described == options


@pytest.mark.parametrize("page", COMMANDS)
def test_every_word_is_in_the_manual(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"^\w[\w ]*options \(-o\):$.*?^Examples:", _help(page, capsys), re.M | re.S)
    assert shown is not None
    words = set(re.findall(r"^  ([a-z_]+)(?:=[A-Z]+)? ", shown[0], re.MULTILINE))
    assert {"size", "port"} <= words if page == SERVER else {"ro", "nocache"} <= words
    text = _documented(page)
    assert [word for word in sorted(words) if not re.search(rf"\b{word}\b", text)] == []


@pytest.mark.parametrize("page", COMMANDS)
def test_every_exit_status_is_in_the_manual(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = _help(page, capsys).partition("Exit status:")[2]
    statuses = set(re.findall(r"^ +(\d+)  ", table, re.MULTILINE)) - {"128"}
    assert {"0", "2", "10", "23"} <= statuses
    assert statuses <= set(re.findall(r"^\.It (\d+)$", _documented(page), re.MULTILINE))
