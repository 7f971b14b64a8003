"""Where the bytes of one spooled file are: its chunks, and those that only the journal names."""

from collections.abc import Awaitable, Callable

import trio

from s3mount.writeback.chunk import BLOCK, Buffer, Chunk, SpoolDiskError
from s3mount.writeback.chunk_pool import ChunkPool
from s3mount.writeback.durable import SpoolSync
from s3mount.writeback.journal_records import SpoolRecord
from s3mount.writeback.seals import Seals

# Sealed chunks up to here are copied in the loop, in about 50 us; more would hold up everybody
# else's calls.
COPIED_INLINE = 128 * 1024

WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]


class FileChunks:
    """Offsets are the file's. What of it holds bytes is the caller's affair (`present`).

    A *sealed* chunk, one that a record names, is never written: a copy takes its place first. It
    stays charged until `seals` says that nothing names it.
    """

    def __init__(self, pool: ChunkPool) -> None:
        self.size = pool.chunk_size
        self.by_index: dict[int, Chunk] = {}
        self.seals = Seals(pool)
        self._pool = pool
        self._sync = SpoolSync(pool)

    @property
    def in_memory(self) -> bool:
        return all(chunk.data is not None for chunk in self.by_index.values())

    def named(self) -> dict[str, Chunk]:
        """All chunk files that a record may name."""
        chunks = (*self.by_index.values(), *self.seals.held)
        return {chunk.name: chunk for chunk in chunks if chunk.data is None}

    # -- room

    def reserve(self, start: int, end: int) -> bool:
        """Makes room for a write of [start, end), all or nothing; False: none, or a sealed chunk
        is in the way that is too large to be copied in the loop (`to_copy`)."""
        size = self.size
        first, last = start // size, (end - 1) // size
        taken: list[int] = []
        for index in range(first, last + 1):
            low = start - index * size if index == first else 0
            high = end - index * size if index == last else size
            chunk = self.by_index.get(index)
            if chunk is None:
                chunk = self._take(index, low, high)
                if chunk is not None:
                    self.by_index[index] = chunk
                    taken.append(index)
                    continue
            elif chunk.sealed:
                if self._copy_now(index, low, high):
                    continue
            elif chunk.dense or self._pool.grow(chunk, low, high):
                continue
            for empty in taken:  # an empty chunk would only be in the way
                self.release(empty)
            return False
        return True

    def _take(self, index: int, low: int, high: int) -> Chunk | None:
        """A new chunk for a first write of [low, high) in it."""
        pool = self._pool
        if index == 0 and low == 0 and high <= pool.small:
            chunk = pool.in_memory(high)
            if chunk is not None:
                return chunk
        elif low == 0 and (high >= pool.small or index - 1 in self.by_index):
            return pool.dense()
        chunk = pool.sparse()
        if chunk is not None and not pool.grow(chunk, low, high):
            pool.release(chunk)
            return None
        return chunk

    def release(self, index: int) -> None:
        chunk = self.by_index.pop(index)
        if chunk.sealed:
            self.seals.hold(chunk)
        else:
            self._pool.release(chunk)

    # -- copies of sealed chunks

    def to_copy(self, start: int, end: int) -> int | None:
        """A chunk that `copy` must have dealt with before [start, end) can be written."""
        for index in range(start // self.size, (end - 1) // self.size + 1):
            chunk = self.by_index.get(index)
            if chunk is not None and chunk.sealed and chunk.charged > COPIED_INLINE:
                return index
        return None

    def _copy_now(self, index: int, low: int, high: int) -> bool:
        """Puts a small copy in the place of a sealed chunk, with room for [low, high)."""
        sealed = self.by_index[index]
        if sealed.charged > COPIED_INLINE:
            return False
        twin = self._pool.twin(sealed)
        if twin is None:
            return False
        try:
            sealed.copy_to(twin)
        except SpoolDiskError as error:
            self._pool.release(twin)
            if error.full:
                return False
            raise
        if not twin.dense and not self._pool.grow(twin, low, high):
            self._pool.release(twin)
            return False
        self._replace(index, twin)
        return True

    async def copy(self, index: int, until: WaitUntil) -> bool:
        """Waits for room by `until(attempt)`, and copies the sealed chunk at `index` in a thread.

        False: nothing was changed, as the chunk went another way meanwhile (copied by another
        writer, cut off, unsealed). Raises SpoolDiskError and what `until` raises.
        """
        sealed = self.by_index[index]
        twin: Chunk | None = None

        def is_current() -> bool:
            return sealed.sealed and self.by_index.get(index) is sealed

        def attempt() -> bool:
            nonlocal twin
            if not is_current():
                return True
            twin = self._pool.twin(sealed)
            return twin is not None

        await until(attempt)
        if twin is None:
            return False
        self._pool.pin(sealed)
        try:
            await trio.to_thread.run_sync(sealed.copy_to, twin)
        except BaseException:
            self._pool.release(twin)
            raise
        finally:
            self._pool.unpin(sealed)
        if not is_current():
            self._pool.release(twin)
            return False
        self._replace(index, twin)
        return True

    def _replace(self, index: int, twin: Chunk) -> None:
        self.seals.hold(self.by_index[index])
        self.by_index[index] = twin

    # -- bytes

    def write(self, index: int, start: int, data: Buffer) -> bool:
        """Writes at `start` of the file, inside one chunk; False: the disk is full. Raises
        SpoolDiskError, CorruptSpool."""
        chunk = self.by_index[index]
        try:
            chunk.write(start - index * self.size, data)
        except OSError as error:
            failure = SpoolDiskError("write", chunk.name, error)
            if failure.full:
                return False
            raise failure from error
        return True

    def read(self, start: int, end: int) -> bytes:
        """Blocks that an earlier process wrote are checked when they are read first, and reads
        of whole blocks always, as that takes no more I/O."""
        index = start // self.size
        if start < end <= (index + 1) * self.size:
            low = start - index * self.size
            return bytes(_read(self.by_index[index], low, low + end - start))
        return b"".join(_read(*piece) for piece in self.pieces(start, end))

    def pieces(self, start: int, end: int) -> list[tuple[Chunk, int, int]]:
        """(chunk, low, high) of each chunk that holds a piece of [start, end)."""
        size = self.size
        return [
            (
                self.by_index[index],
                max(start - index * size, 0),
                min(end - index * size, size),
            )
            for index in range(start // size, -(-end // size))
        ]

    def truncate(self, size: int) -> None:
        """Raises CorruptSpool when the block that is cut is damaged on the disk."""
        cut = self.by_index.get(size // self.size)
        if cut is not None and size % self.size:
            cut.truncate(size % self.size)
        beyond = -(-size // self.size)
        for index in [index for index in self.by_index if index >= beyond]:
            self.release(index)

    # -- records

    def seal(self, record: SpoolRecord) -> None:
        """`record`, of all chunks, is about to be written."""
        self.seals.made(record, [chunk for chunk in self.by_index.values() if chunk.data is None])

    def unwanted(self, record: SpoolRecord) -> None:
        """See Seals.unwanted."""
        self._unseal_all_but(self.seals.unwanted(record))

    def forgotten(self, record: SpoolRecord | None) -> bool:
        """See Seals.forgotten; whether this gave chunks back."""
        held = len(self.seals.held)
        self._unseal_all_but(self.seals.forgotten(record))
        return len(self.seals.held) < held

    def _unseal_all_but(self, named: frozenset[str]) -> None:
        for chunk in self.by_index.values():
            if chunk.sealed and chunk.name not in named:
                self._pool.unseal(chunk)

    async def sync(self) -> None:
        """All that was written before the call is on the disk, that of held chunks too."""
        await self._sync(lambda: [*self.by_index.values(), *self.seals.held])


def _read(chunk: Chunk, low: int, high: int) -> bytes | memoryview:
    if high - low >= BLOCK or chunk.unchecked:
        return chunk.read_checked(low, high)
    return chunk.read_raw(low, high - low)
