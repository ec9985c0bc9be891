"""Permission rules, one by one."""

from __future__ import annotations

from errno import EACCES, EPERM
from itertools import product

import pytest

from syspuffs.emul.cred import (
    check_access,
    check_chown,
    check_owner,
    check_sticky,
    creation,
    drop_setid,
    may_access,
    mode_after_chmod,
    mode_after_chown,
    mode_after_write,
)
from syspuffs.native.constants import VEXEC, VREAD, VWRITE, Vtype
from syspuffs.native.records import FSCRED, NOCRED, Cred

from .caller import ANN, BOB, EVE, ROOT, fails

REG, DIR = Vtype.VREG, Vtype.VDIR
UID, GID = ANN.uid, ANN.gid  # Bob is in Ann's group by his further groups, Eve in none of hers


@pytest.mark.parametrize(("cred", "shift"), [(ANN, 6), (BOB, 3), (EVE, 0)])
def test_exactly_one_class_counts(cred: Cred, shift: int) -> None:
    for bits, wanted in product(range(8), range(1, 8)):
        others_have_all = 0o777 & ~(7 << shift)
        granted = may_access(cred, REG, others_have_all | bits << shift, UID, GID, wanted)
        assert granted == (bits & wanted == wanted)


def test_root_may_all_but_run_what_nobody_may() -> None:
    check_access(ROOT, REG, 0, UID, GID, VREAD | VWRITE)
    with fails(EACCES):
        check_access(ROOT, REG, 0o666, UID, GID, VEXEC)
    check_access(ROOT, REG, 0o001, UID, GID, VEXEC)
    check_access(ROOT, DIR, 0, UID, GID, VEXEC)


@pytest.mark.parametrize("cred", [FSCRED, NOCRED, Cred(9, 9, (), -2)])
def test_the_kernel_itself_is_never_refused(cred: Cred) -> None:
    check_access(cred, REG, 0, UID, GID, VREAD | VWRITE | VEXEC)
    check_owner(cred, UID)
    check_chown(cred, UID, GID, 5, 5)


def test_sticky_directory() -> None:
    check_sticky(EVE, 0o777, UID, BOB.uid)
    for cred in (ANN, BOB, ROOT):  # owner of the directory, owner of the file, root
        check_sticky(cred, 0o1777, UID, BOB.uid)
    with fails(EPERM):
        check_sticky(EVE, 0o1777, UID, BOB.uid)


def test_chmod_is_the_owners() -> None:
    assert mode_after_chmod(ANN, UID, GID, 0o6755) == 0o6755
    assert mode_after_chmod(ROOT, UID, GID, 0o6755) == 0o6755
    with fails(EPERM):
        mode_after_chmod(BOB, UID, GID, 0o777)
    # setgid needs membership; it is dropped without a word
    assert mode_after_chmod(ANN, UID, EVE.gid, 0o2755) == 0o755
    assert mode_after_chmod(ANN, UID, 2009, 0o2755) == 0o2755
    assert mode_after_chmod(ROOT, UID, EVE.gid, 0o2755) == 0o2755


@pytest.mark.parametrize(
    ("cred", "uid", "gid", "allowed"),
    [
        (ROOT, BOB.uid, BOB.gid, True),
        (ANN, None, ANN.gid, True),
        (ANN, None, 2009, True),
        (ANN, ANN.uid, 2009, True),
        (ANN, None, EVE.gid, False),
        (ANN, BOB.uid, None, False),
        (BOB, BOB.uid, None, False),
        (BOB, None, BOB.gid, False),
        (ANN, UID, GID, True),
    ],
)
def test_chown(cred: Cred, uid: int | None, gid: int | None, allowed: bool) -> None:
    if allowed:
        check_chown(cred, UID, GID, uid, gid)
    else:
        with fails(EPERM):
            check_chown(cred, UID, GID, uid, gid)


def test_set_id_bits_go() -> None:
    assert drop_setid(0o6755) == 0o755
    assert drop_setid(0o6745) == 0o2745  # S_ISGID without S_IXGRP means something else
    assert drop_setid(0o7777) == 0o1777
    assert mode_after_chown(REG, 0o6755) == 0o755
    assert mode_after_chown(DIR, 0o6755) == 0o6755
    assert mode_after_write(ANN, REG, 0o6755) == 0o755
    assert mode_after_write(ROOT, REG, 0o6755) == 0o6755


def test_setgid_directory_gives_its_group() -> None:
    assert creation(ANN, REG, 0o644, 0o755, EVE.gid) == (ANN.gid, 0o644)
    assert creation(ANN, REG, 0o644, 0o2755, EVE.gid) == (EVE.gid, 0o644)
    assert creation(ANN, DIR, 0o755, 0o2755, EVE.gid) == (EVE.gid, 0o2755)
    assert creation(ANN, REG, 0o2755, 0o2755, EVE.gid) == (EVE.gid, 0o755)
    assert creation(ANN, REG, 0o2755, 0o2755, 2009) == (2009, 0o2755)
    assert creation(ROOT, REG, 0o2755, 0o2755, EVE.gid) == (EVE.gid, 0o2755)
