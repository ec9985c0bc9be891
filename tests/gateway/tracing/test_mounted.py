"""Traces of real mounts, against what strace(1) saw the programs do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from syspuffs.layers.trace import Event, events

from ...support.mounts import Ground, MountCommand, mounted, python_command, run, wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.programs(git="git", strace="strace")]

STACK = "puffs|trace|p2k|puffs|trace|p2k|tmpfs"


def ground(tmp_path: Path, *options: str) -> Ground:
    return Ground(tmp_path / "origin", tmp_path / "mnt", tmp_path / "log", None, options)


def command(stack: str) -> MountCommand:
    def argv(ground: Ground) -> list[str]:
        options = [word for option in ground.options for word in ("-o", option)]
        return [*python_command("mount_puffs"), "-t", stack, *options, "none", str(ground.point)]

    return MountCommand(stack, argv, remote=False)


def show(*args: str | Path) -> list[str]:
    got = run([*python_command("puffs_trace"), *map(str, args)])
    assert got.status == 0, got.stderr
    assert got.stderr == ""
    return got.stdout.splitlines()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a few files, a directory and a symbolic link."""
    place = tmp_path / "repository"
    (place / "src").mkdir(parents=True)
    for number in range(20):
        (place / "src" / f"{number}.txt").write_text(f"text {number}\n" * 100 * number)
    (place / "link").symlink_to("src/1.txt")
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m1"]):
        subprocess.run(["git", *words], cwd=place, check=True)
    return place


CALLS = {
    "mkdir": re.compile(r'mkdir\("(.*?)", 0\d+\) += 0$'),
    "rmdir": re.compile(r'rmdir\("(.*?)"\) += 0$'),
    "remove": re.compile(r'unlink\("(.*?)"\) += 0$'),
    "link": re.compile(r'link\(".*?", "(.*?)"\) += 0$'),
    "rename": re.compile(r'rename\("(.*?)", ".*?"\) += 0$'),
    "symlink": re.compile(r'symlink\(".*?", "(.*?)"\) += 0$'),
}
CHMOD = re.compile(r'\d+ +f?chmod(?:at)?\((?:\d+<(.*?)>|"(.*?)"), 0\d+\) += 0$')
OPEN = re.compile(r"\d+ +openat\(.*, (O_[A-Z_|]+O_CREAT[A-Z_|]*)(?:, 0\d+)?\) = \d+<(.*)>$")
WRITE = re.compile(r"(?:write|pwrite64)\(\d+<(.*?)>.* = (\d+)$")


def seen_by_strace(file: Path, point: Path) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Return (operation, path) and octets written, by path, of calls below `point`."""
    calls: Counter[tuple[str, str]] = Counter()
    octets: Counter[str] = Counter()
    for text in file.read_text(errors="replace").splitlines():
        for name, pattern in CALLS.items():
            if (found := pattern.search(text)) and re.match(rf"\d+ +{pattern.pattern[:4]}", text):
                # git changes to its work tree before it makes what is in it.
                path = os.path.normpath(os.path.join(point, "clone", found[1]))
                if path.startswith(f"{point}/"):
                    calls[name, path.removeprefix(str(point))] += 1
        if found := CHMOD.match(text):
            path = os.path.normpath(os.path.join(point, "clone", found[1] or found[2]))
            if path.startswith(f"{point}/"):
                calls["chmod", path.removeprefix(str(point))] += 1
        if (found := WRITE.search(text)) and found[1].startswith(f"{point}/"):
            octets[found[1].removeprefix(str(point))] += int(found[2])
    return calls, octets


def seen_at_opens(file: Path, point: Path) -> tuple[Counter[str], set[str]]:
    """Return the paths that were made by O_EXCL, and all that O_CREAT may have made."""
    exclusive: Counter[str] = Counter()
    possible = set()
    for text in file.read_text(errors="replace").splitlines():
        if (found := OPEN.match(text)) and found[2].startswith(f"{point}/"):
            path = found[2].removeprefix(str(point))
            possible.add(path)
            exclusive[path] += "O_EXCL" in found[1]
    return +exclusive, possible


def seen_by_trace(found: list[Event]) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    calls: Counter[tuple[str, str]] = Counter()
    octets: Counter[str] = Counter()
    for event in found:
        path = os.fsdecode(event.path)
        if event.name in CALLS and not event.outcome:
            calls[event.name, path] += 1
        if event.name == "setattr" and not event.outcome and event.args[1].mode is not None:
            calls["chmod", path] += 1
        if event.name == "write":
            octets[path] += event.octets
    return calls, octets


def test_says_what_git_did(tmp_path: Path, repository: Path) -> None:
    """Changes of names and modes, files made, octets written: strace's and both layers' agree."""
    file = tmp_path / "trace"
    here = ground(tmp_path, f"trace={file}", "nocache")
    with mounted(command(STACK), here) as mount:
        told = tmp_path / "strace"
        clone = ["git", "clone", "-q", "--no-hardlinks", str(repository), f"{mount.point}/clone"]
        calls = "mkdir,rmdir,unlink,link,rename,symlink,chmod,fchmod,openat,write,pwrite64"
        strace = ["strace", "-f", "-y", "-s0", "-e", f"trace={calls}", "-o", str(told)]
        subprocess.run([*strace, *clone], check=True)
    expected, octets = seen_by_strace(told, here.point)
    assert sum(expected.values()) > 30
    assert {name for name, _ in expected} >= {"mkdir", "rename", "symlink", "remove", "chmod"}
    exclusive, possible = seen_at_opens(told, here.point)
    assert sum(exclusive.values()) > 5
    found = list(events(file))
    # Several names may lead to a file while it is written: octets are compared in all.
    for layer in (1, 0):
        got, written = seen_by_trace([event for event in found if event.layer == layer])
        assert got == expected
        made = Counter(
            os.fsdecode(event.path)
            for event in found
            if event.layer == layer and event.name == "create" and not event.outcome
        )
        assert exclusive <= made
        assert made.keys() <= possible
        assert sum(written.values()) == sum(octets.values()) > 20_000
    # What is below is done for what is above, as soon as there is something to do.
    above = {event.id: event for event in found if event.layer == 1}
    for event in found:
        if event.layer == 0 and event.name in CALLS and not event.outcome:
            assert above[event.parent].name == event.name
            assert above[event.parent].path == event.path


def test_shows_and_exports(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    here = ground(tmp_path, f"trace={file}", "trace_data=digest", "nocache")
    with mounted(command("puffs|trace|p2k|tmpfs"), here) as mount:
        (mount.point / "d").mkdir()
        (mount.point / "d" / "f").write_bytes(b"abc")
        assert (mount.point / "d" / "f").read_bytes() == b"abc"
        with pytest.raises(FileNotFoundError):
            (mount.point / "missing").read_bytes()
    (line,) = show("show", "--op", "mkdir", file)
    assert re.fullmatch(
        rf'\d\d:\d\d:\d\d\.\d{{6}} {os.getpid():>7} mkdir\("/d", {{VDIR mode=0755}}\) = '
        r"#\d+ VDIR <0\.\d{6}>",
        line,
    )
    (line,) = show("show", "--op", "write", "--path", "/d/*", file)
    assert re.search(r'write\("/d/f", 0, 3 \[[0-9a-f]{16}\], 0\) = 0 <', line)
    assert len(show("show", "--op", "read,write", "--pid", str(os.getpid()), file)) >= 2
    assert show("show", "--slower", "60000", file) == []
    assert show("show", "--errno", "ENOSPC", file) == []
    everything = show("show", file)
    assert len(everything) == len(list(events(file)))
    assert any('lookup("/missing") = none' in line for line in everything)
    json_file = tmp_path / "json"
    assert show("chrome", "-o", json_file, file) == []
    told = json.loads(json_file.read_text())["traceEvents"]
    complete = [event for event in told if event["ph"] == "X"]
    assert len(complete) == len(everything)
    lanes: dict[int, float] = {}
    for event in complete:  # on one thread nothing overlaps
        assert event["ts"] >= lanes.get(event["tid"], 0.0) - 0.001
        lanes[event["tid"]] = event["ts"] + event["dur"]


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "trace").touch()
    with open(tmp_path / "shown", "w") as out:
        argv = [*python_command("puffs_trace"), "show", "--follow", "--op", "mkdir"]
        process = subprocess.Popen([*argv, str(tmp_path / "trace")], stdout=out, text=True)
    yield process
    process.kill()
    process.wait()


def test_follows(tmp_path: Path, follower: subprocess.Popen[str]) -> None:
    here = ground(tmp_path, f"trace={tmp_path / 'trace'}")
    with mounted(command("puffs|trace|p2k|tmpfs"), here) as mount:
        shown = tmp_path / "shown"
        for name in ("one", "two"):
            (mount.point / name).mkdir()
            line = f'mkdir("/{name}"'
            assert wait_until(lambda line=line: line in shown.read_text())  # type: ignore[misc]


def test_complains_in_one_line(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "syspuffs.bin.puffs_trace"]
    got = run([*argv, "show", str(tmp_path / "none")])
    assert (got.status, got.stderr) == (
        1,
        f"puffs_trace: {tmp_path / 'none'}: No such file or directory\n",
    )
    (tmp_path / "bad").write_bytes(b"x" * 100)
    got = run([*argv, "show", str(tmp_path / "bad")])
    assert got.status == 1
    assert "this is no trace" in got.stderr
    got = run([*argv, "show", "--op", "frob", str(tmp_path / "bad")])
    assert (got.status, got.stderr.count("\n")) == (2, 1)
    assert "there is no operation 'frob'" in got.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "trace needs to be told where to write"),
        (["-o", "trace=/nowhere/t"], "No such file or directory"),
        (["-o", "trace=/tmp/t,trace_data=all"], "give length, digest or full"),
    ],
)
def test_words(tmp_path: Path, words: list[str], complaint: str) -> None:
    argv = [*python_command("mount_puffs"), "-t", "puffs|trace|p2k|tmpfs", *words]
    got = run([*argv, "none", str(tmp_path)])
    assert got.status == 2
    assert complaint in got.stderr
