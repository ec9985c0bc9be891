"""The ssh configuration files, read as OpenSSH reads them: Host, Match and Include.

For each keyword the first value counts, from the `-o` options, the user's file and the
system's file in this order; a few keywords gather values.
"""

from __future__ import annotations

import difflib
import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from glob import glob

from .sshconfig import ConfigError, HostConfig, expand_variables

_INCLUDE_DEPTH = 16
_SYSTEM_FILE = "/etc/ssh/ssh_config"

# Keywords that gather the values of all lines; of all others the first line counts.
_GATHERED = frozenset({"identityfile", "certificatefile", "sendenv"})

_ALIASES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "skeyauthentication": "kbdinteractiveauthentication",
    "tisauthentication": "kbdinteractiveauthentication",
    "dsaauthentication": "pubkeyauthentication",
    "hostbasedkeytypes": "hostbasedacceptedalgorithms",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "globalknownhostsfile2": "globalknownhostsfile",
    "userknownhostsfile2": "userknownhostsfile",
}

KEYWORDS = frozenset(
    """
    addkeystoagent addressfamily batchmode bindaddress bindinterface canonicaldomains
    canonicalizefallbacklocal canonicalizehostname canonicalizemaxdots
    canonicalizepermittedcnames casignaturealgorithms certificatefile channeltimeout checkhostip
    cipher ciphers clearallforwardings compression compressionlevel connectionattempts
    connecttimeout controlmaster controlpath controlpersist dynamicforward
    enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fingerprinthash
    forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted
    gatewayports globalknownhostsfile gssapiauthentication gssapidelegatecredentials
    gssapikeyexchange gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns
    gssapiclientidentity gssapikexalgorithms hashknownhosts hostbasedacceptedalgorithms
    hostbasedauthentication hostkeyalgorithms hostkeyalias hostname identitiesonly identityagent
    identityfile ignoreunknown ipqos kbdinteractiveauthentication kbdinteractivedevices
    kexalgorithms knownhostscommand localcommand localforward loglevel logverbose macs
    nohostauthenticationforlocalhost numberofpasswordprompts obscurekeystroketiming
    passwordauthentication permitlocalcommand permitremoteopen pkcs11provider port
    preferredauthentications protocol proxycommand proxyjump proxyusefdpass
    pubkeyacceptedalgorithms pubkeyauthentication refuseconnection rekeylimit remotecommand
    remoteforward requesttty requiredrsasize revokedhostkeys rhostsrsaauthentication
    rsaauthentication securitykeyprovider sendenv serveralivecountmax serveraliveinterval
    sessiontype setenv smartcarddevice stdinnull streamlocalbindmask streamlocalbindunlink
    stricthostkeychecking syslogfacility tag tcpkeepalive tunnel tunneldevice updatehostkeys
    useprivilegedport user userknownhostsfile usekeychain verifyhostkeydns versionaddendum
    visualhostkey xauthlocation warnweakcrypto
    """.split()
) | frozenset(_ALIASES)


def read_config(
    host: str,
    *,
    user: str | None = None,
    port: int | None = None,
    options: Sequence[str] = (),
    config_file: str | None = None,
) -> HostConfig:
    """Give what the options, then the files, say about `host`.

    `config_file` stands for both files; it must exist, "none" means no file. `Match final`
    blocks count in a second pass over everything.

    Errors: `ConfigError` for what ssh would refuse as well, except keywords that we do not know
    in files: a newer ssh may know them.
    """
    try:
        local_user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        local_user = os.environ.get("LOGNAME") or os.environ.get("USER") or str(os.getuid())
    reader = _Reader(HostConfig(host, local_user, user, port), options, config_file)
    return reader.read()


class _Reader:
    """Reads the sources into one `HostConfig`."""

    def __init__(self, config: HostConfig, options: Sequence[str], config_file: str | None) -> None:
        self._config = config
        self._options = options
        self._config_file = config_file
        self._final = False
        self._wants_final = False

    def read(self) -> HostConfig:
        self._read_sources()
        if self._wants_final:
            self._final = True
            # Host is matched against the name found in the first pass; values are kept.
            gathered = {k: v for k, v in self._config.values.items() if k in _GATHERED}
            for keyword in gathered:
                del self._config.values[keyword]
            self._read_sources()
        return self._config

    def _read_sources(self) -> None:
        for option in self._options:
            self._read_line(option, "-o option", True, "")
        if self._config_file is not None:
            if self._config_file.lower() != "none":
                self._read_file(self._config_file, "~/.ssh", required=True)
            return
        self._read_file(os.path.expanduser("~/.ssh/config"), "~/.ssh", checked=True)
        self._read_file(_SYSTEM_FILE, "/etc/ssh")

    def _read_file(
        self,
        path: str,
        base: str,
        *,
        required: bool = False,
        checked: bool = False,
        active: bool = True,
        depth: int = 0,
    ) -> None:
        """Read a file; `base` is where its Includes start, `active` False skips all its blocks."""
        if depth > _INCLUDE_DEPTH:
            raise ConfigError(f"{path}: Include goes deeper than {_INCLUDE_DEPTH} files")
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                if checked:
                    status = os.fstat(file.fileno())
                    if status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022:
                        raise ConfigError(
                            f"{path}: bad owner or permissions: it must be yours "
                            "and writable by you alone"
                        )
                lines = file.read().splitlines()
        except OSError as exc:
            if required:
                raise ConfigError(f"{path}: cannot read it: {exc.strerror}") from exc
            return
        outer = active
        for number, line in enumerate(lines, 1):
            where = f"{path} line {number}"
            words = _split_line(line, where)
            if words and words[0].lower() == "include":
                for name in self._find_included(words[1:], base, where):
                    self._read_file(name, base, active=active, depth=depth + 1)
            elif words and words[0].lower() in ("host", "match"):
                matches = self._match_host if words[0].lower() == "host" else self._match
                # Evaluated only where it counts: `Match exec` runs programs.
                active = outer and matches(words[1:], where)
            elif active:
                self._read_line(line, where, False, base)

    def _read_line(self, line: str, where: str, is_option: bool, base: str) -> None:
        words = _split_line(line, where)
        if not words:
            return
        keyword = words[0].lower()
        if is_option and keyword not in KEYWORDS:
            near = difflib.get_close_matches(keyword, KEYWORDS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"-o {line}: no such ssh option{hint}")
        keyword = _ALIASES.get(keyword, keyword)
        if keyword in ("proxycommand", "remotecommand", "localcommand", "knownhostscommand"):
            # The rest of the line is for a shell: quotes and all.
            rest = re.sub(r"^\s*[^\s=]+(\s*=\s*|\s+|$)", "", line, count=1).strip()
            words = [words[0], rest] if rest else [words[0]]
        if len(words) < 2:
            raise ConfigError(f"{where}: {words[0]} needs a value")
        lines = self._config.values.setdefault(keyword, [])
        # Either of the two ways through another machine rules the other out.
        rival = {"proxyjump": "proxycommand", "proxycommand": "proxyjump"}.get(keyword)
        if rival in self._config.values:
            if not lines:
                del self._config.values[keyword]
            return
        if not lines or keyword in _GATHERED:
            lines.append(words[1:])

    def _find_included(self, patterns: Sequence[str], base: str, where: str) -> Iterator[str]:
        for pattern in patterns:
            name = os.path.expanduser(expand_variables(pattern, f"{where}: Include"))
            if not os.path.isabs(name):
                name = os.path.join(os.path.expanduser(base), name)
            yield from sorted(path for path in glob(name) if not os.path.isdir(path))

    def _match_host(self, patterns: Sequence[str], where: str) -> bool:
        if not patterns:
            raise ConfigError(f"{where}: Host needs a pattern")
        host = self._config.host if self._final else self._config.original_host
        return match_patterns(host, patterns)

    def _match(self, words: Sequence[str], where: str) -> bool:
        if not words:
            raise ConfigError(f"{where}: Match needs a criterion")
        config = self._config
        subjects: dict[str, Callable[[], str]] = {
            "host": lambda: config.host,
            "originalhost": lambda: config.original_host,
            "user": lambda: config.user,
            "localuser": lambda: config.local_user,
            "tagged": lambda: config.text("tag") or "",
            "sessiontype": lambda: "subsystem",
            "command": lambda: "sftp",
        }
        result = True
        rest = list(words)
        while rest:
            word, equals, inline = rest.pop(0).partition("=")
            negated = word.startswith("!")
            criterion = word.lower().lstrip("!")
            if criterion == "all":
                matched = True
            elif criterion == "canonical":
                matched = self._final
            elif criterion == "final":
                self._wants_final = True
                matched = self._final
            else:
                if not equals and not rest:
                    raise ConfigError(f"{where}: Match {criterion} needs a pattern")
                argument = inline if equals else rest.pop(0)
                if criterion == "exec":
                    command = config.expand_tokens(argument, "Match exec")
                    matched = result and _run_quietly(command)
                elif criterion == "localnetwork":
                    raise ConfigError(
                        f"{where}: Match localnetwork is not known here; use ssh_command=ssh"
                    )
                elif criterion in subjects:
                    matched = match_patterns(subjects[criterion](), argument.split(","))
                else:
                    raise ConfigError(f"{where}: Match {criterion}: no such criterion")
            result = result and matched != negated
        return result


def match_patterns(text: str, patterns: Sequence[str]) -> bool:
    """Match against a pattern list: some pattern fits, and none that is negated with '!'."""
    found = False
    for pattern in patterns:
        negated = pattern.startswith("!")
        # ssh's patterns know * and ? only; a bracket stands for itself.
        shape = pattern.lstrip("!").lower().replace("[", "[[]")
        if fnmatchcase(text.lower(), shape):
            if negated:
                return False
            found = True
    return found


def _split_line(line: str, where: str) -> list[str]:
    """Split into the keyword and its values: blanks or one '=' after the keyword, quotes, #."""
    line = line.strip()
    if not line or line.startswith("#"):
        return []
    parts = re.match(r'"?([A-Za-z0-9]+)"?(?:\s*=\s*|\s+|$)(.*)', line)
    if parts is None:
        raise ConfigError(f"{where}: cannot read it: {line}")
    keyword, rest = parts.groups()
    lexer = shlex.shlex(rest, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    lexer.escape = ""  # a backslash is part of user names
    try:
        words = list(lexer)
    except ValueError as exc:
        if keyword.lower() in ("proxycommand", "remotecommand", "localcommand"):
            return [keyword, rest]
        raise ConfigError(f"{where}: {exc}") from None
    for index, word in enumerate(words):
        if word.startswith("#"):
            del words[index:]
            break
    return [keyword, *words]


def _run_quietly(command: str) -> bool:
    shell = os.environ.get("SHELL") or "/bin/sh"
    return (
        subprocess.run(
            [shell, "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
        == 0
    )
