"""paramiko's SFTP server over the files of this machine. Run as `by_paramiko.py HOST_KEY`; prints
its port. paramiko brings the protocol; what a request does is for whoever serves by it, as here.
Every key is let in: this is about SFTP.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any

import paramiko
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED
from paramiko.sftp import SFTP_FAILURE, SFTP_OK
from paramiko.sftp_attr import SFTPAttributes
from paramiko.sftp_handle import SFTPHandle
from paramiko.sftp_server import SFTPServer
from paramiko.sftp_si import SFTPServerInterface


class Door(paramiko.ServerInterface):
    def check_auth_publickey(self, username: str, key: Any) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"


class File(SFTPHandle):
    readfile: Any
    writefile: Any
    filename: str

    def stat(self) -> Any:
        return SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))

    def chattr(self, attr: Any) -> int:
        return change(self.readfile.fileno(), attr)


def change(path: Any, attr: Any) -> int:
    try:
        if attr.st_size is not None:
            os.truncate(path, attr.st_size)
        if attr.st_mode is not None:
            os.chmod(path, attr.st_mode & 0o7777)
        if attr.st_uid is not None:
            os.chown(path, attr.st_uid, attr.st_gid)
        if attr.st_mtime is not None:
            os.utime(path, (attr.st_atime, attr.st_mtime))
    except OSError as exc:
        return code(exc)
    return SFTP_OK


def code(exc: OSError) -> int:
    return SFTPServer.convert_errno(exc.errno or 0)


class Files(SFTPServerInterface):
    """Each method does what POSIX does, with the answer that paramiko has for an errno."""

    def _do(self, call: Any, *args: Any) -> int:
        try:
            call(*args)
        except OSError as exc:
            return code(exc)
        return SFTP_OK

    def canonicalize(self, path: str) -> str:
        return os.path.realpath(path)

    def list_folder(self, path: str) -> Any:
        try:
            entries = []
            for name in os.listdir(path):
                attrs = SFTPAttributes.from_stat(os.lstat(os.path.join(path, name)))
                attrs.filename = name
                entries.append(attrs)
            return entries
        except OSError as exc:
            return code(exc)

    def stat(self, path: str) -> Any:
        try:
            return SFTPAttributes.from_stat(os.stat(path))
        except OSError as exc:
            return code(exc)

    def lstat(self, path: str) -> Any:
        try:
            return SFTPAttributes.from_stat(os.lstat(path))
        except OSError as exc:
            return code(exc)

    def open(self, path: str, flags: int, attr: Any) -> Any:
        try:
            mode = 0o666 if attr.st_mode is None else attr.st_mode & 0o7777
            fd = os.open(path, flags, mode)
        except OSError as exc:
            return code(exc)
        kind = flags & os.O_ACCMODE
        how = {os.O_RDONLY: "rb", os.O_WRONLY: "wb", os.O_RDWR: "r+b"}[kind]
        file = os.fdopen(fd, how, 0)
        handle = File(flags)
        handle.filename = path
        handle.readfile = handle.writefile = file
        return handle

    def remove(self, path: str) -> int:
        return self._do(os.unlink, path)

    def rename(self, old: str, new: str) -> int:
        if os.path.lexists(new):
            return SFTP_FAILURE
        return self._do(os.rename, old, new)

    def posix_rename(self, old: str, new: str) -> int:
        return self._do(os.rename, old, new)

    def mkdir(self, path: str, attr: Any) -> int:
        return self._do(os.mkdir, path, 0o777 if attr.st_mode is None else attr.st_mode & 0o7777)

    def rmdir(self, path: str) -> int:
        return self._do(os.rmdir, path)

    def chattr(self, path: str, attr: Any) -> int:
        return change(path, attr)

    def symlink(self, target: str, path: str) -> int:
        return self._do(os.symlink, target, path)

    def readlink(self, path: str) -> Any:
        try:
            return os.readlink(path)
        except OSError as exc:
            return code(exc)


def main(host_key: str) -> None:
    key = paramiko.Ed25519Key.from_private_key_file(host_key)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)

    def serve() -> None:
        while True:
            transport = paramiko.Transport(listener.accept()[0])
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", SFTPServer, Files)
            transport.start_server(server=Door())

    threading.Thread(target=serve, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


main(sys.argv[1])
