"""The upload of one file: parts sent ahead while it is written, and the commit."""

import errno
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.extents import total_within
from s3mount.store.base import (
    Condition,
    PutResult,
    WriteHeaders,
)
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.body import (
    CommitSuperseded,
    ReadBase,
)
from s3mount.writeback.commit import Commit
from s3mount.writeback.flight import Flight
from s3mount.writeback.frozen_file import FrozenFile
from s3mount.writeback.journal_records import UploadRecord
from s3mount.writeback.lock import Lock
from s3mount.writeback.lost_answers import LostAnswers
from s3mount.writeback.part_table import PartTable, SentPart
from s3mount.writeback.parts_ahead import PartsAhead
from s3mount.writeback.spooled_file import SpooledFile
from s3mount.writeback.traffic import Traffic

if TYPE_CHECKING:
    from s3mount.writeback.uploader import Uploader

log = logging.getLogger(__name__)

CLEAN_UP_TIME = 10.0

Destination = Callable[[], tuple[str, WriteHeaders]]


class FileUpload:
    """`key`, `headers`: those of the unfinished multipart upload, None without one.

    At most one commit at a time (`_commit_lock`, the outermost lock); while it runs no part
    starts in the background. `_create_lock` guards the creation of the upload, nothing else.
    """

    def __init__(self, uploader: "Uploader", file: SpooledFile) -> None:
        self.uploader = uploader
        self.file = file
        self.free = False  # see upload_plan.Multipart
        self.table = PartTable(file, uploader.schedule)
        self.flights: dict[int, Flight] = {}
        self.committing = False
        self.source = file  # what the commit that runs sends: the file, or a frozen state of it
        # The numbers of the commit that runs: only these parts may be dropped meanwhile.
        self.planned: frozenset[int] = frozenset()
        # An object that a commit published before it failed: the next one builds on it.
        self.published: tuple[BaseObject, int] | None = None
        self.lost = LostAnswers(uploader.doubts)
        self._destination: Destination | None = None
        self._last_key = ""
        self._ahead = PartsAhead(self)
        self._commit_lock = Lock()
        self._create_lock = Lock()
        self._begun = uploader.begun_upload()
        # Called when a commit has published before it was complete, at once: the journal should
        # name that object as the file's base before it forgets the upload.
        self.on_published: Callable[[BaseObject], None] | None = None
        # Has the journal name what is here now: a commit is about to overwrite parts that its
        # record counts on.
        self.on_overwrite: Callable[[], Awaitable[None]] | None = None
        self.error: Exception | None = None  # the last one
        self.failures = 0  # tries in a row, of parts and commits, that the service did not take
        self.traffic = Traffic(uploader.traffic)

    def was_published(self, base: BaseObject, stamp: int) -> None:
        """The unfinished upload became this object, with the file's bytes as of `stamp`, before a
        commit was complete: the next one builds on it, also after a crash."""
        for file in {self.file, self.source}:
            file.was_published()
        self.published = (base, stamp)
        if self.on_published is not None:
            self.on_published(base)

    def found_done(self, size: int) -> None:
        """The file's bytes are the object already: an earlier process's commit made it."""
        self.file.begin_commit()
        self.file.commit_succeeded(size)
        self.published = None

    @property
    def key(self) -> str | None:
        return self._begun.key

    @property
    def headers(self) -> WriteHeaders | None:
        return self._begun.headers

    @property
    def upload_id(self) -> str | None:
        return self._begun.upload_id

    # -- for the filesystem

    def wrote(self, size_hint: int, destination: Destination) -> None:
        """To be called after each write; well under a microsecond unless a chunk is full.

        `size_hint` is the file's size now. `destination()` answers the key and the headers that
        an upload would have which begins now; it is asked only then. The part of a full slot
        starts at once, that of the first slot when the file grows beyond it.
        """
        self._destination = destination
        self._ahead.size = size_hint
        self._ahead.wrote()

    async def commit(
        self,
        key: str,
        headers: WriteHeaders,
        *,
        size: int,
        base: BaseObject | None,
        visible: int,
        condition: Condition,
        read_base: ReadBase | None,
        frozen: FrozenFile | None = None,
    ) -> PutResult:
        """Makes the file's bytes, `size` of them, the object `key` with `headers`; those of
        `frozen`, where that is given: nothing that is written meanwhile goes along then.

        When this returns the object is in the bucket and what was dirty at the start is clean,
        unless written again meanwhile. When it raises, all is dirty still and it may be called
        again; parts that were sent are kept. Raises PreconditionFailed, CommitSuperseded (EAGAIN:
        truncated below `size` meanwhile), FilesystemError (EFBIG, ENOSPC, EIO) and StoreErrors.
        """
        source = self.file if frozen is None else frozen
        since = source.write_count  # `size` was true then; taking the lock may take time
        async with self._commit_lock:
            if size > self.uploader.schedule.limit:
                raise FilesystemError(
                    errno.EFBIG, f"{key!r}: {size} bytes exceed {self.uploader.schedule.limit}"
                )
            if self.file.closed:
                raise FilesystemError(errno.EBADF, f"{key!r}: its spool file is closed")
            self.committing = True
            self._ahead.size = size
            self._last_key = key
            self.planned = frozenset()
            self.file.failure = self.error = None
            self.source = source
            source.begin_commit()
            work = Commit(self, key, headers, size, base, visible, condition, read_base, since)
            try:
                result = await self.lost.carry_out(work, self)
            except BaseException as error:
                source.commit_failed()
                if isinstance(error, Exception):
                    self.failed(error)
                raise
            else:
                if frozen is None:
                    self.file.commit_succeeded(size)
                else:
                    self.file.frozen_committed(since)
                self.published = self.file.failure = self.error = None
                self.failures = 0
                self.uploader.progressed()
                return result
            finally:
                self.committing, self.source = False, self.file
                self.uploader.spool.wake()

    async def abandon(self) -> None:
        """Nothing of the file is wanted any more, but perhaps by the journal: an upload that its
        record counts on stays until that is replaced (SpooledFile.on_ended)."""
        if not self.file.promises_parts:
            await self.abort()
            return
        async with self._commit_lock:
            self._destination = None
            await self.stop_flights()

    async def abort(self) -> None:
        """Ends the unfinished upload; parts on their way are stopped first, and none starts until
        the next `wrote`. The spool's bytes stay; those that were dropped are lost: a commit that
        needs them fails with EIO."""
        async with self._commit_lock:
            self._destination = None
            await self.stop_flights()
            await self.discard_upload()

    def needs_early_publish(self, offset: int, length: int, *, writing: bool = False) -> bool:
        """Whether bytes to be read are only in the unfinished upload: then commit first.

        A write needs no commit before it (a dropped part may be rewritten as a whole). With
        config.refuse_early_publish raises FilesystemError(ENOSPC) instead of answering True.
        """
        file, end = self.file, offset + length
        if writing or not (
            file.dropped.overlaps(offset, end) or file.published.overlaps(offset, end)
        ):
            return False
        if self.uploader.config.refuse_early_publish:
            raise FilesystemError(
                errno.ENOSPC, f"{self.name!r}: its spool was needed for other writes"
            )
        return True

    @property
    def name(self) -> str:
        """The key for logs."""
        if self.key is not None:
            return self.key
        return self._last_key if self._destination is None else self._destination()[0]

    @property
    def active(self) -> bool:
        return self.upload_id is not None or self.busy

    @property
    def busy(self) -> bool:
        """Whether something is on its way that will free room or fail."""
        return self.committing or bool(self.flights)

    @property
    def unsent_bytes(self) -> int:
        """Bytes written here that the service does not have: neither in an acknowledged part that
        is right still nor handed to a connection. What a commit sends along with them (an edit
        travels in whole parts) does not count."""
        dirty = self.file.dirty
        left = dirty.total - self.table.acknowledged_of(dirty)
        for body in self.traffic.bodies:
            left -= min(body.handed, total_within(dirty, body.start, body.end))
        return max(0, left)

    # -- parts on their way

    def landed(self, flight: Flight) -> None:
        del self.flights[flight.number]

    def failed(self, error: Exception) -> None:
        """A try of a part or commit; another one follows, or not."""
        self.error = error
        self.failures += 1

    def fail(self, error: Exception) -> None:
        """It will not go on by itself: writers that wait for room get `error`."""
        log.error("%r cannot be uploaded: %s", self.name, error)
        self.failed(error)
        self.file.failure = error
        self.uploader.spool.wake()

    async def stop_flights(self, numbers: set[int] | None = None) -> None:
        """Cancels these (None: all) and waits until nothing of them can arrive any more."""
        flights = [
            flight
            for flight in tuple(self.flights.values())
            if numbers is None or flight.number in numbers
        ]
        for flight in flights:
            flight.scope.cancel()
        for flight in flights:
            await flight.done.wait()

    async def ensure_upload(self, destination: Destination | None = None) -> str:
        """The id of the unfinished upload; begins one, if need be, for `destination`."""
        async with self._create_lock:
            if self.upload_id is None:
                destination = destination or self._destination
                if destination is None:
                    raise CommitSuperseded  # aborted meanwhile
                key, headers = destination()
                await self._begun.begin(key, headers, self.file.record_id)
            assert self.upload_id is not None
            return self.upload_id

    def acknowledge(self, number: int, sent: SentPart, checksum: str | None = None) -> None:
        """The server has the part; `checksum` is that of its bytes, where it is known."""
        known = self._begun.has(sent, checksum or sent.part.checksum)
        self.table.acknowledge(number, sent, droppable=known)
        self.error = None
        self.failures = 0
        self.uploader.progressed()

    def still_valid(self, number: int, base: str | None) -> bool:
        """Whether a sent part, or one on its way, equals `source` over the base of that ETag."""
        flight = self.flights.get(number)
        if flight is None:
            return self.table.valid(number, base, self.source)
        stamp = None if flight.body is None else flight.body.stamp
        if flight.resting:
            return False
        if stamp is None:
            return self.source is self.file  # it will read what is there then
        read_before = stamp <= self.source.write_count
        return read_before and self.source.is_same_as_of(stamp, flight.start, flight.end)

    def forget_upload(self) -> None:
        """The upload is completed or gone."""
        self._begun.ended()
        self._clear()

    async def keep_upload(self) -> None:
        """The upload is left as it is, for it has bytes that are nowhere else."""
        await self.stop_flights()
        self._begun.keep()
        self._clear()

    async def discard_upload(self) -> None:
        """Aborts the upload; a failure is logged, and the journal's record of it remains."""
        self._clear()
        await self._begun.abort()

    def _clear(self) -> None:
        self.free = False
        self.table.clear()
        self._ahead.clear()

    def resume(self, record: UploadRecord, table: PartTable) -> None:
        """Goes on with the upload of an earlier process, which has the parts of `table`. To be
        called before anything else; the file's owner calls `wrote` or `commit` afterwards."""
        self._begun.adopt(record)
        self.table = table
        bounds = self.uploader.schedule.bounds
        # Ends say nothing: copies side by side were merged, the last part is shorter.
        off_grid = any(
            start != bounds(number - 1)[0] for number, (start, _) in table.attempted.items()
        )
        self.free = off_grid and not self.file.dropped

    async def end_upload(self) -> None:
        """The file's object is there and needs none: a cancellation now must not make the commit
        look failed."""
        with trio.move_on_after(CLEAN_UP_TIME, shield=True):
            await self.stop_flights()
            await self.discard_upload()

    def leave(self) -> UploadRecord | None:
        """The record of an upload that may have been begun, and whose id is not known."""
        return self._begun.leave()

    # -- pressure

    def press(self) -> bool:
        """A writer waits for room: sends every full slot that is not on the server as it is."""
        if (
            self.committing
            or self.free
            or self._destination is None
            or self.file.failure is not None
        ):
            return False
        return self._ahead.press()

    def droppable(self, ends: bool) -> Iterator[tuple[int, int]]:
        """See PartTable.droppable; never a part that is being sent again, nor one of a file that
        is being read just now."""
        if self.free or self.file.readers or not self.file.can_drop:
            return
        if self._destination is not None and self._destination()[0] != self.key:
            return  # renamed: another file may take the name that the upload is bound to
        for order, number in self.table.droppable(ends):
            if number not in self.flights and (not self.committing or number in self.planned):
                yield order, number

    def drop(self, number: int) -> None:
        """See PartTable.drop."""
        sent = self.table.sent[number]
        self.table.drop(number)
        frozen = self.source is not self.file
        if frozen and self.source.present.covers(sent.start, sent.end):
            self.source.drop(sent.start, sent.end)
