"""What `s3mount ls` shows, page by page: names with their attributes, or the raw keys."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from s3mount.core.config import AttributeDefaults
from s3mount.core.location import Location
from s3mount.namespace.assembly import Found, InTree
from s3mount.namespace.remote import Remote
from s3mount.namespace.stat_cache import StatCache
from s3mount.store.base import ListedObject, ObjectStore
from s3mount.store.errors import StoreError
from s3mount.transfer.entries import Describer, Entry
from s3mount.transfer.names import Names

# Takes what has come; False: no more is wanted.
Take = Callable[[Sequence[Entry]], bool]


@dataclass(slots=True)
class Listed:
    """What a listing has left out. `found`: whether there is such a file or directory."""

    found: bool = True
    unreachable: int = 0
    shadowed: int = 0
    failures: int = 0
    first_failure: StoreError | None = None


class Lister:
    """`attributes`: modes, owners, times and link targets as well."""

    def __init__(
        self,
        store: ObjectStore,
        defaults: AttributeDefaults,
        stat_cache: StatCache | None,
        *,
        attributes: bool,
    ) -> None:
        self._store = store
        self._defaults = defaults
        self._stat_cache = stat_cache
        self._attributes = attributes

    async def view(self, location: Location, take: Take, *, recursive: bool) -> Listed:
        """As a mount shows it: of a directory what is in it, else the one file."""
        async with self._remote() as remote:
            names = Names(remote, location.prefix, recursive=recursive)
            page = await names.next_page()
            if names.found or not location.prefix:
                return await self._directory(remote, location.prefix, names, page, take)
            return await self._file(remote, location.key, take)

    @asynccontextmanager
    async def _remote(self) -> AsyncIterator[Remote]:
        remote = Remote(self._store, trio.current_time, self._stat_cache, None)
        try:
            yield remote
        finally:
            with trio.CancelScope(shield=True):
                await remote.aclose()

    async def _directory(
        self, remote: Remote, prefix: str, names: Names, page: Sequence[InTree], take: Take
    ) -> Listed:
        """The next page is asked for while this one is described and taken."""
        describer = Describer(remote, prefix, self._defaults, attributes=self._attributes)
        wanted = True
        while wanted:
            ahead = _Ahead()
            async with trio.open_nursery() as nursery:
                if not names.done:
                    nursery.start_soon(ahead.fetch, names)
                wanted = take(await describer.describe(page))
                if not wanted:
                    nursery.cancel_scope.cancel()
            if ahead.error is not None and wanted:
                raise ahead.error
            if ahead.page is None:
                break
            page = ahead.page
        return Listed(
            unreachable=names.unreachable,
            shadowed=names.shadowed + describer.shadowed,
            failures=describer.failures,
            first_failure=describer.first_failure,
        )

    async def _file(self, remote: Remote, key: str, take: Take) -> Listed:
        """An empty directory whose marker has no slash is one without anything in it."""
        info = None
        if key and not key.endswith("/"):
            info, _ = await remote.head(key)
        if info is None:
            return Listed(found=False)
        listed = ListedObject(info.key, info.size, info.etag, info.last_modified)
        storage_class = info.headers.get("x-amz-storage-class")
        if storage_class:
            listed = ListedObject(info.key, info.size, info.etag, info.last_modified, storage_class)
        describer = Describer(remote, "", self._defaults, attributes=self._attributes)
        entries = await describer.describe([InTree("", Found(key, False, listed))])
        take([entry for entry in entries if not entry.is_directory])
        return Listed(failures=describer.failures, first_failure=describer.first_failure)

    async def flat(self, prefix: str, take: Take) -> Listed:
        """The keys as they are, of all that begin with `prefix`, whatever a path can name."""
        found, token = False, None
        while True:
            page = await self._store.list(prefix, delimiter="", token=token)
            token = page.next_token
            found = found or bool(page.objects)
            entries = [Entry(one.key, one.key, False, one.size, one) for one in page.objects]
            if not take(entries) or token is None:
                return Listed(found=found or not prefix)


class _Ahead:
    """The next page, or why there is none."""

    def __init__(self) -> None:
        self.page: Sequence[InTree] | None = None
        self.error: StoreError | None = None

    async def fetch(self, names: Names) -> None:
        try:
            self.page = await names.next_page()
        except StoreError as error:
            self.error = error
