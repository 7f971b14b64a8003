"""What a journal's record says of a file's bytes, made a spooled file again, or exported."""

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from s3mount.core.errors import FilesystemError
from s3mount.core.extents import Extents
from s3mount.writeback.chunk import BLOCK, Chunk, CorruptSpool
from s3mount.writeback.chunk_files import valid_name
from s3mount.writeback.journal_records import ChunkRecord, Ranges, SpoolRecord
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
    chunk.data = bytearray(body)
    chunk.crcs = crcs
    chunk.filled = _filled(len(body))
    chunk.unchecked = set(range(len(crcs)))
    return chunk


def _filled(length: int) -> list[int]:
    return [min(BLOCK, length - start) for start in range(0, length, BLOCK)]


def copy_into(file: "SpooledFile", pool: "ChunkPool", directory: Path, record: SpoolRecord) -> None:
    """The same for a record made with another chunk size: its bytes are checked and written
    anew; the old files stay until `ChunkPool.release_kept`. Raises CorruptSpool: they cannot
    become chunks of this size as they are, and what is damaged cannot be written."""
    present = Extents(record.present)
    with pool.overdraft():
        for start, data in _checked_blocks(directory, record, skip_damaged=False):
            for low, high in present.within(start, start + len(data)):
                if not file.try_write(low, data[low - start : high - start]):
                    raise FilesystemError(errno.ENOSPC, "the disk under the spool is full")
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
    if record.body is not None:
        body = Chunk(len(record.body), -1, "journal")
        body.data = bytearray(record.body)
        body.filled, body.crcs = _filled(len(record.body)), unpack(record.body_crcs)
        yield from _blocks(body, 0, skip_damaged)
    for named in record.chunks:
        yield from _blocks_of_file(directory, named, record.chunk_size, skip_damaged)


def _blocks_of_file(
    directory: Path, named: ChunkRecord, size: int, skip_damaged: bool
) -> Iterator[tuple[int, bytes]]:
    try:
        if not valid_name(named.name):
            raise FileNotFoundError(errno.ENOENT, "no name of a chunk file", named.name)
        fd = os.open(directory / named.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if not skip_damaged:
            raise CorruptSpool(named.name, 0) from error
        log.warning("the chunk file %s cannot be read: %s", named.name, error)
        return
    try:
        chunk = Chunk(size, fd, named.name)
        chunk.filled, chunk.crcs = unpack(named.filled), unpack(named.crcs)
        yield from _blocks(chunk, named.index * size, skip_damaged)
    finally:
        os.close(fd)


def _blocks(chunk: Chunk, base: int, skip_damaged: bool) -> Iterator[tuple[int, bytes]]:
    for block, have in enumerate(chunk.filled):
        if have:
            try:
                yield base + block * BLOCK, chunk.read_block(block)
            except FilesystemError as error:
                if not skip_damaged:
                    raise
                log.info("left out: %s", error)
