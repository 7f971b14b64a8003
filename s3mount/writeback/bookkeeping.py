"""The journal as a change of the tree uses it: all that one change records is one commit.

A change of the tree is synchronous, and may add, alter and drop several intents and files. What
it records is gathered and written when it is complete. If that fails the change stands in this
process and is carried out, but its caller is told the error: it was not acknowledged. What could
not be written is written with the next change, so that the journal follows as soon as it can.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import trio

from s3mount.core.errors import FilesystemError
from s3mount.writeback.intents import Intent
from s3mount.writeback.journal import Journal
from s3mount.writeback.journal_records import FileRecord, IntentRecord

log = logging.getLogger(__name__)

# What may be given back once a commit survives a power cut waits so long for somebody who syncs.
PATIENCE = 0.5


class _Change:
    """Of these there are a dozen in the life of a small file: a generator for each would cost as
    much as what it records."""

    __slots__ = ("_books", "_told")

    def __init__(self, books: "Bookkeeper", *, told: bool) -> None:
        self._books = books
        self._told = told

    def __enter__(self) -> None:
        self._books.begin()

    def __exit__(self, *_: object) -> None:
        try:
            self._books.end()
        except FilesystemError as error:
            if self._told:
                raise
            log.error("the journal could not be written: %s", error)  # noqa: TRY400


class Bookkeeper:
    """`durable_spool`: chunk files are given back only when the journal's commit is synced, so
    that a power cut finds the bytes that its last synced state names."""

    def __init__(self, journal: Journal, *, durable_spool: bool) -> None:
        self.journal = journal
        self.commits = 0  # so far, for tests and status
        # Called after each sync, also after one that failed or gave nothing back: whoever `hurry`
        # has told to wait for it looks again.
        self.on_synced: Callable[[], None] = lambda: None
        self._durable_spool = durable_spool
        self._depth = 0
        self._change = _Change(self, told=True)
        self._aftermath = _Change(self, told=False)
        # Of the change in progress, and of earlier ones that could not be written.
        self._gathered: dict[tuple[str, int], Callable[[], None]] = {}
        self._then: list[Callable[[], None]] = []
        self._unsynced: list[Callable[[], None]] = []
        self._wake = trio.Event()
        self._hurried = trio.Event()
        self._syncing = 0

    # -- changes

    def change(self) -> AbstractContextManager[None]:
        """What is recorded within is one commit, made at the end. No awaits in it.

        Raises FilesystemError (EIO, ENOSPC) where it cannot be recorded. If the block raises,
        what it recorded until then is written all the same, for that is the state it left.
        """
        return self._change

    def aftermath(self) -> AbstractContextManager[None]:
        """As `change`, of what was carried out: nobody is there to be told. If it cannot be
        recorded the journal says what it said before, and a replay finds it done."""
        return self._aftermath

    def begin(self) -> None:
        """For `change` and `aftermath`."""
        self._depth += 1

    def end(self) -> None:
        """The outermost one commits."""
        self._depth -= 1
        if not self._depth:
            self._commit()

    def _commit(self) -> None:
        if self._gathered:
            with self.journal.transaction():
                for call in self._gathered.values():
                    call()
            self.commits += 1
            self._gathered.clear()
        then, self._then = self._then, []
        if not self._durable_spool:
            for call in then:
                call()
        elif then:
            self._unsynced += then
            self._wake.set()

    def _gather(self, what: str, number: int, call: Callable[[], None]) -> None:
        """The last call about the same thing counts, at the place of the first."""
        if self._depth:
            self._gathered[what, number] = call
            return
        with self.change():
            self._gathered[what, number] = call

    # -- what is recorded

    def new_id(self) -> int:
        return self.journal.new_id()

    def record(self, intent: Intent) -> None:
        intent.recorded_at = trio.current_time()
        self._gather("intent", intent.sequence, partial(self.journal.record, intent))

    def update(self, intent: Intent) -> None:
        intent.recorded_at = trio.current_time()
        recorded = self._gathered.get(("intent", intent.sequence))
        if recorded is None:  # else what is to be recorded says how it is at the end
            intent.supersedes = True
            self._gather("intent", intent.sequence, partial(self.journal.update, intent))

    def forget(self, intent: Intent | IntentRecord) -> None:
        self._gather("intent", intent.sequence, partial(self.journal.forget, intent))

    def write_file(self, record: FileRecord) -> None:
        self._gather("file", record.id, partial(self.journal.write_file, record))

    def forget_file(self, file: int) -> None:
        self._gather("file", file, partial(self.journal.forget_file, file))

    # -- durability

    def once_recorded(self, call: Callable[[], None]) -> None:
        """`call()` once what the change in progress records counts, and cannot be undone."""
        with self.change():
            self._then.append(call)

    def is_synced(self, intent: Intent) -> bool:
        """Whether what is recorded of it, and so all that was recorded before, survives a power
        cut."""
        return intent.recorded_at < self.journal.synced_until

    async def sync(self) -> None:
        """Returns when all recorded before the call survives a power cut. FilesystemError."""
        ready, self._unsynced = self._unsynced, []
        self._syncing += 1
        try:
            await self.journal.sync()
        except BaseException:
            self._unsynced = ready + self._unsynced
            self._wake.set()  # `run` sees to them
            raise
        else:
            for call in ready:
                call()
        finally:
            self._syncing -= 1
            self.on_synced()

    async def sync_if_possible(self) -> None:
        """For what goes on without it: a broken disk is a line in the log."""
        try:
            await self.sync()
        except FilesystemError as error:
            log.warning("changes go on though the journal cannot be synced: %s", error)

    def hurry(self) -> bool:
        """Whether something may be given back soon: what waits for it need not wait for PATIENCE,
        but for `on_synced`. (A full spool.)"""
        if self._unsynced:
            self._hurried.set()
        return bool(self._unsynced or self._syncing)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Gives back what nobody else's sync did; until cancelled."""
        task_status.started()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            with trio.move_on_after(PATIENCE):
                await self._hurried.wait()
            self._hurried = trio.Event()
            if self._unsynced:
                try:
                    await self.sync()
                except FilesystemError as error:
                    log.error("the journal could not be synced: %s", error)  # noqa: TRY400
                    await trio.sleep(PATIENCE)  # whoever hurried it does so again at once
