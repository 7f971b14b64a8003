"""What the journal has of one open file: the bytes that were acknowledged, and unfinished ones.

A file that was closed (or fsynced, or given up by its writer) has a record that is *closed*: its
PUT names it, and after a crash it is sent. What is written after that leaves this record as it
is, until the next close; the bytes that it names are not changed in place (spooled_file.seal).
A file that was written and not closed yet has a *draft*, which is never published, only kept.
"""

import errno
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from s3mount.core.errors import FilesystemError
from s3mount.filesystem.parked_intent import ParkedIntent
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.change_stamps import ChangeStamps
from s3mount.writeback.frozen_file import FrozenFile
from s3mount.writeback.intents import Intent
from s3mount.writeback.journal_records import FileRecord, SpoolRecord
from s3mount.writeback.lock import Lock
from s3mount.writeback.spooled_file import SpooledFile

if TYPE_CHECKING:
    from s3mount.filesystem.open_file import OpenFile
    from s3mount.filesystem.state import State


@dataclass(frozen=True, slots=True)
class Sealed:
    """The state of a file as of a close, not yet in the journal."""

    record: FileRecord
    changes: int  # OpenFile.changes then
    spooled: SpooledFile | None
    commits: int  # FileRecords.commits then
    stamps: ChangeStamps  # of `spooled`, then
    cut: int | None  # the smallest size since what was to be sent then, or was being sent


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
        self.sending: int | None = None  # the write_count of what is being sent
        self._file = file
        self._books = file.state.books
        self._id: int | None = None
        self._record: FileRecord | None = None  # the closed one in the journal
        self._stamps = ChangeStamps(1)  # as of that
        self._cut: int | None = None  # see Sealed
        self._holder: SpooledFile | None = None  # whose chunks it names
        self._named: SpoolRecord | None = None  # by this record, as the holder made it
        self._parked = ParkedIntent(lambda: file.key, self._books)
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
    def is_in_journal(self) -> bool:
        """Whether a replay would do something to the file, were this the end."""
        return self._record is not None or self._parked.is_there

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
        stamps, cut = ChangeStamps(1), None
        if spooled is not None:
            stamps = spooled.stamps()
            cut = spooled.lowest_size_since(
                self._stamps.count if self.sending is None else self.sending
            )
        return Sealed(record, self._file.changes, spooled, self.commits, stamps, cut)

    # -- what is sent

    @property
    def freezes(self) -> bool:
        """Whether the PUT sends what the closed record names, whatever is written meanwhile: with
        write-back other hosts see what some close has left. Not where some of it left a full
        spool, which only the file as it is can be sent with, nor what a mount that died left."""
        file, record = self._file, self._record
        if record is None or not record.closed or record.id != self._id:
            return False
        if not file.state.writes_back or file.recovering is not None:
            return False
        if record.spool.dropped or record.spool.published:
            return False
        if self._holder is not None and self._holder is not file.spooled:
            return False
        published = None if file.upload is None else file.upload.published
        if published is not None and published[1] > self._stamps.count:
            return False
        base = None if file.remote is None else file.remote.etag
        return record.base is None or record.base.etag == base

    @property
    def waits(self) -> bool:
        """Whether such a PUT is still to come: parts of what is written now follow it."""
        return self.changes > self._file.sent and self.freezes

    def freeze(self) -> FrozenFile | None:
        """What the closed record names, to be closed by the caller; None: see `freezes`."""
        if self._record is None or not self.freezes:
            return None
        return FrozenFile(
            self._holder, self._record.spool, self._stamps.copy(), self._file.state.spool
        )

    # -- into the journal

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
            record = self._rebased(record, sealed.cut)
        elif sealed.spooled is self._file.spooled:
            record = self._as_published(record)
        old, holder = self._holder, sealed.spooled
        former = [self._draft, None if self._record is None else self._record.id]
        self._books.write_file(record)
        for number in former:
            if number is not None and number != record.id:
                self._books.forget_file(number)
        self._record, self._holder, self.changes = record, holder, sealed.changes
        self._named, self._stamps, self._cut = sealed.record.spool, sealed.stamps, sealed.cut
        if holder is not None and self._file.state.writes_back:
            holder.frozen_at = sealed.stamps.count
        self._draft = None
        put = self._file.put
        if put is not None and put.file != record.id:
            put.file = record.id
            self._books.update(put)
        self._parked.drop()

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
        self._named = record.spool
        if self._holder is not None:
            self._stamps = self._holder.stamps()
        self.sealed_at = trio.current_time()

    def amend(self, spool: SpoolRecord) -> bool:
        """Bytes that the closed record names left the spool for a part of the upload. False: there
        is none any more."""
        holder = self._holder
        if self._record is None or holder is None:
            return False
        self._record, self._named = replace(self._record, spool=spool), spool
        holder.frozen_at = None  # see `freezes`
        with self._books.aftermath():
            self._books.write_file(self._record)
            self._books.once_recorded(lambda: holder.recorded(spool))
        return True

    def rebase(self) -> None:
        """An older state of the file was committed since the seal: that is the base now."""
        if self._record is not None:
            self._record = self._rebased(self._record, self._cut)
            self._books.write_file(self._record)

    def _rebased(self, record: FileRecord, cut: int | None) -> FileRecord:
        remote = self._file.remote
        if remote is None:
            return record
        base = BaseObject(remote.key, remote.etag, remote.size, remote.version_id)
        return replace(
            record,
            base=base,
            visible=min(remote.size, record.size, record.size if cut is None else cut),
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
        if remote is not None:
            self._parked.version_moved(etag, remote.etag)
        if record is None or record.base is None or remote is None:
            return
        if (record.base.key, record.base.etag) == (key, etag):
            base = BaseObject(remote.key, remote.etag, remote.size, remote.version_id)
            self._record = replace(record, base=base)
            self._books.write_file(self._record)

    def forget(self, *, keep_bytes: bool = False) -> None:
        """The bucket has it, or nobody wants it any more. `keep_bytes`: it will not be sent, but
        its bytes are nowhere else: they are kept as those of a file that was never closed."""
        record, holder, draft, named = self._record, self._holder, self._draft, self._named
        if keep_bytes and record is not None:
            self._record = record = replace(record, closed=False)
            self._books.write_file(record)
            return
        if record is not None:
            self._books.forget_file(record.id)
        if draft is not None:
            self._books.forget_file(draft)
        self._parked.drop()
        if holder is not None:
            holder.frozen_at = None
        self._record = self._holder = self._named = self._draft = None
        self.changes = self._draft_changes = 0
        if holder is not None and named is not None:
            # That of the next close may have been made already, and be written before this counts.
            self._books.once_recorded(partial(holder.forgotten, named))

    def park(self, put: Intent) -> None:
        """The file is being written anew, so that its PUT left the queue; a close will bring the
        next one. The journal goes on naming what was closed before: after a crash that is sent."""
        if self._record is not None:
            self._parked.park(put)

    def attributes_changed(self) -> None:
        """They ride in the PUT of what is being written: see ParkedIntent.note_attributes."""
        self._parked.note_attributes(self._file.inode)

    def renamed(self) -> None:
        """The file has another key; to be called after all that its rename added to the queue."""
        self._draft_changes = 0
        self._parked.renamed()

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
