"""From errors to exit statuses: what can be told apart gets numbers of its own."""

import errno

import pytest

from syspuffs.gateway.failures import errno_of, explain, refused
from syspuffs.gateway.host.hostmount import HostMountError, HostMountFailure
from syspuffs.gateway.status import MEANINGS, CommandError, Status, status_lines
from syspuffs.layers.psshfs.ssh.failure import Cause, ConnectError
from syspuffs.layers.psshfs.ssh.target import TargetError
from syspuffs.native.errors import VfsError


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_of_a_missing_stream_has_a_status(cause: Cause) -> None:
    error = explain(ConnectError(cause, "host: why; what next"))
    assert error is not None
    assert error.message == "host: why; what next"
    assert error.status not in (Status.OK, Status.FAILURE)


@pytest.mark.parametrize("failure", HostMountFailure)
def test_every_refusal_of_the_host_has_a_status(failure: HostMountFailure) -> None:
    error = explain(HostMountError(failure, "why (what next)"))
    assert error is not None
    assert (error.status == Status.FAILURE) == (failure is HostMountFailure.OTHER)


def test_the_cause_is_found_in_groups() -> None:
    inner = ConnectError(Cause.REFUSED, "refused")
    error = explain(ExceptionGroup("", [ValueError(), ExceptionGroup("", [inner])]))
    assert error is not None
    assert error.status == Status.REFUSED


def test_what_was_decided_goes_before_what_happened() -> None:
    decided = CommandError(Status.STACK, "no")
    error = explain(ExceptionGroup("", [ConnectError(Cause.DIED, "died"), decided]))
    assert error is decided


def test_others() -> None:
    assert explain(RuntimeError("a bug")) is None
    target = explain(TargetError("bad target"))
    assert target is not None
    assert target.status == Status.USAGE
    interrupt = explain(KeyboardInterrupt())
    assert interrupt is not None
    assert (interrupt.status, interrupt.message) == (130, "")
    unmount = explain(VfsError(errno.EIO, "2 writes failed"))
    assert unmount is not None
    assert "EIO" in unmount.message
    assert "2 writes failed" in unmount.message


@pytest.mark.parametrize(
    "status",
    [
        Status.FAILURE,
        Status.MOUNT_POINT_MISSING,
        Status.MOUNT_POINT_NOT_DIRECTORY,
        Status.MOUNT_POINT_BUSY,
        Status.FUSE_PERMISSION,
        Status.FUSE_MISSING,
    ],
)
def test_statuses_survive_the_way_over_a_descriptor(status: Status) -> None:
    error = refused(errno_of(CommandError(status, "why")), "why")
    assert (error.status, error.message) == (status, "why")


def test_every_status_has_its_meaning_and_its_line() -> None:
    assert set(MEANINGS) == set(Status)
    assert len(status_lines(wrapper=True)) == len(Status)
    assert len(status_lines()) == len(Status) - 4
