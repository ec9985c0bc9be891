"""What real programs do to a mount, each a script with the mount as $M and the server's as $O."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Final

PROGRAMS: Final = {
    "fio": "fio",
    "stress-ng": "stress-ng",
    "git": "git",
    "sqlite3": "sqlite3",
    "rsync": "rsync",
    "tar": "tar",
}

LACKS: Final = {
    "binderfs": "a file system of its own",
    "bind-mount": "mounts",
    "procfs": "reads /proc only",
    "chattr": "no such flags in SFTP",
    "ioprio": "not about a file system's answers",
    "dirdeep": "fills a disk with a million directories before it looks at the clock",
    "dirmany": "the same with files",
    "handle": "name_to_handle_at(2): FUSE offers no handles that last here",
    "io": "sync(2) of the whole machine",
    "mknod": "SFTP makes no devices, fifos and sockets",
    "fsize": "posix_fallocate(3) at 2^48",
    "fiemap": "no extents in SFTP",
    "verity": "no fs-verity",
    "xattr": "no extended attributes in SFTP",
}
"""Stressors of stress-ng's class that say nothing here, with reasons."""

_FIO: Final = "fio --minimal --directory=$M --name=v --verify_fatal=1 --ioengine=psync"

_TREE: Final = """
mkdir $L/tree
for d in $(seq 1 20); do
    mkdir -p $L/tree/dir$d/sub
    for f in $(seq 1 20); do
        head -c $((d * f * 37 % 9000)) /dev/urandom > $L/tree/dir$d/file$f.c
        echo "$d $f" > $L/tree/dir$d/sub/file$f.h
    done
    ln -s dir$d/file1.c $L/tree/link$d
done
"""
"""800 small files in 40 directories: what a source tree looks like."""


@dataclass(frozen=True)
class Script:
    """One of them; it fails by its status. `seconds`: what it may take."""

    name: str
    text: str
    seconds: float = 900.0


SCRIPTS: Final = (
    Script(
        "fio sequential",
        f"{_FIO} --rw=write --bs=128k --size=64m --fsync=16 --verify=crc32c --end_fsync=1",
    ),
    Script(
        "fio random, 4 jobs",
        f"{_FIO} --rw=randrw --bs=4k-64k --bs_unaligned --size=12m --numjobs=4 --fsync=64"
        " --verify=crc32c --verify_backlog=256",
    ),
    Script(
        "fio mmap",
        f"{_FIO} --ioengine=mmap --rw=randrw --bs=4k-64k --bs_unaligned --size=8m --verify=crc32c"
        " --verify_backlog=256",
    ),
    Script(
        "fio, read at the server",
        f"""
        fio='{_FIO} --rw=randwrite --bs=4k-64k --bs_unaligned --size=16m --verify=sha256
            --randseed=9'
        eval $fio --do_verify=0 --fsync_on_close=1
        M=$O; eval $fio --verify_only
        """,
    ),
    Script(
        "stress-ng",
        "mkdir $M/s; stress-ng --temp-path $M/s --seq 1 --class filesystem -t 1 --verify"
        f" -x {','.join(LACKS)} || test $? -eq 3",
        1200,
    ),
    Script(
        "git",
        _TREE
        + """
        cd $L/tree && git init -q -b main && git add -A && git commit -q -m one
        git clone -q $L/tree $M/clone && cd $M/clone && git fsck --strict --no-progress
        git checkout -q -b side && git mv dir1 moved && git rm -q -r dir2 && git commit -q -m two
        git checkout -q main && git merge -q --no-edit side && git gc -q
        git fsck --strict --no-progress && test -z "$(git status --porcelain)"
        git clone -q $O/clone $L/back && diff -r --no-dereference -x .git $L/back $M/clone
        """,
    ),
    Script(
        "sqlite",
        """
        for journal in delete wal; do
            sqlite3 $M/$journal.db "pragma journal_mode=$journal; create table t(a, b);" > $L/out
            for process in 1 2 3 4; do
                (for turn in $(seq 1 20); do echo ".timeout 60000
                    begin immediate; insert into t values($process, $turn); commit;"
                done | sqlite3 $M/$journal.db || echo failed >> $L/out) &
            done
            wait
            ! grep failed $L/out
            test "$(sqlite3 $M/$journal.db 'pragma integrity_check; select count(*) from t')" = "ok
80"
        done
        """,
    ),
    Script(
        "tar",
        _TREE
        + """
        tar -C $L -cf - tree | tar -C $M -xpf - && tar -C $L -cf $L/t.tar tree
        tar -C $M -df $L/t.tar
        test -z "$(rsync -naicH --delete $M/tree/ $O/tree/)"
        tar -C $M -cf - tree | tar -C $L -df -
        rm -r $M/tree && test -z "$(ls -A $O)"
        """,
    ),
)


def missing() -> str:
    """Say what is to be installed first, "" if nothing is."""
    lacks = [package for name, package in PROGRAMS.items() if shutil.which(name) is None]
    return f"apt-get install {' '.join(lacks)}" if lacks else ""
