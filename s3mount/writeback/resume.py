"""Which parts of an earlier process's upload are right and need not be sent again."""

import errno
import logging
from functools import partial

import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.part_schedule import PartSchedule
from s3mount.store import integrity
from s3mount.store.base import (
    Body,
    ObjectStore,
    Part,
)
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.body import CommitSuperseded, FileBody
from s3mount.writeback.chunk import CorruptSpool
from s3mount.writeback.journal_records import PartRecord, UploadRecord
from s3mount.writeback.parallel import all_of
from s3mount.writeback.part_table import PartTable, SentPart
from s3mount.writeback.spooled_file import SpooledFile

log = logging.getLogger(__name__)

# Parts read and hashed at once: MD5 takes a core each.
THREADS = 4


async def resume_parts(
    store: ObjectStore,
    upload: UploadRecord,
    file: SpooledFile,
    schedule: PartSchedule,
    *,
    base: BaseObject | None = None,
    visible: int = 0,
) -> PartTable:
    """What the service has of `upload` and whether it equals `file`, for FileUpload.resume.

    A part is kept if its bytes are here and have the MD5 that its ETag is, or its checksum,
    whether the journal knows the part or not; if its bytes are only there, its ETag must be the
    journal's; if it was copied from `base`, of which `visible` bytes still show, nothing newer
    may lie on it. All others are in the table as in doubt, and are sent again.

    Raises NoSuchUpload; FilesystemError EIO where bytes that exist only as a part of it are not
    there as the journal has them; CorruptSpool; other StoreErrors.
    """
    assert upload.upload_id is not None
    listed = {part.number: part for part in await store.list_parts(upload.key, upload.upload_id)}
    table = PartTable(file, schedule)
    _check_dropped(upload, file, schedule, listed)
    limiter = trio.CapacityLimiter(THREADS)

    async def look(part: Part) -> None:
        known = upload.parts.get(part.number)
        if known is not None and known.end - known.start != part.size:
            known = None  # sent again since, by a request that was never answered
        start, end = _bounds(schedule, part, known)
        stamp = await _stamp_if_equal(file, part, known, start, end, base, visible, limiter)
        table.attempt(part.number, start, end)
        if stamp is not None:
            sent_base = None if known is None else known.base
            local = file.present.covers(start, end)
            sent = SentPart(part, start, end, stamp, None if local else sent_base)
            table.acknowledge(part.number, sent, droppable=known is not None and local)

    await all_of([partial(look, part) for part in listed.values()], THREADS)
    log.info(
        "upload %s of %r: %d of %d parts are kept",
        upload.upload_id,
        upload.key,
        len(table.sent),
        len(listed),
    )
    return table


def _bounds(schedule: PartSchedule, part: Part, known: PartRecord | None) -> tuple[int, int]:
    if known is not None:
        return known.start, known.end
    start, _ = schedule.bounds(part.number - 1)
    return start, start + part.size


def _check_dropped(
    upload: UploadRecord, file: SpooledFile, schedule: PartSchedule, listed: dict[int, Part]
) -> None:
    """Bytes that left the spool must be where the journal says."""
    for start, end in file.dropped:
        for slot in range(schedule.slot_of(start), schedule.slot_of(end - 1) + 1):
            number = slot + 1
            known, there = upload.parts.get(number), listed.get(number)
            if known is None or there is None or there.etag != known.etag:
                raise FilesystemError(
                    errno.EIO, f"{upload.key!r}: part {number}, whose bytes are only there, is gone"
                )


async def _stamp_if_equal(
    file: SpooledFile,
    part: Part,
    known: PartRecord | None,
    start: int,
    end: int,
    base: BaseObject | None,
    visible: int,
    limiter: trio.CapacityLimiter,
) -> int | None:
    """The stamp as of which the part equals the file (see SentPart); None if it does not."""
    stamp = file.write_count
    if file.present.covers(start, end):
        return await _compared(file, part, known, start, end, limiter)
    same = known is not None and known.etag == part.etag
    if file.dropped.overlaps(start, end):
        # Checked to be the journal's. Where only some of it is dropped the rest is newer here.
        return stamp if same and file.dropped.covers(start, end) else None
    copied = (
        same
        and known is not None
        and base is not None
        and known.base == base.etag
        and end <= visible
        and not file.present.overlaps(start, end)
        and not file.published.overlaps(start, end)
    )
    return stamp if copied else None


async def _compared(
    file: SpooledFile,
    part: Part,
    known: PartRecord | None,
    start: int,
    end: int,
    limiter: trio.CapacityLimiter,
) -> int | None:
    body = FileBody(
        file, file.spool, start, end, base=None, since=file.write_count, limiter=limiter
    )
    try:
        async with body:
            equal = await trio.to_thread.run_sync(
                part_equals, part, known, body.body, limiter=limiter
            )
            return body.stamp if equal else None
    except CommitSuperseded:
        return None
    except CorruptSpool:
        # Damaged here, but the service has what was written: its part was never in doubt since.
        if known is None or body.checksum is None:
            raise
        if (known.etag, known.checksum) != (part.etag, body.checksum):
            raise
        log.warning("part %d is damaged here, and right on the server", part.number)
        return body.stamp


def part_equals(part: Part, known: PartRecord | None, body: Body) -> bool:
    """Whether a part that the service lists has these bytes; in a worker thread.

    Where ETags are no MD5s and the service tells no checksum, the journal's checksum counts, if
    the part is the one that it has it of.
    """
    if integrity.is_md5(part.etag) and integrity.md5(body) == part.etag:
        return True
    checksum = part.checksum
    if checksum is None and known is not None and known.etag == part.etag:
        checksum = known.checksum
    return checksum is not None and integrity.crc32c(body) == checksum
