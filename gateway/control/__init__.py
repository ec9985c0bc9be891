"""Looking into a living stack, and reaching into it: what `puffsctl` is made of.

Each mount has a control socket. On the mount's side:

    server      the socket: who may ask, one question after the other
    commands    what may be asked, and who answers
    ends        what stands on top of a stack: the host, or frames to another process (served)
    elements    what a stack is made of, found anew each time
    hostrequests, frames, inflight
                requests under way, and where each of them waits
    kernels     vnodes, buffers and locks of the emulated kernels
    joints      layers that come and go; measuring, faults, forgetting stand on it
    metrics     all figures for Prometheus
    dump        the same for the log

and on the other side:

    client      which mounts there are, and asking one
    text        answers as tables
    screen      `top`

    places      where sockets are
    protocol    questions and answers as lines

A mount that nobody looks into has loaded the socket alone, and notes of each request when it began.
"""
