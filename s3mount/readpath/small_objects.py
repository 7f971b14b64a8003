"""Small objects whole, by one GET each: in place of a HEAD, and ahead of those who will ask."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import trio

from s3mount.core.errors import FilesystemError
from s3mount.readpath.background import Background
from s3mount.readpath.block_cache import BlockCache
from s3mount.readpath.getter import Getter
from s3mount.store.base import (
    GetResult,
    ObjectInfo,
)
from s3mount.store.errors import StoreError

_LOG = logging.getLogger(__name__)

# Siblings fetched at once; the rest of the store's 32 reading connections is for those who wait.
MAX_SIBLINGS = 20
# What was asked for so recently is not asked for again (ruling 17's second).
FRESH = 1.0

Item = tuple[str, int, str]  # key, size, ETag


class _Waiting:
    """One GET on its way."""

    __slots__ = ("done", "length", "result")

    def __init__(self, length: int) -> None:
        self.length = length
        self.done = trio.Event()
        self.result: GetResult | None = None  # None when done: it failed


class SmallObjects:
    def __init__(
        self,
        getter: Getter,
        cache: BlockCache,
        background: Background,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_info: Callable[[ObjectInfo], None] | None = None
        self.siblings = 0  # objects fetched ahead
        self._getter = getter
        self._cache = cache
        self._background = background
        self._clock = clock
        self._active: dict[str, _Waiting] = {}
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._limiter = trio.CapacityLimiter(MAX_SIBLINGS)

    async def fetch(self, key: str, limit: int) -> tuple[ObjectInfo, bytes]:
        """The first `limit` bytes (or all) and what a HEAD would tell, by one GET.

        Joins a GET of the same key that is on its way, if it brings enough.
        """
        waiting = self._active.get(key)
        if waiting is not None:
            await waiting.done.wait()
            result = waiting.result
            if result is not None and len(result.data) >= min(limit, result.info.size):
                return result.info, result.data[:limit]
        result = await self._get(key, limit)
        return result.info, result.data

    def prefetch(self, items: Sequence[Item]) -> None:
        """Starts GETs of these objects; on_info hears of each that came."""
        now = self._clock()
        while self._asked and next(iter(self._asked.values())) < now - FRESH:
            self._asked.popitem(last=False)
        for key, size, _ in items:
            if key in self._active or key in self._asked:
                continue
            length = max(size, 1)
            if not self._cache.try_reserve(length):
                return
            self._cache.unreserve(length)  # taken again when its turn comes
            self._asked[key] = now
            waiting = self._active[key] = _Waiting(length)
            self._background.spawn(self._ahead, key, waiting)

    async def _ahead(self, key: str, waiting: _Waiting) -> None:
        try:
            async with self._limiter:
                waiting.result = await self._get(key, waiting.length)
            self.siblings += 1
        except (StoreError, FilesystemError) as error:
            _LOG.info("fetching ahead failed: %s", error)
        except Exception:
            _LOG.exception("fetching %r ahead failed unexpectedly", key)
        finally:
            if self._active.get(key) is waiting:
                del self._active[key]
            waiting.done.set()
        if waiting.result is not None and self.on_info is not None:
            try:
                self.on_info(waiting.result.info)
            except Exception:
                _LOG.exception("what %r told could not be taken up", key)

    async def _get(self, key: str, length: int) -> GetResult:
        length = max(1, min(length, self._cache.limit // 4))
        await self._cache.reserve(length)
        reserved = length
        try:
            result = await self._getter.newest(key, length)
            info = result.info
            if result.data and info.etag:
                version = self._cache.acquire((key, info.etag, info.size))
                reserved = 0
                self._cache.insert(version, 0, result.data, reserved=length)
                self._cache.release(version)
            return result
        finally:
            if reserved:
                self._cache.unreserve(reserved)
