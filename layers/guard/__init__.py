"""A policy over a file server: what may be done where, and how much of it."""
