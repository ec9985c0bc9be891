"""throttle: operations a second, octets a second and time for each operation.

For seeing what a slow file system does to a program, and for being kind to one. The rates are
those of all users together; both allow bursts of a second's worth (layers/bandwidth.py).
"""

from .server import Pace, Throttle

__all__ = ["Pace", "Throttle"]
