"""ssh_config(5): which value counts for a host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from syspuffs.layers.psshfs.ssh.route import Jump, parse_jumps
from syspuffs.layers.psshfs.ssh.sshconfig import ConfigError, HostConfig
from syspuffs.layers.psshfs.ssh.sshfile import match_patterns, read_config

Read = Callable[..., HostConfig]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str, host: str = "host", **kwargs: object) -> HostConfig:
        file = tmp_path / "config"
        file.write_text(text)
        return read_config(host, config_file=str(file), **kwargs)  # type: ignore[arg-type]

    return read


def test_first_value_counts(read: Read) -> None:
    config = read("Host other\n  Port 1\nHost host\n  Port 2\nHost *\n  Port 3\n  User me\n")
    assert (config.port, config.user) == (2, "me")
    assert read("Port 2\n", options=("Port=7",)).port == 7
    assert read("Port 2\n", options=("Port=7",), port=9).port == 9
    assert read("User me\n", user="you").user == "you"


def test_spellings(read: Read) -> None:
    config = read('port = 2\nUSER=me\n\n# comment\nIdentityFile "~/a b" # why\nHostName\tx.org\n')
    assert (config.port, config.user, config.host) == (2, "me", "x.org")
    assert config.gathered("identityfile") == ["~/a b"]
    assert read("", options=("port 5", "User = you")).port == 5
    assert (
        read("ChallengeResponseAuthentication no\n").flag("KbdInteractiveAuthentication", True)
        is False
    )


def test_identity_files_are_gathered(read: Read) -> None:
    config = read("IdentityFile a\nHost host\nIdentityFile b\nHost x\nIdentityFile c\n")
    assert config.gathered("IdentityFile") == ["a", "b"]
    assert read("IdentityFile none\n").gathered("IdentityFile") == []


@pytest.mark.parametrize(
    ("patterns", "fits"),
    [
        ("host", True),
        ("h?st", True),
        ("HO*", True),
        ("other", False),
        ("* !host", False),
        ("!other", False),
        ("!other *", True),
        ("[h]ost", False),
    ],
)
def test_host_patterns(patterns: str, fits: bool) -> None:
    assert match_patterns("host", patterns.split()) is fits


@pytest.mark.parametrize(
    ("criteria", "fits"),
    [
        ("all", True),
        ("host real.org", True),
        ("host host", False),
        ("originalhost host,x", True),
        ("user me", True),
        ("!user me", False),
        ("user me originalhost x", False),
        ("exec true", True),
        ('exec "test %n = host"', True),
        ("exec false", False),
        ("!exec false", True),
        ("final", True),
        ("tagged x", False),
    ],
)
def test_match(read: Read, criteria: str, fits: bool) -> None:
    config = read(f"HostName real.org\nUser me\nMatch {criteria}\nPort 7\n")
    assert config.port == (7 if fits else 22)


def test_match_exec_runs_only_where_it_counts(read: Read, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    read(f'Match originalhost x exec "touch {mark}"\nPort 7\n')
    assert not mark.exists()


def test_include(read: Read, tmp_path: Path, home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh/b").write_text("Host host\nPort 7\nHost *\nUser me\n")
    (tmp_path / "a1").write_text("Compression yes\n")
    config = read(f"Include {tmp_path}/a*\nHost host\nInclude b none*\nPort 8\n")
    assert (config.port, config.user, config.flag("Compression", False)) == (7, "me", True)
    assert read("Host x\nInclude b\n").port == 22
    (home / ".ssh/loop").write_text("Include loop\n")
    with pytest.raises(ConfigError, match="deeper"):
        read("Include loop\n")


def test_users_file_then_systems(home: Path) -> None:
    (home / ".ssh").mkdir(mode=0o700)
    file = home / ".ssh/config"
    file.write_text("Port 7\n")
    assert read_config("host").port == 7
    assert read_config("host", config_file="none").port == 22
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="permissions"):
        read_config("host")
    with pytest.raises(ConfigError, match="cannot read"):
        read_config("host", config_file=str(home / "missing"))


def test_tokens(read: Read, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "there")
    config = read("HostName %h.org\nUser me\nPort 7\n")
    assert config.host == "host.org"
    assert config.path("~/${WHERE}/%r@%h:%p%%%n", "x") == f"{home}/there/me@host.org:7%host"
    assert config.expand_tokens("nc %h ${WHERE}", "x") == "nc host.org ${WHERE}"
    with pytest.raises(ConfigError, match="%y"):
        config.expand("%y", "IdentityFile")
    with pytest.raises(ConfigError, match="NOWHERE"):
        config.expand("${NOWHERE}", "IdentityFile")


def test_types(read: Read) -> None:
    config = read("ConnectTimeout 1m30s\nBatchMode yes\nServerAliveCountMax x\nPort 70000\n")
    assert config.seconds("ConnectTimeout", 1) == 90
    assert config.seconds("ServerAliveInterval", 15) == 15
    assert config.flag("BatchMode", False)
    with pytest.raises(ConfigError, match="number"):
        config.number("ServerAliveCountMax", 3)
    with pytest.raises(ConfigError, match="65535"):
        _ = config.port
    with pytest.raises(ConfigError, match="yes or no"):
        read("BatchMode maybe\n").flag("BatchMode", False)
    with pytest.raises(ConfigError, match="time"):
        read("ConnectTimeout soon\n").seconds("ConnectTimeout", 1)


def test_commands_keep_their_quotes(read: Read) -> None:
    config = read("ProxyCommand sh -c 'nc \"%h\" %p' 2>/dev/null # x\n")
    assert config.text("ProxyCommand") == "sh -c 'nc \"%h\" %p' 2>/dev/null # x"
    assert read("ProxyCommand=it's\n").text("ProxyCommand") == "it's"
    assert read("ProxyCommand none\n").text("ProxyCommand") is None


def test_first_way_through_another_machine_counts(read: Read) -> None:
    config = read("ProxyJump a\nProxyCommand b\n")
    assert (config.text("ProxyJump"), config.text("ProxyCommand")) == ("a", None)
    config = read("ProxyCommand b\nProxyJump a\n")
    assert (config.text("ProxyJump"), config.text("ProxyCommand")) == (None, "b")


def test_mistakes_name_their_place(read: Read) -> None:
    for text, problem in (
        ("Port\n", "line 1: Port needs a value"),
        ('\nUser "x\n', "line 2"),
        ("Match nonsense x\n", "no such criterion"),
        ("Match user\n", "needs a pattern"),
        ("Host\n", "needs a pattern"),
    ):
        with pytest.raises(ConfigError, match="config line") as caught:
            read(text)
        assert problem in str(caught.value)
    with pytest.raises(ConfigError, match="did you mean compression") as caught:
        read("", options=("Compresion=yes",))
    assert read("FutureKeyword yes\n").port == 22


def test_jumps() -> None:
    assert parse_jumps("none") == []
    assert parse_jumps("a,me@b:7,ssh://[::1]:8/") == [
        Jump("a", None, None),
        Jump("b", "me", 7),
        Jump("::1", None, 8),
    ]
    for text in ("a,,b", "-x", "a:b", "a b", "a:0", "a:70000"):
        with pytest.raises(ConfigError, match="ProxyJump"):
            parse_jumps(text)
