"""What sshd starts as its SFTP subsystem: hands its descriptors to a resident server, and waits.

Run as `python -I -S relay.py SOCKET`, which takes some 30 ms: no module of ours is imported here.
"""

import socket
import sys

with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    socket.send_fds(connection, [b"s"], [0, 1])
    connection.recv(1)
