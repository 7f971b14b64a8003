"""The way in as the filesystem layer sees it."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from s3mount.core.config import ReadConfig
from s3mount.readpath.background import Background
from s3mount.readpath.block_cache import BlockCache
from s3mount.readpath.bulk import Sink, cut, load_ranges
from s3mount.readpath.disk_cache import DiskCache
from s3mount.readpath.getter import Getter
from s3mount.readpath.prefetcher import Prefetcher
from s3mount.readpath.readahead import ReadaheadSizes
from s3mount.readpath.reader import ObjectReader, Readers
from s3mount.readpath.remote import RemoteObject
from s3mount.readpath.small_objects import Item, SmallObjects
from s3mount.store.base import (
    ObjectInfo,
    ObjectStore,
)


class Present(Protocol):
    """What of a file is at hand elsewhere; core.extents.Extents is one."""

    def gaps(self, start: int, end: int) -> Sequence[tuple[int, int]]: ...


class ReadPath:
    """Reads versions of objects, through a cache in memory and perhaps one on disk.

    `namespace` names endpoint and bucket: it keeps the disk cache's entries apart. run() must be
    active while anything is read.
    """

    def __init__(
        self,
        store: ObjectStore,
        config: ReadConfig,
        *,
        namespace: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._getter = Getter(store)
        self._cache = BlockCache(config.memory_limit)
        self._disk: DiskCache | None = None
        if config.disk_dir is not None:
            self._disk = DiskCache(config.disk_dir, config.disk_limit, namespace)
        self._background = Background()
        self._prefetcher = Prefetcher(
            self._getter, config, self._cache, self._disk, self._background
        )
        self._small = SmallObjects(self._getter, self._cache, self._background, clock)
        # Half for what is read ahead, so that it does not push out itself.
        self._readers = Readers(config.memory_limit // 2)
        self._max_request = max(1, min(config.max_request, config.memory_limit // 4))
        self._sizes = ReadaheadSizes(
            first_request=min(config.first_request, self._max_request),
            random_request=min(config.random_request, self._max_request),
            max_request=self._max_request,
            max_window=config.max_window,
        )

    # -- readers

    def open(self, remote: RemoteObject) -> ObjectReader:
        """One per handle; its close() ends its reading ahead."""
        return ObjectReader(remote, self._cache, self._prefetcher, self._sizes, self._readers)

    def known(self, remote: RemoteObject, offset: int, length: int) -> bytes | None:
        """[offset, offset+length) if one cached piece holds it; starts nothing."""
        version = self._cache.known(remote.identity)
        piece = None if version is None else version.segments.find(offset)
        if piece is None or offset + length > piece.end:
            return None
        return bytes(piece.view(offset, offset + length))

    async def fetch_range(self, remote: RemoteObject, offset: int, length: int) -> bytes:
        """[offset, offset+length), cut at the end; kept nowhere. Errors as ObjectReader.read."""
        end = min(offset + length, remote.size)
        if offset >= end:
            return b""
        known = self.known(remote, offset, end - offset)
        if known is not None:
            return known
        pieces = cut([(offset, end)], self._max_request)
        found: dict[int, bytes] = {}

        async def keep(start: int, data: bytes) -> None:
            found[start] = data

        await load_ranges(self._getter, self._cache, remote, pieces, keep)
        if len(pieces) == 1:
            return found[offset]
        return b"".join(found[start] for start, _ in pieces)

    async def load_all(self, remote: RemoteObject, sink: Sink, present: Present) -> None:
        """Hands everything that is not in `present` to `sink(offset, bytes)`, in parallel.

        Pieces come in any order. Errors as ObjectReader.read, and those of the sink.
        """
        pieces = cut(present.gaps(0, remote.size), self._max_request)
        await load_ranges(self._getter, self._cache, remote, pieces, sink)

    # -- small objects

    async def fetch_small(self, key: str, limit: int) -> tuple[ObjectInfo, bytes]:
        """One GET of the first `limit` bytes in place of a HEAD; raises NotFound and the like.

        What comes is cached for readers of that version.
        """
        return await self._small.fetch(key, limit)

    def prefetch_whole(self, items: Sequence[Item]) -> None:
        """Starts background GETs of small objects (key, size, ETag) that will be read soon.

        Not those asked for within the last second. on_info hears of each answer. Failures are
        only logged.
        """
        self._small.prefetch(items)

    @property
    def on_info(self) -> Callable[[ObjectInfo], None] | None:
        """Called in the trio loop with what prefetch_whole's answers tell; must not await."""
        return self._small.on_info

    @on_info.setter
    def on_info(self, callback: Callable[[ObjectInfo], None] | None) -> None:
        self._small.on_info = callback

    # -- what is cached

    def seed(self, remote: RemoteObject, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Caches bytes of this version that the caller has at hand; perhaps not, if too many."""
        if not data or len(data) > self._cache.limit // 4:
            return
        version = self._cache.acquire(remote.identity)
        self._cache.insert(version, offset, bytes(data))
        self._cache.release(version)

    def repin(
        self,
        remote: RemoteObject,
        *,
        key: str | None = None,
        etag: str | None = None,
        version_id: str | None = None,
    ) -> None:
        """Our own copy moved this version: its bytes are now at `key`, its ETag is `etag`.

        What is cached stays valid; open readers and GETs on their way go on with the new place.
        """
        old = remote.identity
        if key is not None:
            remote.key = key
        if etag is not None:
            remote.etag = etag
        remote.version_id, remote.by_version = version_id, False
        if remote.identity == old:
            return
        version = self._cache.known(old)
        if version is not None:
            self._cache.move(version, remote.identity)
        if self._disk is not None:
            self._disk.move(old, remote.identity)

    def drop(self, remote: RemoteObject) -> None:
        """Nobody will read this version any more: its cached bytes make room."""
        version = self._cache.known(remote.identity)
        if version is not None:
            self._cache.drop(version)
        if self._disk is not None:
            self._disk.drop(remote.identity)

    # -- life

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Background tasks; ends by cancellation only."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._background.run)
            if self._disk is not None:
                await nursery.start(self._disk.run)
            task_status.started()

    async def disk_written(self) -> None:
        """Waits until the disk cache, if there is one, is in use and has what was read so far."""
        if self._disk is not None:
            await self._disk.written()

    def stats(self) -> dict[str, int]:
        """Counters since the start, and bytes in use now; for `s3mount status`."""
        counts = self._prefetcher.counts
        stats = {
            "hits": self._readers.hits,
            "misses": self._readers.misses,
            "cached_bytes": self._cache.cached,
            "reserved_bytes": self._cache.reserved,
            "memory_limit": self._cache.limit,
            "evictions": self._cache.evictions,
            "fetches": counts.fetches,
            "fetched_bytes": counts.fetched_bytes,
            "prefetched_bytes": counts.prefetched_bytes,
            "prefetches_cancelled": counts.cancelled,
            "siblings_fetched": self._small.siblings,
        }
        if self._disk is not None:
            stats["disk_bytes"] = self._disk.used
            stats["disk_read_bytes"] = counts.from_disk_bytes
            stats["disk_damaged"] = self._disk.damaged
        return stats
