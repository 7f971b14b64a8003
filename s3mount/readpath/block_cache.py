"""What was read, in memory: answers of GETs kept whole, found by offset, bounded in bytes.

Everything here but reserve() is synchronous, so nothing changes between two calls without an
await in the caller.
"""

from collections import OrderedDict
from collections.abc import Iterator

import trio

from s3mount.readpath.intervals import IntervalIndex
from s3mount.readpath.remote import Identity


class Segment:
    """Bytes [start, end) of one version."""

    __slots__ = ("data", "end", "start", "version")

    def __init__(self, version: "CachedVersion", start: int, data: bytes) -> None:
        self.version = version
        self.start = start
        self.end = start + len(data)
        self.data = data

    def view(self, start: int, end: int) -> memoryview:
        """[start, end) of the object, which must lie within the segment; no copy."""
        return memoryview(self.data)[start - self.start : end - self.start]


class CachedVersion:
    """The cached segments of one version. `users` (readers, fetches) keep it findable."""

    __slots__ = ("identity", "segments", "users")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.segments: IntervalIndex[Segment] = IntervalIndex()
        self.users = 0


class BlockCache:
    """Segments of all versions. Cached and reserved bytes together never exceed `limit`.

    A fetch reserves its room before it asks, so answers on their way count too. When room is
    needed, segments that a reader in order has passed go first, then the least recently used.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.cached = 0  # bytes
        self.reserved = 0  # bytes
        self.evictions = 0
        self._versions: dict[Identity, CachedVersion] = {}
        self._used: OrderedDict[Segment, None] = OrderedDict()  # least recently used first
        self._passed: OrderedDict[Segment, None] = OrderedDict()
        self._waiting = trio.lowlevel.ParkingLot()

    # -- versions

    def acquire(self, identity: Identity) -> CachedVersion:
        """The one object for this version; each acquire needs a release."""
        version = self._versions.get(identity)
        if version is None:
            version = self._versions[identity] = CachedVersion(identity)
        version.users += 1
        return version

    def release(self, version: CachedVersion) -> None:
        version.users -= 1
        self._forget_if_unused(version)

    def known(self, identity: Identity) -> CachedVersion | None:
        return self._versions.get(identity)

    def move(self, version: CachedVersion, identity: Identity) -> None:
        """The version has a new key or ETag from now on (our own rename or chmod)."""
        if self._versions.get(version.identity) is version:
            del self._versions[version.identity]
        version.identity = identity
        other = self._versions.get(identity)
        self._versions[identity] = version
        if other is None or other is version:
            return
        for segment in other.segments:  # others who hold it read on, from the store
            self._remove(segment)
            self.insert(version, segment.start, segment.data)

    def drop(self, version: CachedVersion) -> None:
        for segment in version.segments:
            self._remove(segment)
        self._forget_if_unused(version)

    def _forget_if_unused(self, version: CachedVersion) -> None:
        if version.users or len(version.segments):
            return
        if self._versions.get(version.identity) is version:
            del self._versions[version.identity]

    # -- segments

    def touch(self, segment: Segment, *, passed: bool) -> None:
        """It was read just now; `passed`: to its end, by a reader in order."""
        if segment in self._passed:
            self._passed.move_to_end(segment)
        elif segment in self._used:
            if passed:
                del self._used[segment]
                self._passed[segment] = None
            else:
                self._used.move_to_end(segment)

    def insert(
        self, version: CachedVersion, start: int, data: bytes, *, reserved: int = 0
    ) -> Segment:
        """Keeps `data`, in exchange for `reserved` bytes of room; returns the segment in any case.

        Without (enough) room reserved the segment is kept only where eviction makes room.
        """
        segment = Segment(version, start, data)
        if reserved:
            self.unreserve(reserved)
        if not data or not self._make_room(len(data)):
            return segment
        swallowed = version.segments.add(segment)
        if swallowed is None:  # all of it is cached already
            return segment
        for old in swallowed:
            self._discard(old)
        self._used[segment] = None
        self.cached += len(data)
        return segment

    def _remove(self, segment: Segment) -> None:
        segment.version.segments.remove(segment)
        self._discard(segment)

    def _discard(self, segment: Segment) -> None:
        if segment in self._used:
            del self._used[segment]
        elif segment in self._passed:
            del self._passed[segment]
        else:
            return
        self.cached -= len(segment.data)

    # -- room

    def try_reserve(self, size: int) -> bool:
        """Takes `size` bytes of room, evicting what must go; False if fetches hold it all."""
        if not self._make_room(size):
            return False
        self.reserved += size
        return True

    async def reserve(self, size: int) -> None:
        """As try_reserve, but waits until other fetches have ended. `size` is at most `limit`."""
        while not self.try_reserve(size):
            await self._waiting.park()

    def unreserve(self, size: int) -> None:
        self.reserved -= size
        self._waiting.unpark_all()

    def _make_room(self, size: int) -> bool:
        if self.reserved + size > self.limit:
            return False
        victims = self._victims()
        while self.cached + self.reserved + size > self.limit:
            segment = next(victims)  # there is one: what is not reserved is cached
            self._remove(segment)
            self._forget_if_unused(segment.version)
            self.evictions += 1
        return True

    def _victims(self) -> Iterator[Segment]:
        while self._passed:
            yield next(iter(self._passed))
        while self._used:
            yield next(iter(self._used))
