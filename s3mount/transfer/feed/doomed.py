"""Keys that the source does not have, kept until all else is done, then deleted."""

import tempfile
from collections.abc import Callable, Iterator
from typing import IO

from s3mount.store.base import ObjectStore

BATCH = 1000  # DeleteObjects' own limit
# In memory up to here, then in a temporary file: a tree of millions may have gone.
IN_MEMORY = 4 * 1024 * 1024


class DoomedKeys:
    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115

    def add(self, key: str) -> None:
        self._file.write(key.encode("utf-8", "surrogateescape") + b"\0")

    async def delete(
        self,
        store: ObjectStore,
        done: Callable[[str], None],
        failed: Callable[[str, Exception], None],
        *,
        dry_run: bool = False,
    ) -> None:
        """Raises StoreErrors where a whole request failed."""
        for batch in self._batches():
            answered = [] if dry_run else await store.delete_many(batch)
            failures = {one.key: one.error for one in answered}
            for key in batch:
                if key in failures:
                    failed(key, failures[key])
                else:
                    done(key)

    def _batches(self) -> Iterator[list[str]]:
        self._file.seek(0)
        rest, batch = b"", []
        while data := self._file.read(1024 * 1024):
            *whole, rest = (rest + data).split(b"\0")
            for raw in whole:
                batch.append(raw.decode("utf-8", "surrogateescape"))
                if len(batch) == BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def close(self) -> None:
        self._file.close()
