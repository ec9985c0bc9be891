"""Looking into a living stack, and reaching into it: what `puffsctl` is made of.

Each mount has a control socket. On the mount's side:

    server      the socket: who may ask, one question after the other
    commands    what may be asked, and who answers
    ends        what stands on top of a stack: the host, or frames to another process (served)
    elements    what a stack is made of, found anew each time

and on the other side:

    client      which mounts there are, and asking one

    places      where sockets are
    protocol    questions and answers as lines
"""
