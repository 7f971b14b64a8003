"""The PUT of a mount that died: what is under its key now decides what is done.

- the version that the file was made from, or one that this mount has written: the PUT goes on,
  on the condition that it is still there;
- exactly what the PUT makes: it was carried out, only its answer was lost;
- an object of ours with other bytes, the PUT of an earlier close: it becomes the base, for all
  that was changed after it is in the spool as well;
- anything else is others' work: the bytes are kept beside it, as in any conflict.
"""

import hashlib
import logging
from dataclasses import replace

import trio

from s3mount.core.errors import FilesystemError
from s3mount.filesystem.damaged import bucket_has, set_aside
from s3mount.filesystem.open_file import OpenFile
from s3mount.namespace import Version
from s3mount.namespace.decoding import attributes_of
from s3mount.readpath import RemoteObject
from s3mount.store.base import (
    Condition,
    ObjectInfo,
    PutResult,
    WriteHeaders,
)
from s3mount.store.errors import (
    NoSuchUpload,
    NotFound,
)
from s3mount.store.integrity import is_md5, multipart_etag
from s3mount.writeback.after_crash import is_newer
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.chunk import CorruptSpool
from s3mount.writeback.intents import ABSENT, Intent
from s3mount.writeback.journal_records import UploadRecord
from s3mount.writeback.looking import is_ours, may_be_ours
from s3mount.writeback.resume import resume_parts

log = logging.getLogger(__name__)

# Read from the spool and hashed at a time, in a thread.
STEP = 4 * 1024 * 1024


class RecoveredPut:
    """Asked before each attempt of its PUT. `uploads`: those that the journal has for the file."""

    def __init__(self, file: OpenFile, intent: Intent, uploads: list[UploadRecord]) -> None:
        self._file = file
        self._intent = intent
        # What attempts before the crash may have stored.
        self.unanswered = [*intent.unanswered, *(record.headers for record in uploads)]
        self._upload = uploads[-1] if uploads else None
        self._resumed = False

    async def look(self, key: str, headers: WriteHeaders) -> PutResult | Condition:
        """The result, if the PUT was carried out; else the condition under which it may be."""
        file = self._file
        try:
            found: ObjectInfo | None = await file.state.store.head(key)
        except NotFound:
            found = None
        if found is not None:
            self._follow_base(key, found)
        damage = await self._resume(headers)
        if found is not None and await self._is_done(found, headers):
            self._end_upload()
            return PutResult(found.etag, found.version_id, found.answered_at)
        if damage is not None:
            raise damage
        if found is None:
            return self._absent(key)
        if self._is_expected(found):
            return Condition(etag=found.etag)
        if may_be_ours(found, [headers, *self.unanswered]):
            log.info("%r: an earlier version of it was stored before the crash", key)
            self._adopt(key, found)
            return Condition(etag=found.etag)
        # The commit meets it as a conflict.
        expected = self._intent.expects
        return Condition(absent=True) if expected in (None, ABSENT) else Condition(etag=expected)

    async def _resume(self, headers: WriteHeaders) -> CorruptSpool | None:
        """Before the first attempt: later ones know what they have sent. Answers what is wrong
        with the bytes that the parts are compared with."""
        file, record = self._file, self._upload
        upload, spooled = file.upload, file.spooled
        if self._resumed or upload is None or spooled is None or upload.upload_id is not None:
            return None
        if record is None or record.upload_id is None:
            if spooled.dropped:
                # Completed, and the journal heard of that but not yet of the end of the PUT.
                await self._find_published(self._intent.key, [headers, *self.unanswered])
            self._resumed = True
            return None
        remote = file.remote
        base = None
        if remote is not None and file.visible:
            base = BaseObject(remote.key, remote.etag, remote.size, remote.version_id)
        state = file.state
        try:
            table = await resume_parts(
                state.store,
                record,
                spooled,
                state.uploader.schedule,
                base=base,
                visible=file.visible,
            )
        except CorruptSpool as error:
            return error
        except NoSuchUpload:
            if spooled.dropped:
                # Perhaps copied onto itself since, for its last attributes.
                await self._find_published(record.key, [headers, *self.unanswered])
            state.journal.end_upload(record.id)
        else:
            upload.resume(record, table)
        self._resumed = True
        return None

    async def damaged(self, error: CorruptSpool) -> FilesystemError:
        """With what the PUT ends, for its bytes are not what was written. Raises FilesystemError
        where that does not end it."""
        file, left = self._file, self._upload
        upload_id = None if file.upload is None else file.upload.upload_id
        if self._resumed or left is None or left.upload_id is None:
            return await set_aside(file, error, upload_id)
        answer = await set_aside(file, error, upload_id or left.upload_id)
        if not (file.spooled is not None and file.spooled.dropped):
            self._end_upload()
        return answer

    def _end_upload(self) -> None:
        """Of an upload that was not taken up, for its parts could not be compared."""
        left, on_left = self._upload, self._file.state.uploader.on_left
        if not self._resumed and left is not None and left.upload_id and on_left is not None:
            self._resumed = True
            on_left(left)

    async def _find_published(self, key: str, headers: list[WriteHeaders]) -> None:
        """The upload that has bytes which left the spool became an object, as nobody else could
        have ended it: the file's, or one that was published early."""
        file = self._file
        upload, spooled = file.upload, file.spooled
        assert upload is not None
        assert spooled is not None
        try:
            found = await file.state.store.head(key)
        except NotFound:
            return
        if not may_be_ours(found, headers) or found.size < spooled.dropped.end:
            return
        log.info("%r: its upload was completed before the crash", key)
        base = BaseObject(key, found.etag, found.size, found.version_id)
        upload.was_published(base, spooled.write_count)

    def _absent(self, key: str) -> Condition:
        """What it was made from is gone: without that an edit is a conflict."""
        remote = self._file.remote
        if self._file.whole or remote is None or remote.key != key:
            return Condition(absent=True)
        return Condition(etag=remote.etag)

    def _follow_base(self, key: str, found: ObjectInfo) -> None:
        """A rename that was carried out before the crash has brought it here."""
        remote = self._file.remote
        if remote is not None and (remote.etag, remote.size) == (found.etag, found.size):
            self._file.remote = RemoteObject(key, found.etag, found.size, found.version_id)

    def _is_expected(self, found: ObjectInfo) -> bool:
        file, expects = self._file, self._intent.expects
        if file.state.is_own(found.key, found.etag, found.last_modified):
            return True
        remote = file.remote
        if remote is not None and remote.key == found.key and remote.etag == found.etag:
            return True
        if file.exclusive or expects is ABSENT:
            return False
        # A whole file replaces what stood there while its mount lived, whatever that was.
        return file.whole and (
            found.etag == expects
            or not is_newer(found.last_modified, found.answered_at, self._intent)
        )

    def _adopt(self, key: str, found: ObjectInfo) -> None:
        file = self._file
        file.exclusive = False
        if file.whole:
            return
        file.remote = RemoteObject(key, found.etag, found.size, found.version_id)
        file.visible = min(file.visible, found.size)
        file.kept = None
        if file.inode.version is not None:
            file.inode.version = Version(
                found.etag, found.size, found.last_modified, found.version_id
            )

    async def _is_done(self, found: ObjectInfo, headers: WriteHeaders) -> bool:
        """Metadata and size alone do not tell: two closes within a tick of the clock have both.

        What was sent may have had other metadata than it has now: those that its upload began
        with, or of before a chmod. That is told by the snapshot, so that a copy follows."""
        file = self._file
        exact = is_ours(found, file.size, headers)
        if not exact and not any(is_ours(found, file.size, sent) for sent in self.unanswered):
            return False
        if exact and await self._is_copy(found):
            return True
        try:
            done = await self._has_its_etag(found)
            if not done:
                await self._check_spool()
        except CorruptSpool:
            done = await bucket_has(file, found)
        if done and not exact and file.snapshot is not None:
            attributes = attributes_of(found, file.state.config.defaults)
            file.snapshot = replace(file.snapshot, attributes=attributes)
        return done

    async def _has_its_etag(self, found: ObjectInfo) -> bool:
        """Raises CorruptSpool."""
        if is_md5(found.etag):
            return found.etag == await self._md5()
        return self._file.upload is not None and found.etag == await self._etag_of_parts()

    async def _check_spool(self) -> None:
        """Raises CorruptSpool where something of the file cannot be sent once more."""
        spooled = self._file.spooled
        if spooled is not None:
            for start in range(0, self._file.size, STEP):
                with spooled.reading():
                    await trio.to_thread.run_sync(spooled.verify, start, start + STEP)

    async def _is_copy(self, found: ObjectInfo) -> bool:
        """Of what was published early, as a whole: only its metadata or its name were not those of
        the file. Its bytes are not here to be compared."""
        upload = self._file.upload
        if upload is None or upload.published is None:
            return False
        base, _ = upload.published
        if base.size != found.size or (base.key, base.etag) == (found.key, found.etag):
            return False
        if base.key == found.key:
            return True
        try:
            left = await self._file.state.store.head(base.key)
        except NotFound:
            return True
        return left.etag != base.etag  # else it is still to be deleted: the commit does both

    async def _md5(self) -> str | None:
        """Of all bytes, if they are all in the spool."""
        file = self._file
        spooled = file.spooled
        if spooled is None or not spooled.present.covers(0, file.size):
            return None
        digest = hashlib.md5(usedforsecurity=False)
        for start in range(0, file.size, STEP):
            with spooled.reading():
                data = spooled.read(start, min(STEP, file.size - start))
                await trio.to_thread.run_sync(digest.update, data)
        return digest.hexdigest()

    async def _etag_of_parts(self) -> str | None:
        """What Complete made of the parts that the journal knows, if they are the whole file."""
        file, record = self._file, self._upload
        if record is None or file.spooled is None:
            return None
        etags: list[str] = []
        position = 0
        for number in sorted(record.parts):
            part = record.parts[number]
            spooled = file.spooled
            if part.start != position:
                return None
            position = part.end
            if any(
                left.covers(part.start, part.end) for left in (spooled.dropped, spooled.published)
            ):
                etags.append(part.etag)  # its bytes are nowhere else, and never changed
                continue
            if not spooled.present.covers(part.start, part.end):
                return None
            data = file.spooled.read(part.start, part.end - part.start)
            digest = await trio.to_thread.run_sync(_md5_of, data)
            if digest != part.etag:
                return None
            etags.append(digest)
        return multipart_etag(etags) if position == file.size and etags else None


def _md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
