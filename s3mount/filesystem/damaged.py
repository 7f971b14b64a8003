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
from s3mount.core.extents import Extents
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
    """Whether the object, which has the metadata and the size of `file`, holds what was written to
    it: told by the checksums that the journal has of that, for the file's own copy cannot be read.
    What was not written is that of the base, or zeros, in both; what left the spool is in it if it
    is what the upload has become. StoreError."""
    spooled = file.spooled
    if spooled is None or found.size != file.size or spooled.dropped:
        return False
    if spooled.published and not _is_published(file, found):
        return False
    remote = RemoteObject(found.key, found.etag, found.size, found.version_id)
    for first, last in spooled.present.within(0, file.size):
        position = first
        for chunk, low, high in spooled.pieces(first, last):
            begin, end = position - low % BLOCK, min(position - low + _whole(high), file.size)
            for start in range(begin, end, STEP):
                length = min(STEP, end - start)
                data = await file.state.readpath.fetch_range(remote, start, length)
                block = (low + start - position) // BLOCK
                if not _fits(chunk, block, start, data, spooled.present):
                    return False
            position += high - low
    return True


def _is_published(file: "OpenFile", found: ObjectInfo) -> bool:
    if file.upload is None or file.upload.published is None:
        return False
    base, _ = file.upload.published
    return (base.key, base.etag) == (found.key, found.etag)


def _whole(end: int) -> int:
    """Where the block ends that is written up to there."""
    return -(-end // BLOCK) * BLOCK


def _fits(chunk: Chunk, block: int, start: int, data: bytes, present: Extents) -> bool:
    """`data`, the object's bytes from `start` on, begins with that block of the chunk. Where
    nothing was written a chunk has zeros."""
    for number, low in enumerate(range(0, len(data), BLOCK), block):
        piece = bytearray(data[low : low + BLOCK])
        filled = chunk.filled[number]
        if filled > len(piece):
            return False
        del piece[filled:]
        for left, right in present.gaps(start + low, start + low + filled):
            piece[left - start - low : right - start - low] = bytes(right - left)
        if crc32c(piece) != chunk.crcs[number]:
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
