"""What becomes of bytes whose commit lost against another host: nothing of them is lost."""

import errno
import itertools
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.keys import MAX_KEY, MAX_NAME
from s3mount.store.base import (
    ALWAYS,
    Part,
    WriteHeaders,
)
from s3mount.store.errors import (
    NotFound,
    PreconditionFailed,
    StoreError,
)
from s3mount.writeback.body import SLICE, SLICED_OVER, BaseView, FileBody
from s3mount.writeback.parallel import all_of
from s3mount.writeback.recoverable import Recoverable

if TYPE_CHECKING:
    from s3mount.filesystem.open_file import OpenFile
    from s3mount.filesystem.state import State

log = logging.getLogger(__name__)

# Parts of a conflict file sent at once; their memory comes from the uploader's budget anyway.
PARALLEL_PARTS = 4
CLEAN_UP_TIME = 10.0
# `.at-` and the offset of a piece, up to 5 TiB.
_ROOM_FOR_OFFSET = len(".at-5497558138880")

_last_moment = 0  # of a name given out here, in microseconds


def conflict_name(key: str, moment: int) -> str:
    """`NAME.conflict-HOST-TIME`: UTC, to the microsecond, so that no two are alike.

    `moment`: microseconds since the epoch. NAME is cut, and where even that does not help the
    file goes into a directory further up, so that the result (and `.at-OFFSET` behind it) is
    neither too long for a file name nor for a key.
    """
    host = socket.gethostname().split(".")[0] or "unknown"
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(moment // 1_000_000))
    suffix = f".conflict-{host}-{stamp}.{moment % 1_000_000:06d}Z"
    directory, slash, name = key.rpartition("/")
    room = MAX_NAME - len(suffix.encode()) - _ROOM_FOR_OFFSET
    while directory and len(directory.encode()) + 1 + MAX_NAME > MAX_KEY:
        directory, slash, _ = directory.rpartition("/")
    name = name.encode()[: max(1, room)].decode(errors="ignore")
    return f"{directory}{slash}{name}{suffix}"


async def free_name(state: "State", key: str) -> str:
    """A conflict name for `key` that nothing in the bucket has, and nobody else will choose.

    It is this host's and this microsecond's alone; the look is for a clock that was set back.
    """
    global _last_moment  # noqa: PLW0603 - all file systems of the process
    while True:
        _last_moment = max(_last_moment + 1, time.time_ns() // 1000)
        name = conflict_name(key, _last_moment)
        try:
            await state.store.head(name)
        except NotFound:
            return name


async def keep_conflicting_bytes(file: "OpenFile", key: str, headers: WriteHeaders) -> None:
    """Puts this host's version beside the other's, whatever its size.

    The whole file if its unchanged parts can still be read; else one object for each range that
    was written here, its offset in the name, for a made-up byte must never stand for a missing
    one. Of a file larger than the spool the first parts may be in the unfinished upload only: that
    is left as it is then, and named. Raises StoreError if not even that can be stored: then the
    bytes stay in the spool.
    """
    if file.conflict_name is None:
        # Kept for the next attempt, should this one's answer be lost.
        file.conflict_name = await free_name(file.state, key)
    target = file.conflict_name
    if await _keep_whole(file, target, headers):
        names = [target]
        log.warning(
            "%r was changed by another host; this host's version is kept as %r", key, target
        )
    else:
        names = await _keep_ranges(file, key, target, headers)
    file.conflict_name = None
    file.state.note_conflict(key, names)


async def _keep_whole(file: "OpenFile", target: str, headers: WriteHeaders) -> bool:
    """False if the version it was based on cannot be read any more."""
    base = _base_of(file)
    if base is None:
        return False
    try:
        await _send(file, target, headers, 0, file.size, base)
    except (NotFound, PreconditionFailed) as error:
        log.info("the rest of %r cannot be read: %s", file.inode.name, error)
        return False
    except FilesystemError as error:
        if error.errno != errno.ESTALE:
            raise
        return False
    return True


def _base_of(file: "OpenFile") -> BaseView | None:
    """What lies behind the spooled bytes; None where some are in parts of an upload, or in an
    object that was published early and is replaced: of that a versioned bucket has kept ours."""
    spooled, upload = file.spooled, file.upload
    if spooled is not None and spooled.dropped:
        return None
    if spooled is None or not spooled.published:
        return BaseView(min(file.visible, file.size), file.read_base)
    if upload is None or upload.published is None or upload.published[0].version_id is None:
        return None
    ours, stamp = upload.published
    store, cut = file.state.store, spooled.lowest_size_since(stamp)

    async def read(offset: int, length: int) -> bytes:
        return (await store.get(ours.key, offset, length, version_id=ours.version_id)).data

    return BaseView(min(ours.size, file.size, ours.size if cut is None else cut), read)


async def _keep_ranges(file: "OpenFile", key: str, target: str, headers: WriteHeaders) -> list[str]:
    spooled = file.spooled
    names: list[str] = []
    if spooled is None:
        return names
    for start, end in list(spooled.present):
        name = f"{target}.at-{start}"
        await _send(file, name, headers, start, end, None)
        names.append(name)
        log.warning("%r was changed by another host; bytes written here are kept as %r", key, name)
    if spooled.dropped:
        names += await _keep_upload(file, key)
    if spooled.published:
        log.error("%r: what was published early was replaced by another host and is lost", key)
    return names


async def _keep_upload(file: "OpenFile", key: str) -> list[str]:
    """Bytes that left the full spool are parts of the unfinished upload, and nowhere else. Only
    its end could bring them back, in the place of the other host's object, which is its user's
    decision: it is not aborted, `s3mount recover list` has it, and the README the commands."""
    spooled, upload = file.spooled, file.upload
    if spooled is None or upload is None or upload.upload_id is None:
        log.error("%r: bytes of it left the full spool and are in no upload any more", key)
        return []
    upload_id = upload.upload_id
    name = f"upload {upload.upload_id} of {upload.key}"
    ranges = ", ".join(f"{start} to {end}" for start, end in spooled.dropped)
    log.error(
        "%r: bytes %s left the full spool before and are kept as %s: see s3mount recover list",
        key,
        ranges,
        name,
    )
    kept = Recoverable(file.state.config.cache_dir / "recoverable")
    try:
        await trio.to_thread.run_sync(kept.add_upload, key, file.size, upload_id, time.time())
    except OSError as error:
        log.error("%s is not in the list of s3mount recover: %s", name, error)  # noqa: TRY400
        await upload.stop_flights()
        upload.forget_upload()
    else:
        await upload.keep_upload()
    return [name]


# -- sending -----------------------------------------------------------------------------------


async def _send(
    file: "OpenFile",
    name: str,
    headers: WriteHeaders,
    start: int,
    end: int,
    base: BaseView | None,
) -> None:
    """Bytes [start, end) as the object `name`; never more of them in memory than a few parts."""
    uploader = file.state.uploader
    if end - start <= max(uploader.config.single_put_limit, uploader.schedule.part_size):
        async with uploader.memory.holding(end - start), _body(file, start, end, base) as body:
            with uploader.traffic.sending(start, end):
                await file.state.store.put(
                    name, body.body, headers, condition=ALWAYS, check=body.check
                )
        uploader.progressed()
    else:
        await _send_parts(file, name, headers, start, end, base)


async def _send_parts(
    file: "OpenFile",
    name: str,
    headers: WriteHeaders,
    start: int,
    end: int,
    base: BaseView | None,
) -> None:
    store, uploader = file.state.store, file.state.uploader
    begun, upload_id = await uploader.begin_upload(name, headers)
    parts: dict[int, Part] = {}

    async def one(number: int, low: int, high: int) -> None:
        weight = high - low if high - low <= SLICED_OVER else 2 * SLICE
        async with uploader.memory.holding(weight), _body(file, low, high, base) as body:
            send = partial(store.upload_part, name, upload_id, number, body.body, check=body.check)
            with uploader.traffic.sending(low, high):
                parts[number] = await _patiently(send)
        uploader.progressed()

    try:
        pieces = _pieces(file, start, end)
        await all_of([partial(one, *piece) for piece in pieces], PARALLEL_PARTS)
        await store.complete_upload(
            name, upload_id, [parts[number] for number in sorted(parts)], condition=ALWAYS
        )
    except BaseException:
        with trio.move_on_after(CLEAN_UP_TIME, shield=True):
            await begun.abort()
        raise
    begun.ended()


async def _patiently(send: Callable[[], Awaitable[Part]]) -> Part:
    """One failed part must not cost all the others."""
    for pause in (1.0, 2.0, 4.0):
        try:
            return await send()
        except StoreError as error:
            if not error.transient:
                raise
            log.info("%s; again in %.0f s", error, pause)
        await trio.sleep(pause)
    return await send()


def _pieces(file: "OpenFile", start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(part number, its first byte, its end) in the file."""
    schedule = file.state.uploader.schedule
    for number, slot in zip(itertools.count(1), schedule.slots(end - start), strict=False):
        low, high = schedule.bounds(slot)
        yield number, start + low, min(start + high, end)


def _body(file: "OpenFile", start: int, end: int, base: BaseView | None) -> FileBody:
    spooled, uploader = file.spooled, file.state.uploader
    if spooled is None:
        raise FilesystemError(errno.EIO, "no spool")
    return FileBody(
        spooled,
        uploader.spool,
        start,
        end,
        base=base,
        since=spooled.write_count,
        limiter=uploader.readers,
    )
