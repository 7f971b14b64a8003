"""One unfinished multipart upload, in the journal from before its creation is asked for until it
is known to be gone."""

import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial

import trio

from s3mount.core.errors import FilesystemError
from s3mount.store.base import (
    ObjectStore,
    WriteHeaders,
)
from s3mount.store.errors import StoreError
from s3mount.store.retry import unclear_attempts
from s3mount.writeback.journal import Journal
from s3mount.writeback.journal_records import PartRecord, UploadRecord
from s3mount.writeback.part_table import SentPart

log = logging.getLogger(__name__)


def _ids() -> Iterator[int]:
    """Ids that no earlier process on the same journal has given, whose uploads are in it still."""
    last = 0
    for _ in itertools.count():
        last = max(last + 1, time.time_ns())
        yield last


_new_id = _ids()


class BegunUpload:
    """`key`, `headers`: those of the upload, set before its creation is answered; None without.

    An upload whose creation has no answer may be there all the same: its record stays, and goes to
    `left` as soon as another upload is begun in its place, or nobody wants one any more (`leave`);
    at once, if it was an attempt before the one that was answered.
    """

    def __init__(
        self,
        store: ObjectStore,
        journal: Journal,
        again: Callable[[Callable[[], Awaitable[bool]]], None],
        left: Callable[[UploadRecord], None],
    ) -> None:
        """`again(work)` calls `work` later, until it returns True; `left` sees to the end of an
        upload that may have been begun, which the journal still names."""
        self.key: str | None = None
        self.headers: WriteHeaders | None = None
        self.upload_id: str | None = None
        self._store = store
        self._journal = journal
        self._again = again
        self._left = left
        self._unanswered = False  # the creation of what the record names
        self._record: UploadRecord | None = None

    async def begin(self, key: str, headers: WriteHeaders, file: int | None) -> str:
        """Records the upload, for the FileRecord `file`, creates it and records its id, on the disk
        when this returns: an upload that has parts is aborted by nobody who does not know it.
        Raises StoreError, and FilesystemError where it cannot be recorded."""
        # Known before the request is answered: from here on they cannot change.
        self.key, self.headers = key, headers
        try:
            record = await self._recorded(key, headers, file)
            # Not to be given up half way: without its id it could not be aborted.
            with trio.CancelScope(shield=True), unclear_attempts() as unclear:
                upload_id = self.upload_id = await self._store.create_upload(key, headers)
                await self._learn(record, upload_id, others=bool(unclear))
        except BaseException as error:
            self.key = self.headers = None
            certain = isinstance(error, StoreError) and not (error.ambiguous or error.transient)
            if certain:
                self._end()
            elif not isinstance(error, StoreError) or error.ambiguous:
                self._unanswered = True
            raise
        return upload_id

    async def _learn(self, record: UploadRecord, upload_id: str, *, others: bool) -> None:
        """`others`: attempts before the one that was answered may have begun uploads, too. They
        stay recorded as one whose id is not known."""
        other = replace(record, id=next(_new_id), file=None, parts={}) if others else None
        try:
            with self._journal.transaction():
                if other is not None:
                    self._journal.begin_upload(other)
                self._journal.learn_upload(record.id, upload_id)
            await self._journal.sync()
        except FilesystemError as error:
            log.warning("upload %s of %r is not in the journal: %s", upload_id, record.key, error)
        if other is not None:
            self._left(other)

    async def _recorded(self, key: str, headers: WriteHeaders, file: int | None) -> UploadRecord:
        known = self._record
        if known is not None and not self._unanswered:
            if (known.key, known.headers, known.file) == (key, headers, file):
                return known
            self._end()  # its creation has failed
        elif known is not None:
            self._record, self._unanswered = None, False
            self._left(known)
        record = UploadRecord(next(_new_id), file, key, headers, None, time.time())
        self._journal.begin_upload(record)
        self._record = record
        try:
            await self._journal.sync()
        except BaseException:
            self._end()  # its creation was not asked for
            raise
        return record

    def adopt(self, record: UploadRecord) -> None:
        """Goes on with the upload of an earlier process, whose id is known."""
        self.key, self.headers, self.upload_id = record.key, record.headers, record.upload_id
        self._record = record

    def has(self, sent: SentPart, checksum: str | None) -> bool:
        """The service has this part; whether the journal knows it, too."""
        if self._record is None:
            return False
        part = PartRecord(
            sent.part.number, sent.start, sent.end, sent.part.etag, checksum, sent.base
        )
        try:
            self._journal.write_part(self._record.id, part)
        except FilesystemError as error:
            log.warning("part %d of %r is not in the journal: %s", part.number, self.key, error)
            return False
        return True

    def ended(self) -> None:
        """It is completed, or gone."""
        self.key = self.headers = self.upload_id = None
        self._end()

    def _end(self) -> None:
        record, self._record = self._record, None
        if record is not None:
            self._record_gone(record)

    def leave(self) -> UploadRecord | None:
        """The record, if there is one without an upload that is known: nobody uses it any more."""
        if self.upload_id is not None or self._record is None:
            return None
        record, self._record = self._record, None
        self._unanswered = False
        return record

    def keep(self) -> None:
        """It stays as it is; so does its record, for a later mount to end it."""
        self.key = self.headers = self.upload_id = self._record = None

    async def abort(self) -> None:
        """Where that cannot be done now it is tried again behind; what the process does not get
        done the journal's next reader does. Nothing without an upload."""
        key, upload_id, record = self.key, self.upload_id, self._record
        self.key = self.headers = self.upload_id = self._record = None
        if key is None or upload_id is None:
            self._record = record  # perhaps one whose creation was not answered
            return
        work = partial(self._abort, key, upload_id, record)
        if not await work():
            self._again(work)

    async def _abort(self, key: str, upload_id: str, record: UploadRecord | None) -> bool:
        """False: to be tried again."""
        try:
            await self._store.abort_upload(key, upload_id)
        except StoreError as error:
            log.warning("upload %s of %r was not aborted: %s", upload_id, key, error)
            return not error.transient
        if record is not None:
            self._record_gone(record)
        return True

    def _record_gone(self, record: UploadRecord) -> None:
        try:
            self._journal.end_upload(record.id)
        except FilesystemError as error:
            # At the next start it is found to be gone.
            log.warning("the end of the upload of %r is not in the journal: %s", record.key, error)
