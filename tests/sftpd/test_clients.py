"""Programs that know nothing of us, each driven through what it can do."""

from __future__ import annotations

import filecmp
import os
import stat
import sys
from pathlib import Path

import pytest

from ..programs.tree import make_tree
from .conftest import HERE, Ground

pytestmark = [pytest.mark.sshd, pytest.mark.slow]

BIG = 3_000_001


def big(path: Path) -> Path:
    """Make a file of some size that looks like nothing."""
    path.write_bytes(os.urandom(BIG))
    return path


def same(one: Path, other: Path) -> None:
    """Check that two trees are the same, links and modes included."""
    compared = filecmp.dircmp(one, other)
    todo = [compared]
    while todo:
        at = todo.pop()
        assert at.left_only == at.right_only == [], at.left
        for name in at.common:
            here, there = Path(at.left, name), Path(at.right, name)
            assert stat.S_IFMT(here.lstat().st_mode) == stat.S_IFMT(there.lstat().st_mode), here
            if here.is_symlink():
                assert os.readlink(here) == os.readlink(there)
            elif here.is_file():
                assert filecmp.cmp(here, there, shallow=False), here
                assert here.stat().st_mode == there.stat().st_mode, here
        todo += at.subdirs.values()


@pytest.mark.programs(sftp="openssh-client")
def test_sftp(ground: Ground) -> None:
    make_tree(ground.local / "tree", special_names=False)
    big(ground.local / "big")
    here, there = ground.local, ground.remote
    out = ground.run(
        ["sftp", "-b", "-", "-F", ground.server.config, "t"],
        stdin=f"""
        cd {there}
        put -p big
        get -f big back
        put -f big flushed
        put -r -p tree
        get -r -p tree tree.back
        rename big big2
        ln big2 hard
        ln -s big2 soft
        ls -la
        chmod 640 hard
        df -h
        get soft through
        copy big2 copied
        get copied
        mkdir d
        -mkdir d
        cd d
        pwd
        cd ..
        rmdir d
        -rmdir tree
        rm hard
        rm soft
        !truncate -s 1000000 back
        reget big2 back
        !truncate -s 1000000 half && head -c 1000000 big > half
        put half
        !cp big half
        reput half
        get half whole
        ls -1
        """,
    )
    for name in ("back", "through", "copied", "whole"):
        assert filecmp.cmp(here / "big", here / name, shallow=False), name
    listed = out.rpartition("ls -1\n")[2].split()
    assert listed[:5] == ["big2", "copied", "flushed", "half", "tree"]
    assert f"Remote working directory: {there}/d" in out
    assert (here / "tree.back").is_dir()


@pytest.mark.programs(scp="openssh-client")
def test_scp(ground: Ground) -> None:
    make_tree(ground.local / "tree", special_names=False)
    (ground.local / "tree").joinpath("dangling").unlink(missing_ok=True)
    big(ground.local / "big")
    scp: list[str | Path] = ["scp", "-q", "-s", "-F", ground.server.config]
    ground.run([*scp, "-p", "big", f"t:{ground.remote}/"])
    ground.run([*scp, "-3", f"t:{ground.remote}/big", f"t:{ground.remote}/again"])
    ground.run([*scp, "-p", f"t:{ground.remote}/again", "back"])
    assert filecmp.cmp(ground.local / "big", ground.local / "back", shallow=False)
    ground.run([*scp, f"t:{ground.remote}/b*", "."])
    ground.run([*scp, f"t:{ground.remote}/none", "."], status=1)


@pytest.mark.programs(lftp="lftp")
def test_lftp(ground: Ground) -> None:
    make_tree(ground.local / "tree", special_names=False)
    big(ground.local / "big")
    there = ground.remote
    out = ground.run(
        [
            "lftp",
            "-c",
            f"""
            set sftp:auto-confirm yes
            set sftp:connect-program "ssh -a -x -F {ground.server.config}"
            set cmd:fail-exit yes
            open sftp://root:x@t
            cd {there}
            put big
            mirror -R tree
            mirror tree back
            mv big big2
            chmod 600 big2
            ln -s big2 soft
            mkdir -p a/b/c
            cls -l
            get -c soft -o half
            get big2 -o again
            cat tree/doc/file2.txt
            rm -r tree a
            rm soft
            cls -1
            """,
        ]
    )
    assert out.endswith("big2\n")
    for name in ("half", "again"):
        assert filecmp.cmp(ground.local / "big", ground.local / name, shallow=False)
    same(ground.local / "tree", ground.local / "back")


@pytest.mark.programs(psftp="putty-tools")
def test_psftp(ground: Ground) -> None:
    big(ground.local / "big")
    (ground.local / "d").mkdir()
    (ground.local / "d" / "f").write_text("f")
    sshd = ground.server.sshd
    key = sshd.directory / "host_ed25519.pub"
    print_of = ground.run(["ssh-keygen", "-l", "-f", key]).split()[1]
    out = ground.run(
        [
            *("psftp", "-batch", "-hostkey", print_of, "-i", ground.server.ppk),
            *("-P", str(sshd.port), "-l", sshd.user, "-b", "/dev/stdin", "-be", sshd.host),
        ],
        stdin=f"""
        cd {ground.remote}
        put big
        put -r d
        ls
        mv big big2
        chmod 640 big2
        get big2
        get -r d back
        reget big2
        mkdir e
        mv big2 e
        ls e
        del e/big2
        rmdir e
        del d/f
        rmdir d
        dir
        """,
    )
    assert "-rw-r-----" in out
    assert filecmp.cmp(ground.local / "big", ground.local / "big2", shallow=False)
    assert (ground.local / "back" / "f").read_text() == "f"


@pytest.mark.programs(rclone="rclone")
def test_rclone(ground: Ground) -> None:
    (ground.local / "tree" / "a" / "b").mkdir(parents=True)
    big(ground.local / "tree" / "big")
    for number in range(6):
        (ground.local / "tree" / "a" / f"{number}").write_bytes(bytes(number))
    sshd = ground.server.sshd
    remote = f":sftp,host={sshd.host},port={sshd.port},user={sshd.user},key_file={sshd.identity}"
    # No shell: what it would ask there about its files is on another machine, as it were.
    remote = f"{remote},shell_type=none,disable_hashcheck=true"
    remote = f"{remote},known_hosts_file={sshd.known_hosts}:{ground.remote}"
    rclone = ["rclone", "--config=/dev/null", "--retries=1", "--low-level-retries=1", "-q"]
    rclone += ["--skip-links", "--transfers=2", "--checkers=2"]
    ground.run([*rclone, "copy", "tree", f"{remote}/tree"])
    ground.run([*rclone, "check", "--download", "tree", f"{remote}/tree"])
    ground.run([*rclone, "moveto", f"{remote}/tree/big", f"{remote}/moved"])
    ground.run([*rclone, "copyto", f"{remote}/moved", "back"])
    assert filecmp.cmp(ground.local / "tree" / "big", ground.local / "back", shallow=False)
    ground.run([*rclone, "touch", "-t", "2001-02-03T04:05:06", f"{remote}/moved"])
    listed = ground.run([*rclone, "lsf", "--format", "tsp", remote])
    assert f"2001-02-03 04:05:06;{BIG};moved" in listed
    assert "Free" in ground.run([*rclone, "about", remote])
    ground.run([*rclone, "purge", f"{remote}/tree"])
    assert ground.run([*rclone, "lsf", remote]) == "moved\n"


@pytest.mark.programs(curl="curl")
def test_curl(ground: Ground) -> None:
    big(ground.local / "big")
    sshd = ground.server.sshd
    curl: list[str | Path] = ["curl", "-sS", "--insecure", "--key", sshd.identity, "--pubkey"]
    curl += [f"{sshd.identity}.pub", "-u", f"{sshd.user}:"]
    base = f"sftp://{sshd.host}:{sshd.port}{ground.remote}"
    at = ground.remote
    ground.run([*curl, "--ftp-create-dirs", "-T", "big", f"{base}/a/b/f"])
    ground.run([*curl, "-o", "back", f"{base}/a/b/f"])
    assert filecmp.cmp(ground.local / "big", ground.local / "back", shallow=False)
    ground.run([*curl, "-r", "1000-1999", "-o", "part", f"{base}/a/b/f"])
    data = (ground.local / "big").read_bytes()
    assert (ground.local / "part").read_bytes() == data[1000:2000]
    (ground.local / "more").write_bytes(b"more")
    ground.run([*curl, "-a", "-T", "more", f"{base}/a/b/f"])
    quotes = [f"rename {at}/a/b/f {at}/g", f"ln {at}/g {at}/l", f"mkdir {at}/d", f"rmdir {at}/d"]
    quotes += [f"chmod 600 {at}/g", f"rm {at}/l", f"statvfs {at}/g"]
    words = [word for quote in quotes for word in ("-Q", quote)]
    listed = ground.run([*curl, *words, f"{base}/"])
    assert f"{BIG + 4}" in listed
    assert "-rw-------" in listed
    assert "Quote" not in ground.run([*curl, "-l", f"{base}/"])
    ground.run([*curl, "-o", "x", f"{base}/none"], status=78)


@pytest.mark.parametrize("library", ["paramiko", "asyncssh"])
def test_library(ground: Ground, library: str) -> None:
    sshd = ground.server.sshd
    script = HERE / f"with_{library}.py"
    words = [sshd.host, str(sshd.port), sshd.user, str(sshd.identity), str(sshd.known_hosts)]
    out = ground.run([sys.executable, script, *words, ground.remote])
    assert out.splitlines()[-1] == "done", out


@pytest.mark.programs(perl="perl")
def test_net_sftp_foreign(ground: Ground) -> None:
    big(ground.local / "big")
    sshd = ground.server.sshd
    script = """
        use Net::SFTP::Foreign;
        my ($config, $at) = @ARGV;
        my $s = Net::SFTP::Foreign->new('t', more => ['-F', $config], autodie => 1);
        $s->setcwd($at);
        $s->put('big', 'big');
        $s->rename('big', 'big2');
        $s->atomic_rename('big2', 'big');
        $s->hardlink('hard', 'big');
        $s->symlink('soft', 'big');
        $s->get('soft', 'back');
        $s->mkpath('a/b/c');
        $s->rput('d', 'd');
        my @found = sort map { $_->{filename} } @{$s->ls('.')};
        print join(' ', @found), "\\n";
        $s->truncate('hard', 10);
        print $s->stat('big')->size, "\\n";
        print $s->statvfs('.')->{bsize} > 0 ? "statvfs\\n" : "no\\n";
        my $f = $s->open('big', 0x1|0x2);
        $s->write($f, "hello"); $s->fsync($f); $s->seek($f, 0, 0);
        print $s->read($f, 5), "\\n"; $s->close($f);
        print $s->realpath('a/../a/b'), "\\n";
        print $s->readlink('soft'), "\\n";
        $s->rremove('a'); $s->rremove('d');
        $s->remove($_) for ('big', 'hard', 'soft');
        print scalar(@{$s->ls('.')}), "\\n";
    """
    (ground.local / "d").mkdir()
    (ground.local / "d" / "f").write_text("f")
    out = ground.run(["perl", "-e", script, ground.server.config, ground.remote])
    assert out.splitlines() == [
        ". .. a big d hard soft",
        "10",
        "statvfs",
        "hello",
        f"{ground.remote}/a/b",
        "big",
        "2",
    ]
    assert filecmp.cmp(ground.local / "big", ground.local / "back", shallow=False)
    assert sshd.port
