"""Which requests a session may make: -R, -P and -p."""

from __future__ import annotations

import subprocess

import pytest

from syspuffs.gateway.sftp import KINDS, Permitted
from syspuffs.gateway.sftp.permitted import NAMES
from syspuffs.native import sftp

from ...support.sshd import find_sftp_server
from .harness import BOTH, MAKE, Served

DENIED = sftp.FX_PERMISSION_DENIED


def test_the_names_are_openssh_s() -> None:
    listed = subprocess.run([find_sftp_server(), "-Q", "requests"], capture_output=True, check=True)
    assert listed.stdout.decode().split() == list(NAMES)


async def test_read_only(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.put(b"/f", b"data")
    async with tree.client(permitted=Permitted(readonly=True)) as wire:
        assert set(wire.extensions) == {
            b"statvfs@openssh.com",
            b"fstatvfs@openssh.com",
            b"limits@openssh.com",
            b"expand-path@openssh.com",
            b"home-directory",
            b"users-groups-by-id@openssh.com",
        }
        for pflags in (MAKE, sftp.FXF_WRITE, BOTH, sftp.FXF_READ | sftp.FXF_TRUNC):
            assert await wire.code(sftp.open_, b"/f", pflags) == DENIED
        handle = await wire.open(b"/f")
        assert await wire.read(handle, 0, 10) == b"data"
        for ask, args in (
            (sftp.write, (handle, 0, 0)),
            (sftp.fsetstat, (handle, sftp.Attrs(size=0))),
            (sftp.setstat, (b"/f", sftp.Attrs(mode=0))),
            (sftp.lsetstat, (b"/f", sftp.Attrs(mode=0))),
            (sftp.remove, (b"/f",)),
            (sftp.mkdir, (b"/d",)),
            (sftp.rmdir, (b"/d",)),
            (sftp.rename, (b"/f", b"/g")),
            (sftp.posix_rename, (b"/f", b"/g")),
            (sftp.symlink, (b"/f", b"/g")),
            (sftp.hardlink, (b"/f", b"/g")),
            (sftp.fsync, (handle,)),
            (sftp.copy_data, (handle, 0, 0, handle, 0)),
        ):
            assert await wire.code(ask, *args) == DENIED
        await wire.ask(sftp.close, handle)
        assert await wire.names(b"/") == [b".", b"..", b"f"]


async def test_denied_and_allowed_by_name(tree: Served) -> None:
    async with tree.client(permitted=Permitted(denied=["stat", "hardlink"])) as wire:
        assert await wire.code(sftp.stat, b"/") == DENIED
        assert await wire.code(sftp.lstat, b"/") == sftp.FX_OK
        assert await wire.code(sftp.hardlink, b"/a", b"/b") == DENIED
        assert b"hardlink@openssh.com" not in wire.extensions
    async with tree.client(permitted=Permitted(allowed=["stat"])) as wire:
        assert await wire.code(sftp.stat, b"/") == sftp.FX_OK
        assert await wire.code(sftp.lstat, b"/") == DENIED
        assert wire.extensions == {}
    async with tree.client(permitted=Permitted(allowed=["stat"], denied=["stat"])) as wire:
        assert await wire.code(sftp.stat, b"/") == DENIED


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_denied(kind: object) -> None:
    assert kind not in Permitted(denied=[kind.name]).kinds  # type: ignore[attr-defined]
    assert Permitted(denied=[kind.name]).is_everything is False  # type: ignore[attr-defined]
    assert Permitted().is_everything
