"""replay: does again what a trace says, to another file server, and reports what comes out else.

    run = await replay(server, events(file))
    for difference in compared(run.expected, run.seen): ...

Dependencies are kept in the strongest sense: an operation begins when all that had ended before
it began in the trace have ended. What ran at the same time runs at the same time again.

Cookies of the trace become those of the server by the lookups on the way; what depends on a node
that was never found is left out and counted. Compared is what any two file systems have in common:
errors, types, permission bits, sizes and contents of files, targets of links, names. Numbers of
files, times, counts of links and free space are not.

    values      results as values that can be compared
    server      operations done again
    shrink      a small trace that fails in the same way
"""

from .server import Run, replay
from .shrink import First, first_difference, shrink
from .values import Difference, compared

__all__ = ["Difference", "First", "Run", "compared", "first_difference", "replay", "shrink"]
