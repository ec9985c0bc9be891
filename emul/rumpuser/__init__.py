"""rumpuser: the devices of the emulated kernel, and what of the host or elsewhere is behind them.

disk      Disk: what all have in common; transfers, barriers, cache flush, statistics
hostdisk  HostDisk: a file or block device of the host (`open_disk`)
queue     its queue and threads; hostio the system calls that these make
vnd       VnodeDisk: a file of another mounted file system (`open_vnd`)
fault     FaultDisk: one that fails on purpose

A file system gets at a disk through its device vnode (specfs). Memory of a transfer belongs to
the disk from `strategy` to `biodone`, which is called in the trio thread, perhaps at once.
"""

from __future__ import annotations

from .disk import CLOSE_GRACE, Disk, DiskStatistics
from .fault import NO_FAULTS, FaultDisk, Faults
from .hostdisk import HostDisk, open_disk
from .vnd import VnodeDisk, open_vnd

__all__ = [
    "CLOSE_GRACE",
    "NO_FAULTS",
    "Disk",
    "DiskStatistics",
    "FaultDisk",
    "Faults",
    "HostDisk",
    "VnodeDisk",
    "open_disk",
    "open_vnd",
]
