"""The chunk files of the spool: private files of one size, recycled, bounded by bytes.

Everything here is synchronous and runs in the trio loop but for `trim`, whose slow part runs in
a thread. Nothing waits: a request that finds no room is answered None or False.
"""

import contextlib
import errno
import logging
import os
import resource
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from s3mount.core.config import MIB, WritebackConfig
from s3mount.core.errors import ConfigurationError, FilesystemError
from s3mount.core.part_schedule import PartSchedule
from s3mount.writeback.chunk import BLOCK, DISK_FULL, Chunk, SpoolDiskError
from s3mount.writeback.chunk_files import ChunkFiles

log = logging.getLogger(__name__)

# Tiny files live in memory up to here: the writes of a 4 KiB file then touch no disk.
SMALL = 128 * 1024
MEMORY_LIMIT = 64 * MIB  # for all tiny files together; beyond it they take sparse chunk files
KEPT_FREE = 32  # chunk files kept for the next writer, whose pages are still in memory
PREFERRED_CHUNK = 8 * MIB
# Empty files made ahead for a spool that must survive power cuts: closing a file of this many
# chunks then needs no fsync of the directory. They take an inode each, and no bytes.
PREPARED = 16


def chunk_size_for(part_size: int) -> int:
    """The part size, or an equal fraction of it near 8 MiB where parts are larger."""
    pieces = -(-part_size // PREFERRED_CHUNK)
    whole = part_size % (pieces * BLOCK) == 0
    return part_size // pieces if whole else part_size


class ChunkPool:
    """Invariant: the bytes that chunk files may take on disk (`charged` of each, free ones too)
    plus the memory of tiny files never exceed `limit`, and a new charge leaves `disk_reserve`
    bytes free on the disk.

    A *dense* chunk is charged in full when taken: whoever started a chunk can always finish it,
    so that many writers in a small spool never block each other half way. A *sparse* one is
    charged for the blocks it touches: small files and scattered edits cost what they hold.
    What an earlier process left is charged as well, even beyond the limit: then nothing new is
    taken until it is below.

    `sealed`: names of the files that a record of the journal names; they are not recycled, and
    outlive this process.
    """

    def __init__(self, config: WritebackConfig, schedule: PartSchedule) -> None:
        self.chunk_size = chunk_size_for(schedule.part_size)
        self.limit = config.spool_limit
        if self.limit < 4 * schedule.part_size:
            raise ConfigurationError(
                f"a spool of {self.limit} bytes is too small: it must hold at least four parts "
                f"of {schedule.part_size} bytes (a larger spool limit or a smaller part size)"
            )
        self.small = min(SMALL, self.chunk_size)
        self.charged = 0  # free ones included
        self.memory = 0  # part of `charged`
        self._memory_limit = min(MEMORY_LIMIT, self.limit // 4)
        self._reserve = config.disk_reserve
        self.files = ChunkFiles(config.spool_dir)
        self.sealed: set[str] = set()
        self._free: list[Chunk] = []  # dense, still charged
        self._empty: list[Chunk] = []  # files of no bytes, charged nothing
        self._live = 0
        self._filling: list[Chunk] = []  # new dense files whose blocks are not all taken yet
        self._overdraft = False
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Half of the descriptors stay for connections and the cache.
        self._most_files = max(64, (1 << 20 if soft < 0 else soft) // 2)

    # -- the directory

    def open(self, keep: Collection[str] = ()) -> None:
        """Takes the directory. Chunk files of a dead process are removed but for those of the
        names `keep`, which wait for `adopt` or `release_kept`.

        Raises ConfigurationError when a living process has it.
        """
        self.files.open(keep)
        self.charged += sum(self.files.kept.values())

    def close(self, keep: Collection[str] = ()) -> None:
        """Removes the files that no record names (`sealed`, `keep`); those still live stay
        readable."""
        for chunk in self._free + self._empty:
            os.close(chunk.fd)
        self._free.clear()
        self._empty.clear()
        if self.files.is_open:
            self.files.close({*self.sealed, *self.files.kept, *keep})

    def adopt(self, name: str, filled: list[int], crcs: list[int], dense: bool) -> Chunk:
        """A sealed chunk of a kept file, charged even beyond the limit, with all of its blocks
        `unchecked`. A file that is gone reads as damaged. Raises FilesystemError."""
        if name in self.sealed:
            raise FilesystemError(errno.EIO, f"two records name the chunk file {name}")
        fd, found = self.files.reopen(name)
        if not found:
            log.error("the chunk file %s is not there any more", name)
        self.charged -= self.files.kept.pop(name, 0)
        chunk = Chunk(self.chunk_size, fd, name)
        chunk.filled, chunk.crcs = filled, crcs
        chunk.unchecked = {block for block, have in enumerate(filled) if have}
        chunk.dense = dense
        chunk.charged = self.chunk_size if dense else len(chunk.unchecked) * BLOCK
        self.charged += chunk.charged
        self._live += 1
        self.seal(chunk)
        return chunk

    def release_kept(self, but: Collection[str] = ()) -> None:
        """Removes the files that were kept and that nobody adopted; `but` are needed still."""
        for name, size in list(self.files.kept.items()):
            if name in but:
                continue
            self.files.remove(name)
            self.charged -= size
            del self.files.kept[name]

    def prepare(self) -> None:
        """Makes empty files ahead; see PREPARED."""
        while len(self._empty) + len(self._free) < PREPARED:
            chunk = self._create()
            if chunk is None:
                return
            self._empty.append(chunk)

    @property
    def unprepared(self) -> bool:
        """Whether `prepare` is due."""
        return len(self._empty) + len(self._free) < PREPARED // 2

    def seal(self, chunk: Chunk) -> None:
        """A record is about to name this file."""
        chunk.sealed = True
        self.sealed.add(chunk.name)

    def unseal(self, chunk: Chunk) -> None:
        """No record names it any more."""
        chunk.sealed = False
        self.sealed.discard(chunk.name)

    @property
    def live(self) -> int:
        """Chunk files in use."""
        return self._live

    # -- room

    def has_room(self, chunks: int) -> bool:
        """For so many whole ones, as far as the limit goes."""
        return self.charged + (chunks - len(self._free)) * self.chunk_size <= self.limit

    def charge(self, amount: int) -> bool:
        """Takes `amount` bytes of the limit, if need be from free chunk files."""
        while not self._overdraft and self.charged + amount > self.limit:
            if not self._free:
                return False
            self._discard(self._free.pop())
        self.charged += amount
        return True

    def refund(self, amount: int) -> None:
        self.charged -= amount

    @contextmanager
    def overdraft(self) -> Iterator[None]:
        """While inside everything has room: for what a record must not be without. No awaits."""
        self._overdraft = True
        try:
            yield
        finally:
            self._overdraft = False

    def _disk_has(self, amount: int) -> bool:
        """Asked once a chunk, not once a write: a few microseconds."""
        if self._overdraft:
            return True
        state = os.statvfs(self.files.directory)
        free = state.f_bavail * state.f_frsize
        unfilled = 0
        self._filling = [chunk for chunk in self._filling if chunk.fd >= 0]
        for chunk in tuple(self._filling):
            missing = self.chunk_size - len(chunk.filled) * BLOCK
            if missing > 0:
                unfilled += missing
            else:
                self._filling.remove(chunk)
        return free - unfilled - amount >= self._reserve

    def _discard(self, chunk: Chunk) -> None:
        """A free file gives its disk space back."""
        with contextlib.suppress(OSError):
            os.ftruncate(chunk.fd, 0)
        self.charged -= chunk.charged
        chunk.charged = 0
        chunk.dense = False
        self._empty.append(chunk)

    # -- chunks

    def in_memory(self, length: int) -> Chunk | None:
        """A tiny chunk that will hold `length` bytes."""
        if self.memory + length > self._memory_limit or not self.charge(length):
            return None
        self.memory += length
        chunk = Chunk(self.chunk_size, -1, "memory")
        chunk.data = bytearray()
        chunk.charged = length
        return chunk

    def dense(self) -> Chunk | None:
        """A chunk file charged in full; its old bytes are still in it."""
        if self._free:
            chunk = self._free.pop()
            self._live += 1
            return chunk
        if not self._disk_has(self.chunk_size) or not self.charge(self.chunk_size):
            return None
        fresh = None
        try:
            fresh = self._file()
        finally:
            if fresh is None:
                self.refund(self.chunk_size)
        if fresh is None:
            return None
        fresh.charged = self.chunk_size
        fresh.dense = True
        self._filling.append(fresh)
        return fresh

    def sparse(self) -> Chunk | None:
        """An empty chunk file, charged nothing yet; see `grow`."""
        return self._file()

    def _file(self) -> Chunk | None:
        if not self._empty and self._live + len(self._free) >= self._most_files:
            if not self._free:
                return None
            self._discard(self._free.pop())
        if self._empty:
            chunk = self._empty.pop()
        else:
            opened = self._create()
            if opened is None:
                return None
            chunk = opened
        self._live += 1
        return chunk

    def _create(self) -> Chunk | None:
        created = self.files.create()
        return None if created is None else Chunk(self.chunk_size, *created)

    def twin(self, chunk: Chunk) -> Chunk | None:
        """An empty chunk file charged as `chunk` is, which will hold a copy of it."""
        if chunk.dense:
            return self.dense()
        twin = self.sparse()
        if twin is None or not chunk.charged:
            return twin
        if not self._disk_has(chunk.charged) or not self.charge(chunk.charged):
            self.release(twin)
            return None
        twin.charged = chunk.charged
        return twin

    def grow(self, chunk: Chunk, start: int, end: int) -> bool:
        """Charges a tiny or sparse chunk for a write of [start, end)."""
        if chunk.data is not None:
            more = end - chunk.charged
            if more <= 0:
                return True
            if end > self.small or self.memory + more > self._memory_limit:
                return self._move_to_disk(chunk, start, end)
            if not self.charge(more):
                return False
            self.memory += more
            chunk.charged += more
            return True
        more = chunk.untouched(start, end) * BLOCK
        if not more:
            return True
        if chunk.charged + more >= self.chunk_size // 2:
            return self._make_dense(chunk)
        if not self._disk_has(more) or not self.charge(more):
            return False
        chunk.charged += more
        return True

    def _make_dense(self, chunk: Chunk) -> bool:
        """From half full on a sparse chunk is charged as a whole, so that it can be finished."""
        more = self.chunk_size - chunk.charged
        if not self._disk_has(more) or not self.charge(more):
            return False
        chunk.charged = self.chunk_size
        chunk.dense = True
        self._filling.append(chunk)
        return True

    def _move_to_disk(self, chunk: Chunk, start: int, end: int) -> bool:
        """A tiny chunk becomes a file: dense where it grows, sparse where memory ran out."""
        target = self.dense() if end > self.small else self.sparse()
        if target is None:
            return False
        held = chunk.data or bytearray()
        if not target.dense:
            # At most three blocks: `small` is two.
            blocks = -(-max(end, len(held)) // BLOCK) * BLOCK
            if not self._disk_has(blocks) or not self.charge(blocks):
                self.release(target)
                return False
            target.charged = blocks
        try:
            target.write_raw(0, memoryview(held))
        except OSError as error:
            self.release(target)
            if error.errno in DISK_FULL:
                return False
            raise SpoolDiskError("write", target.name, error) from error
        self.memory -= chunk.charged
        self.refund(chunk.charged)
        chunk.fd, chunk.name, chunk.data = target.fd, target.name, None
        chunk.charged, chunk.dense = target.charged, target.dense
        chunk.unsynced = True
        return True

    def pin(self, chunk: Chunk) -> None:
        chunk.pins += 1

    def unpin(self, chunk: Chunk) -> bool:
        """True when this gave the chunk back."""
        chunk.pins -= 1
        if chunk.pins == 0 and chunk.doomed:
            self._take_back(chunk)
            return True
        return False

    def release(self, chunk: Chunk) -> None:
        """The owner is done with it; a pinned one comes back with its last unpin."""
        assert not chunk.sealed
        if chunk.pins:
            chunk.doomed = True
        else:
            self._take_back(chunk)

    def _take_back(self, chunk: Chunk) -> None:
        if chunk.data is not None:
            self.memory -= chunk.charged
            self.refund(chunk.charged)
            chunk.data = None
            return
        self._live -= 1
        recycled = Chunk(self.chunk_size, chunk.fd, chunk.name)
        recycled.charged, recycled.dense = chunk.charged, chunk.dense
        chunk.fd = -1  # nobody may use it through the old owner's object any more
        if recycled.dense and self.charged <= self.limit:
            self._free.append(recycled)
        else:
            self._discard(recycled)

    # -- giving disk space back

    @property
    def surplus(self) -> bool:
        """Whether `trim` has something to do."""
        return len(self._free) > KEPT_FREE or len(self._empty) > KEPT_FREE

    def take_surplus(self) -> list[Chunk]:
        """Free chunks beyond those kept; still charged until `remove` and `removed`."""
        taken = self._free[KEPT_FREE:] + self._empty[KEPT_FREE:]
        del self._free[KEPT_FREE:], self._empty[KEPT_FREE:]
        return taken

    def remove(self, chunks: list[Chunk]) -> None:
        """Deletes the files; for a worker thread, as freeing many pages takes milliseconds."""
        for chunk in chunks:
            os.close(chunk.fd)
            self.files.remove(chunk.name)

    def removed(self, chunks: list[Chunk]) -> None:
        self.charged -= sum(chunk.charged for chunk in chunks)
