"""The words behind -o."""

import pytest

from syspuffs.gateway.stack import TMPFS_GROUP
from syspuffs.gateway.status import CommandError, Status
from syspuffs.gateway.words.options import (
    HOST_GROUP,
    HostOptions,
    Word,
    host_options,
    octets,
    parse_words,
    split_words,
    travelling_words,
)
from syspuffs.gateway.words.sshwords import PSSHFS_GROUP, SSH_GROUP, later_first
from syspuffs.native.constants import NOCACHE, KFlag


def host(*values: str) -> HostOptions:
    (settings,) = parse_words(values, [HOST_GROUP])
    return host_options(settings)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["ro"], [("ro", None)]),
        (["ro,port=22", "rw"], [("ro", None), ("port", "22"), ("rw", None)]),
        ([r"fsname=a\,b,ro"], [("fsname", "a,b"), ("ro", None)]),
        ([r"fsname=a\\b"], [("fsname", r"a\\b")]),
        (["fsname=a\\"], [("fsname", "a\\")]),
        (["a=b=c", "e="], [("a", "b=c"), ("e", "")]),
        (["", ",,", " ro , rw"], [("ro", None), ("rw", None)]),
    ],
)
def test_splits_words(values: list[str], words: list[tuple[str, str | None]]) -> None:
    assert list(split_words(values)) == [Word(*word) for word in words]


def test_later_words_win() -> None:
    assert host("ro,rw").readonly is False
    assert host("rw", "ro").readonly is True
    assert host("nosuid,suid").words == ("suid",)
    assert host("suid,dev,nosuid,noexec,exec").words == ("dev", "nosuid")


def test_defaults_leave_the_host_alone() -> None:
    assert host() == HostOptions()


def test_each_cache_has_its_switch() -> None:
    assert host("nocache").nocache
    assert host("nocache").kflags == NOCACHE
    assert host("nocache,namecache").kflags == KFlag.NOCACHE_PAGE | KFlag.NOCACHE_ATTR
    assert host("nopagecache").kflags == KFlag.NOCACHE_PAGE
    assert host("noattrcache,cache").kflags == 0
    assert not host("nonamecache").nocache


def test_owner_and_name() -> None:
    options = host("uid=1000,gid=0,umask=022,fsname=a b")
    assert (options.uid, options.gid, options.umask) == (1000, 0, 0o22)
    assert options.fsname == b"a b"


def test_a_name_keeps_octets_that_are_no_utf8() -> None:
    assert host("fsname=caf\udce9").fsname == b"caf\xe9"


def test_words_for_readers_of_fstab_are_dropped() -> None:
    words = (
        "_netdev,nofail,noauto,user,x-systemd.automount,comment=x,x-gvfs-name=a,defaults,relatime"
    )
    assert host(words) == HostOptions()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("alow_other", "unknown option 'alow_other'; did you mean 'allow_other'?"),
        ("RO", "unknown option 'RO'; did you mean 'ro'?"),
        ("qqq", "unknown option 'qqq'; --help lists the options"),
        ("fsname", "option 'fsname' needs a value: fsname=TEXT"),
        ("ro=1", "option 'ro' takes no value: leave out '=1'"),
        ("fsname=", "option 'fsname=': the value is empty"),
        ("uid=me", "option 'uid=me': 'me' is no whole number"),
        ("uid=-1", "option 'uid=-1': '-1' is no whole number"),
        ("umask=9", "option 'umask=9': '9' are no permission bits in octal, such as 022"),
        (
            "allow_other,allow_root",
            "options 'allow_other' and 'allow_root' exclude each other; give one",
        ),
    ],
)
def test_refuses_what_makes_no_sense(word: str, message: str) -> None:
    with pytest.raises(CommandError) as caught:
        host(word)
    assert str(caught.value) == message
    assert caught.value.status == Status.USAGE


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512", 512), ("4k", 4096), ("3M", 3 << 20), ("1T", 1 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert octets(text) == size


@pytest.mark.parametrize("text", ["", "K", "1KB", "-1", "1.5M", "٣", "1 M"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        octets(text)


def test_a_word_goes_to_the_first_group_that_has_it() -> None:
    tmpfs, mount = parse_words(["uid=5,size=1M,ro"], [TMPFS_GROUP, HOST_GROUP])
    assert tmpfs == {"uid": 5, "size_limit": 1 << 20}
    assert mount == {"readonly": True}


def test_ssh_keywords_in_any_case() -> None:
    psshfs, ssh, mount = parse_words(
        ["port=22,identityfile=/k,StrictHostKeyChecking=no,user,User=me,ssh_command=ssh -v"],
        [PSSHFS_GROUP, SSH_GROUP, HOST_GROUP],
    )
    assert psshfs == {"port": 22, "ssh_command": "ssh -v"}
    assert ssh == {"options": ["IdentityFile=/k", "StrictHostKeyChecking=no", "User=me"]}
    assert mount == {}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("prot=22", "unknown option 'prot'; did you mean 'port'?"),
        (
            "StrictHostKeyCheking=no",
            "unknown option 'StrictHostKeyCheking'; did you mean 'StrictHostKeyChecking'?",
        ),
        ("port=0", "option 'port=0': a port is from 1 to 65535"),
        ("port", "option 'port' needs a value: port=N"),
        ("ciphers", "option 'ciphers' needs a value: ciphers=VALUE"),
        (
            "cache_timeout=-2",
            "option 'cache_timeout=-2': '-2' is no time in seconds, such as 30 (-1: for ever)",
        ),
        ("request_timeout=0", "option 'request_timeout=0': must be more than 0 seconds"),
    ],
)
def test_refuses_wrong_words_of_psshfs(word: str, message: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_words([word], [PSSHFS_GROUP, SSH_GROUP, HOST_GROUP])
    assert str(caught.value) == message


def test_ssh_takes_the_first_value_and_we_the_last() -> None:
    words = ["User=a", "IdentityFile=1", "User=b", "IdentityFile=2"]
    assert later_first(words) == ("User=b", "User=a", "IdentityFile=1", "IdentityFile=2")


def test_what_travels_in_a_mount_request() -> None:
    words = ["ro,allow_other,port=22", "log=/x,debug,dump,fsname=a,uid=7,_netdev"]
    assert travelling_words(words) == [("ro", ""), ("allow_other", ""), ("uid", "7")]


def test_help_names_every_word_that_is_not_just_an_opposite() -> None:
    lines = "\n".join(HOST_GROUP.help_lines())
    for word in ("allow_other", "nocache", "fsname=TEXT", "log=FILE", "umask=MASK"):
        assert word in lines
