"""The bottom: constants, plain records, errors, and the C codecs with their Python faces.

Everything above may import this package; it imports nothing of ours, does no
input or output and knows no scheduler.

    errors      VfsError, the protocol errors and the carrier errors
    constants   numbers of the puffs protocol and of the virtual file system
    records     what operations take and give: vattr, componentname, cred, newinfo, ...
    frames      puffs frames: one C call to build a message, one to take it apart
    sftp        SFTP version 3 packets with OpenSSH's extensions, client side
    sftp_server the same, server side
    fuse_protocol    numbers of FUSE; the kernel's side of its messages is in fuse_requests and
                fuse_replies, the side of a daemon in device_requests and device_replies
    memory      memory to receive into

The rest is behind these faces: frame_requests and frame_replies (what lies where in the table of
numbers that C reads and fills), sftp_protocol, sftp_attrs, sftp_requests, sftp_replies,
served_records, served_requests, served_replies, table, and the C module _codec, whose functions
codec.h describes.
"""
