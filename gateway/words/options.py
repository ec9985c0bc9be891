"""Mount options: the words behind `-o`, and what the host end is told.

`-o a,b=c` may be given any number of times; later wins; `\\,` is a comma inside a
value. A word belongs to a group (the host mount, psshfs, ssh, an element of the
stack); a command offers the groups that mean something to it. A word that nobody
knows is refused with the nearest one that somebody does.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

from ...native.constants import NOCACHE, KFlag
from ..status import CommandError, Status


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What the host end of a mount is told. Sizes are octets.

    `fsname` is what `mount` shows first; `typename` is the trace of the elements below the
    first puffs ("p2k|puffs|psshfs"). The three `nocache_...` switch off what the host kernel may
    remember. `uid`, `gid` and the masks change what is shown, not what is stored: owner and group
    of everything, and as permissions all that are not in the mask, as libfuse has it; `fmask` and
    `dmask` are those of files and directories where they differ from `umask`. `words` are
    flags of mount(8). `debug` prints each operation.
    """

    readonly: bool = False
    allow_other: bool = False
    allow_root: bool = False
    default_permissions: bool = False
    nocache_name: bool = False
    nocache_page: bool = False
    nocache_attr: bool = False
    fsname: bytes = b""
    typename: str = ""
    debug: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    fmask: int | None = None
    dmask: int | None = None
    words: tuple[str, ...] = ()

    @property
    def kflags(self) -> KFlag:
        """Give the NOCACHE bits that the options ask for."""
        flags = KFlag(0)
        if self.nocache_name:
            flags |= KFlag.NOCACHE_NAME
        if self.nocache_page:
            flags |= KFlag.NOCACHE_PAGE
        if self.nocache_attr:
            flags |= KFlag.NOCACHE_ATTR
        return flags

    @property
    def nocache(self) -> bool:
        """Whether the host is to remember nothing at all."""
        return self.kflags == NOCACHE


class Word(NamedTuple):
    """One word of `-o`: `value` is None where there is no '='."""

    name: str
    value: str | None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value}"


Settings = dict[str, Any]
"""What the words of one group came to, by the name of the setting."""


class WordSpec(NamedTuple):
    """What a word means. `value` names its value for people; empty: it takes none."""

    apply: Callable[[Settings, str], None]
    text: str = ""
    value: str = ""


@dataclass(frozen=True)
class WordGroup:
    """Words that belong together. `ignore` says which further words are accepted and dropped.

    With `fold_case` a word may be written in any case; `words` has them as people write them.
    """

    title: str
    words: Mapping[str, WordSpec]
    fold_case: bool = False
    ignore: Callable[[Word], bool] = field(default=lambda word: False)

    @functools.cached_property
    def _folded(self) -> dict[str, WordSpec]:
        return {name.lower(): spec for name, spec in self.words.items()}

    def named(self, name: str) -> WordSpec | None:
        """Return the spec of the word called `name`."""
        spec = self.words.get(name)
        if spec is None and self.fold_case:
            spec = self._folded.get(name.lower())
        return spec

    def find(self, word: Word) -> WordSpec | None:
        """Return the spec of `word` when its name and having a value or not both fit."""
        spec = self.named(word.name)
        if spec is None or bool(spec.value) != (word.value is not None):
            return None
        return spec

    def help_lines(self) -> list[str]:
        """Return one line for each word that has a text."""
        shown = [
            (name + (f"={spec.value}" if spec.value else ""), spec.text)
            for name, spec in self.words.items()
            if spec.text
        ]
        return [f"  {name:<21} {text}" for name, text in shown]


def split_words(values: Iterable[str]) -> Iterator[Word]:
    """Yield the words of all `-o` values in order."""
    for value in values:
        word = ""
        letters = iter(value)
        for letter in letters:
            if letter == "\\":
                following = next(letters, "")
                word += following if following == "," else letter + following
            elif letter == ",":
                yield from _one_word(word)
                word = ""
            else:
                word += letter
        yield from _one_word(word)


def _one_word(text: str) -> Iterator[Word]:
    text = text.strip()
    if text:
        name, equals, value = text.partition("=")
        yield Word(name, value if equals else None)


def of_group(values: Iterable[str], group: WordGroup) -> list[str]:
    """Return values of `-o` with the words of one group alone, and those that it ignores."""
    return [
        str(word).replace(",", "\\,")
        for word in split_words(values)
        if group.find(word) is not None or group.ignore(word)
    ]


def parse_words(values: Iterable[str], groups: Sequence[WordGroup]) -> list[Settings]:
    """Return the settings of each of `groups`, in their order.

    Errors: CommandError (USAGE) for a word that is unknown, lacks its value, has one that it
    does not take, or one that makes no sense.
    """
    settings: list[Settings] = [{} for _ in groups]
    for word in split_words(values):
        for group, found in zip(groups, settings, strict=True):
            spec = group.find(word)
            if spec is not None:
                _apply(spec, found, word)
                break
        else:
            if not any(group.ignore(word) for group in groups):
                raise CommandError(Status.USAGE, _complaint(word, groups))
    return settings


def _apply(spec: WordSpec, settings: Settings, word: Word) -> None:
    try:
        spec.apply(settings, word.value or "")
    except ValueError as exc:
        raise CommandError(Status.USAGE, f"option '{word}': {exc}") from None


def _complaint(word: Word, groups: Sequence[WordGroup]) -> str:
    spec = next(filter(None, (group.named(word.name) for group in groups)), None)
    if spec is not None and spec.value:
        return f"option '{word.name}' needs a value: {word.name}={spec.value}"
    if spec is not None:
        return f"option '{word.name}' takes no value: leave out '={word.value}'"
    lowered = {name.lower(): name for group in reversed(groups) for name in group.words}
    near = difflib.get_close_matches(word.name.lower(), lowered, n=1, cutoff=0.5)
    step = f"did you mean '{lowered[near[0]]}'?" if near else "--help lists the options"
    return f"unknown option '{word.name}'; {step}"


# What a word does to the settings: small makers, so that the tables below read as tables.


def sets(name: str, value: object) -> Callable[[Settings, str], None]:
    """Return an action that sets `name` to `value`."""

    def apply(settings: Settings, _text: str) -> None:
        settings[name] = value

    return apply


def takes(name: str, convert: Callable[[str], object]) -> Callable[[Settings, str], None]:
    """Return an action that sets `name` to the converted value of the word."""

    def apply(settings: Settings, text: str) -> None:
        settings[name] = convert(text)

    return apply


def without_effect(name: str, reason: str) -> Callable[[Settings, str], None]:
    """Return an action that has the user told, once, why `name` has no effect."""

    def apply(settings: Settings, _value: str) -> None:
        settings.setdefault("notes", {})[name] = f"option '{name}' has no effect: {reason}"

    return apply


def always(_settings: Settings, _value: str) -> None:
    """Do nothing: what the word asks for is so in any case."""


def number(text: str) -> int:
    """Return `text` as a whole number from 0 on, or raise ValueError with a sentence."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"'{text}' is no whole number")
    return int(text)


def octal(text: str) -> int:
    """Return permission bits written in octal."""
    try:
        bits = int(text, 8)
    except ValueError:
        bits = -1
    if not 0 <= bits <= 0o7777:
        raise ValueError(f"'{text}' are no permission bits in octal, such as 022")
    return bits


def octets(text: str) -> int:
    """Return a size: a number with K, M, G or T (powers of 1024) behind it or not."""
    digits, unit = text, 1
    if text[-1:].upper() in {"K", "M", "G", "T"}:
        digits, unit = text[:-1], 1024 ** (1 + "KMGT".index(text[-1].upper()))
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"'{text}' is no size, such as 65536, 64K or 1M")
    return int(digits) * unit


def text(value: str) -> str:
    """Return a value that must not be empty."""
    if not value:
        raise ValueError("the value is empty")
    return value


def _port(text: str) -> int:
    found = number(text)
    if found > 65535:
        raise ValueError(f"'{text}' is no port; they end with 65535")
    return found


def remote_port(value: str) -> int:
    """Return a port to connect to."""
    port = number(value)
    if not 0 < port < 65536:
        raise ValueError("a port is from 1 to 65535")
    return port


def yes_or_no(value: str) -> bool:
    """Return "yes" or "no" as a truth value."""
    if value not in ("yes", "no"):
        raise ValueError("is 'yes' or 'no'")
    return value == "yes"


def file_name(value: str) -> str:
    """Return a path that stays right when the process goes to the background."""
    return os.path.abspath(text(value))


def _caches(**off: bool) -> Callable[[Settings, str], None]:
    def apply(settings: Settings, _text: str) -> None:
        settings.update(off)

    return apply


def _hands_through(word: str, opposite: str) -> Callable[[Settings, str], None]:
    def apply(settings: Settings, _text: str) -> None:
        words = [w for w in settings.get("words", ()) if w not in (word, opposite)]
        settings["words"] = (*words, word)

    return apply


def _drops(word: str) -> Callable[[Settings, str], None]:
    """Return the action of a word which only takes back another one."""

    def apply(settings: Settings, _text: str) -> None:
        settings["words"] = tuple(w for w in settings.get("words", ()) if w != word)

    return apply


_ALL_OFF = {"nocache_name": True, "nocache_page": True, "nocache_attr": True}
_ALL_ON = dict.fromkeys(_ALL_OFF, False)
_SUBTYPE = "the type of a mount is the trace of its elements and cannot be given"
_CHANGED: Final = "file data is kept until it is seen to have changed there, not longer"
_REMEMBERED: Final = "a file is known as long as the host kernel knows it"

HOST_WORDS: Final[dict[str, WordSpec]] = {
    "ro": WordSpec(sets("readonly", True), "mount read-only"),
    "rw": WordSpec(sets("readonly", False), "mount for reading and writing (default)"),
    "allow_other": WordSpec(
        sets("allow_other", True),
        "let other users in (for non-root: needs user_allow_other in /etc/fuse.conf)",
    ),
    "allow_root": WordSpec(sets("allow_root", True), "let root in besides the mounting user"),
    "default_permissions": WordSpec(
        sets("default_permissions", True), "let the host kernel check permission bits"
    ),
    "nocache": WordSpec(_caches(**_ALL_OFF), "the host kernel remembers nothing"),
    "cache": WordSpec(_caches(**_ALL_ON), "the host kernel remembers what it may (default)"),
    "nonamecache": WordSpec(_caches(nocache_name=True), "... no names"),
    "namecache": WordSpec(_caches(nocache_name=False)),
    "noattrcache": WordSpec(_caches(nocache_attr=True), "... no attributes"),
    "attrcache": WordSpec(_caches(nocache_attr=False)),
    "nopagecache": WordSpec(_caches(nocache_page=True), "... no file data (direct I/O)"),
    "pagecache": WordSpec(_caches(nocache_page=False)),
    "fsname": WordSpec(
        takes("fsname", lambda value: text(value).encode("utf-8", "surrogateescape")),
        "what `mount` shows as the device, in place of the target",
        "TEXT",
    ),
    "subtype": WordSpec(without_effect("subtype", _SUBTYPE), "", "TEXT"),
    "uid": WordSpec(takes("uid", number), "show this user as the owner of everything", "N"),
    "gid": WordSpec(takes("gid", number), "show this group on everything", "N"),
    "umask": WordSpec(
        takes("umask", octal), "show these permissions alone as missing, octal", "MASK"
    ),
    "fmask": WordSpec(takes("fmask", octal), "... of files", "MASK"),
    "dmask": WordSpec(takes("dmask", octal), "... of directories", "MASK"),
    "auto_unmount": WordSpec(
        _hands_through("auto_unmount", ""), "unmount even if our process is killed"
    ),
    "direct_io": WordSpec(sets("nocache_page", True), "as nopagecache"),
    "auto_cache": WordSpec(always, "accepted; file data is dropped when it changed there, always"),
    "noauto_cache": WordSpec(without_effect("noauto_cache", _CHANGED)),
    "kernel_cache": WordSpec(without_effect("kernel_cache", _CHANGED)),
    "no_rofd_flush": WordSpec(always),
    "noforget": WordSpec(without_effect("noforget", _REMEMBERED)),
    "remember": WordSpec(without_effect("remember", _REMEMBERED), "", "SECS"),
    "nonempty": WordSpec(
        sets("nonempty", True), "accepted: files in the mount point never keep it from mounting"
    ),
    "dump": WordSpec(sets("debug", True), "print each operation; stays in the foreground"),
    "debug": WordSpec(sets("verbose", True), "print debugging messages; stays in the foreground"),
    "metrics_port": WordSpec(
        takes("metrics_port", _port), "figures for Prometheus on this loopback port; 0: any", "N"
    ),
    "log": WordSpec(takes("log", text), "write messages to this file instead of syslog", "FILE"),
    "nosuid": WordSpec(_hands_through("nosuid", "suid"), "set-uid bits have no effect (default)"),
    "suid": WordSpec(_hands_through("suid", "nosuid"), "set-uid bits work (root only)"),
    "nodev": WordSpec(_hands_through("nodev", "dev"), "device nodes cannot be opened (default)"),
    "dev": WordSpec(_hands_through("dev", "nodev"), "device nodes work (root only)"),
    "noexec": WordSpec(_hands_through("noexec", "exec"), "nothing can be executed"),
    "exec": WordSpec(_drops("noexec")),
    "noatime": WordSpec(_hands_through("noatime", "atime"), "do not update access times"),
    "atime": WordSpec(_drops("noatime")),
    "sync": WordSpec(_hands_through("sync", "async"), "all writing is synchronous"),
    "async": WordSpec(_drops("sync")),
    "dirsync": WordSpec(_hands_through("dirsync", "")),
}
"""Words of the host mount; those without a text are opposites of others."""

_FSTAB_WORDS: Final = frozenset(
    "auto noauto user nouser users nousers owner noowner group nogroup defaults nofail _netdev "
    "relatime norelatime strictatime diratime nodiratime mand nomand iversion loud silent".split()
)


def is_fstab_word(word: Word) -> bool:
    """Return whether `word` is for those who read fstab (mount(8), systemd), not for us."""
    if word.name.startswith(("x-", "X-", "comment")):
        return True
    return word.value is None and word.name in _FSTAB_WORDS


HOST_GROUP: Final = WordGroup("Mount options", HOST_WORDS, ignore=is_fstab_word)


def host_options(settings: Settings) -> HostOptions:
    """Return the options that the settings of HOST_GROUP came to.

    `log`, `metrics_port` and `verbose` are not among them: they concern the process, not the mount.
    """
    if settings.get("allow_other") and settings.get("allow_root"):
        raise CommandError(
            Status.USAGE, "options 'allow_other' and 'allow_root' exclude each other; give one"
        )
    ours = {field.name for field in fields(HostOptions)}
    return HostOptions(**{name: value for name, value in settings.items() if name in ours})


_STAY_HOME: Final = frozenset({"debug", "dump", "log", "fsname", "metrics_port"})
"""Words that concern the process which was given them, or travel otherwise."""


def travelling_words(values: Iterable[str]) -> list[tuple[str, str]]:
    """Return the words of the host mount among `values`, for who mounts in our place."""
    return [
        (word.name, word.value or "")
        for word in split_words(values)
        if HOST_GROUP.find(word) is not None and word.name not in _STAY_HOME
    ]
