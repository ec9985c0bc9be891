"""The elements that a stack is made of.

`ops.FileServer` is the one interface between them and the host end; each folder
is one element and imports none of the others.

    ops        FileServer: the puffs operations on cookies, and Upcalls
    puffs      frames: the kernel half (offers a FileSystem) and the server half
    p2k        serves a file system of the emulated kernel as a FileServer
    psshfs     serves a tree of an SFTP server
    local      serves a directory of this machine
    joined     several file servers under one root
    joint      putting pass-throughs into a stack that is in use
    meter      measures what goes by, while somebody looks
"""
