"""GVfs, which file managers of GNOME and Xfce have: its `gio` in a D-Bus session of its own."""

from __future__ import annotations

import pytest

from .conftest import Ground
from .test_clients import big

pytestmark = [pytest.mark.sshd, pytest.mark.slow]

WORK = """\
set -eu
gio mount "$1" </dev/null
gio mkdir "$1/d"
gio copy big "$1/d/big"
gio cat "$1/d/big" | cmp - big
gio move "$1/d/big" "$1/moved"
gio rename "$1/moved" renamed
gio copy "$1/renamed" back
cmp big back
gio set -t uint32 "$1/renamed" unix::mode 416
gio info -a unix::mode,standard::size "$1/renamed"
gio list -l "$1"
gio remove "$1/renamed" "$1/d"
gio list "$1"
gio mount -u "$1"
"""


@pytest.mark.programs(gio="libglib2.0-bin", **{"dbus-run-session": "dbus-daemon"})
def test_gvfs(ground: Ground) -> None:
    made = big(ground.local / "big")
    sshd = ground.server.sshd
    # gvfsd-sftp runs whatever ssh is, and that looks for no HOME but the user's entry.
    # Its control socket would be below HOME here, with more letters than a socket's name may have.
    options = " ".join(f"-o {option}" for option in (*sshd.options, "ControlPath=none"))
    ssh = ground.local / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F none {options} "$@"\n')
    ssh.chmod(0o755)
    script = ground.local / "work"
    script.write_text(WORK)
    path = f"PATH={ssh.parent}:/usr/bin:/bin"
    session = ["env", path, "GIO_USE_VOLUME_MONITOR=unix", "dbus-run-session", "--"]
    place = f"sftp://{sshd.user}@{sshd.host}:{sshd.port}{ground.remote}"
    out = ground.run([*session, "sh", script, place])
    assert "unix::mode: 33184" in out  # 0640
    assert f"standard::size: {made.stat().st_size}" in out
    assert "renamed" in out
    assert "(regular)" in out
