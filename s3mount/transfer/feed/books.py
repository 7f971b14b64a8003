"""The journal of the feeds of one source to one place: what an interrupted one has left."""

import fcntl
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import trio

from s3mount.core.errors import ConfigurationError
from s3mount.filesystem.directories import make_private
from s3mount.store.base import ObjectStore
from s3mount.transfer.file_sender import FileSender
from s3mount.writeback.journal import Journal
from s3mount.writeback.journal_files import journal_in
from s3mount.writeback.journal_records import UploadRecord
from s3mount.writeback.recovery import LeftUploads

# Beside `mounts`, in the directory of all that this machine keeps of the bucket.
DIRECTORY = "feeds"


@dataclass(slots=True)
class Books:
    """`earlier`: unfinished uploads by key; `unknown`: those whose creation was not answered."""

    journal: Journal
    earlier: dict[str, UploadRecord] = field(default_factory=dict)
    older: list[UploadRecord] = field(default_factory=list)  # of the same keys
    unknown: list[UploadRecord] = field(default_factory=list)

    async def tidy(self, store: ObjectStore) -> list[str]:
        """Looks once for uploads whose id was never learnt, and aborts those that are old enough
        (recovery.LeftUploads); texts of those that stay recorded."""
        # Those that this feed will begin are of another time than any that is looked for now.
        known = {one.upload_id for one in (*self.earlier.values(), *self.older) if one.upload_id}
        left = LeftUploads(store, self.journal, lambda: known)
        for record in self.unknown:
            left.add(record)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.run)
            await left.tried()
            nursery.cancel_scope.cancel()
        return left.report

    async def discard_rest(self, sender: FileSender) -> None:
        """Of what the source does not have any more, or that is in the bucket by now."""
        for record in (*self.earlier.values(), *self.older):
            await sender.discard(record)


@asynccontextmanager
async def open_books(shared: Path, bucket: str, place: str, source: str) -> AsyncIterator[Books]:
    """`shared`: of all that this machine keeps of the bucket; `place`: the key root.

    Raises ConfigurationError where another feed of the same is at work.
    """
    identity = json.dumps({"bucket": bucket, "prefix": place, "source": source})
    directory = (
        shared / DIRECTORY / sha256(identity.encode(errors="surrogateescape")).hexdigest()[:12]
    )
    for one in (shared, shared / DIRECTORY, directory):
        make_private(one)
    with (directory / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigurationError(
                f"process {lock.read().strip()} is feeding {source} to the same place"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        journal = await trio.to_thread.run_sync(journal_in, directory, identity)
        try:
            yield _opened(journal)
        finally:
            with trio.CancelScope(shield=True):
                await journal.aclose()


async def tidy_dead(directory: Path, owner: Mapping[str, Any], store: ObjectStore) -> list[str]:
    """Books.tidy for a feed that is not at work: `directory` is that of its journal, `owner` what
    that says. Raises ConfigurationError where it is at work by now."""
    shared = directory.parent.parent
    async with (
        open_books(shared, owner["bucket"], owner["prefix"], owner["source"]) as books,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(books.journal.run)
        left = await books.tidy(store)
        nursery.cancel_scope.cancel()
    return left


def _opened(journal: Journal) -> Books:
    books = Books(journal)
    for record in sorted(journal.load().uploads.values(), key=lambda one: one.id):
        if record.upload_id is None:
            books.unknown.append(record)
            continue
        before = books.earlier.get(record.key)
        if before is not None:
            books.older.append(before)
        books.earlier[record.key] = record
    return books
