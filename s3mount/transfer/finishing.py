"""What a mount that died left in its journal, finished without a mount: the recovery of
FileSystem, without FUSE."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

from s3mount.core.config import MountConfig
from s3mount.core.part_schedule import TIERS
from s3mount.filesystem.build import open_filesystem
from s3mount.filesystem.filesystem import FileSystem
from s3mount.filesystem.stat import Pending
from s3mount.store.base import ObjectStore
from s3mount.writeback.journal_files import KnownJournal, open_journal
from s3mount.writeback.journal_records import JournalContents
from s3mount.writeback.recoverable import describe

# Uploads that nobody needs are aborted while the rest is sent; what takes longer stays recorded.
UPLOADS_TIME = 30.0


@dataclass(slots=True)
class Finished:
    """`left`: what could not be sent, and is still in the journal. `notes`: conflicts, and what
    was dropped because others had changed it. `recoverable`: files that were never closed.
    `uploads`: those that stay in the bucket for now."""

    intents: int = 0
    bytes: int = 0
    left: Pending = field(default_factory=lambda: Pending(0, 0, 0, []))
    not_sent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    recoverable: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)


def missing_bytes(journal: KnownJournal, config: MountConfig) -> int:
    """How many chunk files that the journal names are not where `config` has them: they would be
    taken for lost. Another --spool-size or part size does no harm, another directory does."""
    spool = config.writeback.spool_dir
    names = {
        chunk.name for record in journal.contents.files.values() for chunk in record.spool.chunks
    }
    return sum(not (spool / name).exists() for name in names)


def with_its_part_size(config: MountConfig, contents: JournalContents) -> MountConfig:
    """The part size is that of the mount which died, as its parts show: with another one none of
    them would be of use. Copied parts have a size of their own, and parts grow after the first
    tier."""
    writeback = config.writeback
    sizes = {
        part.end - part.start
        for upload in contents.uploads.values()
        for part in upload.parts.values()
        if part.base is None and part.number <= writeback.max_parts // TIERS
    }
    size = max(sizes, default=0)
    if not writeback.min_part_size <= size <= writeback.max_part_size:
        return config  # there is none but that of a file's end
    spool_limit = max(writeback.spool_limit, 4 * size)
    return replace(config, writeback=replace(writeback, part_size=size, spool_limit=spool_limit))


async def finish(
    config: MountConfig,
    store: ObjectStore,
    *,
    timeout: float | None = None,
    progress: Callable[[Pending], None] = lambda pending: None,
) -> Finished:
    """Sends what the journal of `config` holds, for `timeout` seconds at most; its directory must
    be locked. Closes `store`. Cancelled, it leaves the journal as a mount that dies would."""
    journal = await trio.to_thread.run_sync(open_journal, config)
    filesystem = await open_filesystem(config, store, journal=journal)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(filesystem.run)
            recovering = await filesystem.recover()
            finished = Finished(recovering.recovered.intents, recovering.recovered.bytes)
            finished.left = await filesystem.drain(timeout, progress)
            with trio.move_on_after(UPLOADS_TIME):
                await recovering.uploads.tried()
            _describe(filesystem, finished)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await filesystem.aclose()
    return finished


def _describe(filesystem: FileSystem, finished: Finished) -> None:
    state, recovering = filesystem.state, filesystem.recovering
    finished.not_sent = filesystem.left()
    finished.notes = [
        f"{conflict.key!r} is another host's; this one's bytes are in {', '.join(conflict.kept)}"
        for conflict in state.conflicts
    ]
    finished.notes += list(state.queue.failures) + recovering.recovered.unsaved
    finished.recoverable = [describe(entry) for entry in recovering.kept.list()]
    finished.uploads = list(recovering.uploads.report)
