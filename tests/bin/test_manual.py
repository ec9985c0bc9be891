"""The manual pages and `--help` speak of the same options, words and exit statuses."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import BaseModel

from syspuffs.bin import (
    mount_helper,
    mount_psshfs,
    mount_puffs,
    psshfs,
    puffs_sftp_server,
    puffs_sftpd,
    puffs_trace,
    puffsctl,
    syspuffs,
)
from syspuffs.gateway.sftpd.schema import Document, Table

PAGES = Path(__file__).resolve().parents[2] / "bin" / "man"
COMMANDS = {
    "mount_psshfs.8": mount_psshfs.main,
    "mount_puffs.8": mount_puffs.main,
    "psshfs.1": psshfs.main,
    "puffs_sftp_server.8": puffs_sftp_server.main,
    "puffs_sftpd.8": puffs_sftpd.main,
    "syspuffs.1": syspuffs.main,
}
SERVERS = "puffs_sftp_server.8", "puffs_sftpd.8"
"""What serves stacks and mounts nothing."""


def _help(page: str, capsys: pytest.CaptureFixture[str]) -> str:
    with suppress(SystemExit):
        COMMANDS[page](["--help"])
    return capsys.readouterr().out


def _documented(page: str) -> str:
    """Return the page with those that it refers to for the rest."""
    names = [page, "mount_psshfs.8", "mount_puffs.8"] if page in SERVERS else [page]
    if page not in (*SERVERS, "mount_psshfs.8"):
        names.append("mount_psshfs.8")
    names.append("psshfs.1")
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
def test_every_long_option_is_in_the_manual(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (PAGES / page).read_text()
    options = set(re.findall(r"^  (?:-\w, )?--([a-z-]+)\b", _help(page, capsys), re.MULTILINE))
    described = set(re.findall(r"^\.It (?:Fl \w , )?(?:Fl )?-([a-z-]+)", text, re.MULTILINE))
    assert described == options


@pytest.mark.parametrize("page", COMMANDS)
def test_every_word_is_in_the_manual(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"^\w[\w ]*options \(-o\):$.*?^Examples:", _help(page, capsys), re.M | re.S)
    assert shown is not None
    words = set(re.findall(r"^  ([a-z_]+)(?:=[A-Z]+)? ", shown[0], re.MULTILINE))
    assert {"size", "port"} <= words if page in SERVERS else {"ro", "nocache"} <= words
    text = _documented(page)
    assert [word for word in sorted(words) if not re.search(rf"\b{word}\b", text)] == []


@pytest.mark.parametrize("page", COMMANDS)
def test_every_exit_status_is_in_the_manual(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = _help(page, capsys).partition("Exit status:")[2]
    statuses = set(re.findall(r"^ +(\d+)  ", table, re.MULTILINE)) - {"128"}
    assert {"0", "2", "10", "23"} <= statuses
    assert statuses <= set(re.findall(r"^\.It (\d+)$", _documented(page), re.MULTILINE))


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the commands of a parser, those of commands among them, by their words."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield name, below
                yield from ((f"{name} {rest}", found) for rest, found in _commands(below))


def test_the_helper_of_mount_is_in_the_manual(capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        mount_helper.main(["--help"])
    letters = re.findall(r"^  -(\w)(?:, -(\w))?\b", capsys.readouterr().out, re.MULTILINE)
    text = (PAGES / "mount.psshfs.8").read_text()
    described = re.findall(r"^\.It Fl (\w)(?: , Fl (\w))?", text, re.MULTILINE)
    assert set(sum(described, ())) == set(sum(letters, ()))


def test_every_command_of_puffsctl_is_in_the_manual() -> None:
    text = (PAGES / "puffsctl.8").read_text()
    described = set(re.findall(r"Cm ([a-z]+(?: [a-z]+)?)", text))
    described |= set(re.findall(r"^\.It Cm (?:[a-z]+ , )+([a-z]+)", text, re.MULTILINE))
    options = set(re.findall(r"Fl (?:\w , )?(-?\w+)", text)) | set(re.findall(r"Fl (\w) ,", text))
    groups = {"layer", "trace", "fault"}
    for name, parser in _commands(puffsctl.parser()):
        assert name in described | groups, name
        for action in parser._actions:
            for option in action.option_strings:
                assert option.removeprefix("-") in options, (name, option)


def test_puffs_trace_is_as_the_manual_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = (PAGES / "puffs_trace.1").read_text()
    with suppress(SystemExit):
        puffs_trace.main(["--help"])
    shown = capsys.readouterr().out
    options = set(re.findall(r"^  (?:-\w, )?(-?-[a-z-]+|-\w)\b", shown, re.M | re.I))
    options |= set(re.findall(r"^  (-\w), --", shown, re.MULTILINE))
    described = {f"-{name}" for name in re.findall(r"^\.It Fl (-?[\w-]+)", text, re.MULTILINE)}
    described |= {f"-{name}" for name in re.findall(r"^\.It Fl \w , (-[\w-]+)", text, re.M)}
    assert described == options
    (commands,) = re.findall(r"\{([a-z,]+)\} \[options\]", shown)
    assert set(re.findall(r"^\.It Cm (\w+)", text, re.MULTILINE)) == set(commands.split(","))
    statuses = set(re.findall(r"(?:^  |    )(\d+)  ", shown.partition("Exit status:")[2], re.M))
    assert statuses == set(re.findall(r"^\.It (\d+)$", text, re.MULTILINE)) == {*"0123"}


def _keys(table: type[BaseModel], name: str) -> dict[str, set[str]]:
    """Return the keys of a table and of those in it, by what the manual calls each table."""
    found = {name: set(table.model_fields)}
    for key, field in table.model_fields.items():
        shown = repr(field.annotation) if field.annotation is not None else ""
        kinds = [kind for kind in Table.__subclasses__() if kind.__name__ in shown]
        for kind in kinds:
            below = f"{name}.{key}".lstrip(".")
            if "dict[" in shown:
                below += ".NAME"
            inner = _keys(kind, below)
            if "list[" in shown:
                inner[f"[{below}]"] = inner.pop(below)
            found |= inner
    return found


def test_every_key_of_the_configuration_is_in_the_manual() -> None:
    text = (PAGES / "puffs_sftpd.toml.5").read_text()
    described: dict[str, set[str]] = {}
    for section in re.split(r"^\.S[sh] ", text, flags=re.MULTILINE):
        title, _, body = section.partition("\n")
        items = re.findall(r"^\.It Cm (.*)$", body, re.MULTILINE)
        name = title.removeprefix("[").removesuffix("]") if title.startswith("[") else ""
        if items:
            described.setdefault(name, set()).update(
                key for item in items for key in item.split(" , ")
            )
    keys = _keys(Document, "")
    # These are where everything in them is.
    keys[""] -= {"ssh", "log", "audit", "events", "metrics", "users"}
    keys["ssh"] -= {"penalties"}
    assert described == keys
