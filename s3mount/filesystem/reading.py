"""Reading a file: spooled bytes laid over remote ones, and the rescue of what would vanish.

Remote bytes are awaited first; the spooled ones are laid over them at the end, without an await.
"""

import errno
import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

import trio

from s3mount.core.errors import FilesystemError
from s3mount.readpath import RemoteObject
from s3mount.store.errors import StoreError
from s3mount.writeback.intents import State as IntentState
from s3mount.writeback.spooled_file import SpooledFile

if TYPE_CHECKING:
    from s3mount.filesystem.handle import FileHandle
    from s3mount.filesystem.open_file import OpenFile

log = logging.getLogger(__name__)

# A single request has a total deadline of about a minute.
ANSWER_PATIENCE = 60.0


async def read_file(
    file: "OpenFile", handle: "FileHandle", offset: int, length: int
) -> bytes | memoryview:
    """ESTALE only where the bytes are lost: not if a change of our own was faster."""
    while True:
        remote = file.remote
        asked = None if remote is None else (remote.key, remote.etag)
        try:
            return await _read(file, handle, offset, length)
        except FilesystemError as error:
            if error.errno != errno.ESTALE or remote is None:
                raise
            await _changes_of_ours(file, remote.key)
            if file.remote is remote and (remote.key, remote.etag) == asked:
                raise


async def _changes_of_ours(file: "OpenFile", key: str) -> None:
    """The service may have carried one out already whose answer is still on its way, or never
    came to the mount that died."""
    queue = file.state.queue
    running = [
        intent
        for intent in (*queue.holders(key), *queue.trees_over(key))
        if intent.state is IntentState.RUNNING or intent.doubtful or intent.recovered
    ]
    with trio.move_on_after(ANSWER_PATIENCE):
        for intent in running:
            await intent.finished.wait()


async def _read(
    file: "OpenFile", handle: "FileHandle", offset: int, length: int
) -> bytes | memoryview:
    length = min(length, file.size - offset)
    if length <= 0:
        return b""
    if file.spooled is None or not file.spooled.present:
        if offset + length <= file.visible:
            return await _read_remote(file, handle, offset, length)
    elif file.spooled.present.covers(offset, offset + length):
        await file.publish_if_dropped(offset, length)
        if file.spooled.present.covers(offset, offset + length):
            return file.spooled.read(offset, length)
    return await _read_mixed(file, handle, offset, length)


async def _read_remote(
    file: "OpenFile", handle: "FileHandle", offset: int, length: int
) -> bytes | memoryview:
    if file.remote is None:
        return bytes(length)
    reader = handle.reader_of(file.remote)
    known = reader.try_read(offset, length)
    return known if known is not None else await reader.read(offset, length)


async def _read_mixed(file: "OpenFile", handle: "FileHandle", offset: int, length: int) -> bytes:
    """Remote bytes first, for that awaits; the spooled ones are laid over them at the end."""
    await file.publish_if_dropped(offset, length)
    # Without this a full spool might take bytes between the look at `present` and their read.
    with file.spooled.reading() if file.spooled is not None else nullcontext():
        return await _lay_over(file, handle, offset, length)


async def _lay_over(file: "OpenFile", handle: "FileHandle", offset: int, length: int) -> bytes:
    answer = bytearray(length)
    end = min(offset + length, file.visible)
    if offset < end and file.remote is not None:
        present = file.spooled.present if file.spooled is not None else None
        gaps = [(offset, end)] if present is None else list(present.gaps(offset, end))
        for start, stop in gaps:
            data = await _read_remote(file, handle, start, stop - start)
            answer[start - offset : start - offset + len(data)] = data
    if file.spooled is not None:
        for start, stop in list(file.spooled.present.within(offset, offset + length)):
            answer[start - offset : stop - offset] = file.spooled.read(start, stop - start)
    return bytes(answer[: max(0, file.size - offset)])


async def fetch_rest(file: "OpenFile") -> None:
    """What open handles may still want of an object that is about to vanish; see rescue."""
    remote = file.remote
    if remote is None or not file.handles or not file.visible:
        return
    if remote.version_id is not None:
        remote.by_version = True
        return
    file.prepare_upload()
    spooled = file.spooled
    if spooled is None or file.visible > file.state.config.writeback.spool_limit // 4:
        return
    spooled.keep_clean = True
    try:
        for start, stop in list(spooled.present.gaps(0, file.visible)):
            await _fetch_into(file, spooled, remote, start, stop)
    except (FilesystemError, StoreError) as error:
        log.warning("readers of the old %r will get ESTALE: %s", remote.key, error)


async def _fetch_into(
    file: "OpenFile", spooled: SpooledFile, remote: RemoteObject, start: int, stop: int
) -> None:
    step = file.state.config.read.max_request
    for offset in range(start, stop, step):
        length = min(step, stop - offset)
        data = await file.state.readpath.fetch_range(remote, offset, length)
        await spooled.fill(offset, bytes(data))


def small_content(file: "OpenFile") -> bytes | None:
    """All bytes of a small file, if they are at hand; to be asked before `OpenFile.committed`."""
    if file.spooled is None or not 0 < file.size <= file.state.config.read.small_object:
        return None
    if not file.spooled.present.covers(file.visible, file.size):
        return None  # a hole, or a part that left the full spool
    answer = bytearray(file.size)
    if file.remote is not None and file.visible:
        known = file.state.readpath.known(file.remote, 0, file.visible)
        if known is None and not file.spooled.present.covers(0, file.visible):
            return None
        answer[: file.visible] = known or bytes(file.visible)
    try:
        for start, stop in list(file.spooled.present.within(0, file.size)):
            answer[start:stop] = file.spooled.read(start, stop - start)
    except FilesystemError:
        return None  # the local disk damaged what the bucket has, then
    return bytes(answer)
