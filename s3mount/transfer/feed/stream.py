"""A stream of unknown length becomes an object: parts go up while it comes in."""

import errno
import os
from collections.abc import Awaitable, Callable

import trio

from s3mount.core.errors import FilesystemError
from s3mount.store.base import Part, PutResult, WriteHeaders
from s3mount.transfer.upload_sender import Progress, SentFile, UploadSender
from s3mount.writeback.begun_upload import BegunUpload

# What the abort may take when all else is over already.
ABORT_TIME = 10.0

Started = trio.TaskStatus[int]
# Raises where the stream, so many bytes long, is not to be stored.
Check = Callable[[int], Awaitable[None]]


class StreamSender(UploadSender):
    """Memory: `bytes_in_flight`, and at least one part. Parts have 8 MiB up to 8 GiB, 16 MiB up to
    24 GiB and so on: above 248 GiB one part alone takes 256 MiB."""

    async def send(
        self, fd: int, key: str, headers: WriteHeaders, check: Check, progress: Progress
    ) -> SentFile:
        """Reads `fd` to its end. Nothing is stored unless that came, and `check` agrees: then
        what was sent is aborted. Raises what `check` does, OSError, StoreErrors."""
        first = await _read(fd, self.single_put_limit + 1)
        if len(first) <= self.single_put_limit:
            await check(len(first))
            result = await self._store.put(key, first, headers)
            progress(len(first))
            return SentFile(result, len(first))
        upload = self._upload()
        await upload.begin(key, headers, None)
        try:
            result, size = await self._send_parts(upload, fd, first, check, progress)
        except BaseException:
            with trio.move_on_after(ABORT_TIME) as scope:
                scope.shield = True
                await upload.abort()
            raise
        return SentFile(result, size)

    async def _send_parts(
        self, upload: BegunUpload, fd: int, rest: bytearray, check: Check, progress: Progress
    ) -> tuple[PutResult, int]:
        """`rest`: what was read already."""
        parts: dict[int, Part] = {}

        async def one(
            number: int, start: int, length: int, begun: bytearray, *, task_status: Started
        ) -> None:
            """Reads a part, which is when the next one may, and sends it."""
            async with self._memory.holding(length):
                body = await _read(fd, length - len(begun))
                if begun:
                    body = begun + body
                task_status.started(len(body))
                if not body:
                    return
                parts[number] = await self._send_part(
                    upload, number, start, start + len(body), body
                )
            progress(len(body))

        size = 0
        async with trio.open_nursery() as nursery:
            for slot in range(self.schedule.max_parts):
                start, end = self.schedule.bounds(slot)
                begun, rest = rest[: end - start], rest[end - start :]
                length = await nursery.start(one, slot + 1, start, end - start, begun)
                size += length
                if length < end - start:
                    break
            else:
                text = f"the stream is longer than {self.schedule.limit} bytes"
                raise FilesystemError(errno.EFBIG, f"{upload.key!r}: {text}")
        await check(size)
        return await self._complete(upload, parts), size


async def _read(fd: int, length: int) -> bytearray:
    """So many bytes, fewer at the end. Who waits for a slow producer can be interrupted."""
    return await trio.to_thread.run_sync(_read_blocking, fd, length, abandon_on_cancel=True)


def _read_blocking(fd: int, length: int) -> bytearray:
    data = bytearray(length)
    position = 0
    with memoryview(data) as view:
        while position < length and (count := os.readv(fd, [view[position:]])):
            position += count
    del data[position:]
    return data
