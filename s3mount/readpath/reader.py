"""One open file being read: finds its pattern and keeps ahead of it."""

from s3mount.readpath.block_cache import BlockCache, CachedVersion, Segment
from s3mount.readpath.prefetcher import Fetch, Prefetcher
from s3mount.readpath.readahead import AccessPattern, ReadaheadSizes, Step
from s3mount.readpath.remote import RemoteObject


class Readers:
    """Shares the memory for reading ahead among the readers that do; counts for all readers."""

    def __init__(self, memory: int) -> None:
        self.hits = 0  # requests answered at once
        self.misses = 0  # requests that waited
        self._memory = memory
        self._readers: set[ObjectReader] = set()

    def join(self, reader: "ObjectReader") -> None:
        self._readers.add(reader)

    def leave(self, reader: "ObjectReader") -> None:
        self._readers.discard(reader)

    def limit(self, reader: "ObjectReader") -> int:
        """The largest window, in bytes, for this reader now."""
        others = len(self._readers) - (reader in self._readers)
        return self._memory // (others + 1)


class ObjectReader:
    """One handle's way to one version; several may share the version."""

    def __init__(
        self,
        remote: RemoteObject,
        cache: BlockCache,
        prefetcher: Prefetcher,
        sizes: ReadaheadSizes,
        readers: "Readers",
    ) -> None:
        self.remote = remote
        self._cache = cache
        self._prefetcher = prefetcher
        self._pattern = AccessPattern(remote.size, sizes)
        self._readers = readers
        self._version: CachedVersion | None = cache.acquire(remote.identity)

    def try_read(self, offset: int, length: int) -> bytes | memoryview | None:
        """The answer of read() if all of it is in memory, else None. Starts reading ahead."""
        version = self._open_version()
        end = min(offset + length, self.remote.size)
        if offset >= end:
            return b""
        first = version.segments.find(offset)
        if first is None:
            return None
        if end <= first.end:
            self._readers.hits += 1
            step = self._decide(version, offset, end, missing=False)
            self._cache.touch(first, passed=step.in_order and end == first.end)
            self._prefetcher.ahead(self.remote, version, step.ahead, step.stream)
            return first.view(offset, end)
        pieces = [first]
        while pieces[-1].end < end:
            following = version.segments.find(pieces[-1].end)
            if following is None:
                return None
            pieces.append(following)
        self._readers.hits += 1
        step = self._decide(version, offset, end, missing=False)
        answer = self._assemble(pieces, offset, end, step)
        self._prefetcher.ahead(self.remote, version, step.ahead, step.stream)
        return answer

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """Bytes [offset, offset+length), cut at the end of the object.

        A memoryview of cached bytes where one answer of the store holds them all. Raises
        FilesystemError(ESTALE) when the version is gone, and the store's errors.
        """
        answer = self.try_read(offset, length)
        if answer is not None:
            return answer
        version = self._open_version()
        end = min(offset + length, self.remote.size)
        self._readers.misses += 1
        missing = not self._prefetcher.is_covered(version, offset, end)
        step = self._decide(version, offset, end, missing=missing)
        # The request itself goes first, then what is read ahead.
        pieces = self._prefetcher.cover(self.remote, version, (offset, end), step.around)
        try:
            self._prefetcher.ahead(self.remote, version, step.ahead, step.stream)
            segments = [
                await piece.result() if isinstance(piece, Fetch) else piece for piece in pieces
            ]
        finally:
            self._prefetcher.waited(pieces)
        return self._assemble(segments, offset, end, step)

    def close(self) -> None:
        """Cancels what was fetched ahead for this reader alone. May be called twice."""
        version, self._version = self._version, None
        if version is None:
            return
        self._prefetcher.release(version, self._pattern.streams)
        self._pattern.streams.clear()
        self._cache.release(version)
        self._readers.leave(self)

    def _open_version(self) -> CachedVersion:
        if self._version is None:
            raise ValueError("this reader is closed")
        return self._version

    def _decide(self, version: CachedVersion, offset: int, end: int, *, missing: bool) -> Step:
        """Notes the request, once; cancels what is not wanted any more."""
        step = self._pattern.read(offset, end, limit=self._readers.limit(self), missing=missing)
        if step.in_order:
            self._readers.join(self)
        if step.dropped:
            self._prefetcher.release(version, step.dropped)
            if not any(stream.window for stream in self._pattern.streams):
                self._readers.leave(self)
        return step

    def _assemble(
        self, segments: list[Segment], offset: int, end: int, step: Step
    ) -> bytes | memoryview:
        views = []
        for segment in segments:
            stop = min(segment.end, end)
            views.append(segment.view(offset, stop))
            self._cache.touch(segment, passed=step.in_order and stop == segment.end)
            offset = stop
        return views[0] if len(views) == 1 else b"".join(views)
