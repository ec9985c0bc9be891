"""A configuration in TOML: what it comes to, and what is said of a wrong one."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from syspuffs.gateway.audit.settings import CommandHook, EventKind, HttpHook, Target
from syspuffs.gateway.sftpd.configuration import (
    ConfigurationError,
    parse_configuration,
    read_configuration,
)
from syspuffs.gateway.sftpd.settings import Settings, TreeSettings
from syspuffs.gateway.sshd.settings import Startups
from syspuffs.gateway.status import Status
from syspuffs.layers.guard.settings import EVERYTHING, Rule, Verb

BASE = Path("/etc/puffs")
SMALL = """\
state = "state"
[users.alice]
authorized_keys = ["alice.keys"]
[[users.alice.trees]]
stack = "p2k|tmpfs"
special = "none"
"""


def parsed(text: str) -> Settings:
    return parse_configuration(text, "g.toml", BASE)


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parsed(text)
    assert caught.value.status == Status.USAGE
    return caught.value.faults


def test_defaults() -> None:
    settings = parsed(SMALL)
    assert settings.state == settings.ssh.state == BASE / "state"
    assert settings.ssh.listen == (("0.0.0.0", 2022), ("::", 2022))
    alice = settings.accounts["alice"]
    assert alice.credentials.key_files == (BASE / "alice.keys",)
    assert alice.trees == (TreeSettings(b"/", "p2k|tmpfs", "none"),)
    assert alice.start == b""
    assert alice.umask == 0o022
    assert alice.guard.allow == EVERYTHING
    assert not alice.guard.has_quota
    assert (settings.audit, settings.events, settings.metrics) == (None, None, None)


def test_everything() -> None:
    settings = parsed("""
state = "/var/lib/puffs"
run_as = "nobody"
keep = "forever"
stop = "1m30s"
[ssh]
listen = ["[::1]:22", "localhost:0"]
max_startups = "3:50:9"
login_grace = "500ms"
keepalive = 0
rekey_size = "1G"
ciphers = ["aes256-gcm@openssh.com"]
auth_command = ["/bin/ask", "-x"]
[ssh.penalties]
first = 0
exempt = ["192.0.2.0/24", "::1"]
[log]
to = "messages"
level = "DEBUG"
[audit]
to = "audit.json"
looks = true
[[events]]
command = ["/bin/tell"]
on = ["upload"]
[[events]]
url = "https://example.org/hook"
headers.Authorization = "x"
time = "3s"
[metrics]
listen = "127.0.0.1:9464"
[users."bob@example.org"]
password_hashes = ["$2b$12$xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"]
networks = ["10.0.0.0/8"]
start = "/in/new/"
umask = "077"
uid = 1000
gid = "root"
sessions = 3
idle = "5m"
session_time = "8h"
readonly = true
allow = ["list", "read"]
hidden = [".*", "/in/secret"]
quota = {bytes = "10G", files = 1000}
bandwidth.upload = "1M"
trees = [{path = "/in", stack = "psshfs", special = "h:/in", options = ["port=2"], readonly = true}]
[[users."bob@example.org".rules]]
path = "/in/*"
allow = ["create", "overwrite"]
deny = ["delete"]
""")
    ssh = settings.ssh
    assert ssh.listen == (("::1", 22), ("localhost", 0))
    assert ssh.max_startups == Startups(3, 50, 9)
    assert (ssh.login_grace_seconds, ssh.keepalive_seconds, ssh.rekey_bytes) == (0.5, 0.0, 1 << 30)
    assert ssh.penalties.exempt == (ip_network("192.0.2.0/24"), ip_network("::1"))
    assert ssh.auth_command == ("/bin/ask", "-x")
    assert (settings.keep_seconds, settings.stop_seconds) == (None, 90.0)
    assert settings.log.to == str(BASE / "messages")
    assert settings.audit is not None
    assert (settings.audit.target, settings.audit.file) == (Target.FILE, BASE / "audit.json")
    assert settings.events is not None
    command, http = settings.events.hooks
    assert isinstance(command, CommandHook)
    assert command.kinds == {EventKind.UPLOAD}
    assert isinstance(http, HttpHook)
    assert (http.headers, http.timeout_seconds) == ({"Authorization": "x"}, 3.0)
    assert settings.metrics is not None
    assert (settings.metrics.host, settings.metrics.port) == ("127.0.0.1", 9464)
    bob = settings.accounts["bob@example.org"]
    assert bob.trees == (TreeSettings(b"/in", "psshfs", "h:/in", ("port=2",), True),)
    assert (bob.start, bob.umask, bob.uid, bob.gid) == (b"/in/new", 0o077, 1000, 0)
    assert (bob.sessions_max, bob.idle_seconds, bob.session_seconds) == (3, 300.0, 28800.0)
    assert bob.guard.readonly
    assert bob.guard.allow == Verb.LIST | Verb.READ
    assert bob.guard.rules == (Rule(b"/in/*", Verb.CREATE | Verb.OVERWRITE, Verb.DELETE),)
    assert bob.guard.hidden == (b".*", b"/in/secret")
    assert (bob.guard.quota_octets, bob.guard.quota_files) == (10 << 30, 1000)
    assert (bob.guard.upload_rate, bob.guard.download_rate) == (1 << 20, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("quota.bytes = '10Q'", "quota.bytes: '10Q' is no size, such as 65536, 64K or 1M"),
        ("quota.bytes = -1", "quota.bytes: -1 is no size, such as 65536, '64K' or '10G'"),
        ("quota.byts = 1", "quota.byts: there is no such key; did you mean 'bytes'?"),
        ("quota.x = 1", "quota.x: there is no such key; there are bytes, files"),
        ("quota = 3", "quota: 3 is not a table"),
        ("umask = 22", "umask: 22 are no permission bits; write them in quotes, such as '022'"),
        ("umask = '9'", "umask: '9' are no permission bits in octal, such as 022"),
        ("idle = '5q'", "idle: '5q' is no time, such as 30, '30s', '5m' or '1h30m'"),
        ("idle = 0", "idle: 0 is no time, such as 30, '30s', '5m' or '1h30m'"),
        ("start = 'x'", "start: 'x' is no absolute path without '.' and '..', such as '/pub'"),
        ("start = '/a/../b'", "start: '/a/../b' is no absolute path"),
        ("allow = ['lst']", "allow: there is no verb 'lst'; did you mean 'list'?"),
        ("allow = 'list'", "allow: 'list' is no array of verbs, such as ['list', 'read']"),
        ("hidden = ['a/b']", "hidden[1]: 'a/b': a path begins with a slash"),
        ("uid = 'no-such-user'", "uid: there is no user 'no-such-user' on this machine"),
        ("gid = -1", "gid: -1 is no name and no number of a user or group"),
        ("networks = ['10.0.0.1/8']", "networks[1]: '10.0.0.1/8' has bits behind its prefix; "
         "write '10.0.0.0/8'"),
        ("networks = ['x']", "networks[1]: 'x' is no network"),
        ("password_hashes = ['secret']", "password_hashes[1]: this is no password hash: $argon2"),
        ("keys = ['ssh-rsa']", "keys[1]: 'ssh-rsa': no key of a known type"),
        ("keys = ['']", "keys[1]: '': it is not one line with a key"),
        ("methods = ['publickeys']", "methods[1]: there is no method 'publickeys'; did you mean "
         "'publickey'?"),
        ("readonly = 'yes'", "readonly: 'yes' is not true or false"),
        ("sessions = 0", "sessions: 0: input should be greater than or equal to 1"),
        ("rules = [{path = '/x'}]", "rules[1]: it allows nothing and denies nothing; give 'allow'"),
        ("rules = [{path = 'x', allow = ['list']}]", "rules[1].path: 'x': a path begins with"),
        ("bandwidth.upload = 0", "bandwidth.upload: 0: input should be greater than or equal"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_a_user(line: str, said: str) -> None:
    text = SMALL.replace("[[users", f"{line}\n[[users")
    (fault,) = faults(text)
    assert fault.startswith(f"g.toml:4: users.alice.{said}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("stack = 'psshfs|p2k'", "stack: 'psshfs' has nothing below it, but got 'p2k'; the nearest "
         "stack that works is 'psshfs'"),
        ("special = ''", "special: this is empty"),
        ("options = ['sise=1']", "options: unknown option 'sise'; did you mean 'size'?"),
        ("path = 'pub'", "path: 'pub' is no absolute path without '.' and '..', such as '/pub'"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_a_tree(line: str, said: str) -> None:
    key = line.partition(" ")[0]
    lines = [one for one in SMALL.splitlines() if not one.startswith(f"{key} ")]
    (fault,) = faults("\n".join([*lines, line]))
    assert fault == f"g.toml:{len(lines) + 1}: users.alice.trees[1].{said}"


def test_all_faults_at_once_in_the_order_of_lines() -> None:
    assert faults("""\
kep = 1
[users.alice]
idel = "5m"
[[users.alice.trees]]
stack = "psshfs"
[users."a b"]
principals = ["x"]
trees = []
[ssh]
listen = ["localhost"]
ciphers = ["aes128-gmc@openssh.com"]
[[events]]
[[events]]
comand = ["/bin/true"]
url = "ftp://x"
""") == [
        "g.toml:1: kep: there is no such key; did you mean 'keep'?",
        "g.toml:1: state: this is needed, and is not there",
        "g.toml:3: users.alice.idel: there is no such key; did you mean 'idle'?",
        "g.toml:4: users.alice.trees[1].special: this is needed, and is not there",
        "g.toml:6: users.\"a b\": 'a b' is no name of a user: letters, digits and _.@+-, 64 at "
        "most, not a sign first",
        'g.toml:8: users."a b".trees: this is empty',
        "g.toml:10: ssh.listen[1]: 'localhost' is no address with a port, such as "
        "'127.0.0.1:2022' or '[::]:22'",
        "g.toml:11: ssh.ciphers[1]: there is no cipher 'aes128-gmc@openssh.com'; did you mean "
        "'aes128-gcm@openssh.com'?",
        "g.toml:12: events[1]: it has to have 'command' or 'url', and not both",
        "g.toml:14: events[2].comand: there is no such key; did you mean 'command'?",
    ]


def test_what_only_the_whole_shows() -> None:
    assert faults("state = 'x'\n") == [
        "g.toml:1: users: there are none; give a table [users.NAME] to each"
    ]
    nobody = SMALL.replace("authorized_keys", "principals")
    (fault,) = faults(nobody)
    assert fault.startswith("g.toml:2: users.alice: nothing lets this user in; give")
    assert parsed(nobody + "[ssh]\nauth_command = ['/bin/ask']\n").accounts
    twice = SMALL + SMALL[SMALL.index("[[users") :]
    assert faults(twice) == [
        "g.toml:4: users.alice.trees: two trees are at '/'; give each a path of its own"
    ]


def test_no_toml() -> None:
    assert faults("a = 1\nb = = 2\n") == ["g.toml:2: this is no TOML: invalid value, in column 5"]
    assert faults('a = "') == ["g.toml: this is no TOML: unterminated string, at its end"]
    assert faults("a = 1\na = 2\n") == [
        "g.toml:2: this is no TOML: cannot overwrite a value, in column 6"
    ]


def test_nesting_without_end() -> None:
    assert faults(f"a = {'[' * 100_000}") == ["g.toml: arrays or tables are nested too deep"]


def test_lines_end_as_they_like() -> None:
    (fault,) = faults(SMALL.replace("\n", "\r\n") + "x = 1\r\n")
    assert fault.startswith("g.toml:7: users.alice.trees[1].x: ")


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "g.toml"
    with pytest.raises(ConfigurationError, match=r"g\.toml: No such file or directory"):
        read_configuration(file)
    file.write_bytes(b"# \n\xff")
    with pytest.raises(ConfigurationError, match=r"g\.toml:2: this is not UTF-8"):
        read_configuration(file)
    file.write_text(SMALL)
    assert read_configuration(file).state == tmp_path / "state"
