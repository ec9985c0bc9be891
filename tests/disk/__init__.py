"""Disk file systems as a whole: random operations, crashes, stress, and the host's own driver."""
