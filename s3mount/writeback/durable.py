"""Making the chunk files of one file durable."""

from collections.abc import Callable, Sequence
from functools import partial

import trio

from s3mount.core.errors import FilesystemError
from s3mount.writeback.chunk import Chunk, SpoolDiskError
from s3mount.writeback.chunk_pool import ChunkPool
from s3mount.writeback.lock import Lock
from s3mount.writeback.parallel import all_of

# Of one file at once: enough to keep a disk's queue busy.
PARALLEL = 4


class SpoolSync:
    """One call at a time (`_lock`), else the second would believe flags that the first has
    cleared and not yet earned."""

    def __init__(self, pool: ChunkPool) -> None:
        self._pool = pool
        self._lock = Lock()

    async def __call__(self, chunks: Callable[[], Sequence[Chunk]]) -> None:
        """fdatasync of those of `chunks()` that were written since their last one, and fsync of
        the directory where a power cut could still undo the name of one. Raises SpoolDiskError:
        then those are `suspect`, and the next call writes their blocks again first."""
        async with self._lock:
            files = [chunk for chunk in chunks() if chunk.data is None and chunk.fd >= 0]
            late = [chunk for chunk in files if chunk.unsynced or chunk.suspect]
            if not files:
                return
            names = {chunk.name for chunk in files}
            for chunk in late:
                self._pool.pin(chunk)
            try:
                await all_of([partial(self._one, chunk) for chunk in late], PARALLEL)
            finally:
                for chunk in late:
                    self._pool.unpin(chunk)
            await self._pool.files.settle(names)

    async def _one(self, chunk: Chunk) -> None:
        if chunk.suspect:
            try:
                chunk.rewrite()
            except FilesystemError:
                chunk.suspect = True
                raise
        # Before the call: what is written while it runs is not covered by it.
        chunk.unsynced = False
        try:
            await trio.to_thread.run_sync(chunk.fdatasync)
        except OSError as error:
            chunk.unsynced = chunk.suspect = True
            raise SpoolDiskError("sync", chunk.name, error) from error
        except BaseException:  # cancelled before it began
            chunk.unsynced = True
            raise
