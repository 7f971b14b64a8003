"""The bytes of one file that are on this host and, as far as dirty, nowhere else."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3mount.core.errors import FilesystemError
from s3mount.core.extents import Extents
from s3mount.writeback.chunk import Buffer, Chunk

if TYPE_CHECKING:
    from s3mount.writeback.spool import Spool

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class CommitSnapshot:
    """What was dirty when a commit began."""

    dirty: Extents
    stamp: int


class SpooledFile:
    """All methods but `write` and `fill` are synchronous: no other task runs in between.

    `present`: the bytes that can be read here. `dirty`: those of them that the committed object
    does not have. `dropped`: bytes newer than the committed object that exist only as parts of
    the unfinished upload; neither present nor dirty. `published`: the same once a commit has
    completed that upload early and then failed: they are only in that object.
    `write_count` grows with every change of content: the stamp by which a sent part is known
    to be still right.
    `finished`: chunks whose last byte was just written; the uploader takes them out.
    `failure`: why the upload will not go on (raised to writers that wait for room), or None.
    """

    def __init__(self, spool: "Spool") -> None:
        self.present = Extents()
        self.dirty = Extents()
        self.dropped = Extents()
        self.published = Extents()
        self.write_count = 0
        self.finished: list[int] = []
        self.failure: Exception | None = None
        # Clean bytes are not given up under pressure: their object is gone or about to go.
        self.keep_clean = False
        self.readers = 0  # see `reading`
        self.on_close: Callable[[], None] | None = None  # set by the uploader
        self._spool = spool
        self._pool = spool.pool
        self._chunk_size = spool.pool.chunk_size
        self._chunks: dict[int, Chunk] = {}
        self._stamps: dict[int, int] = {}
        # (stamp, size), ascending in both: a later, smaller truncation covers an earlier one.
        self._truncations: list[tuple[int, int]] = []
        self._rewritten: Extents | None = None  # written since begin_commit
        self.closed = False

    @property
    def unsaved(self) -> bool:
        """Whether anything here is newer than the committed object."""
        return bool(self.dirty or self.dropped or self.published)

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
        end = offset + len(data)

        def attempt() -> bool:
            if not dirty and self.present.overlaps(offset, end):
                return True
            return self._try_store(offset, data, dirty)

        await self._spool.until(attempt, self)

    def _try_store(self, offset: int, data: Buffer, dirty: bool) -> bool:
        if self.closed:
            raise FilesystemError(errno.EBADF, "write to a closed spool file")
        length = len(data)
        if not length:
            return True
        size = self._chunk_size
        end = offset + length
        first, last = offset // size, (end - 1) // size
        taken: list[int] = []
        for index in range(first, last + 1):
            low = offset - index * size if index == first else 0
            high = end - index * size if index == last else size
            chunk = self._chunks.get(index)
            if chunk is None:
                chunk = self._take(index, low, high)
                if chunk is not None:
                    self._chunks[index] = chunk
                    taken.append(index)
                    continue
            elif chunk.dense or self._pool.grow(chunk, low, high):
                continue
            for empty in taken:  # all or nothing: an empty chunk would only be in the way
                self._release(empty)
            return False
        if first == last:
            return self._store(first, offset, end, data, dirty)
        view = memoryview(data)
        for index in range(first, last + 1):
            start, stop = max(offset, index * size), min(end, (index + 1) * size)
            if not self._store(index, start, stop, view[start - offset : stop - offset], dirty):
                return False
        return True

    def _take(self, index: int, low: int, high: int) -> Chunk | None:
        """A new chunk for a first write of [low, high) in it."""
        pool = self._pool
        if index == 0 and low == 0 and high <= pool.small:
            chunk = pool.in_memory(high)
            if chunk is not None:
                return chunk
        elif low == 0 and (high >= pool.small or index - 1 in self._chunks):
            return pool.dense()
        chunk = pool.sparse()
        if chunk is not None and not pool.grow(chunk, low, high):
            pool.release(chunk)
            return None
        return chunk

    def _store(self, index: int, start: int, end: int, data: Buffer, dirty: bool) -> bool:
        base = index * self._chunk_size
        if dirty:
            # Before the bytes change: a part that is being read right now must turn stale.
            self.write_count += 1
            self._stamps[index] = self.write_count
        try:
            self._chunks[index].write(start - base, data)
        except OSError as error:
            if error.errno in _DISK_FULL:
                return False
            raise FilesystemError(errno.EIO, f"the spool cannot be written: {error}") from error
        self.present.add(start, end)
        if dirty:
            self.dirty.add(start, end)
            if self.dropped or self.published:
                self.dropped.remove(start, end)
                self.published.remove(start, end)
            if self._rewritten is not None:
                self._rewritten.add(start, end)
            if end - base == self._chunk_size:
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
        """Bytes [offset, offset + length), which must be present."""
        end = offset + length
        if not self.present.covers(offset, end):
            raise ValueError(f"bytes {offset}-{end} are not all in the spool")
        size = self._chunk_size
        index = offset // size
        if end <= (index + 1) * size:
            found = self._chunks[index].read_raw(offset - index * size, length) if length else b""
        else:
            found = b"".join(
                chunk.read_raw(low, high - low) for chunk, low, high in self.pieces(offset, end)
            )
        if len(found) != length:
            raise FilesystemError(errno.EIO, f"the spool lost bytes {offset}-{end}")
        return found

    def pieces(self, start: int, end: int) -> list[tuple[Chunk, int, int]]:
        """(chunk, low, high) of each chunk that holds a piece of the present range [start, end)."""
        size = self._chunk_size
        return [
            (
                self._chunks[index],
                max(start - index * size, 0),
                min(end - index * size, size),
            )
            for index in range(start // size, (end - 1) // size + 1)
        ]

    def verify(self, start: int, end: int) -> None:
        """Checks the CRCs of all that is present in [start, end); raises EIO naming the block."""
        for a, b in self.present.within(start, end):
            for chunk, low, high in self.pieces(a, b):
                chunk.read_checked(low, high)

    def changed_since(self, stamp: int, start: int, end: int) -> bool:
        """Whether any byte of [start, end) was written or cut off after `stamp`."""
        if self.write_count <= stamp:
            return False
        if any(when > stamp and size < end for when, size in self._truncations):
            return True
        size = self._chunk_size
        stamps = self._stamps
        return any(
            stamps.get(index, 0) > stamp for index in range(start // size, (end - 1) // size + 1)
        )

    def lowest_size_since(self, stamp: int) -> int | None:
        """The smallest size that the file was truncated to after `stamp`."""
        return min((size for when, size in self._truncations if when > stamp), default=None)

    # -- giving up bytes

    def truncate(self, size: int) -> None:
        """Forgets all bytes at and after `size`. (Growing needs no call: holes are not present.)

        Raises EIO when the block that is cut is damaged on the disk.
        """
        chunk_size = self._chunk_size
        cut = self._chunks.get(size // chunk_size)
        if cut is not None and size % chunk_size:
            cut.truncate(size % chunk_size)
        self.write_count += 1
        while self._truncations and self._truncations[-1][1] >= size:
            self._truncations.pop()
        self._truncations.append((self.write_count, size))
        beyond = -(-size // chunk_size)
        for index in [index for index in self._chunks if index >= beyond]:
            self._release(index)
        for index in [index for index in self._stamps if index >= beyond]:
            del self._stamps[index]
        for extents in (self.present, self.dirty, self.dropped, self.published, self._rewritten):
            if extents is not None:
                extents.truncate(size)
        self.finished = [index for index in self.finished if index < beyond]
        self._spool.wake()

    def drop(self, start: int, end: int) -> None:
        """Gives the chunks of a sent part back; the bytes live on in the unfinished upload only.

        [start, end) are whole chunks, all of it present.
        """
        size = self._chunk_size
        for index in range(start // size, end // size):
            self._release(index)
        for extents in (self.present, self.dirty, self._rewritten):
            if extents is not None:
                extents.remove(start, end)
        self.dropped.add(start, end)
        self._spool.wake()

    def release_clean(self) -> None:
        """Gives back the chunks that hold nothing dirty: the committed object has their bytes."""
        size = self._chunk_size
        clean = [
            index
            for index in self._chunks
            if not self.dirty.overlaps(index * size, (index + 1) * size)
        ]
        for index in clean:
            self._release(index)
            self.present.remove(index * size, (index + 1) * size)
        if clean:
            self._spool.wake()

    def close(self) -> None:
        """Gives everything back; the file holds nothing any more."""
        self.closed = True
        for index in tuple(self._chunks):
            self._release(index)
        for extents in (self.present, self.dirty, self.dropped, self.published):
            extents.clear()
        self._spool.files.discard(self)
        if self.on_close is not None:
            self.on_close()
        self._spool.wake()

    def _release(self, index: int) -> None:
        self._pool.release(self._chunks.pop(index))

    # -- commits

    def begin_commit(self) -> CommitSnapshot:
        """What is dirty now is about to be committed; one commit at a time."""
        if self._rewritten is not None:
            raise RuntimeError("this file is being committed already")
        self._rewritten = Extents()
        return CommitSnapshot(self.dirty.copy(), self.write_count)

    def commit_succeeded(self, snapshot: CommitSnapshot, size: int | None = None) -> None:
        """The object has all of the snapshot below `size`; what lies beyond, and what was written
        since, stays dirty."""
        del snapshot
        assert self._rewritten is not None
        if size is not None:
            for start, end in self.dirty.within(size, self.dirty.end):
                self._rewritten.add(start, end)
        self.dirty, self._rewritten = self._rewritten, None
        self.dropped.clear()
        self.published.clear()

    def was_published(self) -> None:
        """The unfinished upload was completed in the middle of a commit."""
        for start, end in self.dropped:
            self.published.add(start, end)
        self.dropped.clear()

    def commit_failed(self, snapshot: CommitSnapshot) -> None:
        """Nothing is known to be in the bucket: all stays dirty."""
        del snapshot
        self._rewritten = None
