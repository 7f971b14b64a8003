"""A file of a mount that died, whose bytes the local disk does not have as they were written.

With durability=close that is what a power cut leaves of a close in progress, which was never
acknowledged: its record is on the disk before its chunk files are. With durability=journal the
disk has damaged what it had taken. Either way no later attempt does better: unless the bucket has
the bytes, what can be read of them is set aside, and the PUT is given up.
"""

import errno
import shlex
from typing import TYPE_CHECKING

import trio

from s3mount.core.errors import FilesystemError
from s3mount.readpath import RemoteObject
from s3mount.store.base import ObjectInfo
from s3mount.writeback.chunk import BLOCK, DISK_FULL, Chunk, CorruptSpool, crc32c
from s3mount.writeback.outcomes import Unsendable
from s3mount.writeback.recoverable import Recoverable, RecoverableFile

if TYPE_CHECKING:
    from s3mount.filesystem.open_file import OpenFile

# Of the object, compared at a time.
STEP = 64 * BLOCK


async def bucket_has(file: "OpenFile", found: ObjectInfo) -> bool:
    """Whether the object holds what was written to `file`: told by the checksums that the journal
    has of it, for the file's own copy cannot be read. StoreError."""
    spooled = file.spooled
    if found.size != file.size or spooled is None or not spooled.present.covers(0, file.size):
        return False
    remote = RemoteObject(found.key, found.etag, found.size, found.version_id)
    position = 0
    for chunk, low, high in spooled.pieces(0, file.size):
        for start in range(low, high, STEP):
            end = min(start + STEP, high)
            data = await file.state.readpath.fetch_range(remote, position, end - start)
            if not _fits(chunk, start, memoryview(data)):
                return False
            position += end - start
    return True


def _fits(chunk: Chunk, start: int, data: memoryview) -> bool:
    """`data` begins at a block. What is filled behind it is no part of the file."""
    for low in range(0, len(data), BLOCK):
        block = (start + low) // BLOCK
        piece = data[low : low + BLOCK]
        if chunk.filled[block] != len(piece) or crc32c(piece) != chunk.crcs[block]:
            return False
    return True


async def set_aside(
    file: "OpenFile", error: CorruptSpool, upload_id: str | None
) -> FilesystemError:
    """Keeps what can be read of what the journal has of `file`; answers the error that ends its
    PUT. What has left the spool is in the upload, which then stays. Raises FilesystemError where
    the rest cannot be kept, or is there after all."""
    state, record, upload = file.state, file.records.closed, file.upload
    if record is None:
        raise error
    kept = Recoverable(state.config.cache_dir / "recoverable")
    spool = state.config.writeback.spool_dir
    try:
        entry = await trio.to_thread.run_sync(kept.add, record, spool, upload_id)
    except OSError as failure:
        raise FilesystemError(
            failure.errno if failure.errno in DISK_FULL else errno.EIO,
            f"{error.args[0]}, and what is left of it cannot be set aside: {failure}",
        ) from error
    if entry is None or entry.bytes == sum(end - start for start, end in record.spool.present):
        if entry is not None:
            kept.drop(entry)
        raise error  # not damaged when it was read again
    if entry.in_upload is not None and upload is not None:
        await upload.keep_upload()
    elif not entry.bytes:
        kept.drop(entry)
    return Unsendable(_tell(error, entry, kept, acknowledged=state.writes_back))


def _tell(
    error: CorruptSpool, entry: RecoverableFile, kept: Recoverable, *, acknowledged: bool
) -> str:
    if acknowledged:
        what = f"it was closed, and is damaged now ({error.args[0]})"
    else:
        what = f"it was being closed when the machine went down ({error.args[0]})"
    if entry.in_upload is not None:
        what += f"; more of it is in the unfinished upload {entry.in_upload}"
    elif not entry.bytes:
        return f"{what}; nothing of it can be read"
    where = shlex.quote(str(kept.directory.parent))
    return (
        f"{what}; {entry.bytes} of its {entry.size} bytes are kept:"
        f" s3mount recover list --cache-dir {where}"
    )
