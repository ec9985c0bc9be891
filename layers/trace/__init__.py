"""trace: writes down every operation that goes by, with what came of it.

    async with traced(below, Path("t.trace")) as server: ...
    for event in events(Path("t.trace")): ...

A trace is one file to which any number of layers append, of one stack or of several processes:
it is made of chunks, each written by one write(2) to the end of the file, and each says who
wrote it. So it can be read while it is written, and what a process that was killed had written is
whole. Nothing in it depends on Python: chunks have a fixed head (format.py), their bodies
are MessagePack.

    format      chunks and records, octets to values and back
    recorder    the writing end: a batch of records, a file
    server      the file server that records
    reader      the reading end: events with their paths, also of a file that grows

A request that passes several trace layers of one process is one request: each record names the
one that it was made for (`parent`), so it can be followed from layer to layer, through `p2k|puffs`
as well, as long as frames are not sent to another process.

Cost: 1 to 1.5 us an operation and 75 octets in the file, data not kept. Digests and full data cost
a write one copy of its data (60 us for 1 MiB), a read nothing when they are long; a thread does the
rest (0.2 to 0.4 ms for the write of 1 MiB, 0.8 ms for its digest). What waits for it is limited:
where it cannot keep up, because of the disk or for want of a processor, operations wait for it, and
nothing is lost. A process that is killed takes with it what waits: what is younger than DELAY, and
what the thread had not come to.
"""

from .format import CANCELLED, FAILED, UNFINISHED, DataKept, LayerInfo, TraceError
from .reader import Event, TraceReader, events, growing
from .server import Trace, traced

__all__ = [
    "CANCELLED",
    "FAILED",
    "UNFINISHED",
    "DataKept",
    "Event",
    "LayerInfo",
    "Trace",
    "TraceError",
    "TraceReader",
    "events",
    "growing",
    "traced",
]
