"""Null: the FileServer that adds its name and nothing else."""

from __future__ import annotations

from ..passing import Passing


class Null(Passing):
    """See the package's text."""

    name = "null"
