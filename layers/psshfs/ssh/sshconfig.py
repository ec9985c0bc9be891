"""What the ssh configuration says about a host: values, their types and their tokens.

asyncssh has a parser of its own, which knows neither StrictHostKeyChecking nor its relatives,
the system's file, or times like "1m". Reading everything ourselves (`sshfile`) gives one opinion in
place of two. Nothing here asks the network.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha1


class ConfigError(ValueError):
    """A configuration cannot be used; the text is one line and names the file and the line."""


@dataclass(slots=True)
class HostConfig:
    """The settings for one host; keywords are given in any case."""

    original_host: str
    local_user: str
    user_given: str | None
    port_given: int | None
    values: dict[str, list[list[str]]] = field(default_factory=dict)
    """Keyword in lower case to the words of its lines: one line, or several where gathered."""

    def words(self, keyword: str) -> list[str]:
        """Give the words of the first line, [] when not set; "none" alone means [] too."""
        lines = self.values.get(keyword.lower())
        if not lines or [w.lower() for w in lines[0]] == ["none"]:
            return []
        return lines[0]

    def is_set(self, keyword: str) -> bool:
        """Tell whether any line sets the keyword, be it to "none"."""
        return keyword.lower() in self.values

    def text(self, keyword: str) -> str | None:
        """Give the words of the first line as one, None when not set or "none"."""
        return " ".join(self.words(keyword)) or None

    def gathered(self, keyword: str) -> list[str]:
        """Give the words of all lines of a gathered keyword."""
        words = [word for line in self.values.get(keyword.lower(), []) for word in line]
        return [] if [w.lower() for w in words[:1]] == ["none"] else words

    def word(self, keyword: str, default: str, allowed: Sequence[str] = ()) -> str:
        """Give the value in lower case; `ConfigError` when it is none of `allowed`."""
        value = (self.text(keyword) or default).lower()
        if allowed and value not in allowed:
            raise ConfigError(f"{keyword} {value}: must be one of {', '.join(allowed)}")
        return value

    def flag(self, keyword: str, default: bool) -> bool:
        """Give a yes or no; `ConfigError` for anything else."""
        value = self.word(keyword, "yes" if default else "no")
        if value in ("yes", "true", "on"):
            return True
        if value in ("no", "false", "off"):
            return False
        raise ConfigError(f"{keyword} {value}: must be yes or no")

    def number(self, keyword: str, default: int) -> int:
        """Give a number that is not negative."""
        value = self.text(keyword)
        if value is None:
            return default
        if not value.isascii() or not value.isdigit():
            raise ConfigError(f"{keyword} {value}: must be a number")
        return int(value)

    def seconds(self, keyword: str, default: int) -> int:
        """Give a time in seconds, written as in sshd_config(5): 90, 1m30s, 2h."""
        value = self.text(keyword)
        if value is None:
            return default
        parts = re.findall(r"(\d+)([smhdw]?)", value.lower())
        if "".join(number + unit for number, unit in parts) != value.lower() or not parts:
            raise ConfigError(f"{keyword} {value}: must be a time")
        factors = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
        return sum(int(number) * factors[unit] for number, unit in parts)

    @property
    def host(self) -> str:
        """Give the name or address to connect to, in lower case as it is looked up."""
        name = self.text("hostname")
        if name is None:
            return self.original_host.lower()
        return substitute(name, {"%": "%", "h": self.original_host}, "HostName").lower()

    @property
    def port(self) -> int:
        """Give the port to connect to."""
        if self.port_given is not None:
            return self.port_given
        port = self.number("port", 22)
        if not 0 < port < 65536:
            raise ConfigError(f"Port {port}: must be from 1 to 65535")
        return port

    @property
    def user(self) -> str:
        """Give the name to log in with."""
        return self.user_given or self.text("user") or self.local_user

    def expand(self, text: str, keyword: str) -> str:
        """Replace %tokens and ${variables} as ssh_config(5), TOKENS, says."""
        return substitute(expand_variables(text, keyword), self._tokens(), keyword)

    def expand_tokens(self, text: str, keyword: str) -> str:
        """Replace %tokens alone, for commands: their variables are the shell's business."""
        return substitute(text, self._tokens(), keyword)

    def path(self, text: str, keyword: str) -> str:
        """Replace %tokens, ${variables} and a leading ~ of a file name."""
        return os.path.expanduser(self.expand(text, keyword))

    def _tokens(self) -> dict[str, str]:
        local = socket.gethostname()
        jump = self.text("proxyjump") or ""
        connection = f"{local}{self.host}{self.port}{self.user}{jump}"
        return {
            "%": "%",
            "C": sha1(connection.encode()).hexdigest(),
            "d": os.path.expanduser("~"),
            "h": self.host,
            "i": str(os.getuid()),
            "j": jump,
            "k": self.text("hostkeyalias") or self.original_host,
            "L": local.partition(".")[0],
            "l": local,
            "n": self.original_host,
            "p": str(self.port),
            "r": self.user,
            "u": self.local_user,
        }


def substitute(text: str, tokens: dict[str, str], keyword: str) -> str:
    """Replace %x by what `tokens` has for x; `ConfigError` for others."""

    def replace(match: re.Match[str]) -> str:
        try:
            return tokens[match.group(1)]
        except KeyError:
            raise ConfigError(f"{keyword} {text}: %{match.group(1)} has no meaning here") from None

    return re.sub(r"%(.?)", replace, text)


def expand_variables(text: str, keyword: str) -> str:
    """Replace ${NAME} by the environment's value; `ConfigError` when it is not set."""

    def replace(match: re.Match[str]) -> str:
        try:
            return os.environ[match.group(1)]
        except KeyError:
            raise ConfigError(f"{keyword} {text}: ${match.group(1)} is not set") from None

    return re.sub(r"\$\{([^}]*)\}", replace, text)
