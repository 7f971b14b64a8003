"""The spool: where the bytes that programs write wait for their upload."""

import errno
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import trio

from s3mount.core.config import WritebackConfig
from s3mount.core.errors import FilesystemError
from s3mount.core.part_schedule import PartSchedule
from s3mount.writeback.chunk import SpoolDiskError
from s3mount.writeback.chunk_pool import ChunkPool
from s3mount.writeback.journal_records import SpoolRecord
from s3mount.writeback.spool_restore import chunks_of, copy_into, in_blocks, moved_chunks

if TYPE_CHECKING:
    from s3mount.writeback.spooled_file import SpooledFile

log = logging.getLogger(__name__)

# Free chunk files are left to the next writer for so long before their disk space is returned.
TRIM_DELAY = 1.0


class Spool:
    """All spooled files of a mount; owns the pool and the waiting for room.

    `on_pressure()` is called, synchronously, whenever a writer finds no room: it starts or drops
    what it can (the uploader sets it). `progress_at` is the trio time of the last byte that the
    store acknowledged (the uploader sets it as well): while it moves, writers wait on.
    """

    def __init__(self, config: WritebackConfig, schedule: PartSchedule) -> None:
        self.config = config
        self.schedule = schedule
        self.pool = ChunkPool(config, schedule)
        self.files: set[SpooledFile] = set()
        self.on_pressure: Callable[[], None] | None = None
        # Whether nothing of what fills the spool will ever be sent: no writer need wait for that.
        self.is_stuck: Callable[[], bool] = lambda: False
        self.progress_at = -float("inf")
        self.waiting = 0
        self._room = trio.Event()
        self._surplus = trio.Event()
        self._short = trio.Event()

    def open(self, keep: Collection[str] = ()) -> None:
        """Takes the directory; raises ConfigurationError when another process has it.

        `keep`: the chunk files that the journal names. They stay for `restore` and `export`,
        until `pool.release_kept()`.
        """
        self.pool.open(keep)

    def close(self, keep: Collection[str] = ()) -> None:
        """Removes the chunk files but for those of `keep`, and those sealed and not forgotten."""
        for file in tuple(self.files):
            file.close()
        self.pool.close(keep)

    async def __aenter__(self) -> "Spool":
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def create_file(self) -> "SpooledFile":
        from s3mount.writeback.spooled_file import SpooledFile

        file = SpooledFile(self)
        self.files.add(file)
        return file

    def restore(self, record: SpoolRecord) -> "SpooledFile":
        """The file as `record` has it, sealed; its chunk files were kept by `open`.

        All of it is charged, even beyond the limit. Nothing is read yet: what is damaged or gone
        raises CorruptSpool when it is needed, before any of its block is used. A record made with
        another part size is copied here (seconds for gigabytes), and nothing is sealed until the
        caller does it; where parts are no multiples of 64 KiB CorruptSpool comes now. Raises
        FilesystemError.
        """
        file = self.create_file()
        try:
            directory, sizes = self.config.spool_dir, (record.chunk_size, self.pool.chunk_size)
            if record.chunk_size == self.pool.chunk_size:
                file.adopt(record, chunks_of(self.pool, record), sealed=True)
            elif all(map(in_blocks, sizes)):
                file.adopt(record, moved_chunks(self.pool, directory, record), sealed=False)
            else:
                copy_into(file, self.pool, directory, record)
                file.adopt(record, None, sealed=False)
        except BaseException:
            file.close()
            raise
        return file

    def usage(self) -> dict[str, int]:
        """Bytes and counts for `status`; `used` includes `memory` and recycled free files."""
        pool = self.pool
        return {
            "used": pool.charged,
            "memory": pool.memory,
            "limit": pool.limit,
            "chunks": pool.live,
            "waiting": self.waiting,
        }

    def release_clean(self) -> None:
        """Gives back every chunk that the bucket has as well, but for files being read."""
        for file in tuple(self.files):
            if not file.keep_clean and not file.readers:
                file.release_clean()

    def wake(self) -> None:
        """Something was given back, sent or failed: waiting writers look again."""
        if self.waiting:
            self._room.set()
            self._room = trio.Event()
        if self.pool.surplus:
            self._surplus.set()

    async def until(self, attempt: Callable[[], bool], file: "SpooledFile") -> None:
        """Waits until `attempt()` is true, helped by on_pressure.

        Raises `file.failure` if its upload failed for good, and ENOSPC when for
        no_progress_timeout seconds nothing was sent, or at once when nothing ever will be.
        """
        started = trio.current_time()
        timeout = self.config.no_progress_timeout
        self.waiting += 1
        try:
            while True:
                changed = self._room
                if attempt():
                    return
                if self.on_pressure is not None:
                    self.on_pressure()
                    if attempt():
                        return
                if file.failure is not None:
                    raise file.failure
                if changed is not self._room:
                    continue  # on_pressure gave something back: look again before sleeping
                deadline = max(started, self.progress_at) + timeout
                if trio.current_time() >= deadline or self.is_stuck():
                    raise FilesystemError(errno.ENOSPC, self._nothing_drains())
                with trio.move_on_at(deadline):
                    await changed.wait()
        finally:
            self.waiting -= 1

    def _nothing_drains(self) -> str:
        used = self.usage()
        full = f"the spool holds {used['used']} of {used['limit']} bytes and nothing "
        if self.is_stuck():
            return full + "of it can be sent: the files were removed while they were open"
        return full + f"was sent for {self.config.no_progress_timeout:.0f} s"

    async def run(self) -> None:
        """Returns the disk space of chunk files that nobody needs, and with durability=journal
        makes some ahead; until cancelled."""
        async with trio.open_nursery() as nursery:
            if self.config.durability == "journal":
                nursery.start_soon(self._keep_prepared)
            nursery.start_soon(self._keep_trimmed)

    async def _keep_prepared(self) -> None:
        while True:
            try:
                await self.prepare()
            except SpoolDiskError as error:
                log.warning("no chunk files can be made ahead: %s", error)
            self._short = trio.Event()
            await self._short.wait()

    async def prepare(self) -> None:
        """Makes chunk files ahead, so that `sync` of the next files needs no fsync of the
        directory. Raises SpoolDiskError."""
        self.pool.prepare()
        await self.pool.files.settle(self.pool.files.uncertain)

    def synced(self) -> None:
        """A file's chunks were; perhaps new ones are to be made ahead."""
        if self.pool.unprepared:
            self._short.set()

    async def _keep_trimmed(self) -> None:
        while True:
            await self._surplus.wait()
            await trio.sleep(TRIM_DELAY)
            self._surplus = trio.Event()
            await self.trim()

    async def trim(self) -> None:
        """Deletes the free chunk files beyond those kept for the next writer."""
        while self.pool.surplus:
            chunks = self.pool.take_surplus()
            with trio.CancelScope(shield=True):  # else their charge would never be refunded
                await trio.to_thread.run_sync(self.pool.remove, chunks)
            self.pool.removed(chunks)
            self.wake()
