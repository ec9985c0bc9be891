"""How the octets of an SFTP session get to the server and back: nothing here knows SFTP.

    stream       the way in: a connected socket, whoever carries it
    carrier      what is common to those who do:
      bypump       asyncssh in a process of its own (pump, pumping, relay, shortcut, splitter)
      byprogram    OpenSSH's ssh or another program (command)
      bysocket     a port, a vsock, descriptors
    unsent       what is lost with a connection stays lost
    target       user, host and path as they were typed; failure: why there is no stream

and for the pump:

    login        with identities, hostkeys, algorithms and ciphers, over a route (attempt)
    sshconfig    ssh_config as asyncssh is to understand it (sshfile); terminal: questions
"""
