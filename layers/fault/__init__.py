"""fault: makes what is asked for go wrong, as rules say; the same way each time for a seed.

    [[rule]]
    op = ["write", "fsync"]       # or one; without: all
    path = "/db/*"                # of the shell, "*" matches "/" too
    nth = 3                       # the third that matches; also: every = 10, probability = 0.1
    errno = "EIO"

Vocabulary: a *rule* says which operations or messages it is for, which of those that match it
takes (`nth`, `every`, `probability`, at most `times`), and what happens to them, its *fault*:

    errno       fails with it, nothing is done; with `after = true` it is done all the same
    delay       takes so many seconds longer; may stand beside any other fault
    hang        waits until the rule is released (or its asker gives up)
    short       a read gives so many octets and no more; a write writes so many and fails (EIO)
    flip        so many bits of the data are turned over
    lost        is answered as if it had been done; of a message: never arrives
    torn        a write writes so many octets and says it was all; of a message: the stream ends
    reorder     is done at once, and answered after so many others were
    death       the server is dead from then on

`place` says where: "server" (default) is the file server in the place where the element stands;
"frames", "sftp" and "fuse" are the messages between the halves of a puffs, to an SFTP server and
to a FUSE program. Operations there are called as in layers/ops.py, by the protocol's own lists
(protocols.py), so that a rule can be moved from one place to another.

    rules       the rules, and which fault is due
    server      the file server that does it to operations
    protocols   where messages begin, what they are called, and how they are refused
    wire        the same for messages between two ends of a stream
"""

from .rules import Fault, Place, Rule, Rules, RulesError, Taken, parse_rules
from .server import Faulty
from .wire import Wire, faulty_wire

__all__ = [
    "Fault",
    "Faulty",
    "Place",
    "Rule",
    "Rules",
    "RulesError",
    "Taken",
    "Wire",
    "faulty_wire",
    "parse_rules",
]
