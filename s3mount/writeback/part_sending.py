"""One part of a file's upload: read from the spool, sent, and acknowledged."""

from typing import TYPE_CHECKING

from s3mount.writeback.body import SLICE, SLICED_OVER, BaseView, FileBody
from s3mount.writeback.part_table import SentPart

if TYPE_CHECKING:
    from s3mount.writeback.file_upload import FileUpload
    from s3mount.writeback.flight import Flight


async def send_part(
    upload: "FileUpload",
    number: int,
    start: int,
    end: int,
    base: BaseView | None,
    *,
    etag: str | None = None,
    since: int | None = None,
    flight: "Flight | None" = None,
) -> None:
    """Sends [start, end) of what the commit that runs sends, or of the file for a `flight`, as
    part `number` of the unfinished upload; without `base` all of it must be present.

    `etag`: that of the base. `since`: see FileBody.
    """
    uploader, file = upload.uploader, upload.source if flight is None else upload.file
    weight = end - start if end - start <= SLICED_OVER else 2 * SLICE
    async with uploader.memory.holding(weight):
        body = FileBody(
            file,
            uploader.spool,
            start,
            end,
            base=base,
            since=file.write_count if since is None else since,
            limiter=uploader.readers,
        )
        if flight is not None:
            flight.body = body
        async with body:
            assert upload.key is not None
            assert upload.upload_id is not None
            upload.table.attempt(number, start, end)
            with upload.traffic.sending(start, end):
                part = await uploader.store.upload_part(
                    upload.key, upload.upload_id, number, body.body, check=body.check
                )
            assert body.stamp is not None
            checksum = body.checksum_of(part, upload.key)
            known_base = None if body.pure else etag or ""
            order = uploader.next_part() if flight is None else flight.order
            sent = SentPart(part, start, end, body.stamp, known_base, order)
            upload.acknowledge(number, sent, checksum)
