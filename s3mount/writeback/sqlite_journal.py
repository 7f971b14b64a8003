"""The journal on disk: a redo log in front of a SQLite file.

The order of writes, from a program's change to its acknowledgement and on:

1. The bytes of chunk files are written, and fdatasynced where close has to outlive a power cut
   (`SpooledFile.sync`), before a record names them.
2. The commit is appended to the log by one write(2): the death of the process loses it no more.
   In the default mode changes of names are acknowledged now.
3. The log is fdatasynced: a power cut loses it no more. That begins at most GROUP_DELAY after the
   commit, or as soon as the fdatasync that runs then has ended, and at once when somebody awaits
   `sync`. With --durability=journal close returns now.
4. Requests that change the bucket go out.
5. Their outcome is committed (`forget`, `forget_file`, ...), and only after that chunk files are
   changed or given back that an older record named.
6. When a segment of the log is full, its changes go into SQLite by one transaction of a worker
   thread, fsynced, and only then the segment is removed. A segment is durable, with its directory
   entry, before the first commit goes into it.

SQLite alone could do 2 and 3, but its log is begun anew in place every few thousand commits: that
needs an fsync which every writer waits for, and here the writer is the loop. What the log
repeats after a crash is recognised by its serial numbers. A write that failed, or an fsync that
did (whose pages the kernel may have dropped), is followed by a new segment that repeats all that
is not known to be on disk.
"""

import errno
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from s3mount.core.config import KIB, MIB
from s3mount.core.errors import ConfigurationError, FilesystemError
from s3mount.writeback import journal_log as logs
from s3mount.writeback.journal_database import Database, JournalUnusable, Place, is_damage
from s3mount.writeback.journal_opening import NO_SEGMENT, restore
from s3mount.writeback.journal_records import JournalContents
from s3mount.writeback.journal_rows import (
    Change,
    RowRecorder,
    pack_changes,
)

log = logging.getLogger(__name__)

GROUP_DELAY = 0.08  # commits of so long share an fsync: with 20 ms for that they have 0.1 s
SEGMENT_SIZE = 4 * MIB  # some thousand commits; read again, at most twice that, at the next start
IDLE = 5.0  # then what is worth it moves to SQLite
IDLE_SIZE = 256 * KIB
RETRY = 1.0  # after a failure of the disk


class SqliteJournal(RowRecorder):
    """See Journal. `problems`: what was found damaged, for the status."""

    durable = True

    def __init__(self, directory: Path, identity: str) -> None:
        """Opens or makes the journal in `directory`, which the caller has locked; blocks.

        Raises JournalUnusable where it has to be set aside, ConfigurationError and OSError where
        the disk is in the way.
        """
        super().__init__()
        self.directory = directory
        self.problems: list[str] = []
        self._troubles: dict[str, str] = {}  # what does not work now, by what it is
        self.others: list[str] = []  # what mounts elsewhere left unfinished, for the status
        self._digest = logs.digest_of(identity)
        self._segments: list[logs.Segment] = []  # the last one takes the commits
        self._spare: logs.Segment | None = None
        self._database = Database(directory / "journal.sqlite", identity)
        try:
            found = restore(directory, self._database, self._digest)
        except BaseException:
            self.abandon()
            raise
        self._contents = found.contents
        self._rows = found.rows  # all there is now: SQLite's file may turn out to be damaged
        self._serial = self._synced = found.serial
        self._numbers = found.numbers
        self._segments.append(found.segment)
        self.problems += found.problems
        self._remember(self._contents)
        self._damage: sqlite3.Error | None = None  # of SQLite's file, which is to be made anew
        self._pending: dict[Place, bytes | None] = {}  # in the log, not in SQLite
        self._unsynced: deque[tuple[int, bytes]] = deque()
        self._suspect = False  # an fsync failed: the segments may lack what was written
        self._synced_until = 0.0  # when the last sync that has succeeded began
        self._flight: trio.Event | None = None  # an fdatasync on its way
        self._committed = trio.Event()
        self._rotated = trio.Event()
        self.commits = 0
        self.syncs = 0

    def load(self) -> JournalContents:
        return self._contents

    def _new_segment(self) -> logs.Segment:
        """Blocks. Threads may do it at the same time: no number is given twice."""
        number = next(self._numbers)
        return logs.Segment.create(self.directory, number, self._digest, SEGMENT_SIZE)

    # -- recording

    def _commit(self, changes: list[Change]) -> None:
        payload = pack_changes(changes)
        segment = self._segments[-1]
        try:
            segment.append(self._serial + 1, payload)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise FilesystemError(
                errno.ENOSPC if full else errno.EIO, f"the journal {segment.path}: {error}"
            ) from error
        self._serial += 1
        self.commits += 1
        self._pending.update(changes)
        for place, data in changes:
            if data is None:
                self._rows.pop(place, None)
            else:
                self._rows[place] = data
        self._unsynced.append((self._serial, payload))
        self._committed.set()
        if segment.end >= SEGMENT_SIZE:
            self._rotate()

    # -- making it durable

    @property
    def synced_until(self) -> float:
        return float("inf") if self._synced >= self._serial else self._synced_until

    async def sync(self) -> None:
        target = self._serial
        await trio.lowlevel.checkpoint()
        while self._synced < target:
            if self._flight is not None:
                await self._flight.wait()
                continue
            self._flight = trio.Event()
            try:
                await self._sync_now()
            finally:
                flight, self._flight = self._flight, None
                flight.set()

    async def _sync_now(self) -> None:
        """Needs to be alone: see `_flight`."""
        serial, began = self._serial, trio.current_time()
        dirty = [segment for segment in self._segments if segment.unsynced]
        for segment in dirty:
            segment.unsynced = False
        try:
            if self._suspect:
                serial = await self._repeat()
            else:
                await trio.to_thread.run_sync(logs.sync_segments, dirty)
        except OSError as error:
            self._trouble("sync", f"the journal in {self.directory} cannot be synced: {error}")
            self._suspect = True
            serial = await self._repeat()
        except BaseException:
            for segment in dirty:
                segment.unsynced = True
            raise
        self.syncs += 1
        self._works_again("sync")
        self._are_synced(serial)
        self._synced_until = began

    async def _repeat(self) -> int:
        """Writes what is not known to be on disk to a new segment; returns the last serial there.

        Raises FilesystemError; the next sync tries again.
        """
        entries = list(self._unsynced)
        try:
            segment = await trio.to_thread.run_sync(self._write_anew, entries)
            last = entries[-1][0] if entries else self._synced
            for serial, payload in self._unsynced:  # what came meanwhile
                if serial > last:
                    segment.append(serial, payload)
        except OSError as error:
            raise FilesystemError(
                errno.EIO, f"the journal in {self.directory} cannot be synced: {error}"
            ) from error
        self._suspect = False
        for old in self._segments:
            old.unsynced = False
        self._segments.append(segment)
        self._rotated.set()
        return last

    def _write_anew(self, entries: list[tuple[int, bytes]]) -> logs.Segment:
        segment = self._new_segment()
        try:
            for serial, payload in entries:
                segment.append(serial, payload)
            os.fdatasync(segment.fd)
        except OSError:
            segment.close()
            segment.path.unlink(missing_ok=True)
            raise
        segment.unsynced = False
        return segment

    def _are_synced(self, serial: int) -> None:
        self._synced = max(self._synced, serial)
        while self._unsynced and self._unsynced[0][0] <= self._synced:
            self._unsynced.popleft()

    def _report(self, text: str) -> None:
        log.error("%s", text)
        if text not in self.problems:
            self.problems.append(text)
            del self.problems[:-20]

    def _trouble(self, what: str, text: str) -> None:
        """Until it works again; logged when it begins or changes."""
        if self._troubles.get(what) != text:
            log.error("%s", text)
        self._troubles[what] = text

    def _works_again(self, what: str) -> None:
        if self._troubles.pop(what, None) is not None:
            log.warning("the journal in %s works again", self.directory)

    # -- in the background

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._contents = JournalContents()  # whoever wanted it has it
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sync_in_groups)
            nursery.start_soon(self._tidy_up)
            task_status.started()

    async def _sync_in_groups(self) -> None:
        while True:
            await self._committed.wait()
            self._committed = trio.Event()
            oldest = trio.current_time()  # no commit that is not synced came before
            while self._synced < self._serial:
                await trio.sleep_until(oldest + GROUP_DELAY)
                oldest = trio.current_time()
                try:
                    await self.sync()
                except FilesystemError as error:
                    self._trouble("sync", str(error))
                    await trio.sleep(RETRY)

    async def _tidy_up(self) -> None:
        """Keeps a spare segment ready; moves full ones, and what rests, to SQLite."""
        while True:
            try:
                await self._make_spare()
                seen = self._serial
                with trio.move_on_after(IDLE):
                    await self._rotated.wait()
                rests = seen == self._serial and self._segments[-1].end > IDLE_SIZE
                if rests or self._rotated.is_set():
                    await self.compact()
                    self._works_again("tidy")
            except (OSError, sqlite3.Error, ConfigurationError, JournalUnusable) as error:
                self._trouble(
                    "tidy",
                    f"the journal in {self.directory} cannot be tidied up: {error}; nothing is"
                    " lost, but its log grows: see to its disk",
                )
                await trio.sleep(RETRY)
                self._rotated.set()

    async def compact(self) -> None:
        """Moves all that is in the log to SQLite. Raises OSError and sqlite3.Error; then it is
        where it was."""
        if not self._rotated.is_set():
            await self._make_spare()
            self._rotate()
        self._rotated = trio.Event()
        await self._move_to_sqlite()

    def _rotate(self) -> None:
        """The spare segment takes the commits from now on; without one the current goes on."""
        if self._spare is not None and self._spare.number > self._segments[-1].number:
            self._segments.append(self._spare)
            self._spare = None
            self._rotated.set()

    async def _make_spare(self) -> None:
        spare, current = self._spare, self._segments[-1]
        if spare is not None and spare.number < current.number:
            # A failed fsync has called for a newer one meanwhile.
            self._spare = None
            await trio.to_thread.run_sync(logs.remove_segments, [spare])
        if self._spare is None:
            self._spare = await trio.to_thread.run_sync(self._new_segment)

    async def _move_to_sqlite(self) -> None:
        serial = await self._applied() if self._damage is None else await self._rebuilt()
        self._are_synced(serial)
        while self._flight is not None:
            await self._flight.wait()
        done = [s for s in self._segments[:-1] if s.last_serial <= serial]
        self._segments = [s for s in self._segments if s not in done]
        await trio.to_thread.run_sync(logs.remove_segments, done)

    async def _applied(self) -> int:
        """Moves what is pending; answers the last serial of it."""
        changes, self._pending = self._pending, {}
        serial = self._serial
        try:
            await trio.to_thread.run_sync(
                self._database.apply, changes, serial, self._segments[-1].number
            )
        except BaseException as error:
            self._pending = changes | self._pending
            if not isinstance(error, sqlite3.Error) or not is_damage(error):
                raise
            self._damage = error
            return await self._rebuilt()
        return serial

    async def _rebuilt(self) -> int:
        """The same, of all that there is, into a new file in the place of a damaged one."""
        pending, self._pending = self._pending, {}
        serial, rows = self._serial, dict(self._rows)
        try:
            aside = await trio.to_thread.run_sync(
                self._database.rebuild, rows, serial, self._segments[-1].number
            )
        except BaseException:
            self._pending = pending | self._pending
            raise
        self._report(
            f"{self._database.path} was damaged while it was in use ({self._damage}): it is made"
            f" anew and nothing is lost, the damaged one is kept as {aside}; see to its disk"
        )
        self._damage = None
        return serial

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            try:
                await self.sync()
                if not (self._intents or self._files or self._uploads):
                    await self._leave_nothing()
            except (FilesystemError, OSError, sqlite3.Error) as error:
                self._report(f"the journal in {self.directory} is not closed well: {error}")
            finally:
                self.abandon()

    async def _leave_nothing(self) -> None:
        """An empty journal is removed: whoever finds one knows that something is unfinished."""
        changes, self._pending = self._pending, {}
        try:
            await trio.to_thread.run_sync(self._database.apply, changes, self._serial, NO_SEGMENT)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            log.warning("%s is damaged (%s), and not needed", self._database.path, error)
        self.abandon()
        await trio.to_thread.run_sync(logs.remove_journal, self.directory, self._database.path)

    def report(self) -> Mapping[str, Any]:
        return {
            "durable": True,
            "commits": self.commits,
            "syncs": self.syncs,
            "log": sum(segment.end for segment in self._segments),
            "problems": [*self.problems, *self._troubles.values()],
            "others": list(self.others),
        }

    def abandon(self) -> None:
        """Closes the files without a sync: what tests do instead of dying."""
        for segment in (*self._segments, self._spare):
            if segment is not None:
                segment.close()
        self._database.close()
