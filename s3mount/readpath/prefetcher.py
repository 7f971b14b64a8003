"""GETs on their way: started once, shared by all readers of a version, cancelled when unwanted.

Planning (cover, ahead, release) is synchronous; only the fetches themselves, which are background
tasks, and those who wait for one await. So what a plan found cached or on its way still is.
"""

import errno
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import trio

from s3mount.core.config import ReadConfig
from s3mount.core.errors import FilesystemError
from s3mount.readpath.background import Background
from s3mount.readpath.block_cache import BlockCache, CachedVersion, Segment
from s3mount.readpath.disk_cache import DiskCache
from s3mount.readpath.getter import Getter
from s3mount.readpath.readahead import Range, Stream
from s3mount.readpath.remote import RemoteObject
from s3mount.store.errors import StoreError

_LOG = logging.getLogger(__name__)

# Prefetches at once, of all readers: they leave a third of the store's 32 reading connections to
# requests that somebody waits for.
MAX_PREFETCHES = 20


class Fetch:
    """Bytes [start, end) of a version, on their way.

    `owners` are the streams that want it ahead of their reader; without owners it was asked for
    by a reader who waits. It hands its segment to those who wait, whatever is evicted meanwhile.
    """

    __slots__ = (
        "done",
        "end",
        "error",
        "owners",
        "prefetch",
        "remote",
        "reserved",
        "scope",
        "segment",
        "start",
        "version",
        "waiters",
    )

    def __init__(self, remote: RemoteObject, version: CachedVersion, start: int, end: int) -> None:
        self.remote = remote
        self.version = version
        self.start = start
        self.end = end
        self.prefetch = False
        self.reserved = 0  # bytes of room in the cache
        self.owners: set[Stream] = set()
        self.waiters = 0
        self.done = trio.Event()
        self.segment: Segment | None = None
        self.error: StoreError | FilesystemError | None = None
        self.scope = trio.CancelScope()

    async def result(self) -> Segment:
        """Waits for it; raises its error. The caller has counted itself in `waiters`."""
        await self.done.wait()
        if self.error is not None:
            raise self.error
        if self.segment is None:
            raise FilesystemError(errno.EIO, "the read path was closed meanwhile")
        return self.segment


@dataclass(slots=True)
class FetchCounts:
    fetched_bytes: int = 0
    fetches: int = 0
    prefetched_bytes: int = 0
    cancelled: int = 0
    from_disk_bytes: int = 0


class Prefetcher:
    """All fetches of a mount."""

    def __init__(
        self,
        getter: Getter,
        config: ReadConfig,
        cache: BlockCache,
        disk: DiskCache | None,
        background: Background,
    ) -> None:
        self.counts = FetchCounts()
        self._getter = getter
        self._background = background
        self._cache = cache
        self._disk = disk
        # One answer never takes more than a quarter of the memory.
        self._max_request = max(1, min(config.max_request, cache.limit // 4))
        self._active: dict[CachedVersion, list[Fetch]] = {}
        self._prefetches = 0

    # -- planning

    def on_its_way(self, version: CachedVersion, offset: int) -> Fetch | None:
        for fetch in self._active.get(version, ()):
            if fetch.start <= offset < fetch.end:
                return fetch
        return None

    def is_covered(self, version: CachedVersion, start: int, end: int) -> bool:
        """Is all of [start, end) in memory or on its way?"""
        return next(self._gaps(version, start, end), None) is None

    def cover(
        self, remote: RemoteObject, version: CachedVersion, wanted: Range, around: Range
    ) -> list[Segment | Fetch]:
        """What holds or will hold `wanted`, in order, each from where the one before it ends.

        Starts fetches for what is missing, each extended to what is missing of `around`. Counts
        the caller as a waiter of every Fetch returned: it must call `waited` with them.
        """
        pieces: list[Segment | Fetch] = []
        offset, end = wanted
        while offset < end:
            piece: Segment | Fetch | None = version.segments.find(offset)
            if piece is None:
                piece = self.on_its_way(version, offset)
            if piece is None:
                start, stop = self._gap_around(version, offset, around)
                piece = self._start_all(remote, version, start, stop, offset)
            if isinstance(piece, Fetch):
                piece.waiters += 1
            pieces.append(piece)
            offset = piece.end
        return pieces

    def waited(self, pieces: Sequence[Segment | Fetch]) -> None:
        for piece in pieces:
            if isinstance(piece, Fetch):
                piece.waiters -= 1

    def ahead(
        self, remote: RemoteObject, version: CachedVersion, ranges: Sequence[Range], stream: Stream
    ) -> None:
        """Starts fetching these ranges for `stream`, as far as connections and memory allow.

        Moves stream.requested to the end of what is cached or on its way now.
        """
        for start, end in ranges:
            for gap_start, gap_end in self._gaps(version, start, end):
                for piece_start, piece_end in self._pieces(version, gap_start, gap_end):
                    if not self._prefetch(remote, version, piece_start, piece_end, stream):
                        stream.requested = max(stream.requested, piece_start)
                        return
            for fetch in self._active.get(version, ()):
                if fetch.prefetch and fetch.start < end and fetch.end > start:
                    fetch.owners.add(stream)
            stream.requested = max(stream.requested, end)

    def release(self, version: CachedVersion, streams: Sequence[Stream]) -> None:
        """Nothing fetched ahead for these streams is wanted by them any more."""
        for fetch in list(self._active.get(version, ())):
            if not fetch.prefetch or fetch.owners.isdisjoint(streams):
                continue
            fetch.owners.difference_update(streams)
            if not fetch.owners and not fetch.waiters:
                self._forget(fetch)
                fetch.scope.cancel()
                self.counts.cancelled += 1

    def _gaps(self, version: CachedVersion, start: int, end: int) -> Iterator[Range]:
        """What of [start, end) is neither in memory nor on its way."""
        for gap_start, gap_end in version.segments.gaps(start, end):
            offset = gap_start
            while offset < gap_end:
                fetch = self.on_its_way(version, offset)
                if fetch is not None:
                    offset = fetch.end
                    continue
                stop = self._next_fetch(version, offset, gap_end)
                yield (offset, stop)
                offset = stop

    def _gap_around(self, version: CachedVersion, offset: int, around: Range) -> Range:
        """The gap that holds `offset`, within `around` (and the bytes from offset on)."""
        for gap in self._gaps(version, around[0], around[1]):
            if gap[0] <= offset < gap[1]:
                return gap
        raise AssertionError(f"{offset} is not missing in {around}")

    def _next_fetch(self, version: CachedVersion, offset: int, limit: int) -> int:
        starts = (fetch.start for fetch in self._active.get(version, ()) if fetch.start > offset)
        return min(min(starts, default=limit), limit)

    def _pieces(self, version: CachedVersion, start: int, end: int) -> Iterator[Range]:
        """Cut so that each piece is wholly on disk or not at all, and is one request."""
        parts = self._disk.split(version.identity, start, end) if self._disk else [(start, end)]
        for part_start, part_end in parts:
            for offset in range(part_start, part_end, self._max_request):
                yield (offset, min(offset + self._max_request, part_end))

    # -- fetches

    def _start_all(
        self, remote: RemoteObject, version: CachedVersion, start: int, end: int, offset: int
    ) -> Fetch:
        """Starts fetches for all of a gap; returns the one that holds `offset`."""
        found = None
        for piece_start, piece_end in list(self._pieces(version, start, end)):
            fetch = self._begin(Fetch(remote, version, piece_start, piece_end))
            if piece_start <= offset < piece_end:
                found = fetch
        assert found is not None
        return found

    def _prefetch(
        self, remote: RemoteObject, version: CachedVersion, start: int, end: int, stream: Stream
    ) -> bool:
        if self._prefetches >= MAX_PREFETCHES or not self._cache.try_reserve(end - start):
            return False
        fetch = Fetch(remote, version, start, end)
        fetch.prefetch = True
        fetch.reserved = end - start
        fetch.owners.add(stream)
        self._begin(fetch)
        self._prefetches += 1
        return True

    def _begin(self, fetch: Fetch) -> Fetch:
        self._background.spawn(self._fetch, fetch)
        fetch.version.users += 1
        self._active.setdefault(fetch.version, []).append(fetch)
        return fetch

    def _forget(self, fetch: Fetch) -> None:
        """Nobody finds it any more. Does nothing the second time."""
        fetches = self._active.get(fetch.version, [])
        if fetch not in fetches:
            return
        fetches.remove(fetch)
        if not fetches:
            del self._active[fetch.version]

    async def _fetch(self, fetch: Fetch) -> None:
        try:
            with fetch.scope:
                await self._load(fetch)
        except (StoreError, FilesystemError) as error:
            fetch.error = error
            if not fetch.waiters:
                _LOG.info("reading ahead failed: %s", error)
        except Exception:
            _LOG.exception("reading %r failed unexpectedly", fetch.remote.key)
            fetch.error = FilesystemError(errno.EIO, "internal error, see the log")
        finally:
            self._forget(fetch)
            if fetch.prefetch:
                self._prefetches -= 1
            if fetch.reserved:
                self._cache.unreserve(fetch.reserved)
            fetch.done.set()
            self._cache.release(fetch.version)

    async def _load(self, fetch: Fetch) -> None:
        size = fetch.end - fetch.start
        if not fetch.reserved:
            await self._cache.reserve(size)
            fetch.reserved = size
        data = None
        if self._disk is not None:
            data = await self._disk.load(fetch.version.identity, fetch.start, fetch.end)
        if data is not None:
            self.counts.from_disk_bytes += size
        else:
            data = await self._getter.pinned(fetch.remote, fetch.start, fetch.end)
            self.counts.fetches += 1
            self.counts.fetched_bytes += size
            if self._disk is not None:
                self._disk.store(fetch.version.identity, fetch.start, data)
        if fetch.prefetch:
            self.counts.prefetched_bytes += size
        if not fetch.scope.cancel_called:
            reserved, fetch.reserved = fetch.reserved, 0
            fetch.segment = self._cache.insert(fetch.version, fetch.start, data, reserved=reserved)
