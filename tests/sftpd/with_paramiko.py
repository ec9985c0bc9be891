"""Drive a server with paramiko: host port user identity known_hosts directory."""

from __future__ import annotations

import os
import stat
import sys

import paramiko

host, port, user, identity, known_hosts, at = sys.argv[1:]
ssh = paramiko.SSHClient()
ssh.load_host_keys(known_hosts)
ssh.connect(host, int(port), user, key_filename=identity, allow_agent=False, look_for_keys=False)
sftp = ssh.open_sftp()
sftp.chdir(at)
assert sftp.getcwd() == at
assert sftp.normalize("x") == f"{at}/x"

data = os.urandom(1_500_000)
with sftp.open("big", "wb") as file:
    file.set_pipelined(True)
    file.write(data)
with sftp.open("big", "rb") as file:
    file.prefetch()
    assert file.read() == data
    file.seek(1000)
    assert file.read(10) == data[1000:1010]
    assert file.readv([(5, 10), (100_000, 40_000)]).__next__() == data[5:15]
    assert file.stat().st_size == len(data)
with sftp.open("big", "a") as file:
    file.write(b"tail")
    file.flush()
with sftp.open("big", "r+b") as file:
    file.truncate(5)
    file.chmod(0o600)
    file.utime((1, 2))
assert sftp.stat("big").st_size == 5
assert stat.S_IMODE(sftp.stat("big").st_mode or 0) == 0o600
assert (sftp.stat("big").st_atime, sftp.stat("big").st_mtime) == (1, 2)
with sftp.open("lines", "w") as file:
    file.write("one\ntwo\nthree\n")
with sftp.open("lines") as file:
    assert list(file) == ["one\n", "two\n", "three\n"]
try:
    sftp.open("lines", "x")
    raise AssertionError("made what was there")
except OSError as exc:
    print("exclusive:", exc)
sftp.rename("lines", "l2")
try:
    sftp.rename("l2", "big")
    raise AssertionError("replaced")
except OSError as exc:
    print("rename:", exc)
sftp.posix_rename("l2", "big")
sftp.symlink("big", "soft")
assert sftp.readlink("soft") == "big"
assert stat.S_ISLNK(sftp.lstat("soft").st_mode or 0)
sftp.mkdir("d", 0o750)
for number in range(250):
    sftp.open(f"d/{number}", "w").close()
assert len(sftp.listdir("d")) == 250
assert len(list(sftp.listdir_iter("d"))) == 250
for entry in sftp.listdir_attr("d"):
    assert entry.st_size == 0
    sftp.remove(f"d/{entry.filename}")
sftp.rmdir("d")
sftp.truncate("big", 3)
sftp.utime("big", None)
sftp.chmod("big", 0o644)
for gone in ("none", "none/x", "big/x"):
    try:
        sftp.stat(gone)
        raise AssertionError(f"{gone} is there")
    except FileNotFoundError:
        pass
assert sorted(sftp.listdir()) == ["big", "soft"]
ssh.close()
print("done")
