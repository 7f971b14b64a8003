"""Which chunk files the journal's records of one file name, and the making of these records."""

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from s3mount.core.extents import Extents
from s3mount.writeback.chunk import BLOCK, Chunk, crc32c
from s3mount.writeback.chunk_pool import ChunkPool
from s3mount.writeback.journal_records import ChunkRecord, Ranges, SpoolRecord

if TYPE_CHECKING:
    from s3mount.writeback.spooled_file import SpooledFile


def pack(numbers: list[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def unpack(packed: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(packed) // 4}I", packed))


def ranges(extents: Extents) -> Ranges:
    return tuple(extents)


def record_of(file: "SpooledFile", chunks: Mapping[int, Chunk], chunk_size: int) -> SpoolRecord:
    """What the file has now: plain copies, which no later change reaches."""
    named: list[ChunkRecord] = []
    body: bytes | None = None
    body_crcs: list[int] = []
    for index, chunk in sorted(chunks.items()):
        if chunk.data is not None:
            body, body_crcs = _body_of(chunk)
        else:
            filled, crcs = pack(chunk.filled), pack(chunk.crcs)
            named.append(ChunkRecord(index, chunk.name, filled, crcs, chunk.dense))
    return SpoolRecord(
        present=ranges(file.present),
        dirty=ranges(file.dirty),
        dropped=ranges(file.dropped),
        published=ranges(file.published),
        chunks=tuple(named),
        chunk_size=chunk_size,
        body=body,
        body_crcs=pack(body_crcs),
    )


def _body_of(chunk: Chunk) -> tuple[bytes, list[int]]:
    """The bytes of a chunk in memory and their CRCs, made of those of the writers' buffers: a
    block that was cut or not filled is filled up with zeros."""
    blocks: list[bytes] = []
    crcs: list[int] = []
    end = chunk.end
    for block in range(-(-end // BLOCK)):
        have, crc = chunk.filled[block], chunk.crcs[block]
        zeros = bytes(min(BLOCK, end - block * BLOCK) - have)
        blocks.append(chunk.read_raw(block * BLOCK, have) + zeros)
        crcs.append(crc32c(zeros, crc))
    return b"".join(blocks), crcs


class Seals:
    """The chunk files of one file that its records name, of which the journal has one or will
    have the next: none of them is changed or recycled until no record names it.

    `made`, then `recorded`, `unwanted` or nothing (it could not be written); at last `forgotten`.
    """

    def __init__(self, pool: ChunkPool) -> None:
        self._pool = pool
        # The records that the journal may hold, oldest first: the names in each.
        self._records: list[tuple[SpoolRecord, frozenset[str]]] = []
        self._recorded: SpoolRecord | None = None  # the one that the journal has
        # Its `dropped` and `published` are in the committed object by now.
        self._settled: SpoolRecord | None = None
        # Its `dropped` are in an object that was published early.
        self._published: SpoolRecord | None = None
        self.held: list[Chunk] = []  # sealed, and no part of the file any more

    @property
    def last(self) -> SpoolRecord | None:
        """The newest record made."""
        return self._records[-1][0] if self._records else None

    @property
    def dropped(self) -> Ranges:
        """What the newest record has in parts of the unfinished upload only."""
        last = self.last
        if last is None or last is self._settled or last is self._published:
            return ()
        return last.dropped

    @property
    def amendable(self) -> bool:
        """Whether the newest record is in the journal: else it would overwrite an amendment."""
        return self.last is self._recorded

    def committed(self) -> None:
        """The upload that the newest record counts on is completed."""
        self._settled = self.last

    def was_published(self) -> None:
        """That upload became an object before the commit was complete."""
        self._published = self.last

    def made(self, record: SpoolRecord, chunks: list[Chunk]) -> None:
        """`record` names `chunks`, and is about to be written."""
        for chunk in chunks:
            self._pool.seal(chunk)
        self._records.append((record, frozenset(chunk.name for chunk in record.chunks)))

    def without(self, indexes: list[int]) -> SpoolRecord | None:
        """The newest record with the bytes of these sealed chunks moved from `present` to
        `dropped`, to be written in the place of that one. None without a record, and while
        one is on its way into the journal, for that would come after this."""
        last = self.last
        if last is None or not self.amendable:
            return None
        present, dirty, dropped = map(Extents, (last.present, last.dirty, self.dropped))
        for index in indexes:
            start, end = index * last.chunk_size, (index + 1) * last.chunk_size
            present.remove(start, end)
            dirty.remove(start, end)
            dropped.add(start, end)
        published = () if last is self._settled else last.published
        if last is self._published and last is not self._settled:
            published += last.dropped
        record = replace(
            last,
            present=ranges(present),
            dirty=ranges(dirty),
            dropped=ranges(dropped),
            published=published,
            chunks=tuple(chunk for chunk in last.chunks if chunk.index not in indexes),
        )
        self._records.append((record, frozenset(chunk.name for chunk in record.chunks)))
        return record

    def hold(self, chunk: Chunk) -> None:
        """A sealed chunk left the file."""
        self.held.append(chunk)

    def recorded(self, record: SpoolRecord) -> None:
        """What only older ones name is given back."""
        for position, (known, _) in enumerate(self._records):
            if known is record:
                del self._records[:position]
                self._recorded = record
                break
        else:
            return
        self._give_back_unnamed()

    def unwanted(self, record: SpoolRecord) -> frozenset[str]:
        """It was not written and will not be. Returns what the others name: the caller unseals
        what else is still in the file."""
        settled = self._settled is record
        self._records = [known for known in self._records if known[0] is not record]
        if settled:
            self._settled = self.last
        return self._give_back_unnamed()

    def forgotten(self, record: SpoolRecord | None) -> frozenset[str]:
        """The journal has neither this one any more nor an older one. Returns as `unwanted`."""
        for position, (known, _) in enumerate(self._records):
            if known is record:
                del self._records[: position + 1]
                break
        if all(known is not self._recorded for known, _ in self._records):
            self._recorded = None
        return self._give_back_unnamed()

    def _give_back_unnamed(self) -> frozenset[str]:
        named = frozenset[str]().union(*(names for _, names in self._records))
        gone = [chunk for chunk in self.held if chunk.name not in named]
        self.held = [chunk for chunk in self.held if chunk.name in named]
        for chunk in gone:
            self._pool.unseal(chunk)
            self._pool.release(chunk)
        return named
