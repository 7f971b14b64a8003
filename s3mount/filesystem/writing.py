"""Changing the size of a file that is open, and what it leaves behind; see open_file.py.

Nothing here awaits between reading and changing the file's fields but under its lock.
"""

import errno
from typing import TYPE_CHECKING

from s3mount.core.errors import FilesystemError

if TYPE_CHECKING:
    from s3mount.filesystem.open_file import OpenFile

# Chunks that a file needs to grow to any size: its first, its last, and one between them, which is
# sent and given back.
BEGINNING = 3


def unreserve(file: "OpenFile", before: int, offset: int, end: int, sent: int) -> None:
    """A write of [offset, end) failed: the file ends where it ended, or its last bytes do."""
    stored = [] if file.spooled is None else file.spooled.present.within(offset, end)
    if file.size == end:
        file.size = max(before, stored[-1][1] if stored else 0)
    file.visible = min(file.visible, file.size)
    # A commit meanwhile took the reserved end for the file's own.
    committed = file.sent != sent or file.snapshot is not None
    if stored or committed or file.size != before:
        file.changed()
        file.touch()


async def room_to_begin(file: "OpenFile") -> None:
    """The old bytes are about to be thrown away, and their PUT is not done: then it stands still
    until the new ones are closed, and what it names stays in the spool. Waits as `write` does for
    room beside that, or for the PUT: once the new bytes need the room nothing would give it."""
    spool, spooled = file.state.spool, file.spooled
    if spooled is not None and file.put is not None:
        await spool.until(lambda: file.put is None or spool.pool.has_room(BEGINNING), spooled)


async def truncate_file(file: "OpenFile", size: int) -> None:
    if size > file.state.config.writeback.max_object_size:
        raise FilesystemError(errno.EFBIG, "larger than the service's largest object")
    if size == file.size and not (size == 0 and file.visible):
        file.touch()  # the caller sees to it that the times reach the bucket
        return
    if 0 < size < file.size:
        await file.publish_if_dropped(0, file.size)
    async with file.lock:
        if size == 0:
            await _forget_bytes(file)
        elif file.spooled is not None:
            file.spooled.truncate(size)
        file.visible = min(file.visible, size)
        file.size = size
        file.changed()
        file.touch()


async def _forget_bytes(file: "OpenFile") -> None:
    """O_TRUNC: nothing of the old content matters any more, uploaded parts neither; but to the
    journal, which has what was closed before until the next close is recorded."""
    file.whole = True
    put = file.put
    file.rewriting = put is not None and any(handle.writable for handle in file.handles)
    if file.rewriting and put is not None and not put.blocks and not put.attempts:
        # It holds up nothing any more; its record stays (FileRecords.park).
        file.state.queue.cancel(put)
    upload, spooled = file.upload, file.spooled
    file.upload = file.spooled = None
    file.records.begin_anew()
    if upload is not None:
        await upload.abandon()
    if spooled is not None:
        spooled.close()
