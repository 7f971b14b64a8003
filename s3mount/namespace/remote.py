"""The namespace's requests: counted, timed, and the stat cache beside them."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import trio

from s3mount.core.keys import split_key
from s3mount.namespace.outage import Outage
from s3mount.namespace.stat_cache import Row, StatCache
from s3mount.store.base import (
    ListPage,
    ObjectInfo,
    ObjectStore,
)
from s3mount.store.errors import (
    NotFound,
    StoreError,
)

log = logging.getLogger(__name__)

FetchInfo = Callable[[str, int | None], Awaitable[ObjectInfo]]
_NO_ROWS: Mapping[str, Row] = {}
_MAX_PENDING = 20_000  # rows waiting for the disk; beyond it the oldest are given up


class Remote:
    """Every answer comes with the time it was asked for, by the namespace's clock."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Callable[[], float],
        stat_cache: StatCache | None,
        fetch_info: FetchInfo | None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.stat_cache = stat_cache
        self.fetch_info = fetch_info
        self.outage = Outage(clock)
        self.listings = 0
        self.heads = 0
        self._pending: dict[str, Row] = {}
        self._remembered = trio.Event()  # there are such rows

    async def list(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        token: str | None = None,
        start_after: str = "",
        max_keys: int = 1000,
    ) -> tuple[ListPage, float]:
        self.listings += 1
        asked_at = self.clock()
        with self._watched():
            page = await self.store.list(
                prefix,
                delimiter=delimiter,
                token=token,
                start_after=start_after,
                max_keys=max_keys,
            )
        return page, asked_at

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """A refusal is an answer, too."""
        try:
            yield
        except StoreError as error:
            if not error.transient:
                self.outage.answered()
            raise
        self.outage.answered()

    async def head(self, key: str) -> tuple[ObjectInfo | None, float]:
        """None: there is no such object."""
        self.heads += 1
        asked_at = self.clock()
        try:
            with self._watched():
                return await self.store.head(key), asked_at
        except NotFound:
            return None, asked_at

    async def info(self, key: str, size: int | None) -> tuple[ObjectInfo | None, float]:
        """As head(), by the filesystem's GET where it handed one in."""
        if self.fetch_info is None:
            return await self.head(key)
        asked_at = self.clock()
        try:
            with self._watched():
                return await self.fetch_info(key, size), asked_at
        except NotFound:
            return None, asked_at

    # -- the stat cache

    def remember(self, row: Row) -> None:
        """To be stored with the next flush()."""
        if self.stat_cache is None or not row.etag:
            return
        if len(self._pending) >= _MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[row.key] = row
        self._remembered.set()

    async def rows(
        self, ranges: Sequence[tuple[str, str, str | None]]
    ) -> Sequence[Mapping[str, Row]]:
        """Rows by name of each (directory prefix, first name, last name)."""
        if self.stat_cache is None:
            return [_NO_ROWS] * len(ranges)
        return await self.stat_cache.load_many(ranges)

    async def row(self, key: str) -> Row | None:
        if self.stat_cache is None or key in ("", "/"):
            return None
        prefix, name = split_key(key)
        return (await self.stat_cache.load(prefix, name, name)).get(name)

    async def flush(self) -> None:
        if self.stat_cache is not None and self._pending:
            rows, self._pending = self._pending, {}
            self._remembered = trio.Event()
            await self.stat_cache.store(rows.values())

    async def flush_regularly(self, interval: float = 1.0) -> None:
        while True:
            await self._remembered.wait()
            await trio.sleep(interval)
            await self.flush()

    async def aclose(self) -> None:
        await self.flush()
        if self.stat_cache is not None:
            await self.stat_cache.aclose()
