"""Drive a server with asyncssh: host port user identity known_hosts directory."""

from __future__ import annotations

import asyncio
import os
import stat
import sys

import asyncssh

host, port, user, identity, known_hosts, at = sys.argv[1:]


async def main() -> None:
    """Do what its SFTP client can."""
    async with (
        asyncssh.connect(
            host,
            int(port),
            username=user,
            client_keys=[identity],
            known_hosts=known_hosts,
            config=None,
        ) as connection,
        connection.start_sftp_client() as sftp,
    ):
        assert sftp.version == 3
        await sftp.chdir(at)
        assert await sftp.getcwd() == at.encode() or await sftp.getcwd() == at
        data = os.urandom(3_000_000)
        with open("data", "wb") as file:
            file.write(data)
        await sftp.put("data", "big", preserve=True)
        await sftp.get("big", "back")
        with open("back", "rb") as file:
            assert file.read() == data
        await asyncio.gather(*(sftp.put("data", f"many{n}") for n in range(8)))
        await asyncio.gather(*(sftp.get(f"many{n}", f"m{n}") for n in range(8)))
        for number in range(8):
            with open(f"m{number}", "rb") as file:
                assert file.read() == data
            await sftp.remove(f"many{number}")
        async with sftp.open("big", "r+b", encoding=None) as remote:
            await remote.write(b"begin", 0)
            await remote.fsync()
            begin: bytes | str = await remote.read(5, 0)
            assert begin == b"begin"
            assert (await remote.stat()).size == len(data)
            assert (await remote.statvfs()).bsize > 0
            await remote.truncate(1000)
        await sftp.remote_copy("big", "copy")
        assert (await sftp.stat("copy")).size == 1000
        await sftp.link("big", "hard")
        await sftp.symlink("big", "soft")
        assert await sftp.readlink("soft") == "big"
        assert stat.S_ISLNK((await sftp.lstat("soft")).permissions or 0)
        await sftp.rename("copy", "other")
        await sftp.posix_rename("other", "hard")
        await sftp.chmod("hard", 0o600)
        await sftp.utime("hard", times=(1, 2))
        await sftp.utime("soft", times=(3, 4), follow_symlinks=False)
        assert (await sftp.lstat("soft")).mtime == 4
        assert (await sftp.stat("hard")).mtime == 2
        assert (await sftp.statvfs(".")).blocks >= 0
        limits = sftp.limits
        assert limits.max_read_len == 261_120, limits
        await sftp.makedirs("a/b/c")
        assert await sftp.isdir("a/b")
        await asyncio.gather(*(sftp.mkdir(f"a/{n}") for n in range(100)))
        assert len(await sftp.listdir("a")) == 103
        assert sorted(await sftp.glob("a/9*")) == ["a/9", *(f"a/9{n}" for n in range(10))]
        await sftp.rmtree("a")
        assert not await sftp.exists("a")
        try:
            await sftp.stat("none")
        except asyncssh.SFTPNoSuchFile as exc:
            print("stat:", exc)
        assert str(await sftp.realpath("soft")) == f"{at}/big"
        assert sorted(await sftp.listdir()) == [".", "..", "big", "hard", "soft"]
    print("done")


asyncio.run(main())
