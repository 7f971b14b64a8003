"""Commits whose answer was lost: looked at before the next attempt, which they may spare.

What an earlier attempt has stored is ours: a condition that fails because of it is no conflict.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from s3mount.store.base import PutResult
from s3mount.store.errors import (
    PreconditionFailed,
    StoreError,
)
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.doubts import Doubts, Sent
from s3mount.writeback.looking import find_ours

if TYPE_CHECKING:
    from s3mount.writeback.commit import Commit
    from s3mount.writeback.file_upload import FileUpload

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request that was to make an object of the file as it was at `stamp` (see FileBody)."""

    key: str
    sent: Sent
    stamp: int
    replaced: str | None = None  # the ETag of the version that it was to replace
    completes: bool = False  # the unfinished upload, which is gone if it was carried out
    stage: bool = False  # an object that only a further request makes the file


class LostAnswers:
    """Of one file; used under its commit lock.

    `leftover`: where a commit has published, and the file is no more: it is deleted once the
    file's object is there.
    """

    def __init__(self, doubts: Doubts) -> None:
        self.leftover: str | None = None
        self._doubts = doubts
        self._last: Unanswered | None = None

    @contextmanager
    def request(
        self,
        key: str,
        sent: Sent,
        stamp: int,
        *,
        replaced: str | None = None,
        completes: bool = False,
        stage: bool = False,
    ) -> Iterator[None]:
        """Around a request that makes an object of the file; see Unanswered."""
        try:
            with self._doubts.of([key], sent):
                yield
        except (StoreError, trio.Cancelled) as error:
            if not isinstance(error, StoreError) or error.ambiguous:
                self._last = Unanswered(key, sent, stamp, replaced, completes, stage)
            raise
        if self._last is not None and self._last.key == key:
            self._last = None  # what it made, if anything, is replaced by now

    def know_etag(self, etag: str) -> None:
        """That of the object which the request without an answer was to make, where ETags are
        MD5s. Its metadata alone may be those of a version before it: a chmod that had not begun
        when the file was written again has stored the newest attributes."""
        last = self._last
        if last is not None:
            sent = replace(last.sent, etags=(etag,))
            self._doubts.know(last.key, last.sent, sent)
            self._last = replace(last, sent=sent)

    async def carry_out(self, work: "Commit", upload: "FileUpload") -> PutResult:
        again = self._last.sent if self._last is not None and work.repeats(self._last) else None
        await self._doubts.settle(work.key, again=again)
        result = await self._take_up(work, upload)
        if result is None:
            try:
                result = await work.run()
            except PreconditionFailed:
                # The old request may have been carried out between the look and the new one.
                before = self._last
                result = await self._take_up(work, upload)
                if result is None and self._last is before:
                    raise
                if result is None:
                    result = await work.again().run()
        await self._delete_leftover(work, upload, result)
        self._last = None
        return result

    async def _take_up(self, work: "Commit", upload: "FileUpload") -> PutResult | None:
        """Answers for `work` if the request without an answer did just that; if it made another
        object of this file the commit builds on that."""
        done = self._last
        if done is None:
            return None
        found = await find_ours(
            upload.uploader.store,
            done.key,
            done.sent.size,
            done.sent.headers,
            done.sent.etags,
            replaced=done.replaced,
            strict=work.unconditional,
        )
        if found is None:
            return None
        log.info("%r was stored by the request whose answer was lost", done.key)
        if work.repeats(done):
            if done.completes:
                upload.forget_upload()
            await upload.end_upload()
            return found
        self._last = None
        base = BaseObject(done.key, found.etag, done.sent.size, found.version_id)
        upload.was_published(base, done.stamp)
        if done.completes:
            upload.forget_upload()
        return None

    async def _delete_leftover(
        self, work: "Commit", upload: "FileUpload", result: PutResult
    ) -> None:
        if self.leftover is not None and self.leftover != work.key:
            # Should this fail the next attempt finds the file's object as after a lost answer.
            self._last = work.as_unanswered(result)
            await self._doubts.settle(self.leftover, deleting=True)
            with self._doubts.of([self.leftover], deletes=True):
                await upload.uploader.store.delete(self.leftover)
        self.leftover = None
