"""Nameidata: what `namei` is asked for, and where a path has led it."""

from __future__ import annotations

from errno import ENOENT
from types import TracebackType
from typing import Final

from ..native.errors import VfsError
from ..native.records import Componentname
from .vnode import Vnode, vput
from .vnops import vn_rele

LOCKLEAF: Final = 0x4
"""Lock the leaf, exclusively."""
LOCKPARENT: Final = 0x8
"""Return the last name's directory, locked exclusively."""
WANTPARENT: Final = 0x10
"""Return the last name's directory, unlocked, and do not look the name up."""
NOFOLLOW: Final = 0
FOLLOW: Final = 0x40
"""Follow a link that the last name is."""
LOCKSHARED: Final = 0x100
"""With LOCKLEAF: lock it shared."""
REQUIREDIR: Final = 0x80000
"""The leaf must be a directory."""


SPECIAL_NAMES: Final = frozenset((b"", b".", b".."))
"""What a path may end in that is no name which could be made or taken away; "" is the root."""


class Nameidata:
    """Where a path leads. As `async with`, or by `release`, all that it holds is given back.

    `ni_vp` is the leaf, with a reference, and locked with LOCKLEAF; None where there is no such
    name (never for LOOKUP) or it was not looked up. `ni_dvp` is the last name's directory, with a
    reference, locked exclusively with LOCKPARENT; None unless it was asked for. `ni_cnd` is the
    last name for the file system's operation. `ni_slash`: slashes followed it.
    """

    __slots__ = ("_is_leaf_locked", "_is_parent_locked", "ni_cnd", "ni_dvp", "ni_slash", "ni_vp")

    def __init__(
        self,
        dvp: Vnode | None,
        vp: Vnode | None,
        cnd: Componentname,
        *,
        slash: bool,
        locked: bool = False,
    ) -> None:
        self.ni_dvp = dvp
        self.ni_vp = vp
        self.ni_cnd = cnd
        self.ni_slash = slash
        self._is_parent_locked = locked
        self._is_leaf_locked = False

    @property
    def dvp(self) -> Vnode:
        """The last name's directory, for who asked for it; the reference stays here."""
        assert self.ni_dvp is not None
        return self.ni_dvp

    @property
    def vp(self) -> Vnode:
        """The leaf; the reference stays here. Errors: ENOENT."""
        if self.ni_vp is None:
            raise VfsError(ENOENT)
        return self.ni_vp

    @property
    def is_special(self) -> bool:
        """Whether the path ends in no name that could be made or taken away.

        That is ".", ".." or the root. With LOCKPARENT or WANTPARENT it was not looked up then, and
        nothing is locked.
        """
        return self.ni_cnd.name in SPECIAL_NAMES

    async def lock_leaf(self, *, shared: bool = False) -> None:
        """Lock the leaf, if there is one: the parent is locked before the child."""
        if self.ni_vp is not None:
            if shared:
                await self.ni_vp.lock.shared()
            else:
                await self.ni_vp.lock.exclusive()
            self._is_leaf_locked = True

    def unlock_parent(self) -> None:
        """Release the parent's lock if we have it; its reference stays."""
        if self._is_parent_locked:
            self._is_parent_locked = False
            self.dvp.lock.release()

    def take(self) -> Vnode:
        """Hand the leaf to the caller, with its reference and, if it has one, its lock.

        To be returned from within the `async with` only if the parent was not asked for, or has
        been released: a release that is cancelled would lose the leaf.
        """
        vp = self.vp
        self.ni_vp = None
        return vp

    async def release_parent(self) -> None:
        """Give back the directory and keep the leaf."""
        self.unlock_parent()
        dvp, self.ni_dvp = self.ni_dvp, None
        if dvp is not None:
            await vn_rele(dvp)

    async def release(self) -> None:
        """Give back what is still held. A leaf whose last name has gone goes with the parent free.

        (It may take long: the file system truncates it.)
        """
        self.unlock_parent()
        vp, self.ni_vp = self.ni_vp, None
        try:
            if vp is not None:
                if self._is_leaf_locked:
                    await vput(vp)
                else:
                    await vn_rele(vp)
        finally:
            await self.release_parent()

    async def __aenter__(self) -> Nameidata:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.release()
