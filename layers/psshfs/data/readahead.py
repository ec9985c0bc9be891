"""Reading: blocks asked for before a sequential reader wants them, and plain reads for others.

A `Stream` is one sequential reader of a file: a run of blocks, in order and
without gaps, each a READ in flight or its data. It reads ahead four times what
it has served, up to a bound, so that somebody who reads the head of a file
costs little and a copy soon fills the link. Random readers get exactly what
they ask for.

A short answer of the server's is asked on until it says EOF: that alone is the
end of a file, and an error never is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from ....native import sftp
from ....native.errors import VfsError
from ..wire.channels import Channels
from ..wire.connection import Connection
from ..wire.pace import Pace
from ..wire.slot import DATA, Slot

GROWTH: Final = 4
"""Octets read ahead for each octet that a stream has served."""
STREAMS_MAX: Final = 4
"""Sequential readers of one file that are kept apart."""
AGE_MIN: Final = 2 * 10**9
"""For so long data read ahead is good even where nothing is cached, ns."""
REORDER: Final = 4
"""A read still belongs to a stream when it is up to so many of its own lengths away from where
the stream is: hosts send several reads at once, not quite in order, and leave out what they
have."""

Data = memoryview | bytes


class Block:
    """One READ of a stream: `[offset, end)` was asked for, `left` octets were not yet served."""

    __slots__ = ("end", "left", "offset", "slot")

    def __init__(self, offset: int, end: int, slot: Slot[Data | None]) -> None:
        self.offset = offset
        self.end = end
        self.left = end - offset
        self.slot = slot


class BlockSlot(Slot[Data | None]):
    """The READ of a block; tells the pace when it is answered."""

    __slots__ = ("_before", "_pace", "_since")

    def __init__(self, connection: Connection, pace: Pace) -> None:
        super().__init__(connection, DATA, shared=True)
        self._pace = pace
        self._before = pace.delivered
        self._since = trio.current_time()

    def _wake(self) -> None:
        if not self.is_failed:
            now = self._connection.heard
            self._pace.answered(self.asked, self._before, self._since, now)
        super()._wake()


class Stream:
    """One sequential reader. `front` is where the next block begins, `high` the farthest octet
    that was asked for, `served` how much was asked for in all, `used` when that was last."""

    __slots__ = ("blocks", "front", "high", "served", "used")

    def __init__(self, offset: int, high: int) -> None:
        self.blocks: deque[Block] = deque()
        self.front = offset
        self.high = high
        self.served = 0
        self.used = 0


class ReadAhead:
    """The budget and the streams of all files of a mount.

    `block` is the longest READ, `window_max` what one stream may have ahead, `total_max` what
    all may have; octets. Nothing is read ahead with a `window_max` of 0.
    A reader that pauses for longer than `age_max`, ns of `clock`, gets nothing read before that.
    """

    def __init__(
        self,
        channels: Channels,
        block: int,
        window_max: int,
        total_max: int,
        *,
        age_max: int,
        clock: Callable[[], int],
    ) -> None:
        self.age_max = age_max
        self._clock = clock
        self._channels = channels
        self._connection = connection = channels.connection
        self.pace = Pace(connection.round_trip)
        """What the link is seen to carry towards us."""
        self._block = block
        self._window_max = window_max
        self._total_max = total_max
        self._recent: dict[Stream, None] = {}  # with blocks, oldest use first
        self.octets = 0
        """Octets in all blocks of all streams."""

    async def read(
        self,
        streams: list[Stream],
        handle: bytes,
        offset: int,
        resid: int,
        size: int,
        *,
        is_size_sure: bool,
    ) -> Data:
        """Return `resid` octets from `offset`; fewer mean that the server has said EOF, or that
        `size` is reached and sure.

        `size` is how long the caller believes the file to be; nothing is read ahead beyond it.
        `streams` are the file's: they are made, moved on and dropped here.
        Errors: the server's; the next read asks again.
        """
        end = offset + resid
        if is_size_sure and offset < size < end:
            end = size
        if self._connection.is_congested:
            await self._connection.room()
        if self._window_max:
            stream = self._stream(streams, offset, end)
            if stream is not None:
                return await self._read_stream(streams, stream, handle, offset, end, size)
        return await self._read_plain(handle, offset, end)

    # Without read-ahead.

    async def _read_plain(self, handle: bytes, start: int, end: int) -> Data:
        """Read [start, end) with as many READs at once as it takes."""
        if end - start <= self._block:
            data = await self._submit(handle, start, end)
            if data is None:
                return b""
            if len(data) == end - start:
                return data
            pieces = [data]
            await self._continue(pieces, handle, start + len(data), end)
            return b"".join(pieces)
        asked: list[tuple[int, int, Slot[Data | None]]] = []
        with self._connection.batch:
            while start < end:
                until = min(start + self._block, end)
                asked.append((start, until, self._submit(handle, start, until)))
                start = until
        pieces = []
        for at, until, slot in asked:
            data = await slot
            if data is None:
                break
            pieces.append(data)
            at += len(data)
            if at < until and not await self._continue(pieces, handle, at, until):
                break
        return b"".join(pieces)

    async def _continue(self, pieces: list[Data], handle: bytes, start: int, end: int) -> bool:
        """Ask on after a short answer; return False when the server says EOF before `end`."""
        while start < end:
            data = await self._submit(handle, start, min(end, start + self._block))
            if data is None:
                return False
            pieces.append(data)
            start += len(data)
        return True

    def _submit(self, handle: bytes, offset: int, end: int) -> Slot[Data | None]:
        return self._ask(Slot(self._connection, DATA), handle, offset, end)

    def _ask(
        self, slot: Slot[Data | None], handle: bytes, offset: int, end: int
    ) -> Slot[Data | None]:
        slot.asked = end - offset
        slot.connection.submit_slot(slot, sftp.read, handle, offset, end - offset)
        return slot

    # With read-ahead.

    def _stream(self, streams: list[Stream], offset: int, end: int) -> Stream | None:
        """Return the stream of which a read is the next, None for a random read.

        A random read leaves a stream behind that the read following it will find; one from the
        beginning of the file counts as sequential at once.
        """
        reach = REORDER * (end - offset)
        for index, stream in enumerate(streams):
            high = stream.high
            if offset == high or (stream.served and high - reach <= offset <= high + reach):
                if index:
                    del streams[index]
                    streams.insert(0, stream)
                return stream
        stream = Stream(end, end)
        streams.insert(0, stream)
        if len(streams) > STREAMS_MAX:
            self._empty(streams.pop())
        if offset:
            return None
        stream.front = 0
        return stream

    async def _read_stream(
        self,
        streams: list[Stream],
        stream: Stream,
        handle: bytes,
        offset: int,
        end: int,
        size: int,
    ) -> Data:
        # No await before the blocks are taken: streams belong to all readers of the file.
        blocks = stream.blocks
        if offset > stream.front:
            self._empty(stream)
            stream.front = offset
        now = self._clock()
        if now - stream.used > self.age_max:
            self._empty(stream)
            stream.front = offset
        stream.used = now
        stream.high = max(stream.high, end)
        stream.served += end - offset
        self._extend(stream, handle, end, size)
        wanted: list[Block] = []
        for block in blocks:
            if block.offset >= end:
                break
            if block.end > offset:
                wanted.append(block)
                block.left -= min(end, block.end) - max(offset, block.offset)
        behind = offset - REORDER * (end - offset)
        while blocks and (blocks[0].left <= 0 or blocks[0].end <= behind):
            # Served, or left out for good; who still waits for it has the slot.
            self._drop_first(stream)
        first = wanted[0].offset if wanted else end
        if offset < first:
            # What is before the stream's blocks has been served once already.
            head = await self._read_plain(handle, offset, first)
            if len(head) < first - offset or not wanted:
                return head
            pieces = [head]
            at = first
        else:
            pieces = []
            at = offset
        for block in wanted:
            try:
                await block.slot.wait()
                if block.slot.is_failed and block.slot.connection is not self._connection:
                    # A further session has ended: the main one knows what there is to say.
                    data = await self._submit(handle, block.offset, block.end)
                else:
                    data = block.slot.result()
            except VfsError:
                self._forget(streams, stream)
                raise
            until = min(end, block.end)
            if data is None:
                self._forget(streams, stream)
                break
            have = block.offset + len(data)
            if at < have:
                if at == block.offset and until >= have:
                    pieces.append(data)
                else:
                    pieces.append(data[at - block.offset : until - block.offset])
                at = min(have, until)
            if at < until:
                if not await self._continue(pieces, handle, at, until):
                    self._forget(streams, stream)
                    break
                at = until
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _extend(self, stream: Stream, handle: bytes, end: int, size: int) -> None:
        """Ask for blocks up to `end`, and ahead of it as far as window and budget go."""
        window = min(self._window_max, self.pace.window, GROWTH * stream.served)
        goal = min(stream.high + window, size)
        if stream.front >= goal and stream.front >= end:
            return
        block_max = self._block
        with self._connection.batch:
            while stream.front < end or stream.front < goal:
                front = stream.front
                until = front + block_max
                if front < size:
                    # A block ends where the file is believed to: the server answers it in
                    # full, and another READ, made at the same time, says whether that is all.
                    until = min(until, size)
                else:
                    until = min(until, end)
                if front >= end and (
                    self._connection.is_busy or not self._make_room(stream, until - front)
                ):
                    break
                connection, name = self._channels.route(handle)
                slot = self._ask(BlockSlot(connection, self.pace), name, front, until)
                stream.blocks.append(Block(front, until, slot))
                stream.front = until
                self.octets += until - front
        self._recent.pop(stream, None)
        if stream.blocks:
            self._recent[stream] = None

    def _make_room(self, stream: Stream, octets: int) -> bool:
        """Take blocks from the streams that were not used for longest until `octets` fit."""
        while self.octets + octets > self._total_max:
            oldest = next(iter(self._recent), stream)
            if oldest is stream:
                return False
            self._empty(oldest)
        return True

    def _drop_first(self, stream: Stream) -> None:
        block = stream.blocks.popleft()
        self.octets -= block.end - block.offset
        if not stream.blocks:
            self._recent.pop(stream, None)

    def _empty(self, stream: Stream) -> None:
        while stream.blocks:
            self._drop_first(stream)
        stream.front = stream.high

    def _forget(self, streams: list[Stream], stream: Stream) -> None:
        self._empty(stream)
        if stream in streams:
            streams.remove(stream)

    def drop(self, streams: list[Stream]) -> None:
        """Forget all that was read ahead of one file: it has changed, or nobody reads it."""
        for stream in streams:
            self._empty(stream)
        streams.clear()
