"""One part on its way to the service while its file is still being written."""

import errno
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from s3mount.core.errors import FilesystemError
from s3mount.store.errors import (
    NoSuchUpload,
    StoreError,
)
from s3mount.writeback.body import CommitSuperseded, FileBody
from s3mount.writeback.part_sending import send_part

if TYPE_CHECKING:
    from s3mount.writeback.file_upload import FileUpload

log = logging.getLogger(__name__)

FIRST_DELAY, LAST_DELAY = 1.0, 30.0  # between tries of a part in the background


@dataclass(slots=True, eq=False)
class Flight:
    """A part being sent in the background."""

    number: int
    start: int
    end: int
    order: int  # of all parts by when they were full
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    body: FileBody | None = None
    resting: bool = False  # between two tries

    async def fly(self, upload: "FileUpload") -> None:
        """Sends the part, again and again while the failure is transient; never raises."""
        try:
            with self.scope:
                await self._try_until_sent(upload)
        finally:
            upload.landed(self)
            self.done.set()
            upload.uploader.spool.wake()

    async def _try_until_sent(self, upload: "FileUpload") -> None:
        delay = FIRST_DELAY
        while True:
            upload_id = None
            try:
                upload_id = await upload.ensure_upload()
                await send_part(upload, self.number, self.start, self.end, None, flight=self)
            except CommitSuperseded:
                return
            except NoSuchUpload as error:
                if upload.committing:
                    return
                if upload.file.dropped:
                    upload.fail(FilesystemError(errno.EIO, f"parts already sent are gone: {error}"))
                    return
                upload.failed(error)
                if upload_id == upload.upload_id:
                    upload.forget_upload()
            except StoreError as error:
                if not error.transient:
                    upload.fail(error)
                    return
                upload.failed(error)
            except (FilesystemError, OSError) as error:
                upload.fail(error)
                return
            else:
                return
            if upload.committing:
                return  # the commit sends it itself
            log.warning("part %d: %s; tried again in %.0f s", self.number, upload.error, delay)
            self.resting = True
            await trio.sleep(delay)
            self.resting = False
            delay = min(LAST_DELAY, delay * 2)
