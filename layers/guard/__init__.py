"""A policy over a file server: what may be done where, and how much of it.

The guard stands between a file server and one account's sessions and looks at each operation. It
knows the path of each node from the lookups that led to it (nodes.py), asks the rules what holds
there (policy.py), keeps the ledger of a quota (quota.py, ledger.py, scan.py), and makes transfers
wait (../bandwidth.py). Symbolic links are no way around it: whoever follows one does so by lookups.

What it cannot see: changes that others make to the tree below. A node that they have moved is
judged by where it was until it is looked up anew, and names that the server below takes for the
same (a file system that ignores case) are different names to the rules.

Vocabulary: a *verb* is something that may be done, a *state* what holds at a path, a *place* a
name in a directory by which a node is known; a file is *fresh* from being made until the first
open that writes to it has ended.
"""

from __future__ import annotations

from .ledger import LedgerError, Usage
from .server import Guard, guarded
from .settings import EVERYTHING, NOTHING, GuardSettings, Rule, Verb

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "Guard",
    "GuardSettings",
    "LedgerError",
    "Rule",
    "Usage",
    "Verb",
    "guarded",
]
