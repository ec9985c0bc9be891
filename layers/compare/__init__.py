"""compare: does everything on a second file server as well, and says where the two differ.

    async with ...: server = Compare(below, second, report); ...

The answers are those of the server below; the second one is asked after it, about the nodes that
the same names led to. What is compared is said in layers/outcomes.py, and an operation that only
one of the two offers at all (EOPNOTSUPP) is reported once. Operations on a node that the second
server does not have, after a difference, are done on the first alone and counted.

Operations at the same time may come to the two servers in different order. So a difference in
what changes nothing counts only if nothing was being changed meanwhile; else both are asked again.

    pairs       which nodes belong together, and what the second server is owed
    listing     directories, which two servers list in pieces of their own
    server      the file server
"""

from .server import Compare, Mismatch

__all__ = ["Compare", "Mismatch"]
