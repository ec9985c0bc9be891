"""Which mount is meant by a place: the kernel's table of mounts is not asked, and no mount is."""

from __future__ import annotations

from pathlib import Path

import pytest

from syspuffs.gateway.control import client
from syspuffs.gateway.control.client import Found, mount_at
from syspuffs.gateway.status import CommandError


def found(number: int, place: str, *, part: bool = False, seconds: float = 1.0) -> Found:
    special = f"special of {place}"
    summary = {"mountpoint": place, "part": part, "seconds": seconds, "special": special}
    return Found(Path(f"/run/{number}"), summary)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[Found]:
    mounts: list[Found] = []
    monkeypatch.setattr(client, "mounts", lambda: mounts)
    return mounts


def test_the_longest_mount_point_holds_a_path(there: list[Found]) -> None:
    outer, inner, other = found(1, "/mnt"), found(2, "/mnt/a/b"), found(3, "/mnt/a/bc")
    there += [outer, inner, other]
    assert mount_at("/mnt/a") == [outer]
    assert mount_at("/mnt/a/b/c/../d") == [inner]
    assert mount_at("/mnt/a/bcd") == [outer]
    assert mount_at("/mnt/a/bc/") == [other]
    root = found(4, "/")
    there.append(root)
    assert mount_at("/nowhere") == [root]


def test_the_upper_of_two_mounts_is_meant_with_its_parts(there: list[Found]) -> None:
    lower, upper = found(1, "/mnt", seconds=50), found(2, "/mnt", seconds=3)
    part = found(3, "/mnt", part=True, seconds=4)
    there += [lower, part, upper]
    assert mount_at("/mnt") == [upper, part]


def test_a_part_alone_is_better_than_nothing(there: list[Found]) -> None:
    part = found(3, "/mnt", part=True)
    there.append(part)
    assert mount_at("/mnt/x") == [part]


def test_what_there_is_instead(there: list[Found]) -> None:
    with pytest.raises(CommandError, match="this user has none"):
        mount_at("/nowhere")
    there.append(Found(Path("/run/77"), {}, "the mount's process does not answer within 2 s"))
    with pytest.raises(CommandError, match="process 77 does not say what it mounts: the mount's"):
        mount_at("/nowhere")
    there.append(found(1, "/mnt"))
    with pytest.raises(CommandError, match="there are /mnt"):
        mount_at("/nowhere")
