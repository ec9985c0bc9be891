"""Files of keys count only when nobody else can have written them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syspuffs.gateway.sshd.keyfile import FILE_MAX, BadFile, read_key_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "home" / ".ssh" / "authorized_keys"
    path.parent.mkdir(parents=True)
    path.write_text("one\ntwo\n")
    path.chmod(0o600)
    return path


def test_good_file(file: Path) -> None:
    assert read_key_file(file, None) == ["one", "two", ""]


def test_missing_file(tmp_path: Path) -> None:
    assert read_key_file(tmp_path / "no" / "such", None) == []


@pytest.mark.parametrize("above", [0, 1, 2])
@pytest.mark.parametrize("bit", [0o020, 0o002])
def test_others_can_write(file: Path, above: int, bit: int) -> None:
    place = [file, *file.parents][above]
    place.chmod(place.stat().st_mode | bit)
    with pytest.raises(BadFile, match="written by others"):
        read_key_file(file, None)


def test_sticky_directory(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert read_key_file(file, None)


@pytest.mark.parametrize("above", [0, 1, 2])
def test_foreign_owner(file: Path, above: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    place = [file, *file.parents][above]
    os.chown(place, 12345, -1)
    with pytest.raises(BadFile, match="belongs to user 12345"):
        read_key_file(file, None)
    assert read_key_file(file, 12345)


def test_what_a_link_leads_to_counts(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_key_file(link, None)
    file.parent.chmod(0o777)
    with pytest.raises(BadFile):
        read_key_file(link, None)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(BadFile):
        read_key_file(link, None)


def test_odd_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadFile, match="no regular file"):
        read_key_file(tmp_path / "fifo", None)
    with pytest.raises(BadFile, match="no regular file"):
        read_key_file(tmp_path, None)
    (tmp_path / "large").write_bytes(bytes(FILE_MAX + 1))
    with pytest.raises(BadFile, match="octets"):
        read_key_file(tmp_path / "large", None)
