"""Nodes with Unix attributes: the rules that all file systems which keep such nodes have in common.

What `cred` says of numbers is said of nodes here: who may open, enter, remove and rename,
what a change of attributes comes to, when a time of access is due. Nothing here waits, or
knows where a node is kept.
"""

from __future__ import annotations

from errno import (
    EACCES,
    EEXIST,
    EINVAL,
    EISDIR,
    ELOOP,
    EMLINK,
    ENAMETOOLONG,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    ENXIO,
    EOPNOTSUPP,
    EPERM,
)
from typing import Final, NamedTuple, Protocol

from ..native.constants import FREAD, FWRITE, NAME_MAX, VEXEC, VREAD, VWRITE, Vtype
from ..native.errors import VfsError
from ..native.records import Componentname, Cred, Vattr
from .cred import (
    check_access,
    check_chown,
    check_owner,
    check_sticky,
    is_owner,
    may_access,
    mode_after_chmod,
    mode_after_chown,
    mode_after_write,
)

_RELATIME: Final = 86_400 * 10**9


class UnixNode(Protocol):
    """A node. `mode` is the permission part, times are ns; `nlink` 0: no name is left."""

    vtype: int
    mode: int
    uid: int
    gid: int
    nlink: int
    atime: int
    mtime: int
    ctime: int


class OpenNode(UnixNode, Protocol):
    """A regular file, and who has it open.

    `creator` may open it once, whatever the mode says: `open(O_CREAT | O_RDWR, 0444)` arrives as
    create and open. `writers` counts who has it open for writing.
    """

    creator: int | None
    writers: int


def is_atime_due(node: UnixNode, now: int) -> bool:
    """Whether an access now is to be noted, by Linux' relatime.

    That is when the last one is older than the last change, or than a day.
    """
    atime = node.atime
    return atime <= node.mtime or atime <= node.ctime or now - atime > _RELATIME


# Files.


def check_node(node: UnixNode, cred: Cred, wanted: int) -> None:
    """Return if `cred` may do `wanted` (VREAD, VWRITE, VEXEC) to the node. Errors: EACCES."""
    check_access(cred, node.vtype, node.mode, node.uid, node.gid, wanted)


def open_file(node: OpenNode, mode: int, cred: Cred) -> None:
    """Count an open of a regular file for FREAD, FWRITE. Errors: EACCES; nothing is counted."""
    creator, node.creator = node.creator, None
    if creator is None or creator != cred.uid:
        check_node(node, cred, (VREAD if mode & FREAD else 0) | (VWRITE if mode & FWRITE else 0))
    if mode & FWRITE:
        node.writers += 1


def close_file(node: OpenNode, fflag: int) -> None:
    """Count the end of an open."""
    if fflag & FWRITE and node.writers:
        node.writers -= 1


def check_open(node: UnixNode, mode: int, cred: Cred) -> None:
    """Return if what is no regular file may be opened, which holds for directories only.

    Errors, first match wins: EISDIR; ELOOP; EACCES; ENXIO, nothing is behind the node.
    """
    if node.vtype == Vtype.VDIR:
        if mode & FWRITE:
            raise VfsError(EISDIR)
    elif node.vtype == Vtype.VLNK:
        raise VfsError(ELOOP)
    check_node(node, cred, (VREAD if mode & FREAD else 0) | (VWRITE if mode & FWRITE else 0))
    if node.vtype != Vtype.VDIR:
        raise VfsError(ENXIO, "no device, pipe or socket is behind the node")


class Change(NamedTuple):
    """What a setattr that may be done makes of mode, owner and group."""

    mode: int
    uid: int
    gid: int


def check_setattr(node: UnixNode, va: Vattr, cred: Cred) -> Change:
    """Return what a setattr comes to.

    A mode beside an owner or a size is the last word.

    Nothing is said of a size: whether there can be one, how large it may be, and who may change it
    (`check_resize`) the file system asks afterwards.

    Errors, first match wins:
        EOPNOTSUPP  `flags`
        EINVAL      anything else that cannot be set
        EPERM       owner, group, mode or times by whom they do not belong to
    """
    if va.flags is not None:
        raise VfsError(EOPNOTSUPP)
    if any(
        field is not None
        for field in (
            va.vtype,
            va.nlink,
            va.fsid,
            va.fileid,
            va.blocksize,
            va.gen,
            va.rdev,
            va.bytes,
        )
    ):
        raise VfsError(EINVAL)
    mode = node.mode
    gid = node.gid if va.gid is None else va.gid
    if va.uid is not None or va.gid is not None:
        check_chown(cred, node.uid, node.gid, va.uid, va.gid)
        mode = mode_after_chown(node.vtype, mode)
    if va.size is not None:
        mode = mode_after_write(cred, node.vtype, mode)
    if va.mode is not None:
        mode = mode_after_chmod(cred, node.uid, gid, va.mode & 0o7777)
    if not va.atime is va.mtime is va.ctime is va.birthtime is None:
        check_owner(cred, node.uid)
    return Change(mode, node.uid if va.uid is None else va.uid, gid)


def check_resize(node: OpenNode, cred: Cred) -> None:
    """Return if `cred` may change the size of a regular file.

    Who may write may, and the owner while somebody has the file open for writing: `ftruncate`
    arrives without its descriptor, and must work after `open(O_CREAT | O_RDWR, 0444)`.
    Errors: EACCES.
    """
    if may_access(cred, Vtype.VREG, node.mode, node.uid, node.gid, VWRITE):
        return
    if not (node.writers and is_owner(cred, node.uid)):
        raise VfsError(EACCES)


# Names. `dir` is the node of a directory, of which the caller knows what is in it.


def check_search(dir: UnixNode, cn: Componentname) -> None:
    """Return if `cn.name` may be looked for. Errors, first match wins: ENAMETOOLONG, EACCES."""
    if len(cn.name) > NAME_MAX:
        raise VfsError(ENAMETOOLONG)
    check_node(dir, cn.cred, VEXEC)


def check_new(dir: UnixNode, cn: Componentname, *, exists: bool) -> None:
    """Return if `cn` may be entered in a directory, in which there `exists` such a name or not.

    Errors, first match wins: ENAMETOOLONG; EACCES (search); EEXIST; ENOENT (`dir` was removed);
    EACCES (write).
    """
    check_search(dir, cn)
    if exists:
        raise VfsError(EEXIST)
    if dir.nlink == 0:
        raise VfsError(ENOENT)
    check_node(dir, cn.cred, VWRITE)


def check_removal(dir: UnixNode, node: UnixNode, cn: Componentname, *, is_there: bool) -> None:
    """Return if the name `cn` of `node` may be taken from `dir`, if it `is_there`.

    Errors, first match wins: EACCES (search); ENOENT; EACCES (write); EPERM (sticky directory).
    """
    check_node(dir, cn.cred, VEXEC)
    if not is_there:
        raise VfsError(ENOENT)
    check_node(dir, cn.cred, VWRITE)
    check_sticky(cn.cred, dir.mode, dir.uid, node.uid)


def check_link(node: UnixNode, link_max: int) -> None:
    """Return if `node` may get one more name. Errors, first match wins: EPERM, ENOENT, EMLINK."""
    if node.vtype == Vtype.VDIR:
        raise VfsError(EPERM)
    if node.nlink == 0:
        raise VfsError(ENOENT)
    if node.nlink >= link_max:
        raise VfsError(EMLINK)


def check_rename(
    fdir: UnixNode,
    node: UnixNode,
    fcn: Componentname,
    tdir: UnixNode,
    victim: UnixNode | None,
    tcn: Componentname,
    *,
    victim_is_empty: bool,
    link_max: int,
) -> None:
    """Return if `node` may move, in place of `victim`, a node that is not `node`.

    That the names are there, and that no directory moves into itself, is known.

    Errors, first match wins:
        EACCES EPERM  taking the old name away
        ENOENT        the new parent was removed
        EACCES EPERM  entering or replacing the new name
        ENOTDIR       a directory onto something else
        EISDIR        something else onto a directory
        EACCES        a directory without write permission into a new parent (".." changes)
        ENOTEMPTY     onto a directory with entries
        EMLINK        a directory into one with too many
    """
    is_dir = node.vtype == Vtype.VDIR
    check_removal(fdir, node, fcn, is_there=True)
    if victim is None:
        check_new(tdir, tcn, exists=False)
    else:
        check_removal(tdir, victim, tcn, is_there=True)
        if is_dir and victim.vtype != Vtype.VDIR:
            raise VfsError(ENOTDIR)
        if not is_dir and victim.vtype == Vtype.VDIR:
            raise VfsError(EISDIR)
    moves_dir = is_dir and fdir is not tdir
    if moves_dir:
        check_node(node, fcn.cred, VWRITE)
    if victim is not None and is_dir:
        if not victim_is_empty:
            raise VfsError(ENOTEMPTY)
    elif moves_dir and tdir.nlink >= link_max:
        raise VfsError(EMLINK)
