"""What holds for all tests: hypothesis profiles, options, and that nothing is left behind.

Each worker of pytest-xdist is a process like the one without it: subreaper of what it starts, with
mounts, a directory and servers of its own.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from .netbsd.table import table_lines
from .support.leaks import ALLOWED, Snapshot, become_subreaper
from .support.logs import LogWatch
from .support.mounts import Mounts
from .support.namespace import own_mounts
from .support.target import UMASK

_SNAPSHOT = pytest.StashKey[Snapshot]()

_SLOW_IS_NO_FAULT = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=_SLOW_IS_NO_FAULT,
)
settings.register_profile("long", parent=settings.get_profile("ci"), derandomize=False)
settings.load_profile(os.environ.get("SYSPUFFS_HYPOTHESIS", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stack",
        action="append",
        default=[],
        metavar="NAME",
        help="run the tests of this stack only (may be given more than once)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): run only on stacks with these capabilities")
    config.addinivalue_line("markers", "logs(pattern): records of WARNING or above that may come")
    config.addinivalue_line("markers", "programs(**packages): programs it runs, and their packages")
    os.umask(UMASK)
    become_subreaper()
    own_mounts()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return what `-n auto` is: one worker more than there are processors, as many tests wait."""
    return len(os.sched_getaffinity(0)) + 1


def _require_fuse() -> None:
    """Check that mounts can be made here. No skip: a mount that is not tested does not work."""
    device = Path("/dev/fuse")
    if not device.exists():
        pytest.fail(
            "/dev/fuse is missing: load the kernel module fuse, or give it to the container"
        )
    if os.geteuid() == 0:
        if stat.S_IMODE(device.stat().st_mode) & 0o666 != 0o666:
            device.chmod(0o666)  # as udev does it; tests of unprivileged users need it
    elif not os.access(device, os.R_OK | os.W_OK):
        pytest.fail("no permission on /dev/fuse: as root, chmod 0666 /dev/fuse")
    if shutil.which("fusermount3") is None:
        pytest.fail("fusermount3 is missing: apt-get install fuse3")


def _require_sshd() -> None:
    """Check that an OpenSSH server can be started here."""
    for program, package in (
        ("/usr/sbin/sshd", "openssh-server"),
        ("/usr/lib/openssh/sftp-server", "openssh-sftp-server"),
        ("ssh", "openssh-client"),
        ("ssh-keygen", "openssh-client"),
    ):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing: apt-get install {package}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("fuse"):
        _require_fuse()
    if item.get_closest_marker("sshd"):
        _require_sshd()


def _basetemp(config: pytest.Config) -> Path:
    """Return the directory in which all of this session's directories are."""
    factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
    return factory.getbasetemp()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[_SNAPSHOT] = Snapshot(_basetemp(item.config), ALLOWED)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield
    leaks = item.stash[_SNAPSHOT].leaks()
    if leaks:
        pytest.fail("the test left something behind:\n" + "\n".join(leaks), pytrace=False)


@pytest.fixture(autouse=True)
def log_watch(request: pytest.FixtureRequest) -> Iterator[LogWatch]:
    """Fail a test during which a warning was logged; `log_watch.expect` announces one."""
    watch = LogWatch()
    for marker in request.node.iter_markers("logs"):
        for pattern in marker.args:
            watch.expect(pattern)
    root = logging.getLogger()
    root.addHandler(watch)
    try:
        yield watch
    finally:
        root.removeHandler(watch)
    unexpected = watch.unexpected()
    if unexpected:
        pytest.fail("unexpected log records:\n" + "\n".join(unexpected), pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of NetBSD's cases: here, as workers have run them, and not this process."""
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and "/netbsd/test_t_" in report.nodeid
    ]
    if reports:
        terminalreporter.section("NetBSD's cases")
        for line in table_lines(reports):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounts]:
    """Mounts by the real commands that all tests of a session share."""
    with Mounts(tmp_path_factory.mktemp("mounts")) as shared:
        yield shared
