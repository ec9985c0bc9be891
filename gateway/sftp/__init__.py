"""The SFTP end: an SFTP version 3 server over any FileServer, with OpenSSH's extensions.

    async with exported(server) as export:
        view = View(export, cred, start=b"/home")
        await Session(view, in_fd, out_fd).serve()

    export      one file server and what its sessions share: nodes, remembered directories
    nodes       lookups that are owed to the file server, counted exactly
    view        what one session has of an export: who asks, root, start, handles
    paths       walks over cookies that never leave the root
    handles     open files and directories, and their names on the wire
    looking, names, listing, files, extensions     the requests; answers: what they give back
    order       which requests may run side by side; turns: what each of them touches
    session     packets in, replies out: back-pressure, the end; crew: the tasks that do it
    due         answers that have to leave in order
    intake      memory that is received into; outbox: replies on their way
    status      errno -> status; attributes, identities: what `ls -l` shows
    permitted   which requests a session may make

Everything runs in one trio task tree, in one thread. A session knows two descriptors and nothing of
SSH. What clients send is hostile; what file servers answer is believed, except where it could lead
out of the root.
"""

from .export import Export, exported
from .permitted import KINDS, Permitted
from .session import Journal, Session, SessionStatistics
from .view import View

__all__ = [
    "KINDS",
    "Export",
    "Journal",
    "Permitted",
    "Session",
    "SessionStatistics",
    "View",
    "exported",
]
