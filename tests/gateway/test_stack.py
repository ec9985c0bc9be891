"""The composer of stacks: what it accepts, every way it refuses, and what it builds."""

from contextlib import AsyncExitStack

import pytest

from syspuffs.gateway.stack import (
    ELEMENTS,
    TMPFS_GROUP,
    TYPENAME_MAX,
    Ground,
    built,
    nearest_stack,
    parse_stack,
)
from syspuffs.gateway.status import CommandError, Status

FS = "a file system of the emulated kernel"
NAMES = ["puffs", *(element.name for element in ELEMENTS if element.name != "puffs")]
ALL = f"{', '.join(NAMES[:-1])} and {NAMES[-1]}"


@pytest.mark.parametrize(
    "text",
    [
        "puffs|psshfs",
        "puffs|p2k|tmpfs",
        "puffs|p2k|puffs|psshfs",
        "puffs|p2k|puffs|p2k|puffs|p2k|tmpfs",
        "puffs|" + "p2k|puffs|" * 20 + "psshfs",
        "puffs|p2k|ext2fs",
        "puffs|p2k|ext2fs|vnd|puffs|psshfs",
        "puffs|p2k|ext2fs|vnd|ext2fs",
        "puffs|null|throttle|p2k|puffs|readonly|psshfs",
    ],
)
def test_reads_what_fits(text: str) -> None:
    assert "|".join(("puffs", *(e.name for e in parse_stack(text)))) == text


NEAREST = "; the nearest stack that works is "


@pytest.mark.parametrize(
    ("text", "what", "near"),
    [
        (
            "",
            "a stack begins with 'puffs', the mount on the host, not with nothing",
            "puffs|psshfs",
        ),
        (
            "p2k|tmpfs",
            "a stack begins with 'puffs', the mount on the host, not with 'p2k'",
            "puffs|p2k|tmpfs",
        ),
        (
            "psshfs",
            "a stack begins with 'puffs', the mount on the host, not with 'psshfs'",
            "puffs|psshfs",
        ),
        (
            "puffs",
            "'puffs' needs a file server below it (p2k, psshfs, local or perfuse), but got nothing",
            "puffs|psshfs",
        ),
        (
            "puffs|p2k",
            f"'p2k' needs {FS} below it (puffs, tmpfs or ext2fs), but got nothing",
            "puffs|p2k|tmpfs",
        ),
        (
            "puffs|tmpfs",
            "'puffs' needs a file server below it (p2k, psshfs, local or perfuse), "
            f"but got 'tmpfs', which offers {FS}",
            "puffs|p2k|tmpfs",
        ),
        (
            "puffs|p2k|psshfs",
            f"'p2k' needs {FS} below it (puffs, tmpfs or ext2fs), but got 'psshfs', "
            "which offers a file server",
            "puffs|p2k|puffs|psshfs",
        ),
        (
            "puffs|puffs|psshfs",
            "'puffs' needs a file server below it (p2k, psshfs, local or perfuse), "
            f"but got 'puffs', which offers {FS}",
            "puffs|p2k|puffs|psshfs",
        ),
        ("puffs|psshfs|p2k", "'psshfs' has nothing below it, but got 'p2k'", "puffs|psshfs"),
        (
            "puffs|p2k|tmpfs|psshfs",
            "'tmpfs' has nothing below it, but got 'psshfs'",
            "puffs|p2k|tmpfs",
        ),
        (
            "puffs|p2k|vnd|tmpfs",
            f"'p2k' needs {FS} below it (puffs, tmpfs or ext2fs), but got 'vnd', "
            "which offers a block device",
            "puffs|p2k|ext2fs|vnd|tmpfs",
        ),
        (
            "puffs|p2k|ext2fs|psshfs",
            "'ext2fs' needs a block device below it (vnd), "
            "but got 'psshfs', which offers a file server",
            "puffs|p2k|ext2fs|vnd|puffs|psshfs",
        ),
        (
            "puffs|p2k|ext2fs|vnd",
            f"'vnd' needs {FS} below it (puffs, tmpfs or ext2fs), but got nothing",
            "puffs|p2k|ext2fs|vnd|tmpfs",
        ),
        (
            "puffs|sshfs",
            f"there is no element 'sshfs' (there are {ALL})",
            "puffs|psshfs",
        ),
        (
            "puffs||psshfs",
            f"there is no element '' (there are {ALL})",
            "puffs|psshfs",
        ),
        (
            "puffs|P2K|tmpf",
            f"there is no element 'P2K' (there are {ALL})",
            "puffs|p2k|tmpfs",
        ),
    ],
)
def test_refuses_a_misfit_by_name(text: str, what: str, near: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_stack(text)
    assert str(caught.value) == f"{what}{NEAREST}'{near}'"
    assert caught.value.status == Status.STACK


def test_refuses_a_string_that_no_mount_could_show() -> None:
    with pytest.raises(CommandError, match=f"has 405 characters.*no more than {TYPENAME_MAX}"):
        parse_stack("puffs|" + "p2k|puffs|" * 39 + "p2k|tmpfs")


@pytest.mark.parametrize(
    "text", ["", "x", "puffs|x|y|z", "tmpfs|puffs", "p2k|p2k|p2k", "||||", "psshfs|psshfs|psshfs"]
)
def test_what_is_proposed_works(text: str) -> None:
    near = nearest_stack(text.split("|"))
    assert parse_stack(near)
    assert nearest_stack(near.split("|")) == near


def ground(special: str = "none", **tmpfs: object) -> Ground:
    return Ground(special, False, {TMPFS_GROUP.title: tmpfs})


@pytest.mark.parametrize("text", ["puffs|p2k|tmpfs", "puffs|p2k|puffs|p2k|puffs|p2k|tmpfs"])
async def test_builds_what_was_asked_for(text: str) -> None:
    async with built(parse_stack(text), ground("a|b")) as stack:
        assert "puffs|" + stack.server.kargs.typename == text
        assert stack.server.kargs.mntfromname == b"a|b"


async def test_settings_reach_the_bottom() -> None:
    elements = parse_stack("puffs|p2k|puffs|p2k|tmpfs")
    async with built(elements, ground(size_limit=1 << 20, nodes_limit=17)) as stack:
        state = await stack.server.statvfs()
        assert state.blocks * state.frsize == 1 << 20
        assert state.files == 17


async def test_an_error_inside_takes_everything_apart() -> None:
    with pytest.raises(ZeroDivisionError):
        async with built(parse_stack("puffs|p2k|puffs|p2k|tmpfs"), ground()):
            raise ZeroDivisionError


async def test_two_stacks_side_by_side() -> None:
    async with AsyncExitStack() as both:
        first = await both.enter_async_context(built(parse_stack("puffs|p2k|tmpfs"), ground()))
        second = await both.enter_async_context(built(parse_stack("puffs|p2k|tmpfs"), ground()))
        assert first is not second
