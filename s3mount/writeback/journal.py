"""Where intents, files and uploads are recorded before they are acknowledged.

The order of every mutation: record the intent, answer the program, change the bucket, forget the
intent. This module holds the protocol and the form that lives in memory, for tests and for what
must not survive; sqlite_journal.py is the durable one.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import trio

from s3mount.writeback.journal_records import (
    FileRecord,
    IntentRecord,
    JournalContents,
    PartRecord,
    UploadRecord,
)

if TYPE_CHECKING:
    from s3mount.writeback.intents import Intent


class Journal(Protocol):
    """Each call is one commit, or a part of that of the `transaction` it is made in.

    When a call (or the outermost transaction) returns, what it recorded survives the death of
    the process; after `sync` it survives that of the machine. They raise FilesystemError, EIO or
    ENOSPC, where it cannot be recorded: then nothing of it is, and it must not be acknowledged.
    Whatever is lost, what is left is always a prefix of the commits in their order.
    """

    durable: bool  # whether it outlives the process

    def transaction(self) -> AbstractContextManager[None]:
        """All recorded within is one commit; nothing of it if the block raises. No awaits in it."""
        ...

    def new_id(self) -> int:
        """For a file, an upload or an intent: never given before, nor in what was loaded."""
        ...

    def record(self, intent: "Intent") -> None:
        """A new intent; when this returns it may be acknowledged."""
        ...

    def update(self, intent: "Intent") -> None:
        """Its data changed: coalesced, retargeted, `expects` became known, copies done."""
        ...

    def forget(self, intent: "Intent | IntentRecord") -> None:
        """Carried out, cancelled, or failed for good and reported. No error if not there."""
        ...

    def write_file(self, record: FileRecord) -> None:
        """A new file, or the new state of the one with that id."""
        ...

    def forget_file(self, file: int) -> None:
        """Its bytes are in the bucket or nobody wants them. No error if not there."""
        ...

    def begin_upload(self, record: UploadRecord) -> None:
        """To be called before CreateMultipartUpload is sent."""
        ...

    def learn_upload(self, upload: int, upload_id: str) -> None: ...

    def write_part(self, upload: int, part: PartRecord) -> None: ...

    def forget_part(self, upload: int, number: int) -> None:
        """It will be sent again with other bytes."""
        ...

    def end_upload(self, upload: int) -> None:
        """Completed, aborted, or known to be gone. No error if not there."""
        ...

    @property
    def synced_until(self) -> float:
        """Trio time: all recorded before it survives a power cut."""
        ...

    async def sync(self) -> None:
        """Returns when all recorded before the call survives a power cut."""
        ...

    def load(self) -> JournalContents:
        """What was there when the journal was opened; before anything is recorded."""
        ...

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Syncs and tidies up in the background; until cancelled."""
        ...

    async def aclose(self) -> None:
        """Syncs and closes; nothing may be recorded afterwards."""
        ...

    def report(self) -> Mapping[str, Any]:
        """JSON-able, for the status."""
        ...


class MemoryJournal:
    """Keeps what is recorded as long as the process lives; `contents` may begin it, as what a
    crashed mount's journal held. `load` tells what is in it at any time."""

    durable = False

    def __init__(self, contents: JournalContents | None = None) -> None:
        self._intents: dict[int, IntentRecord] = {}
        self._files: dict[int, FileRecord] = {}
        self._uploads: dict[int, UploadRecord] = {}
        self._open: list[Callable[[], Any]] | None = None  # the transaction's calls
        self._last_id = 0
        self._written_at = 0.0
        if contents is not None:
            self._written_at = contents.written_at
            self._intents = {record.sequence: record for record in contents.intents}
            self._files = dict(contents.files)
            self._uploads = _copied(contents.uploads)
            self._last_id = contents.last_id

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._open is not None:
            yield
            return
        calls = self._open = []
        try:
            yield
        finally:
            self._open = None
        for call in calls:
            call()

    def _do(self, call: Callable[[], Any]) -> None:
        if self._open is None:
            call()
        else:
            self._open.append(call)

    def new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def record(self, intent: "Intent") -> None:
        record = IntentRecord.of(intent)
        self._do(partial(self._intents.__setitem__, record.sequence, record))

    def update(self, intent: "Intent") -> None:
        record = IntentRecord.of(intent)

        def change() -> None:
            if record.sequence in self._intents:
                self._intents[record.sequence] = record

        self._do(change)

    def forget(self, intent: "Intent | IntentRecord") -> None:
        self._do(partial(self._intents.pop, intent.sequence, None))

    def write_file(self, record: FileRecord) -> None:
        self._do(partial(self._files.__setitem__, record.id, record))

    def forget_file(self, file: int) -> None:
        self._do(partial(self._files.pop, file, None))

    def begin_upload(self, record: UploadRecord) -> None:
        self._do(
            partial(self._uploads.__setitem__, record.id, replace(record, parts=dict(record.parts)))
        )

    def learn_upload(self, upload: int, upload_id: str) -> None:
        def change() -> None:
            if upload in self._uploads:
                self._uploads[upload].upload_id = upload_id

        self._do(change)

    def write_part(self, upload: int, part: PartRecord) -> None:
        def change() -> None:
            if upload in self._uploads:
                self._uploads[upload].parts[part.number] = part

        self._do(change)

    def forget_part(self, upload: int, number: int) -> None:
        def change() -> None:
            if upload in self._uploads:
                self._uploads[upload].parts.pop(number, None)

        self._do(change)

    def end_upload(self, upload: int) -> None:
        self._do(partial(self._uploads.pop, upload, None))

    @property
    def synced_until(self) -> float:
        return float("inf")  # a power cut is the end of the process, too

    async def sync(self) -> None:
        await trio.lowlevel.checkpoint()

    def load(self) -> JournalContents:
        intents = sorted(self._intents.values(), key=lambda record: record.sequence)
        return JournalContents(intents, dict(self._files), _copied(self._uploads), self._written_at)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    def report(self) -> Mapping[str, Any]:
        return {"durable": False}


def _copied(uploads: Mapping[int, UploadRecord]) -> dict[int, UploadRecord]:
    return {key: replace(upload, parts=dict(upload.parts)) for key, upload in uploads.items()}
