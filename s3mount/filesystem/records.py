"""What the journal has of one open file: the bytes that were acknowledged, and unfinished ones.

A file that was closed (or fsynced, or given up by its writer) has a record that is *closed*: its
PUT names it, and after a crash it is sent. What is written after that leaves this record as it
is, until the next close; the bytes that it names are not changed in place (spooled_file.seal).
A file that was written and not closed yet has a *draft*, which is never published, only kept.
"""

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from s3mount.core.errors import FilesystemError
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.intents import Expected, Intent, Kind
from s3mount.writeback.journal_records import FileRecord, SpoolRecord
from s3mount.writeback.lock import Lock
from s3mount.writeback.spooled_file import SpooledFile

if TYPE_CHECKING:
    from s3mount.filesystem.open_file import OpenFile
    from s3mount.filesystem.state import State

# How long unfinished writes may be unrecorded: a killed mount loses at most these.
DRAFT_INTERVAL = 0.25
# Recording takes at most this share of the loop's time, whatever the size of the files.
DRAFT_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Sealed:
    """The state of a file as of a close, not yet in the journal."""

    record: FileRecord
    changes: int  # OpenFile.changes then
    spooled: SpooledFile | None
    commits: int  # FileRecords.commits then


class FileRecords:
    """One per OpenFile. `lock` keeps the order of seals that are written after an await.

    `changes`: the value of OpenFile.changes that the closed record contains; 0: there is none.
    """

    def __init__(self, file: "OpenFile") -> None:
        self.lock = Lock()
        self.changes = 0
        self.sealed_at = 0.0  # trio time of the last seal
        self.commits = 0  # of the file, so far
        self.behind = 0  # tasks of FileCommits.send_behind
        self.one_caught_up = trio.Event()  # one of these ended; set, and a new one
        self._file = file
        self._books = file.state.books
        self._id: int | None = None
        self._record: FileRecord | None = None  # the closed one in the journal
        self._holder: SpooledFile | None = None  # whose chunks it names
        # In the journal only: see park and attributes_changed.
        self._parked: Intent | None = None
        self._draft: int | None = None  # the id of the draft in the journal
        self._draft_changes = 0

    @property
    def id(self) -> int:
        """Of this file's records; its PUT and its upload name it."""
        if self._id is None:
            self._id = self._books.new_id()
        return self._id

    def caught_up(self) -> None:
        """A task of FileCommits.send_behind ends."""
        self.behind -= 1
        self.one_caught_up.set()
        self.one_caught_up = trio.Event()

    def begin_anew(self) -> None:
        """The content was thrown away: what comes is another file to the journal, which keeps the
        closed record, with its chunks and its upload, until the next one is in its place."""
        if self._record is not None:
            self._id = None

    # -- closed

    @property
    def closed(self) -> FileRecord | None:
        """The closed record in the journal."""
        return self._record

    @property
    def put_id(self) -> int:
        """Of the record that a PUT which begins now has its bytes from."""
        return self.id if self._record is None else self._record.id

    def seal(self) -> Sealed:
        """The file as it is now; `write` puts it into the journal."""
        spooled = self._file.spooled
        self.sealed_at = trio.current_time()
        spool = _nothing(self._file.state) if spooled is None else spooled.seal()
        record = self._make(self.id, spool, closed=True)
        return Sealed(record, self._file.changes, spooled, self.commits)

    def write(self, sealed: Sealed) -> None:
        """The journal has this state of the file from now on, in the place of an older one."""
        if sealed.changes < self.changes:
            return
        record = replace(
            sealed.record,
            key=self._file.key,
            exclusive=sealed.record.exclusive and self._file.exclusive,  # renamed meanwhile
        )
        if sealed.commits != self.commits:
            record = self._rebased(record)
        elif sealed.spooled is self._file.spooled:
            record = self._as_published(record)
        old, holder = self._holder, sealed.spooled
        former = [self._draft, None if self._record is None else self._record.id]
        self._books.write_file(record)
        for number in former:
            if number is not None and number != record.id:
                self._books.forget_file(number)
        self._record, self._holder, self.changes = record, holder, sealed.changes
        self._draft = None
        put = self._file.put
        if put is not None and put.file != record.id:
            put.file = record.id
            self._books.update(put)
        self._unpark()

        def given_back() -> None:
            if old is not None and old is not holder:
                old.forgotten()
            if holder is not None:
                holder.recorded(sealed.record.spool)

        self._books.once_recorded(given_back)

    def restored(self, record: FileRecord) -> None:
        """This file was made of a record of a mount that died, which the journal still has."""
        self._id = record.id
        self._record, self._holder = record, self._file.spooled
        self.changes = self._file.changes
        self.sealed_at = trio.current_time()

    def amend(self, spool: SpoolRecord) -> None:
        """Bytes that the closed record names left the spool for a part of the upload."""
        holder = self._holder
        if self._record is None or holder is None:
            return
        self._record = replace(self._record, spool=spool)
        with self._books.aftermath():
            self._books.write_file(self._record)
            self._books.once_recorded(lambda: holder.recorded(spool))

    def rebase(self) -> None:
        """An older state of the file was committed since the seal: that is the base now. Nothing
        was cut off in between, for a truncation waits for a commit that is running."""
        if self._record is not None:
            self._record = self._rebased(self._record)
            self._books.write_file(self._record)

    def _rebased(self, record: FileRecord) -> FileRecord:
        remote = self._file.remote
        if remote is None:
            return record
        base = BaseObject(remote.key, remote.etag, remote.size, remote.version_id)
        return replace(
            record,
            base=base,
            visible=min(remote.size, record.size),
            whole=False,
            exclusive=False,
            replaces=False,
            # What had left the spool is in that object.
            spool=replace(record.spool, dropped=(), published=()),
        )

    def published(self, _: BaseObject) -> None:
        """A commit that is not complete has made an object of what was there."""
        if self._record is not None and self._holder is self._file.spooled:
            with self._books.aftermath():
                self._record = self._as_published(self._record)
                self._books.write_file(self._record)

    def _as_published(self, record: FileRecord) -> FileRecord:
        """What had left the spool is in the object that was published early, if there is one; its
        other bytes are those of the old base, or older than those in the spool."""
        published = None if self._file.upload is None else self._file.upload.published
        if published is None or not (record.spool.dropped or record.spool.published):
            return record
        base, spool = published[0], record.spool
        return replace(
            record,
            base=base,
            visible=min(base.size, record.size),
            spool=replace(spool, dropped=(), published=spool.published + spool.dropped),
        )

    async def renew(self) -> None:
        """The journal has the file as it is now, closed or not: the commit that runs is about to
        overwrite parts that the last record counts on, and brings what is here now."""
        async with self.lock:
            sealed = self.seal()
            if sealed.spooled is not None:
                await sealed.spooled.sync()
            with self._books.aftermath():
                self.write(sealed)
        await self._books.sync()

    def base_moved(self, key: str, etag: str) -> None:
        """A copy of our own took the version `etag` of `key` to where file.remote is now."""
        record, remote = self._record, self._file.remote
        if record is None or record.base is None or remote is None:
            return
        if (record.base.key, record.base.etag) == (key, etag):
            base = BaseObject(remote.key, remote.etag, remote.size, remote.version_id)
            self._record = replace(record, base=base)
            self._books.write_file(self._record)

    def forget(self, *, keep_bytes: bool = False) -> None:
        """The bucket has it, or nobody wants it any more. `keep_bytes`: it will not be sent, but
        its bytes are nowhere else: they are kept as those of a file that was never closed."""
        record, holder, draft = self._record, self._holder, self._draft
        if keep_bytes and record is not None:
            self._record = record = replace(record, closed=False)
            self._books.write_file(record)
            return
        if record is not None:
            self._books.forget_file(record.id)
        if draft is not None:
            self._books.forget_file(draft)
        self._unpark()
        self._record = self._holder = self._draft = None
        self.changes = self._draft_changes = 0
        if holder is not None:
            self._books.once_recorded(holder.forgotten)

    def park(self, put: Intent) -> None:
        """The file is being written anew, so that its PUT left the queue; a close will bring the
        next one. The journal goes on naming what was closed before: after a crash that is sent."""
        if self._record is None:
            return
        self._park_as(put, put.expects)

    def _park_as(self, other: Intent, expects: Expected | None) -> None:
        """A record like that of `other`, later in the order than all that there is by now."""
        self._unpark()
        self._parked = Intent(
            kind=other.kind,
            key=self._file.key,
            size=other.size,
            file=other.file,
            source_etag=other.source_etag,
            attributes=other.attributes,
            headers=other.headers,
            unanswered=other.unanswered,
            expects=expects,
            replaces=other.replaces,
            acknowledged=True,
            sequence=self._books.new_id(),
            created=other.created,
        )
        self._books.record(self._parked)

    def attributes_changed(self) -> None:
        """They ride in the PUT of what is being written. Until that is closed the journal has
        them for what is there already: after a crash that is all there is."""
        file, version = self._file, self._file.inode.version
        if self._parked is None and version is not None:
            self._parked = Intent(
                kind=Kind.ATTRIBUTES,
                key=file.key,
                source_etag=version.etag,
                size=version.size,
                acknowledged=True,
                sequence=self._books.new_id(),
            )
            self._parked.attributes = file.inode.attributes
            self._books.record(self._parked)
        elif self._parked is not None:
            self._parked.attributes = file.inode.attributes
            self._books.update(self._parked)

    def _unpark(self) -> None:
        if self._parked is not None:
            self._books.forget(self._parked)
            self._parked = None

    def renamed(self) -> None:
        """The file has another key; to be called after all that its rename added to the queue."""
        self._draft_changes = 0
        if self._parked is not None:
            self._park_as(self._parked, None)

    # -- drafts

    @property
    def wants_draft(self) -> bool:
        """Whether there are bytes that no record has."""
        file = self._file
        if not file.dirty or file.inode.detached or file.spooled is None:
            return False
        return file.changes not in (self.changes, self._draft_changes)

    def write_draft(self) -> None:
        file = self._file
        assert file.spooled is not None
        if self._draft is None:
            recorded = self._record is not None and self._record.id == self.id
            self._draft = self._books.new_id() if recorded else self.id
        self._draft_changes = file.changes
        spool = file.spooled.unsealed_record()
        self._books.write_file(self._make(self._draft, spool, closed=False))

    def _make(self, number: int, spool: SpoolRecord, *, closed: bool) -> FileRecord:
        file = self._file
        remote, attributes = file.remote, file.inode.attributes
        if attributes is None:
            raise FilesystemError(errno.EIO, "attributes unknown")
        return FileRecord(
            id=number,
            key=file.key,
            closed=closed,
            size=file.size,
            visible=file.visible,
            whole=file.whole,
            exclusive=file.exclusive,
            replaces=file.replaces,
            base=None
            if remote is None
            else BaseObject(remote.key, remote.etag, remote.size, remote.version_id),
            attributes=attributes,
            kept=file.kept,
            spool=spool,
            changed_at=time.time(),
        )


def _nothing(state: "State") -> SpoolRecord:
    """Of an empty file that was never written."""
    return SpoolRecord((), (), (), (), chunks=(), chunk_size=state.spool.pool.chunk_size)


class Drafts:
    """Records what is being written and not closed, in one commit each DRAFT_INTERVAL."""

    def __init__(self, state: "State") -> None:
        self._state = state
        self._changed: set[OpenFile] = set()
        self._wake = trio.Event()

    def changed(self, file: "OpenFile") -> None:
        """To be called after every write; costs next to nothing."""
        if file not in self._changed:
            self._changed.add(file)
            self._wake.set()

    async def run(
        self,
        clock: Callable[[], float] = time.perf_counter,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Until cancelled."""
        task_status.started()
        pause = DRAFT_INTERVAL
        while True:
            await self._wake.wait()
            await trio.sleep(pause)
            self._wake = trio.Event()
            started = clock()
            changed, self._changed = self._changed, set()
            with self._state.books.aftermath():
                for file in changed:
                    if file.records.wants_draft:
                        file.records.write_draft()
            pause = max(DRAFT_INTERVAL, (clock() - started) / DRAFT_SHARE)
