"""When and how far to read ahead, from the history of one reader's requests.

Pure: no I/O, no trio, no clock. Offsets and sizes are bytes; ranges are (start, end), end excluded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

Range = tuple[int, int]

# A reader may work at several places at once: a player that looks up an index at the end, eight
# threads that copy a part each. Each place is a stream with a window of its own.
MAX_STREAMS = 8
# The window is this many times what was read in order: four round trips from 256 KiB to the
# 16 MiB that 500 MB/s at 30 ms need. A reader that stops early has fetched at most so much more.
GROWTH = 4
# The window is fetched by about so many requests at once; eight at 80 MB/s fill 500 MB/s.
PARALLEL = 8
# The kernel sends several requests at once and they may arrive in any order: a request that
# starts within so many of its own lengths of the expected place continues the stream ...
SLACK_REQUESTS = 8
# ... but never further away than this.
SLACK_BYTES = 1024 * 1024
# A request near an earlier one, though not in order, fetches blocks so many times larger.
NEARBY = 4
# Streams that leave out more than a quarter of the bytes they pass are strided, not sequential.
MIN_DENSITY = 0.75


@dataclass(frozen=True, slots=True)
class ReadaheadSizes:
    """ReadConfig's fields of the same names."""

    first_request: int
    random_request: int
    max_request: int
    max_window: int


@dataclass(slots=True, eq=False)
class Stream:
    """One place of a file that is read in order."""

    start: int  # where its first request began
    position: int  # end of the furthest request
    covered: int  # bytes asked for, late ones included
    requested: int  # everything from the start to here has been fetched or is on its way
    window: int = 0  # how far ahead of `position` may be fetched; 0: not in order (yet)


@dataclass(frozen=True, slots=True)
class Step:
    """What to do for one request."""

    stream: Stream
    around: Range  # fetch this much where the request itself is missing; contains the request
    ahead: Sequence[Range] = ()  # fetch these in the background, in this order
    dropped: Sequence[Stream] = ()  # what was started for these is not wanted any more
    in_order: bool = False  # what the request leaves behind will hardly be read again


@dataclass(slots=True)
class AccessPattern:
    """The requests of one open file. `size` is the object's and does not change."""

    size: int
    sizes: ReadaheadSizes
    streams: list[Stream] = field(default_factory=list)  # the most recent first

    def read(self, offset: int, end: int, *, limit: int, missing: bool) -> Step:
        """Decides about the request [offset, end), which lies within the object.

        `limit` is the largest window that memory allows now. `missing` says that a part of the
        request is neither cached nor on its way.
        """
        stream = self._continued(offset, end)
        if stream is None:
            return self._begin(offset, end)
        advances = end > stream.position
        stream.start = min(stream.start, offset)
        stream.position = max(stream.position, end)
        stream.covered += end - offset
        if advances:
            stream.window = self._window(stream, limit)
        if not advances or not stream.window:
            return Step(stream, self._block(offset, end, NEARBY * self.sizes.random_request))
        piece = self._piece(stream.window)
        around = (offset, end)
        if missing:  # what was fetched ahead is lost: begin again from here
            around = (offset, min(max(end, offset + piece), self.size))
            stream.requested = around[1]
        stream.requested = max(stream.requested, end)
        return Step(stream, around, self._ahead(stream, piece), in_order=True)

    def _block(self, offset: int, end: int, unit: int) -> Range:
        """[offset, end) extended to whole units; a small object is fetched whole."""
        if self.size <= self.sizes.first_request:
            return (0, self.size)
        return (offset - offset % unit, min(-(-end // unit) * unit, self.size))

    def _continued(self, offset: int, end: int) -> Stream | None:
        slack = min(SLACK_REQUESTS * (end - offset), SLACK_BYTES)
        for index, stream in enumerate(self.streams):
            if -slack <= offset - stream.position <= slack:
                if index:
                    del self.streams[index]
                    self.streams.insert(0, stream)
                return stream
        return None

    def _begin(self, offset: int, end: int) -> Step:
        around = self._block(offset, end, self.sizes.random_request)
        if offset == 0:  # nearly always the start of reading it all, hence a whole first request
            around = (0, min(max(end, self.sizes.first_request), self.size))
        stream = Stream(offset, end, end - offset, around[1])
        self.streams.insert(0, stream)
        dropped = tuple(self.streams[MAX_STREAMS:])
        del self.streams[MAX_STREAMS:]
        return Step(stream, around, dropped=dropped)

    def _window(self, stream: Stream, limit: int) -> int:
        passed = stream.position - stream.start
        if stream.covered < passed * MIN_DENSITY:
            return 0
        window = min(GROWTH * passed, self.sizes.max_window, limit)
        return window if window >= self.sizes.first_request else 0

    def _piece(self, window: int) -> int:
        unit = self.sizes.first_request
        piece = max(window // PARALLEL // unit * unit, unit)
        return min(piece, self.sizes.max_request)

    def _ahead(self, stream: Stream, piece: int) -> Sequence[Range]:
        """Whole pieces only, but for the last: few large requests, not one a read."""
        target = stream.position + stream.window
        ranges = []
        start = stream.requested
        while start < self.size:
            end = min(start + piece, self.size)
            if end > target and target < self.size:
                break
            ranges.append((start, end))
            start = end
        return ranges
