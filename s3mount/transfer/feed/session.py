"""How the parts of a feed are put together, and the three kinds of source."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from s3mount.core.config import AttributeDefaults, WritebackConfig
from s3mount.core.metadata import NO_XATTRS, content_type_for, encode
from s3mount.core.part_schedule import PartSchedule
from s3mount.namespace.remote import Remote
from s3mount.namespace.stat_cache import StatCache
from s3mount.store.base import ListPage, ObjectStore, WriteHeaders
from s3mount.transfer.copy_uploads import ToolUploads
from s3mount.transfer.feed.books import Books, open_books
from s3mount.transfer.feed.decide import Action, LocalEntry, RemoteEntry
from s3mount.transfer.feed.feeder import Feeder, Feeding
from s3mount.transfer.feed.local_tree import attributes_of
from s3mount.transfer.feed.merge import Pair
from s3mount.transfer.feed.performing import Performer
from s3mount.transfer.feed.report import Report
from s3mount.transfer.feed.stream import Check, StreamSender
from s3mount.transfer.file_sender import FileSender
from s3mount.transfer.local_file import xattrs_of
from s3mount.transfer.versions import Versions
from s3mount.writeback.copier import Copier
from s3mount.writeback.journal import MemoryJournal

# Seconds that are waited at the end for what is aborted of earlier feeds meanwhile.
TIDY_TIME = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """`shared`: the directory of what this machine keeps of the bucket; `key`: the key root;
    `source`: as it is told apart from other sources."""

    shared: Path
    bucket: str
    key: str
    source: str


class Session:
    def __init__(
        self,
        store: ObjectStore,
        books: Books,
        config: WritebackConfig,
        remote: Remote,
        defaults: AttributeDefaults,
        report: Report,
    ) -> None:
        schedule = PartSchedule(
            config.part_size, config.max_parts, config.max_object_size, config.equal_parts
        )
        limits = {
            "single_put_limit": config.single_put_limit,
            "bytes_in_flight": config.bytes_in_flight,
        }
        self.store = store
        self.books = books
        self.report = report
        self._config = config
        self._remote = remote
        self._versions = Versions(remote, defaults)
        self._sender = FileSender(store, books.journal, schedule, **limits)
        self._streams = StreamSender(store, books.journal, schedule, **limits)
        self._copies = ToolUploads(store)
        self._copier = Copier(store, config, self._copies)

    def _feeder(self, feeding: Feeding) -> Feeder:
        performer = Performer(
            *(self.store, self._sender, self._copier, self._versions, self.report),
            prefix=feeding.prefix,
            how=feeding.how,
            follow=feeding.walking.follow,
            dry_run=feeding.dry_run,
            earlier=self.books.earlier,
        )
        return Feeder(self.store, feeding, performer, self._remote, self._versions, self.report)

    async def feed_folder(self, feeding: Feeding, *, totals: bool) -> None:
        complete = await self._feeder(feeding).run(totals=totals)
        if complete and not feeding.dry_run:
            await self.books.discard_rest(self._sender)
        self._tell_of_left_uploads()

    async def feed_file(self, feeding: Feeding, path: str, page: ListPage) -> None:
        """`feeding.top` is the file, `path` its name below feeding.prefix; `page`: a LIST of one
        level of its key."""
        found = os.stat(feeding.top)
        xattrs = xattrs_of(feeding.top) if feeding.walking.xattrs else NO_XATTRS
        local = LocalEntry(path, feeding.top, found.st_size, attributes_of(found, xattrs))
        key = feeding.prefix + path
        listed = next((one for one in page.objects if one.key == key), None)
        below = f"{key}/" in page.prefixes
        if page.next_token is not None and not below:  # a thousand names like 'key-1' come before
            found_below = await self.store.list(f"{key}/", max_keys=1)
            below = bool(found_below.objects or found_below.prefixes)
        remote = RemoteEntry(path, listed, below=below)
        self.report.counted(1, local.size)
        await self._feeder(feeding).run_one(Pair(local, remote))
        self._tell_of_left_uploads()

    async def feed_stream(self, fd: int, key: str, check: Check) -> None:
        """With the attributes of a file that the user makes now."""
        await self.books.discard_rest(self._sender)  # what an earlier one could not abort
        umask = os.umask(0o077)
        os.umask(umask)
        now = time.time_ns()
        attributes = attributes_of(os.fstat(fd))
        attributes = type(attributes)(
            mode=0o100666 & ~umask,
            uid=os.geteuid(),
            gid=os.getegid(),
            mtime_ns=now,
            ctime_ns=now,
            atime_ns=now,
        )
        headers = WriteHeaders(
            encode(attributes), {"content-type": content_type_for(key, attributes)}
        )
        sent = await self._streams.send(fd, key, headers, check, self.report.progress)
        self.report.sent_bytes += sent.sent
        self.report.did(Action.SEND, key)
        self._versions.stored(key, sent.result, sent.sent, attributes)

    def _tell_of_left_uploads(self) -> None:
        for key in self._copies.left:
            self.report.problems.append(
                f"an upload of {key!r} may be left behind: s3mount uploads list"
            )


@asynccontextmanager
async def open_session(
    store: ObjectStore,
    place: Place,
    config: WritebackConfig,
    defaults: AttributeDefaults,
    stat_cache: StatCache | None,
    report: Report,
    *,
    dry_run: bool = False,
) -> AsyncIterator[Session]:
    """Raises ConfigurationError where another feed of the same is at work."""
    remote = Remote(store, trio.current_time, stat_cache, None)
    try:
        if dry_run:
            yield Session(store, Books(MemoryJournal()), config, remote, defaults, report)
            return
        async with (
            open_books(place.shared, place.bucket, place.key, place.source) as books,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(books.journal.run)
            tidied = trio.Event()

            async def tidy() -> None:
                await books.tidy(store)
                tidied.set()

            nursery.start_soon(tidy)
            yield Session(store, books, config, remote, defaults, report)
            with trio.move_on_after(TIDY_TIME):
                await tidied.wait()
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await remote.aclose()
