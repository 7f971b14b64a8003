"""What a journal's record says of a file's bytes, made a spooled file again, or exported."""

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from s3mount.core.errors import FilesystemError
from s3mount.core.extents import Extents
from s3mount.writeback.chunk import BLOCK, Chunk
from s3mount.writeback.chunk_files import valid_name
from s3mount.writeback.journal_records import Ranges, SpoolRecord
from s3mount.writeback.seals import unpack

if TYPE_CHECKING:
    from s3mount.writeback.chunk_pool import ChunkPool
    from s3mount.writeback.spooled_file import SpooledFile

log = logging.getLogger(__name__)


def chunks_of(pool: "ChunkPool", record: SpoolRecord) -> dict[int, Chunk]:
    """The chunks of a record made with this pool's chunk size. Raises FilesystemError."""
    chunks: dict[int, Chunk] = {}
    if record.body is not None:
        with pool.overdraft():
            chunks[0] = _in_memory(pool, record.body, unpack(record.body_crcs))
    for named in record.chunks:
        chunks[named.index] = pool.adopt(
            named.name, unpack(named.filled), unpack(named.crcs), named.dense
        )
    return chunks


def _in_memory(pool: "ChunkPool", body: bytes, crcs: list[int]) -> Chunk:
    chunk = pool.in_memory(len(body))
    assert chunk is not None, "an overdraft always has room"
    fill_from(chunk, body, crcs)
    return chunk


def fill_from(chunk: Chunk, body: bytes, crcs: list[int]) -> None:
    """`chunk`, in memory, becomes the body of a record."""
    chunk.data = bytearray(body)
    chunk.crcs = crcs
    chunk.filled = _filled(len(body))
    chunk.unchecked = set(range(len(crcs)))


def _filled(length: int) -> list[int]:
    return [min(BLOCK, length - start) for start in range(0, length, BLOCK)]


def moved_chunks(pool: "ChunkPool", directory: Path, record: SpoolRecord) -> dict[int, Chunk]:
    """The same for a record made with another chunk size: its blocks are copied as they are, with
    their CRCs, so that what is damaged is found where it is needed and nothing else is lost.

    None of the chunks is sealed; the old files stay until `ChunkPool.release_kept`. Both sizes
    must be `in_blocks`. Raises FilesystemError: the disk has no room, or fails.
    """
    chunks: dict[int, Chunk] = {}
    try:
        with pool.overdraft():
            for start, old, block in _all_blocks(directory, record):
                index, at = divmod(start, pool.chunk_size)
                _make_room(pool, chunks, index, at)
                chunks[index].take_over(at // BLOCK, old, block)
    except BaseException:
        for chunk in chunks.values():
            pool.release(chunk)
        raise
    return chunks


def _make_room(pool: "ChunkPool", chunks: dict[int, Chunk], index: int, at: int) -> None:
    """For the block at `at` of chunk `index`."""
    if index not in chunks:
        chunk = pool.sparse()
        if chunk is None:
            raise _no_room()
        chunks[index] = chunk
    if not chunks[index].dense and not pool.grow(chunks[index], at, at + 1):
        raise _no_room()


def in_blocks(size: int) -> bool:
    """Whether chunks of this size hold whole blocks: then chunks of two sizes have the same."""
    return size % BLOCK == 0


def _no_room() -> FilesystemError:
    return FilesystemError(errno.ENOSPC, "the disk under the spool is full")


def copy_into(file: "SpooledFile", pool: "ChunkPool", directory: Path, record: SpoolRecord) -> None:
    """The same where blocks do not fit: all bytes are checked and written anew. Raises
    CorruptSpool too: what is damaged cannot be written."""
    present = Extents(record.present)
    with pool.overdraft():
        for start, data in _checked_blocks(directory, record, skip_damaged=False):
            for low, high in present.within(start, start + len(data)):
                if not file.try_write(low, data[low - start : high - start]):
                    raise _no_room()
    if file.present.total != present.total:
        raise FilesystemError(errno.EIO, "the record of a spooled file lacks some of its bytes")


def export(record: SpoolRecord, directory: Path, target: Path) -> Ranges:
    """Writes what can be read of a record to the new file `target`, at its offsets, sparse; the
    rest are holes. Returns what was written: of blocks that fit their CRC, what was present.

    For a worker thread; `directory` is the spool's, and nothing in it is changed. `target` is
    fsynced. Raises OSError.
    """
    present, written = Extents(record.present), Extents()
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for start, data in _checked_blocks(directory, record, skip_damaged=True):
            for low, high in present.within(start, start + len(data)):
                _write_all(fd, memoryview(data)[low - start : high - start], low)
                written.add(low, high)
        os.fsync(fd)
    finally:
        os.close(fd)
    return tuple(written)


def _write_all(fd: int, view: memoryview, offset: int) -> None:
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def _checked_blocks(
    directory: Path, record: SpoolRecord, *, skip_damaged: bool
) -> Iterator[tuple[int, bytes]]:
    """(offset in the file, bytes) of each block of a record that fits its CRC; the others are
    skipped, or CorruptSpool."""
    for start, chunk, block in _all_blocks(directory, record):
        try:
            yield start, chunk.read_block(block)
        except FilesystemError as error:
            if not skip_damaged:
                raise
            log.info("left out: %s", error)


def _all_blocks(directory: Path, record: SpoolRecord) -> Iterator[tuple[int, Chunk, int]]:
    """(offset in the file, chunk, number in it) of each block of a record, damaged or not. The
    chunk is there until the next one is asked for."""
    if record.body is not None:
        body = Chunk(len(record.body), -1, "journal")
        body.data = bytearray(record.body)
        body.filled, body.crcs = _filled(len(record.body)), unpack(record.body_crcs)
        yield from _blocks_of(body, 0)
    for named in record.chunks:
        chunk = Chunk(record.chunk_size, _open(directory, named.name), named.name)
        chunk.filled, chunk.crcs = unpack(named.filled), unpack(named.crcs)
        try:
            yield from _blocks_of(chunk, named.index * record.chunk_size)
        finally:
            if chunk.fd >= 0:
                os.close(chunk.fd)


def _blocks_of(chunk: Chunk, base: int) -> Iterator[tuple[int, Chunk, int]]:
    return ((base + block * BLOCK, chunk, block) for block, have in enumerate(chunk.filled) if have)


def _open(directory: Path, name: str) -> int:
    """-1: it cannot be read, and its blocks read as damaged."""
    try:
        if not valid_name(name):
            raise FileNotFoundError(errno.ENOENT, "no name of a chunk file", name)
        return os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        log.warning("the chunk file %s cannot be read: %s", name, error)
        return -1
