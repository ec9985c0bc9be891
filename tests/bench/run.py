"""Print ours beside sshfs, in one run on this machine (`tox -e bench`).

    python tests/bench/run.py                    everything, 40 minutes
    python tests/bench/run.py --quick            less of everything, ten minutes
    python tests/bench/run.py --link 20 --rows read,write --mounts sshfs,ssh --rounds 9

Each figure is a median over interleaved rounds; ratios are of medians. Mounts, processes and
files are gone at the end, after ^C and SIGTERM too; what was measured until then is printed.
The tables of the mounts are Markdown, and with --output FILE they are written there, too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # run as a script: find the package that it belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "tests.bench"

from ..support.leaks import become_subreaper, mounts
from ..support.line import Line
from .links import LINKS, Link
from .machine import describe
from .mounts import CONTENDERS, Contender
from .report import Report, Shortfall, console, print_shortfalls
from .rounds import Rounds
from .rows import ROWS, Row, Tree
from .server import Server

if TYPE_CHECKING:
    from rich.console import Console


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__.partition("\n")[0])
    keys = ",".join(link.key for link in LINKS)
    parser.add_argument("--link", metavar="A,B", help=f"only over these links ({keys})")
    keys = ",".join(row.key for row in ROWS)
    parser.add_argument("--rows", metavar="A,B", help=f"only these rows ({keys})")
    keys = ",".join(contender.key for contender in CONTENDERS)
    parser.add_argument("--mounts", metavar="A,B", help=f"only these columns ({keys})")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="how many rounds (3 to 5; quick: 2)"
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the tables there")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--no-inside", action="store_true", help="leave out what needs no mount")
    parser.add_argument("--only-inside", action="store_true", help="only what needs no mount")
    parser.add_argument("--no-disks", action="store_true", help="leave out the disk images")
    parser.add_argument("--only-disks", action="store_true", help="only the disk images")
    parser.add_argument("--no-programs", action="store_true", help="leave out FUSE programs")
    parser.add_argument("--only-programs", action="store_true", help="only FUSE programs")
    parser.add_argument("--no-served", action="store_true", help="leave out the SFTP end")
    parser.add_argument("--only-served", action="store_true", help="only the SFTP end")
    parser.add_argument(
        "--strict", action="store_true", help="exit with status 1 when something owed is missing"
    )
    return parser


def _choose(given: str | None, known: Sequence[Any], parser: argparse.ArgumentParser) -> list[Any]:
    if given is None:
        return list(known)
    keys = given.split(",")
    for key in keys:
        if key not in {each.key for each in known}:
            parser.error(f"there is no '{key}' (there are {', '.join(e.key for e in known)})")
    return [each for each in known if each.key in keys]


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = _parser()
    options = parser.parse_args()
    rows: list[Row] = _choose(options.rows, ROWS, parser)
    contenders: list[Contender] = _choose(options.mounts, CONTENDERS, parser)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)

    links: list[Link] = _choose(options.link, LINKS, parser)

    out = console()
    document: list[str] = []

    def say(lines: Iterable[str]) -> None:
        """Print lines, and add them to what is written in the end."""
        for line in lines:
            print(line, flush=True)
            document.append(line)

    say(["# Beside sshfs", "", f"`{' '.join(['tox -e bench --', *sys.argv[1:]])}`", ""])
    say(f"* {title}: {text}" for title, text in describe())
    say([""])
    shortfalls: list[Shortfall] = []
    try:
        only = options.only_inside or options.only_disks or options.only_served
        only = only or options.only_programs
        if not only:
            for link in links:
                done, interrupted = _measure(link, options, rows, contenders)
                report = Report(link, done.results, done.rows, done.contenders)
                say(report.speeds())
                say(["", *report.costs()])
                say([f"Load after the last round: {os.getloadavg()[0]:.2f}.", ""])
                shortfalls += report.shortfalls
                if interrupted:
                    say(["Interrupted: the table is of what there was until then."])
                    return 130
        if options.only_disks or (not only and not options.no_disks):
            from .disks import print_disks

            become_subreaper()
            out.print()
            shortfalls += print_disks(out, options.quick, options.rounds)
        if options.only_programs or (not only and not options.no_programs):
            from .programs import print_fuse_programs

            become_subreaper()
            out.print()
            shortfalls += print_fuse_programs(out, options.quick, options.rounds)
        if options.only_served or (not only and not options.no_served):
            from .served import print_daemons, print_programs

            count = options.rounds or (1 if options.quick else 3)
            out.print("\nServing SFTP, sshd in front of each", style="bold")
            shortfalls += print_programs(count)
            out.print("\nServing SFTP, each with the SSH that it brings along", style="bold")
            shortfalls += print_daemons(count)
        if options.only_inside or (not only and not options.no_inside):
            shortfalls += _inside(out, options.quick)
    except KeyboardInterrupt:
        return 130
    finally:
        if options.output is not None:
            options.output.write_text("\n".join(document) + "\n")
    good = print_shortfalls(out, shortfalls)
    return 0 if good or not options.strict else 1


def _measure(
    link: Link, options: argparse.Namespace, rows: list[Row], contenders: list[Contender]
) -> tuple[Rounds, bool]:
    """Do the rounds over one link; return them and whether they were cut short by the user."""
    quick = options.quick
    count = options.rounds or (2 if quick else link.rounds)
    budget = float("inf") if options.rounds else link.budget / (4 if quick else 1)
    rows = [row for row in rows if link.rows is None or row.key in link.rows]
    contenders = [each for each in contenders if each.links is None or link.key in each.links]
    become_subreaper()  # daemons detach themselves; their ends are ours to see
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{link.key:>4} {time.monotonic() - began:5.0f} s  {text}", file=sys.stderr)

    # In memory: what is measured is the way there, not the disk.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = Path(tempfile.mkdtemp(prefix="syspuffs-bench-", dir=memory))
    try:
        tree = Tree(place / "tree", link.quick if quick else link.scale)
        tree.fill()
        points = place / "mnt"
        points.mkdir()
        with ExitStack() as stack:
            server = stack.enter_context(Server(place / "sshd"))
            if not link.is_direct:
                line = Line(server.port, round_trip=link.round_trip, rate=link.rate)
                server.lead_by(stack.enter_context(line).port)
            rounds = Rounds(server, tree, points, rows, contenders, tell)
            interrupted = False
            try:
                rounds.run(count, budget)
            except KeyboardInterrupt:
                interrupted = True
        return rounds, interrupted
    finally:
        _remove(place)


def _remove(place: Path) -> None:
    """Remove our directory, but nothing through a mount that could not be undone."""
    left = [line.mount_point for line in mounts() if line.mount_point.startswith(f"{place}/")]
    if left:
        print(f"still mounted, not removed: {', '.join(left)}", file=sys.stderr)
    else:
        shutil.rmtree(place, ignore_errors=True)


def _inside(out: Console, quick: bool) -> list[Shortfall]:
    """Measure what needs no mount: frames, and pairs of layers in one process."""
    # Imported here: without ours installed, sshfs can be measured all the same.
    from .frames import print_frames
    from .pairs import print_pairs

    out.print()
    shortfalls = print_pairs(out, 3 if quick else 9)
    out.print()
    return shortfalls + print_frames(out)


if __name__ == "__main__":
    sys.exit(main())
