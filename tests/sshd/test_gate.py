"""Whom the gate lets in: bounds, chances and penalties, with a clock and dice of the test's."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syspuffs.gateway.sftpd import gate
from syspuffs.gateway.sftpd.gate import Gate, source_of
from syspuffs.gateway.sshd.settings import PenaltySettings, SshSettings, Startups

BASE = SshSettings(listen=(), state=Path("state"))


class Place:
    """A gate, with the hands of its clock and its dice."""

    def __init__(self, settings: SshSettings = BASE) -> None:
        self.now = 1000.0
        self.roll = 0.999
        self.gate = Gate(settings, lambda: self.now, lambda: self.roll)
        self.number = 0

    def come(self, address: str = "192.0.2.7") -> int:
        assert self.gate.refusal(address) == ""
        self.number += 1
        self.gate.enter(self.number, address)
        return self.number

    def fail(self, address: str = "192.0.2.7") -> None:
        self.gate.leave(self.come(address), is_failure=True)


def test_sources() -> None:
    assert source_of("192.0.2.7") == "192.0.2.7"
    assert source_of("2001:db8:1:2:3::4") == source_of("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert source_of("2001:db8:1:3::") != source_of("2001:db8:1:2::")


def test_bound_of_connections() -> None:
    place = Place(replace(BASE, max_connections=2))
    first = place.come()
    place.gate.log_in(first)
    place.come("192.0.2.8")
    assert place.gate.refusal("192.0.2.9") == "connections"
    place.gate.leave(first, is_failure=False)
    assert place.gate.refusal("192.0.2.9") == ""
    assert place.gate.refused == {"connections": 1}


def test_bound_of_a_source() -> None:
    place = Place(replace(BASE, connections_per_source=2))
    numbers = [place.come("2001:db8::1"), place.come("2001:db8::2")]
    assert place.gate.refusal("2001:db8::3") == "source"
    assert place.gate.refusal("2001:db8:0:1::3") == ""
    place.gate.leave(numbers[0], is_failure=False)
    assert place.gate.refusal("2001:db8::3") == ""


def test_startups() -> None:
    place = Place(replace(BASE, max_startups=Startups(2, 30, 4)))
    numbers = [place.come(), place.come()]
    place.roll = 0.31
    assert place.gate.refusal("192.0.2.7") == ""
    place.roll = 0.29
    assert place.gate.refusal("192.0.2.7") == "startups"
    place.roll = 0.66
    numbers.append(place.come())
    assert place.gate.refusal("192.0.2.7") == ""
    place.roll = 0.64
    assert place.gate.refusal("192.0.2.7") == "startups"
    place.roll = 0.999
    numbers.append(place.come())
    assert place.gate.refusal("192.0.2.7") == "startups"
    assert place.gate.startups == 4
    place.gate.log_in(numbers[0])
    assert place.gate.refusal("192.0.2.7") == ""
    assert (place.gate.startups, place.gate.connections) == (3, 4)


def test_plain_bound_of_startups() -> None:
    place = Place(replace(BASE, max_startups=Startups(1, 100, 1)))
    place.come()
    assert place.gate.refusal("192.0.2.7") == "startups"


def test_penalties_double_and_end() -> None:
    place = Place(replace(BASE, penalties=PenaltySettings(2.0, 10.0)))
    for seconds in (2.0, 4.0, 8.0, 10.0, 10.0):
        place.fail()
        assert place.gate.refusal("192.0.2.7") == "penalty"
        assert place.gate.refusal("192.0.2.8") == ""
        assert place.gate.penalised == 1
        place.now += seconds - 0.01
        assert place.gate.refusal("192.0.2.7") == "penalty"
        place.now += 0.01
        assert place.gate.refusal("192.0.2.7") == ""
    place.now += 10.0
    place.fail()
    place.now += 2.0
    assert place.gate.refusal("192.0.2.7") == ""
    assert place.gate.penalised == 0


def test_failures_of_one_moment_add_up() -> None:
    place = Place(replace(BASE, penalties=PenaltySettings(1.0, 600.0)))
    numbers = [place.come() for _ in range(8)]
    for number in numbers:
        place.gate.leave(number, is_failure=True)
    place.now += 127.0
    assert place.gate.refusal("192.0.2.7") == "penalty"
    place.now += 1.0
    assert place.gate.refusal("192.0.2.7") == ""


def test_exempt_networks() -> None:
    exempt = (ip_network("192.0.2.0/28"), ip_network("2001:db8::/64"))
    place = Place(replace(BASE, penalties=PenaltySettings(exempt=exempt)))
    place.fail("192.0.2.7")
    place.fail("192.0.2.7")
    place.fail("2001:db8::5")
    assert place.gate.refusal("2001:db8::5") == ""
    place.fail("192.0.2.17")
    assert place.gate.refusal("192.0.2.17") == "penalty"


def test_no_penalties() -> None:
    place = Place(replace(BASE, penalties=PenaltySettings(seconds=0)))
    place.fail()
    assert place.gate.refusal("192.0.2.7") == ""


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SOURCES_MAX", 3)
    place = Place(replace(BASE, penalties=PenaltySettings(100.0, 600.0)))
    for last in range(5):
        place.fail(f"192.0.2.{last}")
    assert [place.gate.refusal(f"192.0.2.{last}") for last in range(5)] == [
        *("", ""),
        *("penalty", "penalty", "penalty"),
    ]


@given(st.lists(st.tuples(st.sampled_from("acfgt"), st.integers(0, 3)), max_size=80))
def test_books_balance(steps: list[tuple[str, int]]) -> None:
    place = Place(
        replace(
            BASE,
            max_connections=6,
            connections_per_source=3,
            max_startups=Startups(4, 50, 5),
            penalties=PenaltySettings(1.0, 8.0),
        )
    )
    inside: dict[int, tuple[str, bool]] = {}
    for step, which in steps:
        address = f"192.0.2.{which}"
        numbers = sorted(inside)
        if step == "t":
            place.now += which
        elif step == "a":
            count = sum(address == other for other, _ in inside.values())
            startups = sum(not is_in for _, is_in in inside.values())
            if not place.gate.refusal(address):
                assert count < 3
                assert startups < 5
                assert len(inside) < 6
                place.number += 1
                place.gate.enter(place.number, address)
                inside[place.number] = address, False
        elif numbers:
            number = numbers[which % len(numbers)]
            if step == "g":
                place.gate.log_in(number)
                inside[number] = inside[number][0], True
            else:
                place.gate.leave(number, is_failure=step == "f")
                del inside[number]
        assert place.gate.connections == len(inside)
        assert place.gate.startups == sum(not is_in for _, is_in in inside.values())
