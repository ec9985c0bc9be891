"""Trees of accounts: who shares them, how long they stay, and what ends with them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.gateway.sftp import Export
from syspuffs.gateway.sftpd.accounts import REST_SECONDS, AccountError, Accounts, Guarded
from syspuffs.gateway.sftpd.policies import Policies
from syspuffs.gateway.sftpd.settings import Account, Settings, TreeSettings
from syspuffs.gateway.sshd.settings import Credentials, SshSettings
from syspuffs.layers.guard import Guard, GuardSettings, Usage
from syspuffs.layers.ops import FileServer

from ...support.leaks import descendants
from ...support.sftp_end import sftp_client_of
from ...support.sshd import find_sftp_server
from ..sftp.harness import Wire

MEMORY = TreeSettings(b"/", "p2k|tmpfs", "none")


def account(name: str, *trees: TreeSettings, guard: GuardSettings | None = None) -> Account:
    guard = GuardSettings() if guard is None else guard
    return Account(name, Credentials(), trees or (MEMORY,), guard, sessions_max=3)


def settings(*accounts: Account, keep: float | None = None) -> Settings:
    return Settings(
        ssh=SshSettings(listen=(), state=Path("/nowhere")),
        accounts={one.name: one for one in accounts},
        state=Path("/nowhere"),
        keep_seconds=keep,
    )


@asynccontextmanager
async def unguarded(server: FileServer, account: Account) -> AsyncIterator[FileServer]:
    yield server


@asynccontextmanager
async def serving(told: Settings, guarded: Guarded = unguarded) -> AsyncIterator[Accounts]:
    async with trio.open_nursery() as nursery:
        accounts = Accounts(nursery, told, guarded)
        try:
            yield accounts
        finally:
            with trio.CancelScope(shield=True):
                await accounts.close(0)
        assert not accounts.sessions


@asynccontextmanager
async def client(export: Export) -> AsyncIterator[Wire]:
    async with sftp_client_of(export) as near:
        wire = Wire(near)
        await wire.greet()
        yield wire


async def eventually(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.01)


async def test_sessions_of_an_account_share_its_trees() -> None:
    async with serving(settings(account("alice"), account("bob"))) as accounts:
        async with (
            accounts.session("alice") as (_, one),
            accounts.session("alice") as (_, two),
            accounts.session("bob") as (_, bobs),
        ):
            assert one is two
            assert bobs is not one
            assert accounts.in_use == 2
            assert accounts.sessions == {"alice": 2, "bob": 1}
            async with client(one) as wire:
                await wire.put(b"/f", b"x")
            async with client(bobs) as wire:
                with pytest.raises(Exception, match="No such file"):
                    await wire.open(b"/f")


async def test_trees_that_nobody_needs_go_after_a_while(autojump_clock: MockClock) -> None:
    async with serving(settings(account("alice"), keep=60)) as accounts:
        async with accounts.session("alice") as (_, first):
            await trio.sleep(100)
        await trio.sleep(59)
        async with accounts.session("alice") as (_, second):
            assert second is first
        await trio.sleep(61)
        assert accounts.in_use == 0
        async with accounts.session("alice") as (_, third):
            assert third is not first


async def test_there_are_bounds() -> None:
    async with serving(settings(account("alice"))) as accounts:
        async with accounts.session("alice"), accounts.session("alice"), accounts.session("alice"):
            with pytest.raises(AccountError, match="3 sessions of this account"):
                async with accounts.session("alice"):
                    pass
        async with accounts.session("alice"):
            pass
        with pytest.raises(AccountError, match="closed"):
            async with accounts.session("bob"):
                pass


@pytest.mark.logs("account alice: .*no such directory")
async def test_an_account_whose_trees_cannot_be_built(tmp_path: Path) -> None:
    tree = TreeSettings(b"/", "psshfs", f":{tmp_path}/late", (f"sftp_server={find_sftp_server()}",))
    async with serving(settings(account("alice", tree), account("bob"))) as accounts:
        for _ in range(2):
            with pytest.raises(AccountError, match="cannot be had now"):
                async with accounts.session("alice"):
                    pass
        assert accounts.in_use == 1  # it rests, and was not tried again
        async with accounts.session("bob"):
            (tmp_path / "late").mkdir()
            await trio.sleep(REST_SECONDS)
            await eventually(lambda: accounts.in_use == 1)
            async with accounts.session("alice") as (_, export), client(export) as wire:
                await wire.put(b"/f", b"x")
        assert (tmp_path / "late/f").read_bytes() == b"x"


@pytest.mark.logs("account alice: tree /: ", "SFTP connection lost")
async def test_a_tree_that_dies_ends_sessions_and_the_next_has_another(tmp_path: Path) -> None:
    words = f"sftp_server={find_sftp_server()}", "no_reconnect"
    tree = TreeSettings(b"/", "psshfs", f":{tmp_path}", words)
    before = set(descendants(os.getpid()))
    async with serving(settings(account("alice", tree), account("bob"))) as accounts:
        async with accounts.session("bob") as (_, bobs), client(bobs) as bystander:
            ended = False
            async with accounts.session("alice") as (_, first):
                (pid,) = set(descendants(os.getpid())) - before
                os.kill(pid, signal.SIGKILL)
                await trio.sleep_forever()
            ended = True
            async with accounts.session("alice") as (_, second), client(second) as wire:
                assert second is not first
                await wire.put(b"/f", b"x")
            await bystander.put(b"/g", b"y")
    assert ended


@pytest.mark.logs("account alice: tree /a: ", "SFTP connection lost")
async def test_other_trees_of_the_account_go_on(tmp_path: Path) -> None:
    word = f"sftp_server={find_sftp_server()}"
    mortal = TreeSettings(b"/a", "psshfs", f":{tmp_path}", (word, "no_reconnect"))
    trees = mortal, replace(MEMORY, path=b"/b")
    before = set(descendants(os.getpid()))
    async with serving(settings(account("alice", *trees))) as accounts:
        async with accounts.session("alice") as (_, first), client(first) as wire:
            (pid,) = set(descendants(os.getpid())) - before
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: accounts.served(account("alice", *trees)).export is not first)
            with pytest.raises(Exception, match="Transport endpoint is not connected"):
                await wire.put(b"/a/f", b"x")
            await wire.put(b"/b/f", b"x")
            async with accounts.session("alice") as (_, second), client(second) as fresh:
                await fresh.put(b"/a/f", b"x")


@pytest.mark.logs("account alice: internal error")
async def test_a_layer_that_crashes_takes_its_account_only() -> None:
    crash = trio.Event()

    @asynccontextmanager
    async def fragile(server: FileServer, account: Account) -> AsyncIterator[FileServer]:
        async def wait() -> None:
            await crash.wait()
            raise RuntimeError("a bug")

        async with trio.open_nursery() as nursery:
            if account.name == "alice":
                nursery.start_soon(wait)
            yield server
            nursery.cancel_scope.cancel()

    async with serving(settings(account("alice"), account("bob")), fragile) as accounts:
        async with accounts.session("bob") as (_, bobs), client(bobs) as bystander:
            async with accounts.session("alice"):
                crash.set()
                await trio.sleep_forever()
            await bystander.put(b"/g", b"y")


async def test_a_reload_leaves_sessions_what_they_began_with() -> None:
    plain, strict = account("alice"), account("alice", guard=GuardSettings(readonly=True))
    async with serving(settings(plain, account("bob"))) as accounts:
        async with accounts.session("alice") as (_, old), client(old) as wire:
            async with accounts.session("bob") as (_, bobs):
                accounts.update(settings(strict, replace(account("bob"), idle_seconds=5.0)))
                async with accounts.session("bob") as (bob, same):
                    assert same is bobs
                    assert bob.idle_seconds == 5.0
            await wire.put(b"/f", b"x")
            async with accounts.session("alice") as (_, new):
                assert new is not old
        await wait_all_tasks_blocked()
        assert accounts.in_use == 2


async def test_sessions_of_a_removed_account_end() -> None:
    async with serving(settings(account("alice"), account("bob"))) as accounts:
        async with accounts.session("bob"):
            async with accounts.session("alice"):
                accounts.update(settings(account("bob")))
                await trio.sleep_forever()
            with pytest.raises(AccountError, match="closed"):
                async with accounts.session("alice"):
                    pass


async def test_the_end_gives_sessions_some_time(autojump_clock: MockClock) -> None:
    async with serving(settings(account("alice"))) as accounts:
        async with accounts.session("alice"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accounts.close, 10)
                await wait_all_tasks_blocked()
                with pytest.raises(AccountError, match="going down"):
                    async with accounts.session("alice"):
                        pass
                began = trio.current_time()
                try:
                    await trio.sleep_forever()
                finally:
                    assert trio.current_time() - began == pytest.approx(10)
                    nursery.cancel_scope.cancel()


async def test_the_end_does_not_wait_for_trees_that_are_being_built() -> None:
    tree = TreeSettings(b"/", "psshfs", ":/", ("sftp_server=sleep 1000",))

    async def come() -> None:
        with pytest.raises(AccountError, match="cannot be had"):
            async with accounts.session("alice"):
                pass

    with trio.fail_after(20):
        async with serving(settings(account("alice", tree))) as accounts:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(come)
                await eventually(lambda: accounts.sessions == {"alice": 1})
                await accounts.close(0.1)


async def test_a_ledger_outlives_the_trees_but_no_contest(tmp_path: Path) -> None:
    policies = Policies(tmp_path)
    tree = TreeSettings(
        b"/", "psshfs", f":{tmp_path / 'tree'}", (f"sftp_server={find_sftp_server()}",)
    )
    (tmp_path / "tree").mkdir()
    file = tmp_path / "alice.json"
    quota = account("alice", tree, guard=GuardSettings(quota_octets=10))
    async with serving(settings(quota, keep=0), policies.guarded) as accounts:
        async with accounts.session("alice") as (_, export), client(export) as wire:
            assert isinstance(export.server, Guard)
            await wire.put(b"/f", b"12345678")
            assert policies.usage() == {"alice": Usage(8, 1)}
            with pytest.raises(Exception, match="quota"):
                await wire.put(b"/g", b"123")
        await eventually(lambda: accounts.in_use == 0)
        assert '"clean": true' in file.read_text()
        assert policies.usage() == {}
        async with accounts.session("alice"):
            accounts.update(settings(replace(quota, guard=GuardSettings(quota_octets=20)), keep=0))
            async with accounts.session("alice") as (_, export), client(export) as wire:
                assert policies.usage() == {"alice": Usage(8, 2)}
                await wire.put(b"/g", b"123")
        await eventually(lambda: accounts.in_use == 0)
        assert not file.exists()
