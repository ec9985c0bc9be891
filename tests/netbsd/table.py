"""The table of NetBSD's cases: what became of each on each file system by each route."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import pytest

from .routes import FILE_SYSTEMS, ROUTES, WAYS, Route

CASES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "t_io": {
        "test_t_io.py": (
            "holywrite",
            "extendfile",
            "extendfile_append",
            "overwrite512",
            "overwrite64k",
            "overwrite_trunc",
            "shrinkfile",
            "read_after_unlink",
            "wrrd_after_unlink",
            "read_fault",
        )
    },
    "t_vnops": {
        "test_t_vnops.py": (
            "lookup_simple",
            "lookup_complex",
            "dir_simple",
            "dir_notempty",
            "dir_rmdirdotdot",
            "rename_dir",
            "rename_dotdot",
            "rename_reg_nodir",
            "create_nametoolong",
            "create_exist",
            "rename_nametoolong",
            "symlink_zerolen",
            "symlink_long",
            "symlink_root",
            "attrs",
            "fcntl_lock",
            "fcntl_getlock_pids",
            "access_simple",
            "access_nosuchmode",
            "read_directory",
            "lstat_symlink",
        )
    },
    "t_vfsops": {
        "test_t_vfsops.py": (
            "tmount",
            "tstatvfs",
            "tsync",
            "tfilehandle",
            "tfhremove",
            "tfhinval",
        )
    },
    "t_renamerace": {"test_t_race.py": ("renamerace", "renamerace_dirs")},
    "t_rmdirrace": {"test_t_race.py": ("race",)},
    "t_ro": {
        "test_t_ro.py": (
            "create",
            "rmfile",
            "fileio",
            "attrs",
            "createdir",
            "createfifo",
            "createsymlink",
            "createlink",
        )
    },
    "t_full": {"test_t_full.py": ("fillfs",)},
    "t_unpriv": {"test_t_unpriv.py": ("owner", "dirperms", "times")},
}
"""NetBSD's program -> the file of ours -> the cases, each of which is a test on every route."""

ELSEWHERE: Final = {
    "t_kern lockme_*": "tests/emul/sched/test_netbsd.py::test_lockme_mtx",
    "t_threads threadjoin": "tests/emul/sched/test_netbsd.py::test_threadjoin",
    "t_threads kthread": "tests/emul/sched/test_netbsd.py::test_kthread",
    "t_tsleep": "tests/emul/sched/test_netbsd.py::test_tsleep_that_nobody_wakes",
    "t_vm busypage": "tests/emul/uvm/test_genfs.py::test_two_readers_of_one_page_read_it_once",
    "t_vm uvmwait": (
        "tests/emul/uvm/test_pagedaemon.py::test_a_writer_waits_for_a_device_that_cannot_keep_up"
    ),
    "t_basic lseekrv": "tests/emul/syscalls/test_files.py::test_position",
    "t_p2kifs makecn": "tests/emul/syscalls/test_namei.py::test_makecn",
    "t_lwproc proccreds": "tests/emul/syscalls/test_process.py::test_credentials",
    "t_lwproc makelwp, inherit, rfork": ("tests/emul/syscalls/test_process.py::test_fork_and_exit"),
    "t_etfs large_blk, range_blk": (
        "tests/emul/rumpuser/test_hostdisk.py::test_moves_octets_as_pread_and_pwrite_do"
    ),
    "t_io read_fault (inside)": (
        "tests/emul/uvm/test_genfs.py::test_a_reader_who_gives_up_leaves_the_page_to_the_others"
    ),
}
"""Cases that programs cannot see -> the test of ours that does the same."""

NOWHERE: Final = {
    "t_unpriv flags": "Linux has no chflags",
    "t_union basic, whiteout": "there are no union mounts",
    "t_copy copystr, copyinstr, copyoutstr, copy_efault": "there are no address spaces",
    "t_signals sigraise, sigignore, sigpanic": "nobody sends signals to a kernel of ours",
    "t_modcmd, t_modlinkset": "there are no modules",
    "t_sp (9 cases)": "clients are in the same process",
    "t_lwproc lwps, nolwprelease, nolwp, nullswitch": "a task is an lwp, and always the same one",
    "t_etfs reregister_reg, reregister_blk, key": "a disk is opened, not registered under a name",
}
"""Cases of things that are not there, and why."""

_WIDTH: Final = 9
_NAME: Final = 28


class Cell(NamedTuple):
    """What became of one case on one route; `reason` is there unless that is plain."""

    state: str
    reason: str = ""


_NOT_RUN: Final = Cell(".")


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # path, line, text of a skip
        return report.longrepr[2].removeprefix("Skipped: ")
    return getattr(report, "wasxfail", "")


def _cell(reports: list[pytest.TestReport]) -> Cell:
    """Return what all reports about one case on one route come to."""
    if not reports:
        return _NOT_RUN
    if any(report.failed for report in reports):
        return Cell("FAILED")
    for report in reports:
        if hasattr(report, "wasxfail"):
            return Cell("xfail", _reason(report))
        if report.skipped:
            return Cell("-", _reason(report))
    return Cell("ok")


def _of(reports: Iterable[pytest.TestReport], file: str, case: str) -> list[pytest.TestReport]:
    start = f"tests/netbsd/{file}::test_{case}["
    return [report for report in reports if start in report.nodeid]


def _on(reports: Iterable[pytest.TestReport], route: Route) -> list[pytest.TestReport]:
    """Return those of `reports` whose parameters name the route."""
    found = []
    for report in reports:
        parameters = report.nodeid.partition("[")[2].removesuffix("]").split("-")
        if route.name in parameters:
            found.append(report)
    return found


def table_lines(reports: list[pytest.TestReport]) -> list[str]:
    """Return the table for people."""
    reasons: dict[str, int] = {}
    head = "".join(f"  {fs:<{_WIDTH * len(WAYS)}}" for fs in FILE_SYSTEMS)
    ways = "".join("  " + "".join(f"{way:<{_WIDTH}}" for way in WAYS) for _ in FILE_SYSTEMS)
    lines = [" " * _NAME + head, " " * _NAME + ways]
    for program, files in CASES.items():
        lines.append(program)
        for file, cases in files.items():
            for case in cases:
                mine = _of(reports, file, case)
                line = f"  {case:<{_NAME - 2}}"
                for number, route in enumerate(ROUTES):
                    cell = _cell(_on(mine, route))
                    text = cell.state
                    if cell.reason:
                        text += f" ({reasons.setdefault(cell.reason, len(reasons) + 1)})"
                    line += ("  " if number % len(WAYS) == 0 else "") + f"{text:<{_WIDTH}}"
                lines.append(line.rstrip())
    lines += [f"({number}) {reason}" for reason, number in reasons.items()]
    lines += ["", "What no program can see, and where it is tested:"]
    lines += [f"  {case:<34}{where}" for case, where in ELSEWHERE.items()]
    lines += ["", "What is not there:"]
    lines += [f"  {case:<52}{why}" for case, why in NOWHERE.items()]
    return lines
