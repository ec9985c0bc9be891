"""Every word of the real sshfs is obeyed, or accepted with one line that says why it is not."""

from __future__ import annotations

import re
import subprocess

import pytest

from syspuffs.bin.psshfs import renamed
from syspuffs.gateway.status import CommandError
from syspuffs.gateway.words.options import HOST_GROUP, parse_words, split_words
from syspuffs.gateway.words.sshwords import PSSHFS_GROUP, SSH_GROUP

GROUPS = [PSSHFS_GROUP, SSH_GROUP, HOST_GROUP]

VALUES = {
    "BOOL": "yes",
    "N": "2",
    "M": "022",
    "T": "1.5",
    "PORT": "22",
    "SERV": "sftp",
    "CMD": "ssh",
    "FILE": "/dev/null",
    "DIR": "sub",
    "CHARSET": "UTF-8",
    "M1[:M2...]": "subdir",
}
"""A value for what the help calls it."""
LISTS = {
    "workaround": [
        *("none", "rename", "renamexdev", "truncate", "buflimit", "fstat", "createmode"),
        *("norename", "norenamexdev", "notruncate", "nobuflimit", "nofstat", "nocreatemode"),
    ],
    "idmap": ["none", "user", "name"],
    "nomap": ["ignore", "error"],
}
FURTHER = """
    cache=yes cache=no cache_timeout=20 slave vsock=2:22 max_read=65536 max_write=65536 sshfs_debug
    sshfs_verbose auto noauto user nouser users _netdev writeback_cache=no unreliable_append
    default_permissions ro rw nonempty fsname=a subtype=b fmask=0133 dmask=022 dev suid nodev nosuid
    nofail x-systemd.automount comment=a dcache_stat_timeout=1 dcache_link_timeout=1
    dcache_dir_timeout=1 auto_cache noauto_cache rellinks norellinks debug Port=22 IdentityFile=/a
    user=me
"""
"""Words that the help of sshfs does not name, or not in full, and people use."""
SILENT = set(
    """
    auto_cache sync_readdir no_rofd_flush norellinks unreliable_append writeback_cache=yes
    writeback_cache=no cache=yes dir_cache=yes ssh_protocol=2 modules=subdir sshfs_verbose nonempty
    workaround=none workaround=rename workaround=renamexdev workaround=notruncate
    workaround=nobuflimit workaround=nofstat workaround=nocreatemode
    """.split()
)
"""Words that ask for what is so in any case."""


def words_of_sshfs() -> list[str]:
    """Return all words that the help of the real sshfs names, with a value where it has one."""
    text = subprocess.run(["sshfs", "--help"], capture_output=True, text=True, check=False).stdout
    found = []
    for name, value in re.findall(r"^    -o ([\w\[\]{},]+)(?:=([\w\[\]:.]+))?", text, re.MULTILINE):
        optional = re.match(r"\[(\w+)\](\w+)", name)
        several = re.search(r"\{(.*)\}", name)
        if name in ("opt", "SSHOPT"):
            continue
        names = [name]
        if name.startswith("opt,"):
            continue
        if optional:
            names = [optional[2], optional[1] + optional[2]]
        elif several:
            names = [name.replace(several[0], part) for part in several[1].split(",")]
        for one in names:
            if one in LISTS:
                found += [f"{one}={member}" for member in LISTS[one]]
            else:
                found.append(f"{one}={VALUES[value]}" if value else one)
    return found


WORDS = sorted({*words_of_sshfs(), *FURTHER.split()})


def test_the_help_of_sshfs_was_read() -> None:
    assert len(words_of_sshfs()) > 60
    assert {"reconnect", "idmap=user", "dcache_dir_timeout=2", "noauto_cache", "umask=022"} <= set(
        WORDS
    )


@pytest.mark.parametrize("word", WORDS)
def test_every_word_has_an_effect_or_says_why_not(word: str) -> None:
    """No effect is: the settings are as without it. Then one line says so."""
    settings = parse_words(renamed([word]), GROUPS)
    notes = [note for found in settings for note in found.pop("notes", {}).values()]
    assert len(notes) <= 1
    if notes:
        assert re.fullmatch(r"option '[\w=]+' has no effect: \w.*\w", notes[0])
        assert not any(settings)
    elif not any(settings):
        (parsed,) = split_words([word])
        assert word in SILENT or HOST_GROUP.ignore(parsed)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("Frobnicate=1", "unknown option 'Frobnicate'"),
        ("LocalForward=1", "unknown option 'LocalForward'"),
        ("workaround=rename:nonsense", "there is no workaround 'nonsense'"),
        ("idmap=nonsense", "must be one of none, user, file, name"),
        ("dir_cache=maybe", "is 'yes' or 'no'"),
        ("directport=0", "a port is from 1 to 65535"),
        ("vsock=22", "must be CID:PORT"),
        ("modules=subdir:nonsense", "there is no module 'nonsense'"),
        ("reconnect=1", "takes no value"),
    ],
)
def test_what_is_refused(word: str, message: str) -> None:
    with pytest.raises(CommandError, match=re.escape(message)):
        parse_words(renamed([word]), GROUPS)


def test_later_words_win_over_letters_and_letters_over_words() -> None:
    settings, _, _ = parse_words(renamed(["sshfs_sync,write_behind=1M"]), GROUPS)
    assert settings == {"write_behind": 1 << 20}
    settings, _, _ = parse_words(renamed(["dcache_timeout=5,cache_timeout=7,cache=no"]), GROUPS)
    assert settings == {"cache_timeout_ns": 0}
