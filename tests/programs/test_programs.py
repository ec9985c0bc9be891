"""Real programs on real mounts."""

from __future__ import annotations

import mmap
import os

import pytest

from ..support.expect import pattern
from .shell import Shell
from .tree import make_tree


@pytest.mark.programs(cp="coreutils", diff="diffutils")
def test_cp_and_back(shell: Shell) -> None:
    make_tree(shell.local / "tree")
    shell.run("cp -a $L/tree $M/ && diff -r --no-dereference $L/tree $M/tree")
    shell.run("cp -a $M/tree $L/back && diff -r --no-dereference $L/tree $L/back")
    listing = "cd {} && find . ! -type d -printf '%P %y %m %U %G %s %T@ %l\\n' | sort"
    want = shell.run(listing.format("$L/tree"))
    assert shell.run(listing.format("$M/tree")) == want
    assert shell.run(listing.format("$L/back")) == want
    if shell.origin is not None:
        shell.run(f"diff -r --no-dereference $L/tree '{shell.origin}'/tree")


@pytest.mark.programs(cp="coreutils")
def test_cp_within(shell: Shell) -> None:
    make_tree(shell.mount / "tree")
    shell.run("cp -a $M/tree $M/copy && diff -r --no-dereference $M/tree $M/copy")
    shell.run("cp --sparse=always $M/tree/sparse $M/s && cmp $M/tree/sparse $M/s")


@pytest.mark.programs(tar="tar")
def test_tar(shell: Shell) -> None:
    make_tree(shell.local / "tree")
    shell.run("tar -C $L -cf $M/t.tar tree && mkdir $M/x && tar -C $M/x -xpf $M/t.tar")
    shell.run("tar -C $M/x -df $M/t.tar")
    shell.run("tar -C $M/x -czf $L/back.tgz tree && mkdir $L/y && tar -C $L/y -xzf $L/back.tgz")
    shell.run("diff -r --no-dereference $L/tree $L/y/tree")


@pytest.mark.programs(git="git")
def test_git(shell: Shell) -> None:
    make_tree(shell.local / "tree", special_names=False)
    shell.run(
        """
        cd $L/tree && git init -q -b main && git add -A && git commit -q -m one
        echo more >> doc/file2.txt && git commit -q -a -m two
        git clone -q $L/tree $M/clone
        cd $M/clone
        test -z "$(git status --porcelain)"
        git fsck --strict --no-progress
        git checkout -q -b side
        echo change >> src/file0.txt && git mv doc/file2.txt moved.txt && git commit -q -a -m three
        git checkout -q main && git merge -q --no-edit side
        git gc -q && git fsck --strict --no-progress
        test -z "$(git status --porcelain)"
        git -C $L clone -q $M/clone $L/second
        diff -r --no-dereference -x .git $M/clone $L/second
        """,
        timeout=110,
    )


@pytest.mark.programs(sqlite3="sqlite3")
@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite(shell: Shell, journal: str) -> None:
    got = shell.run(
        f"""
        sqlite3 $M/db 'pragma journal_mode={journal};
            create table t(a integer primary key, b text);
            with recursive n(x) as (select 1 union all select x+1 from n where x<2000)
                insert into t select x, printf("row %d", x) from n;
            update t set b = b || " again" where a % 3 = 0;
            begin; delete from t; rollback;'
        sqlite3 $M/db 'delete from t where a % 7 = 0; vacuum; pragma integrity_check;'
        sqlite3 $M/db 'select count(*), sum(a), max(b) from t;'
        """
    )
    lines = got.split("\n")
    assert lines[0].startswith(journal) or journal == "wal", got
    kept = [number for number in range(1, 2001) if number % 7]
    assert "ok" in lines
    assert f"{len(kept)}|{sum(kept)}|row 999 again" in lines, got


@pytest.mark.programs(rsync="rsync")
def test_rsync(shell: Shell) -> None:
    make_tree(shell.local / "tree")
    shell.run("rsync -a $L/tree/ $M/tree/")
    assert shell.run("rsync -a --checksum --itemize-changes --delete $L/tree/ $M/tree/") == ""
    (shell.local / "tree/src/file3.txt").write_text("changed")
    (shell.local / "tree/doc/file2.txt").unlink()
    shell.run("rsync -a --checksum --delete $L/tree/ $M/tree/")
    assert shell.run("rsync -naic --delete $L/tree/ $M/tree/") == ""
    assert shell.run("rsync -naic --delete $M/tree/ $L/tree/") == ""
    if shell.origin is not None:
        assert shell.run(f"rsync -naic --delete $M/tree/ '{shell.origin}'/tree/") == ""


@pytest.mark.programs(rsync="rsync")
def test_rsync_in_place(shell: Shell) -> None:
    """Writes in the middle of an existing file."""
    (shell.local / "f").write_bytes(pattern(400_000, 1))
    shell.run("cp $L/f $M/f")
    data = bytearray(pattern(400_000, 1))
    data[200_000:200_100] = bytes(100)
    (shell.local / "f").write_bytes(data)
    shell.run("rsync --inplace --no-whole-file --checksum $L/f $M/f && cmp $L/f $M/f")


@pytest.mark.programs(mv="coreutils")
def test_mv(shell: Shell) -> None:
    shell.run(
        """
        cd $M
        echo old > f && echo new > g && mv -f g f && test "$(cat f)" = new && test ! -e g
        mkdir d e && mv f d/ && mv d e/ && test "$(cat e/d/f)" = new
        mv -T e h && test -d h/d && test ! -e e
        mv h/d/f $L/out && test "$(cat $L/out)" = new && mv $L/out back && test "$(cat back)" = new
        ! mv -T back h 2>/dev/null
        """
    )


@pytest.mark.programs(ln="coreutils")
def test_ln(shell: Shell) -> None:
    shell.run(
        """
        cd $M
        echo one > f && ln f g && ln -s f s && ln -sfn g s
        test "$(cat g)" = one && test "$(readlink s)" = g && test "$(cat s)" = one
        rm f && test "$(cat g)" = one
        ! ln g s 2>/dev/null
        ln -f g s && test ! -L s && test "$(cat s)" = one
        """
    )


@pytest.mark.programs(dd="coreutils")
def test_dd(shell: Shell) -> None:
    (shell.local / "f").write_bytes(pattern(3_000_001, 9))
    shell.run(
        """
        dd if=$L/f of=$M/f bs=64k conv=fsync status=none && cmp $L/f $M/f
        dd if=$M/f of=$L/back bs=1M status=none && cmp $L/f $L/back
        dd if=$L/f of=$M/f bs=1000 count=3 seek=2 skip=5 conv=notrunc,fdatasync status=none
        dd if=$L/f of=$L/back bs=1000 count=3 seek=2 skip=5 conv=notrunc status=none
        cmp $L/back $M/f
        dd if=$L/f of=$M/direct bs=4096 count=100 oflag=direct status=none
        cmp -n 409600 $L/f $M/direct
        """
    )


def test_save_by_rename(shell: Shell) -> None:
    """As editors save: a temporary file beside it, fsync, the old one's mode, rename, fsync."""
    path = shell.mount / "document"
    path.write_text("first version")
    path.chmod(0o640)
    for number in range(5):
        temporary = shell.mount / f".document.{number}.swp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, b"version %d" % number)
        os.fchmod(fd, 0o640)
        os.fsync(fd)
        os.close(fd)
        temporary.replace(path)
        directory = os.open(shell.mount, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        assert path.read_text() == f"version {number}"
        assert os.listdir(shell.mount) == ["document"]
        assert path.stat().st_mode & 0o777 == 0o640
        if shell.origin is not None:
            assert (shell.origin / "document").read_text() == f"version {number}"


@pytest.mark.programs(find="findutils")
def test_find(shell: Shell) -> None:
    make_tree(shell.mount / "tree")
    make_tree(shell.local / "tree")
    for query in (
        "-type f",
        "-type d",
        "-type l",
        "-size +2k -type f",
        "-perm 755 -type f",
        "-name 'file1*'",
        "-newermt '2009-02-13 23:31:40'",
        "-xtype l",
        "-empty -type f",
    ):
        want = shell.run(f"cd $L/tree && find . {query} | sort")
        assert shell.run(f"cd $M/tree && find . {query} | sort") == want, query
    shell.run("find $M/tree -delete && test ! -e $M/tree")


@pytest.mark.programs(df="coreutils", stat="coreutils")
def test_df(shell: Shell) -> None:
    header, line = shell.run("df -P $M").splitlines()
    assert header.startswith("Filesystem")
    assert int(line.split()[1]) > 0
    assert shell.run("stat -f -c %l $M").strip() == "255"


@pytest.mark.programs(rm="coreutils")
def test_rm(shell: Shell) -> None:
    make_tree(shell.mount / "tree")
    shell.run('rm -r $M/tree && test -z "$(ls -A $M)"')


@pytest.mark.programs(sh="dash")
def test_scripts_and_redirections(shell: Shell) -> None:
    make_tree(shell.mount / "tree")
    got = shell.run(
        """
        cd $M/tree
        ./script.sh
        for i in 1 2 3; do echo $i >> log; done; cat log
        cat < log > copy; wc -l < copy
        """
    )
    assert got.split("\n")[:5] == ["I ran", "1", "2", "3", "3"]


@pytest.mark.programs(flock="util-linux")
def test_flock(shell: Shell) -> None:
    """Locks of one machine are kept by the host kernel."""
    shell.run(
        """
        cd $M
        flock lockfile sh -c 'flock -n lockfile true && exit 1 || exit 0'
        flock -n lockfile true
        """
    )


def test_mmap(shell: Shell) -> None:

    path = shell.mount / "mapped"
    path.write_bytes(pattern(100_000, 4))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        assert view[50_000:50_100] == pattern(100_000, 4)[50_000:50_100]
        view[10:20] = b"0123456789"
        view.flush()
    want = bytearray(pattern(100_000, 4))
    want[10:20] = b"0123456789"
    assert path.read_bytes() == want
    if shell.origin is not None:
        assert (shell.origin / "mapped").read_bytes() == want


@pytest.mark.programs(fio="fio")
def test_fio(shell: Shell) -> None:
    """Each block says what it is to be, and is held to it: on the mount, and at the server."""
    fio = "fio --minimal --directory={} --name=v --size=3m --ioengine=psync --bs=4k-64k"
    fio += " --bs_unaligned"
    here = fio.format("$M") + " --verify_fatal=1"
    shell.run(f"{here} --rw=randrw --numjobs=2 --fsync=64 --verify=crc32c --verify_backlog=256")
    shell.run(f"{here} --rw=write --verify=sha256 --randseed=9 --do_verify=0 --fsync_on_close=1")
    again = "--rw=write --verify=sha256 --verify_fatal=1 --randseed=9 --verify_only"
    shell.run(f"{fio.format(shell.origin or '$M')} {again}")
    with (shell.mount / "v.0.0").open("r+b") as file:
        file.seek(1_000_000)
        octet = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([octet[0] ^ 1]))
    with pytest.raises(AssertionError, match="verify"):
        shell.run(f"{fio.format(shell.origin or '$M')} {again}")
