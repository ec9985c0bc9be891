"""The SSH end of the daemon: what runs in its SSH processes, and what they and it tell each other.

One process (gateway/sftpd) listens, decides whom to let in at all, and hands each connection to one
of the SSH processes. Such a process speaks SSH, finds out who the client is, and for each
session makes a socket pair: it moves the channel's octets into one end, and hands back the other.

Nothing here knows trio, files that are served, or policies. An SSH process holds password hashes
and host keys, but no stack: whoever takes one over by its parser has no file in reach that its
user has not.
"""
