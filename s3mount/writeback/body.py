"""Request bodies made of what the spool has, the base behind it, and zeros."""

import errno
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from s3mount.core.config import MIB
from s3mount.core.errors import FilesystemError
from s3mount.store.base import (
    Body,
    Part,
    SlicedBody,
)
from s3mount.store.errors import CorruptAnswer
from s3mount.writeback.chunk import Chunk, CorruptSpool, combine_crc32c, crc32c
from s3mount.writeback.spool import Spool
from s3mount.writeback.spooled_file import SpooledFile

ReadBase = Callable[[int, int], Awaitable[bytes | bytearray | memoryview]]

SLICED_OVER = 32 * MIB  # larger bodies never are in memory as a whole
SLICE = 8 * MIB
# Reading and checking so little costs less than going to a thread and back.
INLINE_UP_TO = 256 * 1024
# Gaps nearer to each other than this are one request to the base.
NEAR = 1 * MIB


class CommitSuperseded(FilesystemError):
    """The file was cut shorter than what is being committed: commit again, with its new size."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "the file was truncated while it was committed")


@dataclass(frozen=True, slots=True)
class BaseView:
    """The base under a file: `read(offset, length)` answers its bytes, of which the leading
    `visible` count; no reader: there is no base."""

    visible: int = 0
    read: ReadBase | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """[start, end) of the file: from a chunk at `low`, or `data`, or (neither) zeros."""

    start: int
    end: int
    chunk: Chunk | None = None
    low: int = 0
    data: memoryview | None = None

    def read(self, start: int, end: int) -> tuple[bytes | memoryview, int]:
        """The bytes and their CRC32C."""
        if self.chunk is not None:
            offset = self.low - self.start
            return self.chunk.read_with_crc(start + offset, end + offset)
        data: bytes | memoryview = bytes(end - start)
        if self.data is not None:
            data = self.data[start - self.start : end - self.start]
        return data, crc32c(data)


def _join(pieces: Sequence[_Piece], start: int, end: int) -> tuple[bytes | memoryview, int]:
    """The bytes and their CRC32C, taken piece by piece. In a worker thread or not; raises
    CorruptSpool, for a block half written just now too."""
    parts: list[bytes | memoryview] = []
    total = 0
    for piece in pieces:
        if piece.start < end and piece.end > start:
            part, crc = piece.read(max(start, piece.start), min(end, piece.end))
            parts.append(part)
            total = combine_crc32c(total, crc, len(part))
    return parts[0] if len(parts) == 1 else b"".join(parts), total


class FileBody:
    """The body for [start, end) of a file; `async with` keeps its chunks from being recycled.

    `stamp`: the file's write_count as of which the body is right: writes after it may or may not
    be in. `pure`: all of it comes from the spool; then `crc` is its CRC32C as of `stamp`, made of
    those of the writers' buffers where it is whole blocks, else None. Raises CorruptSpool (EIO)
    when the disk has other bytes than were written, CommitSuperseded when the file was cut after
    `since`.
    """

    def __init__(
        self,
        file: SpooledFile,
        spool: Spool,
        start: int,
        end: int,
        *,
        base: BaseView | None,
        since: int,
        limiter: trio.CapacityLimiter,
    ) -> None:
        """Without `base` all bytes must be present (else CommitSuperseded)."""
        self._file = file
        self._spool = spool
        self._limiter = limiter
        self._present_only = base is None
        self._start = start
        self._end = end
        self._base = base or BaseView()
        self._since = since
        self._pieces: list[_Piece] = []
        self._fetched: list[tuple[int, memoryview]] = []
        self.body: Body = b""
        self.stamp: int | None = None  # None: nothing was read yet
        self.pure = True
        self.crc: int | None = None
        self._read_crc: int | None = None  # of `body`; None: it is sliced

    async def __aenter__(self) -> "FileBody":
        await self._fetch_gaps()
        # No await from the last look at `present` to the pins.
        self._check_not_cut()
        self.stamp = self._file.write_count
        self._pieces = self._lay_out()
        self.crc = self._combined_crc()
        for piece in self._pieces:
            if piece.chunk is not None:
                self._spool.pool.pin(piece.chunk)
        try:
            if self._end - self._start > SLICED_OVER:
                self.body = SlicedBody(self._end - self._start, self._read_slice, SLICE)
            else:
                self.body, self._read_crc = await self._read_whole()
        except BaseException:
            self._unpin()
            raise
        return self

    @property
    def checksum(self) -> str | None:
        """`crc` as S3 writes it, in base64."""
        return None if self.crc is None else b64encode(self.crc.to_bytes(4, "big")).decode()

    def check(self) -> None:
        """To be given to the store with `body` (base.Check): raises CorruptAnswer where that is
        not any more what was read, whose CRC was made of those of the writers' buffers. (Slices
        are read and checked once for their checksum and once more to be sent.)"""
        if self._read_crc is None or isinstance(self.body, SlicedBody):
            return
        if crc32c(self.body) != self._read_crc:
            raise CorruptAnswer(
                f"bytes {self._start} to {self._end} were damaged in this machine's memory",
                operation="read from the spool",
            )

    def checksum_of(self, part: Part, key: str) -> str | None:
        """The checksum (base64) of a part that was sent with this body, made of those of the
        writers' buffers; None where they do not tell it, or the file changed meanwhile.

        Raises CorruptAnswer where the service has another one: what was sent was damaged in this
        machine's memory, and is to be sent again.
        """
        expected = self.checksum
        if self.stamp is None or self._file.changed_since(self.stamp, self._start, self._end):
            return None
        if None not in (expected, part.checksum) and part.checksum != expected:
            raise CorruptAnswer(
                f"part {part.number} has the CRC32C {part.checksum}, written was {expected}",
                operation="UploadPart",
                key=key,
            )
        return expected

    async def __aexit__(self, *_: object) -> None:
        self._unpin()

    def _unpin(self) -> None:
        came_back = False
        for piece in self._pieces:
            if piece.chunk is not None:
                came_back |= self._spool.pool.unpin(piece.chunk)
        self._pieces = []
        self.body = b""
        if came_back:
            self._spool.wake()

    def _check_not_cut(self) -> None:
        cut = self._file.lowest_size_since(self._since)
        if self._file.closed or (cut is not None and cut < self._end):
            raise CommitSuperseded
        if self._present_only and not self._file.present.covers(self._start, self._end):
            raise CommitSuperseded
        if self._file.dropped.overlaps(self._start, self._end):
            raise FilesystemError(errno.EIO, "bytes to be sent exist only in another part")

    # -- the base's bytes

    def _gaps_in_base(self) -> list[tuple[int, int]]:
        """Ranges of the base that are needed and not fetched yet; near ones are merged."""
        gaps: list[tuple[int, int]] = []
        end = min(self._end, self._base.visible)
        for a, b in self._file.present.gaps(self._start, end):
            if any(at <= a and b <= at + len(data) for at, data in self._fetched):
                continue
            if gaps and a - gaps[-1][1] < NEAR:
                gaps[-1] = (gaps[-1][0], b)
            else:
                gaps.append((a, b))
        return gaps

    async def _fetch_gaps(self) -> None:
        while gaps := self._gaps_in_base():
            self._check_not_cut()
            for start, end in gaps:
                await self._fetch(start, end)

    async def _fetch(self, start: int, end: int) -> None:
        """Into memory; for bodies that are sliced, into the spool."""
        read = self._base.read
        if read is None:
            raise FilesystemError(errno.EIO, "the committed object cannot be read")
        sliced = self._end - self._start > SLICED_OVER
        step = SLICE if sliced else end - start
        for at in range(start, end, step):
            length = min(step, end - at)
            data = await read(at, length)
            if len(data) != length:
                raise FilesystemError(
                    errno.EIO, f"{length} bytes at {at} of the base were asked, {len(data)} came"
                )
            if sliced:
                self._check_not_cut()
                await self._file.fill(at, data)
            else:
                self._fetched.append((at, memoryview(data)))

    # -- reading

    def _lay_out(self) -> list[_Piece]:
        file, pieces = self._file, []
        position = self._start
        for a, b in [*file.present.within(self._start, self._end), (self._end, self._end)]:
            if position < a:
                pieces += self._lay_out_gap(position, a)
            if a < b:
                at = a
                for chunk, low, high in file.pieces(a, b):
                    pieces.append(_Piece(at, at + high - low, chunk, low))
                    at += high - low
            position = b
        return pieces

    def _lay_out_gap(self, start: int, end: int) -> list[_Piece]:
        self.pure = False
        shown = min(end, self._base.visible)
        pieces = []
        if start < shown:
            # _fetch_gaps left no gap without its bytes.
            at, data = next(
                (at, data) for at, data in self._fetched if at <= start and shown <= at + len(data)
            )
            pieces.append(_Piece(start, shown, data=data[start - at : shown - at]))
            start = shown
        if start < end:
            pieces.append(_Piece(start, end))
        return pieces

    def _combined_crc(self) -> int | None:
        total = 0
        for piece in self._pieces:
            length = piece.end - piece.start
            crc = None if piece.chunk is None else piece.chunk.crc_of(piece.low, piece.low + length)
            if crc is None:
                return None
            total = combine_crc32c(total, crc, length)
        return total

    async def _read_whole(self) -> tuple[bytes | memoryview, int]:
        if self._end - self._start <= INLINE_UP_TO:
            return self._read_now(self._start, self._end)
        try:
            return await trio.to_thread.run_sync(
                _join, self._pieces, self._start, self._end, limiter=self._limiter
            )
        except CorruptSpool:
            # The loop may have been writing that very block; while we look it does not.
            return self._read_again(self._start, self._end)

    def _read_now(self, start: int, end: int) -> tuple[bytes | memoryview, int]:
        return _join(self._pieces, start, end)

    def _read_again(self, start: int, end: int) -> tuple[bytes | memoryview, int]:
        """In the loop. Of a file that was cut meanwhile blocks are missing, not damaged."""
        self._check_not_cut()
        return self._read_now(start, end)

    def _read_slice(self, offset: int, length: int) -> bytes:
        """Called by the store, in its worker thread."""
        start = self._start + offset
        try:
            found, _ = _join(self._pieces, start, start + length)
        except CorruptSpool:
            found, _ = _in_loop(lambda: self._read_again(start, start + length))
        return bytes(found)


def _in_loop(
    read: Callable[[], tuple[bytes | memoryview, int]],
) -> tuple[bytes | memoryview, int]:
    try:
        return trio.from_thread.run_sync(read)
    except RuntimeError:  # not a worker thread of trio's: then nobody writes at the same time
        return read()
