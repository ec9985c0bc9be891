"""What a FUSE program finds in place of fusermount: hands its call on to who has caught it.

Not imported: `capture` writes a script that consists of this text and a call of `main`.
"""

import os
import socket
import sys


def main(path: str) -> None:
    """Tell arguments, working directory and the socket of the caller; end as we are told."""
    fds = []
    if os.environ.get("_FUSE_COMMFD", "").isdigit():
        fds.append(int(os.environ["_FUSE_COMMFD"]))
    for word in sys.argv[1:]:
        if word.startswith("--comm-fd="):
            fds = [int(word.partition("=")[2])]
    told = "\0".join((os.getcwd(), *sys.argv[1:])).encode("utf-8", "surrogateescape")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            sock.connect(path)
            socket.send_fds(sock, [told], fds)
            status, _, text = sock.recv(4096).partition(b"\0")
        except OSError:
            status, text = b"1", b"fusermount: syspuffs has ended"
    if text:
        print(text.decode(errors="replace"), file=sys.stderr)
    sys.exit(int(status or b"1"))
