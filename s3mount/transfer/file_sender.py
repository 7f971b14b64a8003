"""A local file becomes an object: in one PUT, or in parts that go up side by side straight from
the file, resumed where an earlier process left them.

    sender = FileSender(store, journal, schedule)
    async with sender.room_for(size):                   # memory for what is read at once
        with LocalFile(path, content_up_to=sender.single_put_limit) as file:
            sent = await sender.send(file, key, headers, earlier=record_of_the_journal)
            sent = await sender.resume(record, file)    # of an upload that is there already
"""

import errno
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.part_schedule import PartSchedule
from s3mount.store import integrity
from s3mount.store.base import (
    Part,
    SlicedBody,
    WriteHeaders,
)
from s3mount.store.errors import NoSuchUpload, StoreError
from s3mount.transfer.local_file import FileChanged, LocalFile
from s3mount.transfer.upload_sender import Progress, SentFile, UploadSender
from s3mount.writeback.begun_upload import BegunUpload
from s3mount.writeback.body import SLICE, SLICED_OVER
from s3mount.writeback.journal_records import UploadRecord
from s3mount.writeback.parallel import all_of
from s3mount.writeback.resume import THREADS, part_equals

log = logging.getLogger(__name__)

# Parts of one file at once: whatever a user sets for --transfers, the store's lane decides.
PARALLEL_PARTS = 64


class FileSender(UploadSender):
    """Sends any number of files at once; what they take of memory is bounded together.

    An upload that fails or is cancelled stays, with its parts, for `send` of a later process; the
    journal's reader sees to those that nobody takes (`discard`).
    """

    @asynccontextmanager
    async def room_for(self, size: int) -> AsyncIterator[None]:
        """Around reading and sending a file of `size` bytes, which is in memory as a whole if it
        goes up in one PUT."""
        async with self._memory.holding(size if size <= self.single_put_limit else 0):
            yield

    async def send(
        self,
        file: LocalFile,
        key: str,
        headers: WriteHeaders,
        *,
        earlier: UploadRecord | None = None,
        progress: Progress = lambda amount: None,
    ) -> SentFile:
        """When this returns, `key` is an object of the file's bytes as they were when it was
        opened, with `headers`. Raises FileChanged (nothing is published), FilesystemError EFBIG,
        StoreErrors.

        `earlier`: an unfinished upload of this key; what it has of the file is not sent again, if
        it was begun with the same headers (but for ctime and atime). `progress` is told of bytes
        as the service has them, those that it had already, too.
        """
        if file.size > self.schedule.limit:
            text = f"{file.size} bytes exceed {self.schedule.limit}"
            raise FilesystemError(errno.EFBIG, f"{file.name!r}: {text}")
        if file.content is not None:
            result = await self._store.put(key, file.content, headers)
            progress(file.size)
            if earlier is not None:
                await self.discard(earlier)
            return SentFile(result, file.size)
        if earlier is not None:
            if _same_object(earlier, key, headers):
                try:
                    return await self.resume(earlier, file, progress=progress)
                except NoSuchUpload:
                    self._journal.end_upload(earlier.id)
            else:
                await self.discard(earlier)
        upload = self._upload()
        await upload.begin(key, headers, None)
        return await self._finish(upload, file, self.schedule, {}, progress)

    async def resume(
        self,
        record: UploadRecord,
        file: LocalFile,
        *,
        progress: Progress = lambda amount: None,
    ) -> SentFile:
        """Completes the upload `record` (its id must be known) to an object of the file's bytes;
        only parts that differ from the file are sent. It may be any tool's, with parts of any one
        size; the journal need not know it. The object's metadata is what the upload began with.

        Raises NoSuchUpload, FileChanged, other StoreErrors.
        """
        assert record.upload_id is not None
        listed = await self._store.list_parts(record.key, record.upload_id)
        schedule = schedule_of(listed, self.schedule, file.size)
        if await self._has_too_many(listed, schedule, file.size):
            log.info("upload %s of %r has parts beyond the file", record.upload_id, record.key)
            await self.discard(record)
            raise NoSuchUpload(
                "has parts beyond the end of the file: aborted",
                operation="ListParts",
                key=record.key,
            )
        kept = await self._equal_parts(record, listed, file, schedule)
        log.info("upload %s: %d of %d parts are kept", record.upload_id, len(kept), len(listed))
        upload = self._upload()
        upload.adopt(record)
        return await self._finish(upload, file, schedule, kept, progress)

    async def discard(self, record: UploadRecord) -> None:
        """Aborts an upload that nobody will go on with. What cannot be done now stays in the
        journal; so does one whose id was never learnt (see recovery.LeftUploads)."""
        if record.upload_id is not None:
            upload = self._upload()
            upload.adopt(record)
            await upload.abort()

    # -- resuming

    async def _has_too_many(
        self, listed: Sequence[Part], schedule: PartSchedule, size: int
    ) -> bool:
        """Whether there are parts that the finished object must not have, and the service minds."""
        numbers = {slot + 1 for slot in schedule.slots(size)}
        if numbers and all(part.number in numbers for part in listed):
            return False
        return not numbers or not (await self._store.capabilities()).complete_subset

    async def _equal_parts(
        self,
        record: UploadRecord,
        listed: Sequence[Part],
        file: LocalFile,
        schedule: PartSchedule,
    ) -> dict[int, Part]:
        """Those that have the bytes of the file in their place; by MD5 or checksum."""
        kept: dict[int, Part] = {}

        async def look(part: Part) -> None:
            start, end = _bounds(schedule, part.number, file.size)
            known = record.parts.get(part.number)
            if part.size != end - start:
                return
            if known is not None and (known.start, known.end) != (start, end):
                known = None
            body = _PartBody(file, start, end).body
            async with self._memory.holding(min(part.size, 2 * SLICE)):
                if await trio.to_thread.run_sync(part_equals, part, known, body):
                    kept[part.number] = part

        await all_of([partial(look, part) for part in listed], THREADS)
        return kept

    # -- sending

    async def _finish(
        self,
        upload: BegunUpload,
        file: LocalFile,
        schedule: PartSchedule,
        kept: Mapping[int, Part],
        progress: Progress,
    ) -> SentFile:
        parts = dict(kept)
        for part in kept.values():
            progress(part.size)

        async def send(number: int, start: int, end: int) -> None:
            parts[number] = await self._send_bytes(upload, file, number, start, end)
            progress(end - start)

        missing = [
            partial(send, slot + 1, *_bounds(schedule, slot + 1, file.size))
            for slot in schedule.slots(file.size)
            if slot + 1 not in kept
        ]
        try:
            await all_of(missing, PARALLEL_PARTS)
            await trio.to_thread.run_sync(file.check)
            result = await self._complete(upload, parts)
        except FileChanged:
            await upload.abort()  # its metadata is that of another state
            raise
        except StoreError:
            await self._raise_if_changed(upload, file)
            raise
        kept_bytes = sum(part.size for part in kept.values())
        return SentFile(result, file.size - kept_bytes, kept_bytes)

    async def _raise_if_changed(self, upload: BegunUpload, file: LocalFile) -> None:
        """A body that changed between its checksum and its sending is refused as damaged."""
        try:
            await trio.to_thread.run_sync(file.check)
        except FileChanged:
            await upload.abort()
            raise

    async def _send_bytes(
        self, upload: BegunUpload, file: LocalFile, number: int, start: int, end: int
    ) -> Part:
        size = end - start
        async with self._memory.holding(size if size <= SLICED_OVER else 2 * SLICE):
            source = _PartBody(file, start, end)
            return await self._send_part(
                upload, number, start, end, source.body, lambda: source.checksum
            )


class _PartBody:
    """Read in the thread that hashes and sends it. Small enough, it stays in memory from the
    first reading on, for sending and for every attempt; else each reads it anew, in slices.

    `checksum`: CRC32C, base64, of what was read last from beginning to end.
    """

    def __init__(self, file: LocalFile, start: int, end: int) -> None:
        self._file = file
        self._start = start
        self._whole: bytes | None = None
        self._crc = integrity.RunningCrc32c()
        size = end - start
        sliced = size > SLICED_OVER
        self.body = SlicedBody(
            size, self._slice if sliced else self._held, SLICE if sliced else size
        )

    @property
    def checksum(self) -> str:
        return self._crc.text

    def _held(self, offset: int, length: int) -> bytes:
        if self._whole is None:
            self._whole = self._slice(offset, length)
        return self._whole

    def _slice(self, offset: int, length: int) -> bytes:
        data = self._file.read(self._start + offset, length)
        if offset == 0:
            self._crc = integrity.RunningCrc32c()
        self._crc.update(data)
        return data


def _bounds(schedule: PartSchedule, number: int, size: int) -> tuple[int, int]:
    start, end = schedule.bounds(number - 1)
    return start, min(end, size)


def schedule_of(listed: Sequence[Part], ours: PartSchedule, size: int) -> PartSchedule:
    """How the parts of an upload were cut: as ours, or, by another tool, all to one size."""
    if all(part.size == _length(ours, part.number, size) for part in listed):
        return ours
    by_number = sorted(listed, key=lambda part: part.number)
    sizes = {part.size for part in by_number[:-1]} or {by_number[0].size}
    if len(sizes) > 1 or (len(by_number) == 1 and by_number[0].number > 1):
        return ours
    (part_size,) = sizes
    if part_size <= 0 or part_size * ours.max_parts < size:
        return ours
    return PartSchedule(part_size, ours.max_parts, ours.limit, equal=True)


def _length(schedule: PartSchedule, number: int, size: int) -> int:
    start, end = _bounds(schedule, number, size)
    return max(0, end - start)


# What is of the moment at which a file is sent, not of the file.
_PASSING = ("ctime", "atime")


def _same_object(record: UploadRecord, key: str, headers: WriteHeaders) -> bool:
    """Whether the upload, completed, is what is wanted now."""
    if record.upload_id is None or record.key != key:
        return False
    return _lasting(record.headers) == _lasting(headers)


def _lasting(headers: WriteHeaders) -> WriteHeaders:
    metadata = {name: value for name, value in headers.metadata.items() if name not in _PASSING}
    return replace(headers, metadata=metadata)
