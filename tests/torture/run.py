"""Torture: real programs on a mount, the weather of packets, and power cuts of the server.

    python -m tests.torture.run                        all of it, about twenty minutes
    python -m tests.torture.run --part power --runs 20 --seed 7

What is needed and not there is named, and its part then counts as failed. Exit status 0 when
everything was as promised.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from ..programs.shell import Shell
from ..programs.test_own_writes import WORK
from ..support import wire
from ..support.leaks import become_subreaper
from ..support.mounts import Ground, mounted, run
from ..support.sshd import Sshd
from ..support.stacks import PSSHFS, PSSHFS_BY_SSH, WHOLE_STACK
from ..weather.storm import storm
from ..weather.wires import WireSky, at_far_end
from . import machine, programs
from .power import cut

COMMANDS: Final = {
    "psshfs": PSSHFS,
    "psshfs, ssh": PSSHFS_BY_SSH,
    "puffs|p2k|puffs|psshfs": WHOLE_STACK,
}
_WORKERS: Final = 8

Line = tuple[str, str, str]
"""Which stack, what was done, and "" or what was wrong with it."""


def of_programs(place: Path, stacks: list[str], runs: int, seed: int) -> Iterator[Line]:
    """Each script on each stack, and then what several processes do to each other's files."""
    with Sshd(place / "sshd") as sshd:
        for number, name in enumerate(stacks):
            here = place / f"{number}"
            (here / "origin").mkdir(parents=True)
            ground = Ground(here / "origin", here / "mnt", here / "log", sshd)
            with mounted(COMMANDS[name], ground) as made:
                for script in programs.SCRIPTS:
                    with tempfile.TemporaryDirectory() as local:
                        top = made.point / script.name.replace(" ", "-")
                        top.mkdir()
                        shell = Shell(top, Path(local), made.origin / top.name)
                        trouble = _trouble(partial(_run, script, shell))
                        assert made.alive(), f"it died of {script.name}: {trouble}"
                        yield name, script.name, trouble
                (made.point / "own").mkdir()
                for turn in range(seed, seed + runs):
                    yield name, f"own writes {turn}", _trouble(partial(_own, made.point, turn))
                compare = ["rsync", "-naicH", "--delete", f"{made.point}/", f"{made.origin}/"]
                got = run(compare, timeout=300)
                yield name, "rsync -naicH --delete of all of it", got.stdout + got.stderr


def _run(script: programs.Script, shell: Shell) -> None:
    shell.run(f"O='{shell.origin}'\n{script.text}", timeout=script.seconds)


def _own(point: Path, seed: int) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, str(1000 * seed + number), "300"],
            cwd=point / "own",
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(_WORKERS)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors


def of_wires(place: Path, stacks: list[str], runs: int, seed: int) -> Iterator[Line]:
    """The storm's programs, by both ways to the server, with lost packets and worse."""
    for name in stacks:
        with tempfile.TemporaryDirectory(dir=place) as here:
            with at_far_end(Path(here), COMMANDS[name]) as (between, _, made):
                for turn in range(seed, seed + runs):
                    sky = WireSky(turn, between)
                    said = _trouble(partial(storm, turn, 6, sky, made))
                    yield name, f"seed {turn}: {', '.join(sky.past)}", said


def of_power(place: Path, stacks: list[str], runs: int, seed: int) -> Iterator[Line]:
    """Power cuts; what nobody was promised must be lost in one of them, or they cut nothing."""
    lost = 0
    for number, name in enumerate(stacks):
        for turn in range(seed, seed + runs):
            try:
                line, gone = cut(place / f"{number}-{turn}", COMMANDS[name], turn)
            except AssertionError as exc:
                yield name, f"seed {turn}", str(exc)
                continue
            lost += gone
            yield name, line, ""
    yield "all", "power was cut", "" if lost else "nothing at all was lost"


def _trouble(body: Callable[[], object]) -> str:
    try:
        body()
    except AssertionError as exc:
        return str(exc)
    return ""


PARTS: Final = {
    "programs": (of_programs, programs.missing),
    "wires": (of_wires, wire.missing),
    "power": (of_power, machine.missing),
}


def main() -> int:
    """Do the parts asked for, and print a line for each thing done."""
    become_subreaper()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--stack", action="append", choices=COMMANDS)
    parser.add_argument("--runs", type=int, default=3, help="of each kind on each stack")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    stacks = args.stack or list(COMMANDS)
    bad = 0
    for name in args.part or PARTS:
        part, missing = PARTS[name]
        if lack := missing():
            print(f"{name}: not done: {lack}", flush=True)
            bad += 1
            continue
        with tempfile.TemporaryDirectory() as place:
            start = time.monotonic()
            for stack, what, trouble in part(Path(place), stacks, args.runs, args.seed):
                seconds, start = time.monotonic() - start, time.monotonic()
                bad += bool(trouble)
                print(f"{stack}: {what}: {trouble or 'ok'} ({seconds:.1f} s)", flush=True)
    print(f"{bad} went wrong" if bad else "all went well")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
