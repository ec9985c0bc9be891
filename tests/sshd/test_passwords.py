"""Hashes of passwords, and what is done for those who have none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import argon2
import bcrypt
import pytest

from syspuffs.gateway.sshd import passwords
from syspuffs.gateway.sshd.passwords import Passwords, explain_hash, is_password

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("secret")
BCRYPT = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()


@pytest.mark.parametrize(
    "text", [CHEAP, BCRYPT, BCRYPT.replace("$2b$", "$2y$")], ids=["argon2id", "2b", "2y"]
)
def test_hashes(text: str) -> None:
    assert explain_hash(text) == ""
    assert is_password(b"secret", text)
    assert not is_password(b"secret ", text)
    assert not is_password(b"", text)
    assert not is_password(b"sec\0ret", text)


def test_argon2_as_it_is_made_by_default() -> None:
    assert explain_hash(argon2.PasswordHasher().hash("x")) == ""
    assert explain_hash(passwords._FALLBACK) == ""


@pytest.mark.parametrize(
    "text",
    ["", "secret", "$6$salt$hash", "$argon2i$v=19$m=64,t=1,p=1$AAAA$AAAA", "$2b$04$short", "$2b$"],
)
def test_no_hashes(text: str) -> None:
    assert "no password hash" in explain_hash(text)


def test_long_passwords_of_bcrypt() -> None:
    text = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert is_password(b"x" * 72 + b"more", text)


def test_work_does_not_depend_on_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody unknown costs what one of the accounts would: always the same one."""
    looked_at: list[str] = []
    real = passwords.is_password

    def noted(password: bytes, text: str) -> bool:
        looked_at.append(text)
        return real(password, text)

    monkeypatch.setattr(passwords, "is_password", noted)

    async def check(user: str, password: str, hashes: Sequence[str]) -> bool:
        looked_at.clear()
        return await checker.check(user, password, hashes)

    async def run() -> None:
        assert not await check("x", "secret", [])
        assert looked_at == [passwords._FALLBACK]
        checker.learn([[CHEAP], [], [BCRYPT, CHEAP]])
        shapes = {(CHEAP[:30],), (BCRYPT[:7], CHEAP[:30])}
        seen = set()
        for number in range(20):
            assert not await check(f"user{number}", "secret", [])
            shape = tuple(text[: 7 if text[1] == "2" else 30] for text in looked_at)
            assert shape in shapes
            seen.add(shape)
            assert not await check(f"user{number}", "", [])
            assert tuple(text[: 7 if text[1] == "2" else 30] for text in looked_at) == shape
        assert seen == shapes
        assert await check("x", "secret", [BCRYPT, CHEAP])
        assert looked_at == [BCRYPT, CHEAP]
        assert not await check("x", "wrong", [BCRYPT, CHEAP])
        assert not await check("x", "s" * 1025, [CHEAP])
        assert looked_at == [CHEAP]

    checker = Passwords(b"key")
    try:
        asyncio.run(run())
    finally:
        checker.close()
