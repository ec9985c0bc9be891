"""Which ciphers and keys to ask a server for, in which order."""

from __future__ import annotations

from .ciphers import choose_ciphers
from .hostkeys import HostKeyCheck
from .sshconfig import HostConfig

_HOST_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-ed448",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


def choose_algorithms(config: HostConfig, check: HostKeyCheck, *, compression: bool) -> str:
    """Give the lines of ssh configuration that asyncssh reads itself.

    Only through a file does it pass over algorithms that it does not have, as users expect
    who share their configuration with ssh. What the user does not choose is the fastest first,
    and of host keys those that are known.
    """
    known = check.order_algorithms()
    keys = [*known, *(alg for alg in _HOST_KEYS if alg not in known)]
    if check.ca_keys:
        # Only where an authority is known: a host that shows a certificate shows no plain key.
        keys = [f"{alg.removesuffix('@openssh.com')}-cert-v01@openssh.com" for alg in keys] + keys
    chosen = {
        "Ciphers": choose_ciphers(),
        "HostKeyAlgorithms": ",".join(keys),
        "Compression": "yes" if compression else "no",
    }
    for keyword in (
        *("Ciphers", "KexAlgorithms", "MACs", "HostKeyAlgorithms", "CASignatureAlgorithms"),
        *("Compression", "RekeyLimit"),
    ):
        if (value := config.text(keyword)) and not (compression and keyword == "Compression"):
            chosen[keyword] = value
    return "".join(f"{keyword} {value}\n" for keyword, value in chosen.items())
