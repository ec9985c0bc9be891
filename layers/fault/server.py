"""Faulty: the FileServer that does to operations what the rules say."""

from __future__ import annotations

from collections.abc import Callable
from errno import EIO, ENOTCONN
from typing import Any, NamedTuple

from ...native.errors import VfsError
from ..operations import Operation
from ..ops import FileServer
from ..passing import Answers, Around
from ..paths import Paths
from .reorder import Queue
from .rules import Fault, Rules


class FaultStatistics(NamedTuple):
    """Rules that hold, how often they were taken, and how many operations hang by them."""

    rules: int
    taken: int
    hanging: int
    is_dead: bool


class Faulty(Around):
    """A server between rules and the one below it. `rules` may be changed at any time."""

    name = "fault"

    def __init__(self, below: FileServer, rules: Rules) -> None:
        self.rules = rules
        self.is_dead = False
        self._paths = Paths(below.kargs.root.cookie)
        self._order = Queue()
        super().__init__(below)

    def statistics(self) -> FaultStatistics:
        """Return the figures of now."""
        found = self.rules.statistics()
        taken, hanging = sum(one.taken for one in found), sum(one.hanging for one in found)
        return FaultStatistics(len(found), taken, hanging, self.is_dead)

    def around(self, operation: Operation, call: Callable[..., Answers]) -> Callable[..., Answers]:
        """See Around."""
        name, paths = operation.name, self._paths

        async def faulty(*args: Any) -> Any:
            if self.is_dead:
                return self._buried(name)
            cred = operation.cred(args)
            path = paths.of(operation, args) if self.rules.wants_paths("server") else b""
            fault = self.rules.due("server", name, path, cred)
            if fault is None:
                answer = await call(*args)
            else:
                await fault.wait()
                if fault.rule.death or self.is_dead:
                    self.is_dead = True
                    return self._buried(name)
                answer = await self._broken(fault, name, call, args)
            # Learnt without rules about paths as well, for one may come at any time.
            if fault is None or not fault.rule.lost:
                paths.learn(operation, args, answer)
            self._order.gone_by()
            if fault is not None and fault.rule.reorder is not None:
                await self._order.wait(self._order.hold(fault.rule.reorder))
            return answer

        return faulty

    def around_told(self, operation: Operation, call: Callable[..., None]) -> Callable[..., None]:
        """See Around. Such an operation can be lost, and nothing else."""

        def told(*args: Any) -> None:
            path = self._paths.of(operation, args) if self.rules.wants_paths("server") else b""
            fault = self.rules.due("server", operation.name, path, operation.cred(args))
            self._paths.learn(operation, args, None)
            if not self.is_dead and not (fault is not None and fault.rule.lost):
                call(*args)

        return told

    def _buried(self, name: str) -> None:
        """Answer for a dead server: only an unmount still works."""
        if name != "unmount":
            raise VfsError(ENOTCONN, "fault: the server is dead")

    async def _broken(
        self, fault: Fault, name: str, call: Callable[..., Answers], args: tuple[Any, ...]
    ) -> Any:
        rule = fault.rule
        if rule.errno is not None:
            if rule.after:
                await self._done_in_vain(name, call, args)
            error = fault.error
            assert error is not None
            raise error
        if rule.lost:
            return 0 if name in ("remove", "rmdir") else None
        if name == "write":
            return await self._broken_write(fault, call, args)
        answer = await call(*args)
        if rule.short is not None:
            return answer[: rule.short]
        if rule.flip is not None:
            return fault.flipped(answer)
        return answer

    async def _broken_write(
        self, fault: Fault, call: Callable[..., Answers], args: tuple[Any, ...]
    ) -> None:
        rule = fault.rule
        opc, offset, data, *rest = args
        if rule.flip is not None:
            data = fault.flipped(data)
        size = rule.short if rule.torn is None else rule.torn
        if size is None or size >= len(data):
            await call(opc, offset, data, *rest)
            return
        if size:
            await call(opc, offset, memoryview(data)[:size], *rest)
        if rule.short is not None:
            raise VfsError(EIO, f"fault: {size} octets were written")

    async def _done_in_vain(
        self, name: str, call: Callable[..., Answers], args: tuple[Any, ...]
    ) -> None:
        """Do an operation whose answer nobody will hear; lookups that it counts go back."""
        answer = await call(*args)
        if name in ("lookup", "create", "mknod", "mkdir", "symlink", "fhtonode"):
            if answer.cookie:
                self.below.reclaim(answer.cookie, 1)
        elif name == "readdir":
            for entry in answer[0]:
                if entry.newinfo is not None:
                    self.below.reclaim(entry.newinfo.cookie, 1)
        elif name == "open":
            self.below.close(args[0], args[1], args[2])
