"""Words to systemd, by the socket that it names: sd_notify(3) without its library."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


def notify(**fields: str | int) -> None:
    """Say KEY=VALUE for each of `fields`; nothing happens where nobody wants to hear."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    text = "\n".join(f"{key.upper()}={value}" for key, value in fields.items())
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(text.encode(), address)


def ready(status: str) -> None:
    """Say that the start, or a reload, is over."""
    notify(ready=1, status=status)


def reloading() -> None:
    """Say that a reload has begun; `ready` has to follow."""
    notify(reloading=1, monotonic_usec=time.monotonic_ns() // 1000)


def stopping() -> None:
    """Say that the end has begun."""
    notify(stopping=1, status="waiting for sessions to end")
