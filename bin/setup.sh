# Sourced by bin/demo and bin/test: system packages, /dev/fuse, a virtual environment.
# POSIX sh. Running it again does only what is missing. Sets root, venv and python.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv
missing=

say() {
    printf '%s\n' "==> $*"
}

give_up() {
    printf '%s\n' "$0: $*" >&2
    exit 1
}

# need PACKAGE COMMAND...: note that PACKAGE is missing unless COMMAND succeeds.
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || case " $missing " in
    *" $package "*) ;;
    *) missing="$missing $package" ;;
    esac
}

have() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# The first Python that is new enough; nothing when there is none.
find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if have "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

need_python() {
    python=$(find_python)
    if [ -z "$python" ]; then
        # A distribution whose python3 is older may have a newer one beside it.
        for version in 3.13 3.12 3.11; do
            if apt-cache show "python$version" >/dev/null 2>&1; then
                missing="$missing python$version python$version-venv python$version-dev"
                return
            fi
        done
        give_up "Python 3.11 or later is needed, and apt has none; install one and run this again"
    fi
    case $("$python" -c 'import sys; print(sys.executable)') in
    /usr/bin/*) name=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])') ;;
    *) name=python3 ;; # not the distribution's: it has these parts of its own
    esac
    need "$name-venv" "$python" -c 'import ensurepip, venv'
    need "$name-dev" "$python" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

# What it takes to build and to mount.
need_for_mounts() {
    need_python
    need gcc have gcc
    need libc6-dev test -e /usr/include/stdio.h
    need fuse3 have fusermount3
}

sanitizers_work() {
    printf 'int main(void) { return 0; }\n' |
        clang -fsanitize=address,undefined -x c -o /dev/null -
}

# What the tests run besides.
need_for_tests() {
    need pkg-config have pkg-config
    need libfuse3-dev pkg-config --exists fuse3
    need openssh-server have sshd
    need openssh-sftp-server test -x /usr/lib/openssh/sftp-server
    need openssh-client have ssh
    need e2fsprogs have mke2fs
    need mount have losetup
    need iproute2 have ip
    need nftables have nft
    for program in sshfs git rsync sqlite3 clang curl lftp rclone restic perl strace chromium fio; do
        need "$program" have "$program"
    done
    for program in bindfs squashfuse fuseiso mergerfs fuse2fs gocryptfs ntfs-3g fuse-overlayfs; do
        need "$program" have "$program"
    done
    need squashfs-tools have mksquashfs
    need genisoimage have genisoimage
    need unionfs-fuse have unionfs
    need exfat-fuse have mount.exfat-fuse
    need exfatprogs have mkfs.exfat
    need putty-tools have psftp
    need libglib2.0-bin have gio
    need gvfs-backends test -x /usr/libexec/gvfsd-sftp
    need dbus-daemon have dbus-run-session
    need systemd have systemd-analyze
    need sshfs have sshfs
    need proftpd-core have proftpd
    need proftpd-mod-crypto test -e /usr/lib/proftpd/mod_sftp.so
    need libnet-sftp-foreign-perl perl -MNet::SFTP::Foreign -e 1
    need openssh-tests test -d /usr/lib/openssh/regress
    if have clang >/dev/null; then
        version=$(clang -dumpversion | sed 's/\..*//')
        need "libclang-rt-$version-dev" sanitizers_work
    fi
}

install_missing() {
    if [ -z "$missing" ]; then
        say "System packages: all there"
        return
    fi
    have apt-get >/dev/null || give_up "install what corresponds to these Debian packages:$missing"
    say "System packages: missing$missing"
    if ! as_root true; then
        give_up "no rights to install packages; type this, then run $0 again:
    sudo apt-get update && sudo apt-get install -y$missing"
    fi
    say "System packages: installing them"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null
    # shellcheck disable=SC2086  # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qy --no-install-recommends $missing >/dev/null
    missing=
}

need_fuse() {
    [ -e /dev/fuse ] || as_root modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || give_up "/dev/fuse is missing: load the kernel module fuse (modprobe fuse); \
a container needs --device /dev/fuse --cap-add SYS_ADMIN"
    if ! [ -r /dev/fuse ] || ! [ -w /dev/fuse ]; then
        as_root chmod 0666 /dev/fuse ||
            give_up "no permission on /dev/fuse; type this, then run $0 again:
    sudo chmod 0666 /dev/fuse"
    fi
}

make_venv() {
    if "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        say "Virtual environment: $venv is there"
    else
        say "Virtual environment: making $venv"
        rm -rf "$venv"
        "$python" -m venv "$venv"
    fi
}

# install_checkout: install the checkout into the virtual environment, unless nothing changed.
install_checkout() {
    stamp=$venv/syspuffs.installed
    if [ -e "$stamp" ] && [ -z "$(find "$root/pyproject.toml" "$root/bin" "$root/emul" \
        "$root/gateway" "$root/layers" "$root/native" -name __pycache__ -prune -o \
        -newer "$stamp" -print | head -n 1)" ]; then
        say "syspuffs: installed and up to date"
        return
    fi
    say "syspuffs: building and installing the checkout"
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$root[report]"
    touch "$stamp"
}
