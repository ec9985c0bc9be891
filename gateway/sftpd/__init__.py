"""puffs_sftpd: a daemon that serves stacks to SFTP clients, over an SSH of its own.

    settings        what a daemon is told; configuration: from TOML, with every fault by line and key
    listener, workers, arrivals     sockets, SSH processes, and the sessions that come out of them
    accounts        trees that are built when somebody comes for them, and taken down again
    sessions        one client, from its arrival to its end
    daemon          start, reload, stop

One trio process, "the gateway", holds the trees and serves the sessions. SSH is done in processes of
its own (gateway/sshd), which hand each session's octets over.
"""
