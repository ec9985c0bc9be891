"""The operations of a guard on names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from errno import EINVAL, EPERM, ESTALE
from typing import Final

import trio

from ...native.constants import READDIR_PLUS, Vtype
from ...native.errors import VfsError
from ...native.records import Componentname, Cookie, Cred, Dirent, Newinfo, Vattr
from .checks import Asked, Checks
from .nodes import Node
from .outcome import is_refusal
from .policy import SEEN
from .settings import Verb

_DOTS: Final = (b".", b"..")
_NONE: Final = Newinfo(Cookie(0), Vtype.VNON)
_TRIES: Final = 4
"""How often a name is looked up whose node is moved about meanwhile."""
_LIST: Final = int(Verb.LIST)
_CREATE: Final = int(Verb.CREATE)
_DELETE: Final = int(Verb.DELETE)
_RENAME: Final = int(Verb.RENAME)
_MKDIR: Final = int(Verb.MKDIR)
_LINK: Final = int(Verb.LINK)


class NameOperations(Checks):
    """The part of the guard that finds, lists, makes, removes and moves names."""

    # Finding.

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        """See FileServer. A hidden name is none; ESTALE for an answer that cannot be true."""
        directory = self._see(opc)
        name = cn.name
        if name == b"..":
            return await self._parent(directory, cn)
        table = self._table
        if not self._policy.is_plain:
            for state in table.states_at(directory, name):
                if not state.rights & SEEN:
                    return _NONE
        for _ in range(_TRIES):
            asked = self._asked()
            info = await self._server.lookup(opc, cn)
            if not info.cookie:
                if asked.moves == table.moves and name in directory.entries:
                    table.forget(directory, name)
                return info
            if self._take(directory, name, info, asked):
                return info
        raise VfsError(ESTALE)

    async def _parent(self, directory: Node, cn: Componentname) -> Newinfo:
        """Look ".." up. Errors: ESTALE where it leads to what is not known to be above."""
        table = self._table
        if directory is table.root:
            return self.kargs.root
        info = await self._server.lookup(Cookie(directory.cookie), cn)
        if not info.cookie or info.cookie == table.root.cookie:
            return info
        node = table.absorb(info)
        if not any(parent is node for parent, _ in directory.places):
            table.reclaim(node, 1)
            raise VfsError(ESTALE)
        return info

    async def fhtonode(self, handle: bytes) -> Newinfo:
        """See FileServer. ESTALE for a node that is not known: nobody could say where it is."""
        info = await self._server.fhtonode(handle)
        table = self._table
        if info.cookie == table.root.cookie:
            return info
        node = table.get(info.cookie)
        if node is None or not table.rights(node) & SEEN:
            self._server.reclaim(info.cookie, 1)
            raise VfsError(ESTALE)
        table.absorb(info)
        return info

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        """See FileServer. Hidden names are left out."""
        directory = self._look(opc, _LIST)
        while True:
            asked = self._asked()
            entries, is_end = await self._server.readdir(opc, offset, resid, flags, cred)
            if flags & READDIR_PLUS:
                entries = self._taken(directory, entries, asked)
            if self._policy.is_plain:
                return entries, is_end
            shown = [entry for entry in entries if self._is_shown(directory, entry)]
            if shown or is_end or not entries:
                return shown, is_end
            offset = entries[-1].offset
            await trio.lowlevel.checkpoint()  # all of them were hidden; there may be many

    def _taken(self, directory: Node, entries: Sequence[Dirent], asked: Asked) -> list[Dirent]:
        """Take in the nodes that came with entries. What cannot be taken in is left out: whoever
        wants it looks it up."""
        taken: list[Dirent] = []
        for entry in entries:
            info = entry.newinfo
            if info is not None and not self._take(directory, entry.name, info, asked):
                entry = entry._replace(newinfo=None)
            taken.append(entry)
        return taken

    def _is_shown(self, directory: Node, entry: Dirent) -> bool:
        if entry.name in _DOTS:
            return True
        if all(s.rights & SEEN for s in self._table.states_at(directory, entry.name)):
            return True
        if entry.newinfo is not None:
            node = self._table.get(entry.newinfo.cookie)
            assert node is not None  # it was taken in
            self._table.reclaim(node, 1)
        return False

    # Making.

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        directory, _ = self._place(opc, cn.name, _CREATE)
        info = await self._make(directory, cn.name, lambda: self._server.create(opc, cn, va))
        self._node(info.cookie).born = trio.current_time()
        return info

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        directory, _ = self._place(opc, cn.name, _CREATE)
        return await self._make(directory, cn.name, lambda: self._server.mknod(opc, cn, va))

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        directory, _ = self._place(opc, cn.name, _MKDIR)
        return await self._make(directory, cn.name, lambda: self._server.mkdir(opc, cn, va))

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        """See FileServer."""
        directory, _ = self._place(opc, cn.name, _LINK)
        return await self._make(
            directory, cn.name, lambda: self._server.symlink(opc, cn, va, target)
        )

    async def _make(
        self, directory: Node, name: bytes, make: Callable[[], Awaitable[Newinfo]]
    ) -> Newinfo:
        """Errors: ESTALE for what was moved by others before it was known here."""
        asked = self._asked()
        info = await (make() if self._quota is None else self._quota.making(make))
        if not self._take(directory, name, info, asked):
            raise VfsError(ESTALE)
        return info

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        """See FileServer. Errors: EPERM where hard links are not made at all.

        A second name and the removal of the first are a rename, and SFTP's RENAME is made of them:
        a link needs LINK and RENAME at both places and DELETE at the old one. What may be renamed
        and not linked gets EPERM, which says that there are no hard links here.
        """
        node = self._see(targ)
        directory, states = self._place(opc, cn.name, 0)
        needed = self._table.rights(node) & ~(0 if self._quota is None else _LINK)
        for state in states:
            needed &= state.rights | _DELETE
        if ~needed & (_LINK | _RENAME | _DELETE):
            raise VfsError(EPERM)
        self._narrow(node, (), states)
        moves = self._table.moves
        answer = await self._server.link(opc, targ, cn)
        self._table.learn(directory, cn.name, node, moves)
        return answer

    # Removing and moving.

    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """See FileServer."""
        return await self._remove(opc, targ, cn, lambda: self._server.remove(opc, targ, cn))

    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """See FileServer."""
        return await self._remove(opc, targ, cn, lambda: self._server.rmdir(opc, targ, cn))

    async def _remove(
        self,
        opc: Cookie,
        targ: Cookie,
        cn: Componentname,
        remove: Callable[[], Awaitable[int]],
    ) -> int:
        directory, _ = self._place(opc, cn.name, _DELETE)
        node = self._alter(targ, _DELETE)
        answer = await (remove() if self._quota is None else self._quota.removing(node, remove))
        self._table.unname(node, directory, cn.name)
        return answer

    async def rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
    ) -> None:
        """See FileServer. RENAME at both places, DELETE for what is replaced.

        EACCES, too, where more would be allowed at the new place than at the old one, or below.
        XXX: a file that somebody else makes at the new name between the caller's lookup and this is
        replaced without DELETE; only a rename that refuses what is there would be right.
        """
        table = self._table
        node = self._alter(src, _RENAME)
        directory, old = self._place(opc, cn_src.name, _RENAME)
        place, new = self._place(targ_dir, cn_targ.name, _RENAME)
        victim = None
        if targ is not None and targ != src:
            victim = self._alter(targ, _DELETE)
            self._allowed(new, _DELETE)
        if node is table.root or (node.vtype == Vtype.VDIR and table.is_above(node, place)):
            raise VfsError(EINVAL)
        # The name may lead elsewhere by the time it is moved: its own place counts, and all kinds
        # of rights, for it may be a directory then.
        self._narrow(node, old, new)

        def move() -> Awaitable[None]:
            return self._server.rename(opc, src, cn_src, targ_dir, targ, cn_targ)

        table.begin_move(node)
        try:
            if victim is None or self._quota is None:
                await move()
            else:
                await self._quota.removing(victim, move)
        except BaseException as exc:
            if not is_refusal(exc):
                table.doubt(node, place, cn_targ.name)
            raise
        finally:
            table.end_move(node)
        if targ != src:
            table.move(node, directory, cn_src.name, place, cn_targ.name)
