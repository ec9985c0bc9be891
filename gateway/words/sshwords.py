"""Words behind `-o` that mean something to psshfs and to ssh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .options import (
    Settings,
    WordGroup,
    WordSpec,
    number,
    octets,
    remote_port,
    sets,
    takes,
    text,
    yes_or_no,
)
from .sshfswords import SSHFS_WORDS


def seconds(value: str) -> float:
    """Return a time in seconds, or -1 for "for ever"."""
    try:
        time = float(value)
    except ValueError:
        time = -2.0
    if time != -1 and not 0 <= time < 1e9:
        raise ValueError(f"'{value}' is no time in seconds, such as 30 (-1: for ever)")
    return time


def _ns(value: str) -> int:
    time = seconds(value)
    return -1 if time < 0 else int(time * 1e9)


def _dir_cache(settings: Settings, value: str) -> None:
    if not yes_or_no(value):
        settings["cache_timeout_ns"] = 0


def _patience(value: str) -> float:
    word, colon, time = value.partition(":")
    if value == "fail":
        return 0.0
    if value == "wait":
        return float("inf")
    if word != "wait" or not colon:
        raise ValueError(f"'{value}' is none of wait:SECONDS, wait and fail")
    return _some_seconds(time)


def _transfer(text: str) -> int:
    size = octets(text)
    if not 4096 <= size <= _TRANSFER_MAX:
        raise ValueError(f"must be from 4096 to {_TRANSFER_MAX} octets")
    return size


def _channels(text: str) -> int:
    count = number(text)
    if not 1 <= count <= _CHANNELS_MAX:
        raise ValueError(f"must be from 1 to {_CHANNELS_MAX}")
    return count


def _some_seconds(value: str) -> float:
    time = seconds(value)
    if time <= 0:
        raise ValueError("must be more than 0 seconds")
    return time


_CHANNELS_MAX: Final = 16
_TRANSFER_MAX: Final = 1024 * 1024

OWN_WORDS: Final[dict[str, WordSpec]] = {
    "port": WordSpec(takes("port", remote_port), "port of the server (22)", "N"),
    "ssh_command": WordSpec(
        takes("ssh_command", text), "run this in place of our own ssh, e.g. ssh", "CMD"
    ),
    "sftp_server": WordSpec(
        takes("sftp_server", text), "run this SFTP server here, without ssh", "CMD"
    ),
    "ssh_config": WordSpec(
        takes("ssh_config", text), "ssh configuration file in place of ~/.ssh/config", "FILE"
    ),
    "compression": WordSpec(sets("compression", True), "compress what goes over the line"),
    "password_stdin": WordSpec(
        sets("password_stdin", True), "read the password from standard input, one line"
    ),
    "cache_timeout": WordSpec(
        takes("cache_timeout_ns", _ns),
        "believe what the server said so long (30; 0: never; -1: for ever)",
        "SECS",
    ),
    "attr_timeout": WordSpec(
        takes("attr_timeout_ns", _ns), "the same for attributes alone (cache_timeout)", "SECS"
    ),
    "entry_timeout": WordSpec(
        takes("name_timeout_ns", _ns), "the same for what names lead to (cache_timeout)", "SECS"
    ),
    "link_timeout": WordSpec(
        takes("link_timeout_ns", _ns), "the same for targets of links (cache_timeout)", "SECS"
    ),
    "dir_timeout": WordSpec(
        takes("dir_timeout_ns", _ns), "the same for listings of directories", "SECS"
    ),
    "negative_timeout": WordSpec(
        takes("negative_timeout_ns", _ns),
        "the same for names that are not there (1 where asked for, else dir_timeout)",
        "SECS",
    ),
    "ac_attr_timeout": WordSpec(
        takes("open_timeout_ns", _ns),
        "an open believes attributes of this age (0: it asks)",
        "SECS",
    ),
    "dcache_timeout": WordSpec(
        takes("cache_timeout_ns", _ns), "sshfs's word for cache_timeout", "SECS"
    ),
    "dcache_stat_timeout": WordSpec(
        takes("attr_timeout_ns", _ns), "sshfs's word for attr_timeout", "SECS"
    ),
    "dcache_link_timeout": WordSpec(
        takes("link_timeout_ns", _ns), "sshfs's word for link_timeout", "SECS"
    ),
    "dcache_dir_timeout": WordSpec(
        takes("dir_timeout_ns", _ns), "sshfs's word for dir_timeout", "SECS"
    ),
    "dir_cache": WordSpec(_dir_cache, "sshfs's word; 'no' is cache_timeout=0", "yes|no"),
    "dcache_max_size": WordSpec(
        takes("names_max", number), "names remembered in listings at most (1000000)", "N"
    ),
    "remote_uid": WordSpec(
        takes("remote_uid", number), "this user there is the mounting user here", "N"
    ),
    "remote_gid": WordSpec(
        takes("remote_gid", number), "this group there is the mounting group here", "N"
    ),
    "read_ahead": WordSpec(
        takes("read_ahead", octets), "read ahead in one file at most, octets (16M; 0: none)", "SIZE"
    ),
    "prefetch": WordSpec(
        takes("prefetch", octets),
        "small files read and directories listed before they are asked for, octets (16M; 0: none)",
        "SIZE",
    ),
    "write_behind": WordSpec(
        takes("write_behind", octets),
        "written and not yet confirmed at most (16M; 0: none)",
        "SIZE",
    ),
    "max_conns": WordSpec(
        takes("max_conns", _channels), "channels for one file, where one is too few (4)", "N"
    ),
    "writeback": WordSpec(
        takes("writeback", yes_or_no),
        "create and close return before the server has the file; fsync does not (no)",
        "yes|no",
    ),
    "max_read": WordSpec(takes("max_read", _transfer), "longest READ, octets (1M)", "SIZE"),
    "max_write": WordSpec(takes("max_write", _transfer), "longest WRITE, octets (1M)", "SIZE"),
    "reconnect": WordSpec(
        sets("reconnects", True), "bring a lost connection back (as it is by default)"
    ),
    "no_reconnect": WordSpec(sets("reconnects", False), "a lost connection ends the mount's work"),
    "on_disconnect": WordSpec(
        takes("patience", _patience),
        "what requests do meanwhile: wait:SECS, then fail (wait:120); wait; fail",
        "WHAT",
    ),
    "dead_after": WordSpec(
        takes("dead_after", _some_seconds),
        "a network silent for so long is taken for dead (30)",
        "SECS",
    ),
    "request_timeout": WordSpec(
        takes("request_timeout", _some_seconds),
        "a server silent for so long is taken for dead (120)",
        "SECS",
    ),
}
"""Words of psshfs itself."""

SSH_KEYWORDS: Final = frozenset(
    """
    AddKeysToAgent AddressFamily BatchMode BindAddress BindInterface CanonicalDomains
    CanonicalizeFallbackLocal CanonicalizeHostname CanonicalizeMaxDots CanonicalizePermittedCNAMEs
    CASignatureAlgorithms CertificateFile ChallengeResponseAuthentication ChannelTimeout
    CheckHostIP Ciphers Compression ConnectionAttempts ConnectTimeout ControlMaster ControlPath
    ControlPersist EnableEscapeCommandline EnableSSHKeysign FingerprintHash ForwardAgent
    GlobalKnownHostsFile GSSAPIAuthentication GSSAPIClientIdentity GSSAPIDelegateCredentials
    GSSAPIKexAlgorithms GSSAPIKeyExchange GSSAPIRenewalForcesRekey GSSAPIServerIdentity
    GSSAPITrustDns HashKnownHosts HostbasedAcceptedAlgorithms HostbasedAuthentication
    HostKeyAlgorithms HostKeyAlias Hostname IdentitiesOnly IdentityAgent IdentityFile IgnoreUnknown
    Include IPQoS KbdInteractiveAuthentication KbdInteractiveDevices KexAlgorithms
    KnownHostsCommand LogLevel LogVerbose MACs NoHostAuthenticationForLocalhost
    NumberOfPasswordPrompts ObscureKeystrokeTiming PasswordAuthentication PKCS11Provider Port
    PreferredAuthentications ProxyCommand ProxyJump ProxyUseFdpass PubkeyAcceptedAlgorithms
    PubkeyAcceptedKeyTypes PubkeyAuthentication RekeyLimit RequiredRSASize RevokedHostKeys
    SecurityKeyProvider SendEnv ServerAliveCountMax ServerAliveInterval SetEnv
    StreamLocalBindMask StreamLocalBindUnlink StrictHostKeyChecking SyslogFacility Tag
    TCPKeepAlive UpdateHostKeys User UserKnownHostsFile VerifyHostKeyDNS VisualHostKey
    XAuthLocation
    """.split()
)
"""Keywords of ssh_config(5) that make sense for a file stream; forwarding and terminals do not."""


def _hands_on(keyword: str) -> Callable[[Settings, str], None]:
    def apply(settings: Settings, value: str) -> None:
        settings.setdefault("options", []).append(f"{keyword}={value}")

    return apply


_OLDER: Final = {
    **{
        name.removeprefix("d"): OWN_WORDS[name]._replace(text="")
        for name in ("dcache_stat_timeout", "dcache_link_timeout", "dcache_dir_timeout")
    },
    "cache": OWN_WORDS["dir_cache"]._replace(text=""),
}
"""What sshfs called some of its words before."""
PSSHFS_WORDS: Final = {**SSHFS_WORDS, **OWN_WORDS, **_OLDER}
PSSHFS_GROUP: Final = WordGroup("psshfs options", PSSHFS_WORDS)
OWN_GROUP: Final = WordGroup("psshfs options", OWN_WORDS)
SSHFS_GROUP: Final = WordGroup(
    "sshfs options",
    {name: spec for name, spec in PSSHFS_WORDS.items() if name not in OWN_WORDS},
)
"""The two parts of PSSHFS_GROUP, for people."""
SSH_GROUP: Final = WordGroup(
    "ssh options",
    {name: WordSpec(_hands_on(name), "", "VALUE") for name in sorted(SSH_KEYWORDS)},
    fold_case=True,
)


_CUMULATIVE: Final = frozenset({"CertificateFile", "IdentityFile", "SendEnv", "SetEnv"})


def later_first(options: list[str]) -> tuple[str, ...]:
    """Return "Keyword=value" words such that the first of each keyword is the one that was last."""
    cumulative = [word for word in options if word.partition("=")[0] in _CUMULATIVE]
    single = [word for word in reversed(options) if word.partition("=")[0] not in _CUMULATIVE]
    return (*single, *cumulative)
