"""Words that people bring along from sshfs.

Each is obeyed, or says what is so in any case, or is accepted with one line that says why it has
no effect. Words of our own for the same thing stand in `sshwords`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...layers.psshfs.options import Idmap, Symlinks
from .options import (
    Settings,
    WordSpec,
    always,
    number,
    remote_port,
    sets,
    takes,
    text,
    without_effect,
    yes_or_no,
)


def _needless(name: str, reason: str, value: str = "") -> tuple[str, WordSpec]:
    return name, WordSpec(without_effect(name, reason), f"accepted; {reason}", value)


def _checked(convert: Callable[[str], object], action: Callable[[Settings, str], None]) -> WordSpec:
    """Return a word without a text whose value is looked at before `action`."""

    def apply(settings: Settings, value: str) -> None:
        convert(value)
        action(settings, value)

    return WordSpec(apply, "", "N")


def one_of(*values: str) -> Callable[[str], str]:
    """Return a conversion that takes one of `values`."""

    def convert(value: str) -> str:
        if value not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return value

    return convert


def _vsock(value: str) -> tuple[int, int]:
    context, colon, port = value.partition(":")
    if not colon:
        raise ValueError("must be CID:PORT")
    return number(context), number(port)


_WORKAROUNDS: Final = {
    "none": "",
    "all": "",
    "rename": "",
    "norename": "a rename over an existing file replaces it in any case",
    "renamexdev": "",
    "norenamexdev": "a rename between file systems says so where the server lets it be seen",
    "truncate": "a server that cannot truncate is not one that we work around",
    "notruncate": "",
    "buflimit": "it was for OpenSSH before 4.4, of 2006",
    "nobuflimit": "",
    "fstat": "attributes are asked for by name wherever there is one",
    "nofstat": "",
    "createmode": "a server that refuses a mode is asked again without one in no case",
    "nocreatemode": "",
}
"""Workarounds of sshfs, with the reason where asking for one has no effect."""


def _workaround(settings: Settings, value: str) -> None:
    for name in value.split(":"):
        reason = _WORKAROUNDS.get(name)
        if reason is None:
            raise ValueError(f"there is no workaround '{name}' (there are {', '.join(_NAMED)})")
        if reason:
            without_effect(f"workaround={name}", reason)(settings, "")


_NAMED: Final = [name for name in _WORKAROUNDS if not name.startswith("no") or name == "none"]


def _protocol(settings: Settings, value: str) -> None:
    if number(value) != 2:
        without_effect("ssh_protocol", "no server speaks protocol 1 any more; 2 is used")(
            settings, ""
        )


def _modules(settings: Settings, value: str) -> None:
    for name in value.split(":"):
        if name == "iconv":
            without_effect("modules=iconv", _ICONV)(settings, "")
        elif name != "subdir":
            raise ValueError(f"there is no module '{name}' (there are subdir, iconv)")


_ICONV: Final = "names are what the server has, octet for octet"
_DIRECTORY: Final = "what is remembered goes when the host kernel forgets the file"
_DELAYED: Final = (
    "the server is reached at once; x-systemd.automount in fstab waits for the first use"
)
_SYMLINKS: Final = [kind.value for kind in Symlinks]
_IDMAPS: Final = [kind.value for kind in Idmap]

SSHFS_WORDS: Final[dict[str, WordSpec]] = {
    "subsystem": WordSpec(
        takes("subsystem", text), "subsystem of the server, or a program there (sftp)", "NAME"
    ),
    "directport": WordSpec(
        takes("directport", remote_port),
        "connect to this port without ssh: SFTP is spoken there",
        "PORT",
    ),
    "vsock": WordSpec(
        takes("vsock", _vsock),
        "connect to this vsock without ssh: SFTP is spoken there",
        "CID:PORT",
    ),
    "passive": WordSpec(
        sets("passive", True), "speak SFTP over standard input and output; in the foreground"
    ),
    "slave": WordSpec(sets("passive", True)),
    "sshfs_sync": WordSpec(sets("write_behind", 0), "each write waits for the server"),
    "no_readahead": WordSpec(sets("read_ahead", 0), "read what is asked for and nothing more"),
    "sync_readdir": WordSpec(always, "accepted; a listing is whole before it is shown, always"),
    "symlinks": WordSpec(
        takes("symlinks", lambda value: Symlinks(one_of(*_SYMLINKS)(value))),
        "rewrite (default: none leads out), contain (no ..), follow, raw",
        "KIND",
    ),
    "contain_symlinks": WordSpec(sets("symlinks", Symlinks.CONTAIN), "as symlinks=contain"),
    "no_contain_symlinks": WordSpec(sets("symlinks", Symlinks.RAW), "as symlinks=raw"),
    "follow_symlinks": WordSpec(sets("symlinks", Symlinks.FOLLOW), "as symlinks=follow"),
    "transform_symlinks": WordSpec(
        sets("transform_symlinks", True), "make absolute links relative (with raw: all of them)"
    ),
    "idmap": WordSpec(
        takes("idmap", lambda value: Idmap(one_of(*_IDMAPS)(value))),
        "none, user (the login's user is me), file, name (the server's names)",
        "KIND",
    ),
    "uidfile": WordSpec(takes("uidfile", text), "for idmap=file: lines user:remote_uid", "FILE"),
    "gidfile": WordSpec(takes("gidfile", text), "for idmap=file: lines group:remote_gid", "FILE"),
    "nomap": WordSpec(
        takes("nomap_ignore", lambda value: one_of("ignore", "error")(value) == "ignore"),
        "ids without a counterpart: error (default: nobody's) or ignore",
        "KIND",
    ),
    "disable_hardlink": WordSpec(sets("hard_links", False), "link(2) fails"),
    "workaround": WordSpec(
        _workaround, "none, rename, renamexdev, ... (man page), colon separated", "LIST"
    ),
    "ssh_protocol": WordSpec(_protocol, "accepted; it is 2", "N"),
    "subdir": WordSpec(takes("subdir", text), "mount this directory below the given one", "DIR"),
    "modules": WordSpec(_modules, "subdir: as -o subdir; iconv has no effect", "LIST"),
    "from_code": WordSpec(without_effect("from_code", _ICONV), "", "CHARSET"),
    "to_code": WordSpec(without_effect("to_code", _ICONV), "", "CHARSET"),
    "rellinks": WordSpec(without_effect("rellinks", "give symlinks=rewrite")),
    "norellinks": WordSpec(always),
    "single_threaded": WordSpec(always),
    "sshfs_verbose": WordSpec(always),
    "unreliable_append": WordSpec(always),
    "writeback_cache": _checked(yes_or_no, always),
    **dict(
        (
            _needless("delay_connect", _DELAYED),
            _needless("no_check_root", "the directory is looked at along with the first questions"),
            _needless("dcache_clean_interval", _DIRECTORY, "N"),
            _needless("dcache_min_clean_interval", _DIRECTORY, "N"),
        )
    ),
}
"""Words of sshfs; those without a text are other spellings, or opposites."""
