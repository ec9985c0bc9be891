"""A network of two name spaces with a wire between them, and rules of nftables at its far end.

    with Wire() as wire:
        ... [*wire.near, "ssh", wire.FAR] ...
        wire.rule("drop")

What happens here happens to packets, in the host's own TCP: what is lost is sent again, a reset
is a real one, a black hole has TCP's time-outs. The delay line (line.py) has no packets.
Only root may make one. Other processes of this machine do not see it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final

PROGRAMS: Final = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux"}
"""What is needed, with the packages that have it."""

_ENV: Final = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
_PATIENCE: Final = 10.0
_serial = itertools.count()


class Wire:
    """Two name spaces and the wire between them, there for the time of a `with`.

    `near` and `far` are commands that run what follows in one of them; files and mounts are
    those of everybody. Errors: RuntimeError, for want of rights or of parts of the kernel.

    The weather is made by a shell that was started before: a fork of this process would have copies
    of its files, and by closing them wait for the very network that is to be brought back.
    """

    NEAR = "198.18.0.1"
    FAR = "198.18.0.2"

    def __init__(self) -> None:
        name = f"syspuffs-{os.getpid()}-{next(_serial)}"
        self._names = (f"{name}-near", f"{name}-far")
        self.near, self.far = ([_path("nsenter"), f"--net=/run/netns/{n}"] for n in self._names)
        self._shell: subprocess.Popen[str] | None = None

    def __enter__(self) -> Wire:
        near, far = self._names
        self._shell = subprocess.Popen(
            ["/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_ENV
        )
        try:
            for name in self._names:
                self._do(f"ip netns add {name}")
            self._do(f"ip link add w0 netns {near} type veth peer name w0 netns {far}")
            for within, address in ((self.near, self.NEAR), (self.far, self.FAR)):
                self._do("ip link set lo up", within)
                self._do(f"ip address add {address}/24 dev w0", within)
                self._do("ip link set w0 up", within)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take it away; what still runs within keeps it until it ends. Harmless when called twice.

        Errors: RuntimeError when it has lost its shell.
        """
        shell = self._shell
        if shell is None:
            return
        try:
            for name in self._names:
                self._do(f"test ! -e /run/netns/{name} || ip netns delete {name}")
        finally:
            self._shell = None
            assert shell.stdin is not None
            assert shell.stdout is not None
            with suppress(BrokenPipeError):
                shell.stdin.close()
            shell.wait(_PATIENCE)
            shell.stdout.close()

    def rule(self, verdict: str, *, hook: str = "input") -> None:
        """From now on do this to what comes to the far end (`hook` output: leaves it).

        In place of the rule before. A verdict is one of nft(8) with its conditions, such as
        `numgen random mod 100 < 5 drop`.
        """
        chain = f"type filter hook {hook} priority 0;"
        rules = f"flush ruleset\ntable ip weather {{\nchain c {{\n{chain}\n{verdict}\n}}\n}}\n"
        self._do(f"nft -f - <<.\n{rules}.", self.far)

    def clear(self) -> None:
        """Take the rule away."""
        self._do("nft flush ruleset", self.far)

    def link(self, *, on: bool) -> None:
        """Pull the wire out at the near end, or put it back: routes go with it."""
        # nsenter, and not `ip -n`, which makes a mount name space with copies of our mounts in it.
        self._do(f"ip link set w0 {'up' if on else 'down'}", self.near)

    def _do(self, command: str, within: Sequence[str] = ()) -> None:
        shell = self._shell
        assert shell is not None
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write(f"{{ {' '.join(within)} {command}\n}} 2>&1; s=$?; echo; echo status $s\n")
        shell.stdin.flush()
        said = []
        while not (line := shell.stdout.readline()).startswith("status "):
            if not line:
                raise RuntimeError(f"the shell has died at {command}")
            said.append(line)
        if line != "status 0\n":
            raise RuntimeError(f"{command}: {''.join(said).strip()}")


def _path(name: str) -> str:
    found = shutil.which(name, path=_ENV["PATH"])
    if found is None:
        raise FileNotFoundError(f"{name} is missing: apt-get install {PROGRAMS[name]}")
    return found


def missing() -> str:
    """Say why no wire can be made here, "" if one can."""
    if os.geteuid() != 0:
        return "only root may make network name spaces"
    for name in PROGRAMS:
        try:
            _path(name)
        except FileNotFoundError as exc:
            return str(exc)
    return ""
