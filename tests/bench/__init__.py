"""Ours beside sshfs on this machine: `python tests/bench/run.py` (or `tox -e bench`)."""
