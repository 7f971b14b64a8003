"""Parts on their way for all files at once: what they share, and the relief of a full spool."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from s3mount.core.config import WritebackConfig
from s3mount.core.part_schedule import PartSchedule
from s3mount.store.base import (
    Capabilities,
    ObjectStore,
    WriteHeaders,
)
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.begun_upload import BegunUpload
from s3mount.writeback.doubts import Doubts
from s3mount.writeback.file_upload import FileUpload
from s3mount.writeback.journal import Journal, MemoryJournal
from s3mount.writeback.journal_records import UploadRecord
from s3mount.writeback.memory_limit import MemoryLimit
from s3mount.writeback.spool import Spool
from s3mount.writeback.spooled_file import SpooledFile
from s3mount.writeback.traffic import Traffic
from s3mount.writeback.upload_plan import PlanLimits

__all__ = ["BaseObject", "FileUpload", "Uploader"]

log = logging.getLogger(__name__)

# Threads that read bodies from the spool; mostly copies from the page cache.
READERS = 4
# Between tries of an abort, in seconds.
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0


class Uploader:
    """`progress_at`: trio time of the last byte that the store acknowledged.

    `on_early_publish(upload)` is called when a full spool can be relieved in no other way: its
    owner should commit that file's bytes, unfinished as they are (design.md 7). False: it cannot,
    for the file has no name any more, and the next one is asked.
    """

    def __init__(
        self,
        store: ObjectStore,
        spool: Spool,
        config: WritebackConfig,
        schedule: PartSchedule,
        journal: Journal | None = None,
    ) -> None:
        self.store = store
        self.journal: Journal = MemoryJournal() if journal is None else journal
        self.spool = spool
        self.config = config
        self.schedule = schedule
        self.memory = MemoryLimit(config.bytes_in_flight)
        self.readers = trio.CapacityLimiter(READERS)
        self.doubts = Doubts(store)
        self.traffic = Traffic()
        # Commits of closed files that wait to be coalesced start, what waits for the journal's
        # next sync is given back; True if that frees something soon.
        self.on_full: Callable[[], bool] | None = None
        self.on_left: Callable[[UploadRecord], None] | None = None  # see _leave
        self.on_early_publish: Callable[[FileUpload], bool] | None = None
        self.nursery: trio.Nursery | None = None
        self.progress_at = -float("inf")
        self._uploads: dict[SpooledFile, FileUpload] = {}
        self._started_parts = 0
        self._acknowledged = 0  # parts and commits so far
        self._asked: tuple[FileUpload, int] | None = None
        spool.on_pressure = self.relieve

    def upload_for(self, file: SpooledFile) -> FileUpload:
        """The one upload of this file; ended when the file is closed, or as soon as the journal
        does not count on its parts any more."""
        upload = self._uploads.get(file)
        if upload is None:
            upload = self._uploads[file] = FileUpload(self, file)
            file.on_ended = lambda: self._forget(file)
        return upload

    def _forget(self, file: SpooledFile) -> None:
        """A closed file needs no upload any more."""
        upload = self._uploads.pop(file, None)
        if upload is None:
            return
        if upload.active and self.nursery is not None:
            self.nursery.start_soon(self._abort, upload)
        else:
            self._leave(upload)

    async def _abort(self, upload: FileUpload) -> None:
        try:
            await upload.abort()
        except Exception:
            log.exception("aborting the upload of %r", upload.name)
        self._leave(upload)

    def _leave(self, upload: FileUpload) -> None:
        """What may be there all the same: its creation was never answered."""
        self._left(upload.leave())

    def _left(self, record: UploadRecord | None) -> None:
        """Of an upload that may be there and that nobody will go on with."""
        if record is not None and self.on_left is not None:
            self.on_left(record)

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Sends parts in the background until cancelled."""
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            nursery.start_soon(self.spool.run)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self.nursery = None

    def _of_open_files(self) -> list[FileUpload]:
        """Without those that only the journal counts on."""
        return [upload for file, upload in self._uploads.items() if not file.closed]

    # -- used by FileUpload

    def progressed(self) -> None:
        self._acknowledged += 1
        self.progress_at = self.spool.progress_at = trio.current_time()
        self.spool.wake()

    def begun_upload(self) -> BegunUpload:
        """One that is not begun yet."""
        return BegunUpload(self.store, self.journal, self._until_done, self._left)

    async def begin_upload(self, key: str, headers: WriteHeaders) -> tuple[BegunUpload, str]:
        """One of no file, and its id. If it is not known to be begun it is looked for later."""
        begun = self.begun_upload()
        try:
            return begun, await begun.begin(key, headers, None)
        except BaseException:
            self._left(begun.leave())
            raise

    def _until_done(self, work: Callable[[], Awaitable[bool]]) -> None:
        """Tries again in the background until it returns True."""

        async def again() -> None:
            delay = FIRST_PAUSE
            while True:
                await trio.sleep(delay)
                if await work():
                    return
                delay = min(LAST_PAUSE, delay * 2)

        if self.nursery is not None:
            self.nursery.start_soon(again)

    def next_part(self) -> int:
        self._started_parts += 1
        return self._started_parts

    def limits(self, capabilities: Capabilities) -> PlanLimits:
        config = self.config
        return PlanLimits(
            single_put_limit=config.single_put_limit,
            min_part_size=config.min_part_size,
            max_part_size=config.max_part_size,
            max_parts=config.max_parts,
            copy_part_size=config.copy_part_size,
            equal=config.equal_parts,
            complete_subset=capabilities.complete_subset,
        )

    # -- pressure

    def relieve(self) -> None:
        """A writer found no room. In this order, each only if those before gave nothing:

        chunks that the bucket has as well are given back; the part sent first of a file still
        being written is dropped, but never a file's first or last; closed files that still wait
        are sent; full slots are sent; where
        nothing is on its way that would free anything, first and last parts are dropped after
        all (a spool smaller than its writers' ends); last, the owner is asked to publish early.
        """
        before = self.spool.pool.charged
        free_before = self.spool.pool.live
        self.spool.release_clean()
        if self.spool.pool.charged < before or self.spool.pool.live < free_before:
            return
        if self._drop_oldest(ends=False):
            return
        if self.on_full is not None and self.on_full():
            return
        uploads = self._of_open_files()
        started = [upload.press() for upload in uploads]
        if any(started) or any(upload.busy for upload in uploads):
            return
        if not self._drop_oldest(ends=True):
            self._ask_to_publish(uploads)

    def _drop_oldest(self, *, ends: bool) -> bool:
        """Drops one part; a dropped chunk is at once free for the writer that waits."""
        candidates = [
            (order, upload, number)
            for upload in self._of_open_files()
            for order, number in upload.droppable(ends)
        ]
        if not candidates:
            return False
        _, upload, number = min(candidates, key=lambda candidate: candidate[0])
        upload.drop(number)
        return True

    def _ask_to_publish(self, uploads: list[FileUpload]) -> None:
        if self.on_early_publish is None or self.config.refuse_early_publish:
            return
        uploads.sort(key=lambda upload: upload.file.dirty.total, reverse=True)
        for upload in uploads:
            if not upload.file.dirty or self._asked == (upload, self._acknowledged):
                return  # no other has more, or it was asked already and nothing has moved since
            if self.on_early_publish(upload):
                self._asked = (upload, self._acknowledged)
                log.warning("the spool is full: %r is published before it is closed", upload.name)
                return
