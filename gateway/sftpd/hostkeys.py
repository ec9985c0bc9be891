"""The private keys by which clients know the daemon: read, or made once and kept."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

MADE: Final = "ssh_host_ed25519_key"
"""Name of the key that is made, in the directory for what is kept."""
_FILE_MAX: Final = 1 << 16

_PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class HostKeyError(Exception):
    """A host key cannot be used; the text names it, and says what to do."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host key. `type` and `fingerprint` are what clients show; `private` is for nobody else."""

    path: Path
    type: str
    fingerprint: str
    private: bytes = field(repr=False, compare=False)


def load_host_keys(files: Sequence[Path], state: Path) -> list[HostKey]:
    """Read the keys of `files`; with none, the one in the directory `state`, made when missing.

    Errors: `HostKeyError`.
    """
    if not files:
        return [_load(_made_key(state))]
    keys = [_load(path) for path in files]
    for key in keys:
        others = [other.path for other in keys if other.type == key.type]
        if len(others) > 1:
            raise HostKeyError(f"{others[0]} and {others[1]} are both {key.type} keys; leave one")
    return keys


def _load(path: Path) -> HostKey:
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            data = file.read(_FILE_MAX)
    except OSError as exc:
        raise HostKeyError(f"host key {path}: {exc.strerror}") from exc
    if not stat.S_ISREG(info.st_mode):
        raise HostKeyError(f"host key {path}: is no regular file")
    if info.st_uid == os.geteuid() and info.st_mode & 0o077:
        mode = stat.S_IMODE(info.st_mode)
        raise HostKeyError(f"host key {path}: others can read it (mode {mode:o}); chmod 600 it")
    key = _decode(path, data)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    name, text = public.split()[:2]
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(text)).digest())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return HostKey(path, name.decode(), f"SHA256:{digest.decode().rstrip('=')}", private)


def _decode(path: Path, data: bytes) -> _PrivateKey:
    load = load_ssh_private_key if b"BEGIN OPENSSH" in data else load_pem_private_key
    try:
        key = load(data, None)
    except TypeError:
        raise HostKeyError(
            f"host key {path}: has a passphrase; ssh-keygen -p takes it off"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise HostKeyError(f"host key {path}: is no private key; ssh-keygen makes one") from None
    if isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return key
    raise HostKeyError(
        f"host key {path}: is neither Ed25519 nor ECDSA nor RSA with 2048 bits; "
        "ssh-keygen -t ed25519 makes one"
    )


def _made_key(state: Path) -> Path:
    """Return the path of the key that is kept, after making it if need be.

    Whoever makes it first wins, and a crash leaves none or a whole one.
    """
    path = state / MADE
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            return path
        key = ed25519.Ed25519PrivateKey.generate()
        data = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        new = state / f".{MADE}.{os.getpid()}"
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            try:
                os.link(new, path)
            except FileExistsError:
                pass
        finally:
            new.unlink()
        directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise HostKeyError(
            f"cannot keep a host key in {state}: {exc.strerror}; name host keys, or another place"
        ) from exc
    return path
