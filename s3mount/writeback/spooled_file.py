"""The bytes of one file that are on this host and, as far as dirty, nowhere else."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from s3mount.core.errors import FilesystemError
from s3mount.core.extents import Extents
from s3mount.writeback.byte_states import ByteStates
from s3mount.writeback.chunk import Buffer, Chunk
from s3mount.writeback.file_chunks import FileChunks
from s3mount.writeback.journal_records import SpoolRecord
from s3mount.writeback.seals import record_of

if TYPE_CHECKING:
    from s3mount.writeback.spool import Spool


class SpooledFile(ByteStates):
    """All methods but `write` and `fill` are synchronous: no other task runs in between.

    `finished`: chunks whose last byte was just written; the uploader takes them out.
    `failure`: why the upload will not go on (raised to writers that wait for room), or None.
    `record_id`: the id of the journal's FileRecord; its owner sets it, for the upload's record.

    Records: `seal`, write the record, `recorded`; or `forgotten` once the journal's record is
    gone. In between nothing that a record names changes on the disk: a chunk is copied before it
    is written again, and what is dropped, cut off or closed stays there, charged, until then.
    """

    def __init__(self, spool: "Spool") -> None:
        super().__init__(spool.pool.chunk_size)
        self.finished: list[int] = []
        self.failure: Exception | None = None
        # Clean bytes are not given up under pressure: their object is gone or about to go.
        self.keep_clean = False
        self.readers = 0  # see `reading`
        # The write_count of what is to be sent as it was then: parts that were changed since stay.
        self.frozen_at: int | None = None
        # Set by the uploader: the file is closed, and no record counts on parts of its upload.
        self.on_ended: Callable[[], None] | None = None
        self.spool = spool
        self._chunks = FileChunks(spool.pool)
        self.record_id: int | None = None
        # Called, synchronously, with a new record to be written at once in place of the last one
        # sealed: bytes that it named are in a part of the unfinished upload now, and there is no
        # room here. False: that is leaving the journal. Without it they stay until the next record.
        self.on_amended: Callable[[SpoolRecord], bool] | None = None
        self.closed = False

    @property
    def in_memory(self) -> bool:
        """Whether there is nothing for `sync` to do."""
        return self._chunks.in_memory

    # -- writing

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Stores all of `data`, or returns False (room is needed: `await write(...)`).

        Raises FilesystemError(EIO) when a block overwritten in part is damaged on the disk.
        """
        return self._try_store(offset, data, True)

    async def write(self, offset: int, data: Buffer) -> None:
        """Stores all of `data`, waiting for room while something drains.

        Raises FilesystemError(ENOSPC) when nothing does for no_progress_timeout, and the error
        of the upload if that failed for good. Cancelled: all or nothing of each chunk is stored.
        """
        view = memoryview(data)
        step = self._chunk_size
        for start in range(0, len(view), step):
            piece = view[start : start + step]
            if not self._try_store(offset + start, piece, True):
                await self._with_room(offset + start, piece, True)

    async def fill(self, offset: int, data: Buffer) -> None:
        """Stores bytes of the committed object, clean, wherever nothing newer is; waits for room
        as `write` does."""
        view = memoryview(data)
        end = offset + len(view)
        while True:
            missing = [
                (low, high)
                for a, b in self.present.gaps(offset, end)
                for c, d in self.dropped.gaps(a, b)
                for low, high in self.published.gaps(c, d)
            ]
            if not missing:
                return
            start, stop = missing[0]
            stop = min(stop, start - start % self._chunk_size + self._chunk_size)
            piece = view[start - offset : stop - offset]
            if not self._try_store(start, piece, False):
                # While it waits the gap may close: then there is nothing to store any more.
                await self._with_room(start, piece, False)

    async def _with_room(self, offset: int, data: Buffer, dirty: bool) -> None:
        """Waits for room, copies sealed chunks, stores."""
        end = offset + len(data)
        done = False

        def attempt() -> bool:
            nonlocal done
            if not dirty and self.present.overlaps(offset, end):
                done = True
            else:
                done = self._try_store(offset, data, dirty)
            return done or self._chunks.to_copy(offset, end) is not None

        while not done:
            index = self._chunks.to_copy(offset, end)
            if index is None:
                await self._until(attempt)
            elif not await self._chunks.copy(index, self._until):
                self.spool.wake()

    async def _until(self, attempt: Callable[[], bool]) -> None:
        await self.spool.until(attempt, self)

    def _try_store(self, offset: int, data: Buffer, dirty: bool) -> bool:
        if self.closed:
            raise FilesystemError(errno.EBADF, "write to a closed spool file")
        length = len(data)
        if not length:
            return True
        size = self._chunk_size
        end = offset + length
        if not self._chunks.reserve(offset, end):
            return False
        first, last = offset // size, (end - 1) // size
        if first == last:
            return self._store(first, offset, end, data, dirty)
        view = memoryview(data)
        for index in range(first, last + 1):
            start, stop = max(offset, index * size), min(end, (index + 1) * size)
            if not self._store(index, start, stop, view[start - offset : stop - offset], dirty):
                return False
        return True

    def _store(self, index: int, start: int, end: int, data: Buffer, dirty: bool) -> bool:
        if dirty:
            # Before the bytes change: a part that is being read right now must turn stale.
            self._stamps.written(index)
        if not self._chunks.write(index, start, data):
            return False
        self._stored(start, end, dirty=dirty)
        if dirty and end == (index + 1) * self._chunk_size:
            self.finished.append(index)
        return True

    # -- reading

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While inside, pressure takes none of the bytes that are present: for readers that await
        between a look at `present` and `read`."""
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1

    def read(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length), which must be present.

        Blocks that an earlier process wrote are checked when they are read first, and reads of
        whole blocks always, as that takes no more I/O: CorruptSpool. SpoolDiskError.
        """
        end = offset + length
        if not self.present.covers(offset, end):
            raise ValueError(f"bytes {offset}-{end} are not all in the spool")
        found = self._chunks.read(offset, end)
        if len(found) != length:
            raise FilesystemError(errno.EIO, f"the spool lost bytes {offset}-{end}")
        return found

    def pieces(self, start: int, end: int) -> list[tuple[Chunk, int, int]]:
        """(chunk, low, high) of each chunk that holds a piece of the present range [start, end)."""
        return self._chunks.pieces(start, end)

    def verify(self, start: int, end: int) -> None:
        """Checks the CRCs of all that is present in [start, end); raises EIO naming the block."""
        for a, b in self.present.within(start, end):
            for chunk, low, high in self.pieces(a, b):
                chunk.read_checked(low, high)

    def chunk_files(self) -> dict[str, Chunk]:
        """By name, those that are sealed and no part of the file any more too."""
        return self._chunks.named()

    # -- what the journal names

    def seal(self) -> SpoolRecord:
        """What the file has now. Of what the record names nothing changes on the disk until a
        later record is `recorded` or this one `forgotten`; its bytes are there for good once
        `sync` returns."""
        record = self.unsealed_record()
        self._chunks.seal(record)
        return record

    def unsealed_record(self) -> SpoolRecord:
        """What the file has now, for a record of bytes that nobody was promised: blocks written
        again later do not fit their CRC then."""
        return record_of(self, self._chunks.by_index, self._chunk_size)

    def adopt(self, record: SpoolRecord, chunks: dict[int, Chunk] | None, *, sealed: bool) -> None:
        """This new file becomes what `record` tells, of these chunks, which the record names where
        they are `sealed`; None: its bytes were written here already. For Spool.restore."""
        self.present, self.dirty = Extents(record.present), Extents(record.dirty)
        self.dropped, self.published = Extents(record.dropped), Extents(record.published)
        self.finished.clear()
        if chunks is not None:
            self._chunks.by_index = chunks
        if sealed:
            self._chunks.seals.made(record, [])
            self._chunks.seals.recorded(record)

    def recorded(self, record: SpoolRecord) -> None:
        """The journal has this record of `seal` (or of on_amended) in the place of all earlier
        ones, and nothing brings these back: committed, where a killed process is all that counts,
        synced where a power cut does too. What only they named is given back."""
        self._chunks.seals.recorded(record)
        self._perhaps_ended()
        self.spool.wake()  # also those that wait to `drop` something

    def unwanted(self, record: SpoolRecord) -> None:
        """A record of `seal` that will not be written after all."""
        self._chunks.unwanted(record)
        self._perhaps_ended()
        self.spool.wake()

    @property
    def last_record(self) -> SpoolRecord | None:
        """The newest one made that the journal may have."""
        return self._chunks.seals.last

    def forgotten(self, record: SpoolRecord | None = None) -> None:
        """The journal has no record of this file up to this one any more (None: at all), as
        `recorded` has it. Newer ones may have been made since it was taken out."""
        gave_back = self._chunks.forgotten(self.last_record if record is None else record)
        self._perhaps_ended()
        if gave_back:
            self.spool.wake()

    @property
    def sealed(self) -> bool:
        """Whether the journal may name anything of this file."""
        return self._chunks.seals.last is not None

    @property
    def can_drop(self) -> bool:
        """Whether `drop` frees room: not while a record of what would be dropped cannot be
        amended."""
        seals = self._chunks.seals
        return seals.last is None or (self.on_amended is not None and seals.amendable)

    def promised_in_part(self, start: int, end: int) -> bool:
        """Whether the part of [start, end) on the server is all that is left of bytes that the
        journal's record has: it must not be sent again before the next record."""
        return any(a < end and start < b for a, b in self._chunks.seals.dropped)

    @property
    def breaks_promise(self) -> bool:
        """Whether parts that the journal's record counts on have been written anew here: to send
        them would take from the record what it has nowhere else."""
        return any(not self.dropped.covers(a, b) for a, b in self._chunks.seals.dropped)

    @property
    def promises_parts(self) -> bool:
        """Whether a record counts on parts of the unfinished upload: that must not end."""
        return bool(self._chunks.seals.dropped)

    async def sync(self) -> None:
        """All that was written or sealed before the call is on the disk.

        Raises SpoolDiskError; then it is not known what is, and the next call writes it again.
        """
        await self._chunks.sync()
        self.spool.synced()

    # -- giving up bytes

    def truncate(self, size: int) -> None:
        """Forgets all bytes at and after `size`. (Growing needs no call: holes are not present.)

        Raises EIO when the block that is cut is damaged on the disk.
        """
        self._chunks.truncate(size)
        self._truncated(size)
        beyond = -(-size // self._chunk_size)
        self.finished = [index for index in self.finished if index < beyond]
        self.spool.wake()

    def drop(self, start: int, end: int) -> None:
        """Gives the chunks of a sent part back; the bytes live on in the unfinished upload only.

        [start, end) are whole chunks, all of it present.
        """
        size = self._chunk_size
        chunks = self._chunks
        indexes = range(start // size, end // size)
        sealed = [index for index in indexes if chunks.by_index[index].sealed]
        for index in indexes:
            chunks.release(index)
        self._dropped(start, end)
        if sealed and self.on_amended is not None:
            amended = chunks.seals.without(sealed)
            if amended is not None and not self.on_amended(amended):
                self._chunks.unwanted(amended)
        self.spool.wake()

    def release_clean(self) -> None:
        """Gives back the chunks that hold nothing dirty: the committed object has their bytes."""
        size = self._chunk_size
        clean = [
            index
            for index in self._chunks.by_index
            if not self.dirty.overlaps(index * size, (index + 1) * size)
        ]
        for index in clean:
            self._chunks.release(index)
            self.present.remove(index * size, (index + 1) * size)
        if clean:
            self.spool.wake()

    def close(self) -> None:
        """Gives everything back but what a record names: that stays until `forgotten`, and
        beyond the life of the process. So does the upload that has what left the spool."""
        self.closed = True
        for index in tuple(self._chunks.by_index):
            self._chunks.release(index)
        for extents in (self.present, self.dirty, self.dropped, self.published):
            extents.clear()
        self.spool.files.discard(self)
        self._perhaps_ended()
        self.spool.wake()

    def _perhaps_ended(self) -> None:
        if self.closed and not self.promises_parts and self.on_ended is not None:
            ended, self.on_ended = self.on_ended, None
            ended()

    # -- commits

    def _committed(self, left: Extents) -> None:
        super()._committed(left)
        self._chunks.seals.committed()

    def was_published(self) -> None:
        super().was_published()
        self._chunks.seals.was_published()
