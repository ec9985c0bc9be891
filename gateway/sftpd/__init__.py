"""The daemon `puffs_sftpd`: SSH by processes of its own, SFTP by sessions of this one.

    settings        what the daemon is told
    configuration   the same from TOML, with every fault by line and key; schema, values, lines
    front           lets clients in, and hands sessions over; listener, gate, workers, hostkeys
    arrivals        what it hands over
    accounts        trees that are built when somebody comes for them, and taken down again
    policies        what accounts may do there
    sessions        one client, from its arrival to its end
    daemon          start, reload, stop; privileges, messages, notify

One trio process, "the gateway", holds the trees and serves the sessions. SSH is done in processes
of its own (gateway/sshd), which hand each session's octets over.
"""
