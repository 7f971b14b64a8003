"""The bytes of a file as of a record, to be sent while the file itself is written on."""

from typing import TYPE_CHECKING

from s3mount.writeback.change_stamps import ChangeStamps
from s3mount.writeback.chunk import Chunk
from s3mount.writeback.journal_records import SpoolRecord
from s3mount.writeback.seals import unpack
from s3mount.writeback.spool_restore import fill_from
from s3mount.writeback.spooled_file import SpooledFile

if TYPE_CHECKING:
    from s3mount.writeback.spool import Spool


class FrozenFile(SpooledFile):
    """What `file` was when `record` was made, with `stamps` of then; to be closed.

    Its chunks are the sealed ones of the file, which nobody writes, pinned here: so they stay also
    when a newer record takes this one's place. Stamps are the file's own.
    """

    def __init__(
        self, file: SpooledFile | None, record: SpoolRecord, stamps: ChangeStamps, spool: "Spool"
    ) -> None:
        """`file`: None where nothing had been written."""
        super().__init__(spool)
        self._stamps = stamps
        self._file = file
        self._borrowed: dict[int, Chunk] = {}
        chunks: dict[int, Chunk] = {}
        if record.body is not None:
            # Not charged: the record has these few bytes in memory all the time.
            chunks[0] = Chunk(spool.pool.chunk_size, -1, "memory")
            fill_from(chunks[0], record.body, unpack(record.body_crcs))
        files = {} if file is None else file.chunk_files()
        for named in record.chunks:
            original = files[named.name]
            spool.pool.pin(original)
            self._borrowed[named.index] = original
            alias = chunks[named.index] = original.alias()
            start = named.index * record.chunk_size
            if file is not None and file.changed_since(
                stamps.count, start, start + record.chunk_size
            ):
                # Cut off since: its file has all the same what it had.
                alias.filled, alias.crcs = unpack(named.filled), unpack(named.crcs)
        self.adopt(record, chunks, sealed=True)

    def is_same_as_of(self, stamp: int, start: int, end: int) -> bool:
        if stamp <= self.write_count:
            return super().is_same_as_of(stamp, start, end)
        # Read from the file after it was frozen.
        file = self._file
        return file is not None and not file.changed_since(self.write_count, start, end)

    def drop(self, start: int, end: int) -> None:
        """The file itself has dropped these: a part has them."""
        super().drop(start, end)
        for index in range(start // self._chunk_size, end // self._chunk_size):
            self._give_back(index)

    def close(self) -> None:
        super().close()
        for index in tuple(self._borrowed):
            self._give_back(index)

    def _give_back(self, index: int) -> None:
        original = self._borrowed.pop(index, None)
        if original is not None and self.spool.pool.unpin(original):
            self.spool.wake()
