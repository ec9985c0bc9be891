"""An asyncssh client in a process of its own.

`python with_asyncssh.py PORT USER JSON` logs in with the keywords of the JSON object, says "hello"
on an sftp channel, and prints what comes back, or the name of the exception.
"""

from __future__ import annotations

import asyncio
import json
import sys

import asyncssh


async def talk(port: int, user: str, words: dict[str, object]) -> str:
    """Return what comes back."""
    try:
        async with asyncssh.connect(
            *("127.0.0.1", port), username=user, known_hosts=None, config=None, **words
        ) as connection:
            writer, reader, _ = await connection.open_session(subsystem="sftp", encoding=None)
            writer.write(b"hello")
            writer.write_eof()
            return bytes(await reader.read()).decode()
    except (asyncssh.Error, OSError) as exc:
        return type(exc).__name__


if __name__ == "__main__":
    print(asyncio.run(talk(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))))
