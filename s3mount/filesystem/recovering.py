"""What a mount that died left in the journal, taken up: see replay.py for the tree's part."""

import contextlib
import logging
import shlex
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import trio

from s3mount.core.metadata import is_directory_object
from s3mount.filesystem.ledger import Place
from s3mount.filesystem.mutations import Mutations
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.recovered_put import RecoveredPut
from s3mount.filesystem.replay import Replay
from s3mount.filesystem.stat import Pending
from s3mount.filesystem.state import State
from s3mount.store.errors import StoreError
from s3mount.writeback.chunk import CorruptSpool
from s3mount.writeback.intents import Intent
from s3mount.writeback.journal_records import FileRecord, JournalContents, UploadRecord
from s3mount.writeback.parallel import all_of
from s3mount.writeback.recoverable import Recoverable, RecoverableFile, describe
from s3mount.writeback.recovery import LeftUploads, of_file

log = logging.getLogger(__name__)

# Looks at once, and how long they may take in all: they delay the mount.
LOOKS = 64
LOOK_FOR_OTHERS = 10.0

Drain = Callable[[float | None, Callable[[Pending], None] | None], Awaitable[Pending]]


@dataclass(slots=True)
class Recovered:
    """What was found. `unsaved`: recoverable files for which the disk had no room."""

    intents: int = 0
    bytes: int = 0
    recoverable: list[RecoverableFile] = field(default_factory=list)
    unsaved: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.intents or self.recoverable or self.unsaved)


class Recovering:
    """`contents`: what the journal held when it was opened."""

    def __init__(self, state: State, mutations: Mutations, contents: JournalContents) -> None:
        self.state = state
        self.mutations = mutations
        self.recovered = Recovered()
        spool = state.config.writeback.spool_dir
        self.kept = Recoverable(state.config.cache_dir / "recoverable")
        self._contents = contents
        self._needed = {name for one in contents.files.values() for name in _chunk_names(one)}
        self._spool = spool
        self._drain: Drain | None = None
        self._given_up: set[int] = set()  # file records
        self.uploads = LeftUploads(state.store, state.journal, self._upload_ids)
        state.uploader.on_left = self.uploads.add

    async def recover(self, drain: Drain) -> None:
        """Sets aside what was never closed, and puts the rest into the tree and the queue, which
        must not be used before. Called again after a crash it goes on where that was."""
        contents, self._contents = self._contents, JournalContents()
        wanted = {record.file for record in contents.intents if record.file is not None}
        needed: set[str] = set()  # chunk files that nothing has taken over
        for record in contents.files.values():
            if record.id not in wanted and not await self._set_aside(record, contents):
                needed |= _chunk_names(record)
        replay = self._replay(contents)
        for intent, error in replay.damaged:
            await self._give_up(intent, error, contents)
        for upload in contents.uploads.values():
            self._sort_out(upload, replay, contents)
        for number in wanted & contents.files.keys():
            if number not in replay.files and number not in self._given_up:
                needed |= _chunk_names(contents.files[number])
        for number, file in replay.files.items():
            await self._record_anew(file, contents.files[number])
        self._needed = needed
        self.state.spool.pool.release_kept(needed)
        await self._find_others(replay)
        self._drain = drain

    async def settle(self, timeout: float, tell: Callable[[str], None]) -> None:
        """Waits until what was left is sent, `timeout` seconds at most; tells what there is."""
        found = self.recovered
        for text in found.unsaved:
            tell(text)
        if count := len(self.kept.list()):
            self._say(
                f"{count} files had not been closed when an earlier mount ended, and are not in"
                " the bucket; what was written of them is kept:"
                f" s3mount recover list --cache-dir {shlex.quote(str(self.kept.directory.parent))}",
                tell,
            )
        if not found.intents or self._drain is None:
            return
        tell(
            f"an earlier mount ended before all was sent: {found.intents} changes,"
            f" {found.bytes} bytes; the mount waits for them, {timeout:.0f} s at most"
        )
        left = await self._drain(timeout, None)
        if left:
            text = f"{left.intents} changes, {left.bytes} bytes are still to be sent: status tells"
        else:
            text = "what an earlier mount left is sent"
        self._say(text, tell)
        for failure in self.state.queue.failures:
            tell(f"not done: {failure}")

    def _say(self, text: str, tell: Callable[[str], None]) -> None:
        log.warning(text)
        tell(text)

    # -- never closed

    async def _set_aside(
        self, record: FileRecord, contents: JournalContents, why: str = "never closed"
    ) -> bool:
        """False: it could not be saved, so that its record stays."""
        uploads = of_file(contents.uploads.values(), record.id)
        upload_id = uploads[-1].upload_id if uploads else None
        try:
            entry = await trio.to_thread.run_sync(self.kept.add, record, self._spool, upload_id)
        except OSError as error:
            text = f"{record.key!r} ({why}) cannot be set aside: {error}"
            log.error("%s; its bytes stay in the spool until the next mount", text)  # noqa: TRY400
            self.recovered.unsaved.append(text)
            self.state.queue.report(text)
            return False
        self.state.journal.forget_file(record.id)
        if entry is not None:
            self.recovered.recoverable.append(entry)
            log.warning("%s, hence not sent: %s", why, describe(entry))
        return True

    # -- acknowledged

    async def _give_up(
        self, intent: Intent, error: CorruptSpool, contents: JournalContents
    ) -> None:
        """A closed file that cannot be taken over, for its chunks must be made anew and are
        damaged: see damaged.py."""
        assert intent.file is not None
        if await self._set_aside(contents.files[intent.file], contents, "damaged"):
            self._given_up.add(intent.file)
            self.state.journal.forget(intent)
        text = f"{intent.describe()}: given up, what can be read of it is recoverable: {error}"
        log.error("%s", text)
        self.state.queue.report(text)

    def _replay(self, contents: JournalContents) -> Replay:
        """No await: either all of it is in the tree and the queue, or nothing."""
        replay = Replay(self.state, self.mutations, contents.files, contents.written_at)
        for record in contents.intents:
            replay.add(record)
        with self.state.books.aftermath():
            for intent in replay.intents:
                self.state.books.update(intent)  # its lives
        for intent in replay.intents:
            self.recovered.intents += 1
            file = None if intent.file is None else replay.files.get(intent.file)
            if file is not None and intent.file is not None:
                uploads = of_file(contents.uploads.values(), intent.file)
                file.recovering = RecoveredPut(file, intent, uploads)
                self.recovered.bytes += file.size
        if self.recovered.intents:
            log.warning(
                "an earlier mount ended before its work was done: %d changes (%d bytes) go on",
                self.recovered.intents,
                self.recovered.bytes,
            )
        return replay

    async def _find_others(self, replay: Replay) -> None:
        """What was made in the place of something removed may be in the bucket already, while the
        removal is not carried out: a file `a` for a directory `a/`, or the other way round. No
        intent tells of it. What is not found in time is seen once the other is gone."""

        async def one(place: Place, key: str) -> None:
            with contextlib.suppress(StoreError):
                info = await self.state.store.head(key)
                directory = is_directory_object(
                    info.key, info.size, info.headers.get("content-type"), info.metadata
                )
                if directory == key.endswith("/"):
                    self.state.namespace.found(*place, info)

        with trio.move_on_after(LOOK_FOR_OTHERS):
            await all_of([partial(one, *found) for found in replay.others()], LOOKS)

    async def _record_anew(self, file: OpenFile, record: FileRecord) -> None:
        """Its chunks were made anew, for another part size: the old ones are named until then."""
        spooled = file.spooled
        if spooled is None or spooled.sealed:
            return
        sealed = spooled.seal()
        await spooled.sync()
        record = replace(record, spool=sealed)
        self.state.journal.write_file(record)
        file.records.restored(record)
        spooled.recorded(sealed)

    def _sort_out(self, upload: UploadRecord, replay: Replay, contents: JournalContents) -> None:
        newest = of_file(contents.uploads.values(), upload.file)[-1:]
        if upload.file in replay.files and upload.upload_id is not None and upload in newest:
            return  # goes on
        # Its record stays: once the file is dropped there, the next mount aborts the upload.
        kept = any(entry.in_upload == upload.upload_id for entry in self.kept.list())
        if upload.upload_id is not None and kept:
            log.warning("upload %s of %r has bytes of it", upload.upload_id, upload.key)
            return
        self.uploads.add(upload)

    def _upload_ids(self) -> set[str]:
        """Of all uploads under way."""
        uploads = [file.upload for file in self.state.open_files.values()]
        return {one.upload_id for one in uploads if one is not None and one.upload_id is not None}

    @property
    def needed(self) -> Collection[str]:
        """Chunk files that the journal names and that nothing has taken over (yet)."""
        return self._needed

    # -- telling

    def report(self) -> dict[str, Any]:
        """For status."""
        return {
            "recovered": {"intents": self.recovered.intents, "bytes": self.recovered.bytes},
            "recoverable": [describe(entry) for entry in self.kept.list()],
            "uploads": self.uploads.report,
        }


def _chunk_names(record: FileRecord) -> set[str]:
    return {chunk.name for chunk in record.spool.chunks}
