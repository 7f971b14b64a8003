"""Multipart uploads that no file needs any more, or may never have been begun: aborted.

A mount that died has left them, or the creation of one was never answered.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

import trio

from s3mount.core.errors import FilesystemError
from s3mount.store.base import (
    ObjectStore,
    Part,
    Upload,
)
from s3mount.store.errors import (
    NoSuchUpload,
    StoreError,
)
from s3mount.writeback.begun_upload import BegunUpload
from s3mount.writeback.journal import Journal
from s3mount.writeback.journal_records import UploadRecord

log = logging.getLogger(__name__)

# An upload whose id was never learnt is not aborted before: the request may still be on its way
# through a proxy, or a clock be wrong.
ABORT_AFTER = 3600.0
# The request with all its retries is over after 60 s (StoreConfig.request_deadline); clocks.
WINDOW = 120.0
# Between looks at what could not be tidied up yet.
TIDY_INTERVAL = 600.0


class LeftUploads:
    """Uploads that no file needs any more. `report` lists, for status, those that stay."""

    def __init__(
        self, store: ObjectStore, journal: Journal, in_use: Callable[[], Collection[str]]
    ) -> None:
        """`in_use`: the ids of uploads that files need now."""
        self.report: list[str] = []
        self._in_use = in_use
        self._store = store
        self._journal = journal
        self._left: list[UploadRecord] = []
        self._probes: list[UploadRecord] = []  # of `_left`, begun by `_initiator`
        self._again: list[Callable[[], Awaitable[bool]]] = []  # aborts of such, not done yet
        self._more = trio.Event()
        self._tried = trio.Event()
        self._tried.set()

    def add(self, record: UploadRecord) -> None:
        """To be ended, and until then in the journal."""
        self._left.append(record)
        if self._tried.is_set():
            self._tried = trio.Event()
        self._more.set()

    async def tried(self) -> None:
        """Returns when each that was added was ended, or could not be for now; see `report`."""
        await self._tried.wait()

    async def run(self) -> None:
        """Until cancelled; what fails is tried again later."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            for record in list(self._left):
                try:
                    if await self._end(record):
                        self._left.remove(record)
                        self._journal.end_upload(record.id)
                except (StoreError, FilesystemError) as error:
                    log.warning("upload of %r left behind: %s", record.key, error)
            self._again = [work for work in self._again if not await work()]
            self.report = [_describe(record) for record in self._left]
            if self._more.is_set():
                continue
            self._tried.set()
            if self._left or self._again:
                with trio.move_on_after(TIDY_INTERVAL):
                    await self._more.wait()
                self._more.set()

    async def _end(self, record: UploadRecord) -> bool:
        if record.upload_id is not None:
            await self._store.abort_upload(record.key, record.upload_id)
            log.info("upload %s of %r, left by a crash, is aborted", record.upload_id, record.key)
            return True
        return await self._end_unknown(record)

    async def _end_unknown(self, record: UploadRecord) -> bool:
        """Its id was never learnt. Aborted is only what can be no one else's: begun by us within
        the time in which our request was on its way, an hour ago, and without a part."""
        if time.time() < record.begun_at + ABORT_AFTER:
            return False
        found = [
            one
            for one in await self._store.list_uploads(record.key)
            if _may_be(one, record) and one.upload_id not in self._in_use()
        ]
        if not found:
            return True
        if any(one in self._left and one is not record for one in self._probes):
            return False
        initiator = await self._initiator(record)
        for one in found:
            if initiator is None or one.initiator != initiator:
                log.warning("%s: not ours for certain, so it is left alone", _describe_upload(one))
            elif await self._parts(one):
                log.warning("%s: it has parts, so it is left alone", _describe_upload(one))
            else:
                await self._store.abort_upload(one.key, one.upload_id)
                log.info("%s, left by a crash, is aborted", _describe_upload(one))
        return True

    async def _initiator(self, record: UploadRecord) -> str | None:
        """Who begins our uploads, by the service's name: told by one begun for that, which is in
        the journal as any other until it is gone."""
        probe = BegunUpload(self._store, self._journal, self._again.append, self._unclear)
        try:
            upload_id = await probe.begin(record.key, record.headers, None)
            try:
                uploads = await self._store.list_uploads(record.key)
            finally:
                with trio.CancelScope(shield=True):
                    await probe.abort()
        finally:
            unanswered = probe.leave()
            if unanswered is not None:
                self._unclear(unanswered)
        mine = [one.initiator for one in uploads if one.upload_id == upload_id]
        return mine[0] if mine else None

    def _unclear(self, probe: UploadRecord) -> None:
        """Perhaps it was begun. Until that is known no other is."""
        self._probes.append(probe)
        self.add(probe)

    async def _parts(self, upload: Upload) -> Sequence[Part]:
        try:
            return await self._store.list_parts(upload.key, upload.upload_id)
        except NoSuchUpload:
            return []


def _may_be(upload: Upload, record: UploadRecord) -> bool:
    return (
        upload.key == record.key
        and record.begun_at - WINDOW <= upload.initiated <= record.begun_at + WINDOW
    )


def _describe(record: UploadRecord) -> str:
    if record.upload_id is not None:
        return f"upload {record.upload_id} of {record.key!r} is to be aborted"
    begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.begun_at))
    return f"an upload of {record.key!r} may have been begun at {begun}; its id is not known"


def _describe_upload(upload: Upload) -> str:
    return f"upload {upload.upload_id} of {upload.key!r}"


def of_file(uploads: Iterable[UploadRecord], file: int | None) -> list[UploadRecord]:
    """The oldest first."""
    return sorted((one for one in uploads if one.file == file), key=lambda one: one.id)
