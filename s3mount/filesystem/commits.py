"""Commits of files: from OpenFile to a PUT intent, and its result back."""

import errno
import logging
from abc import abstractmethod
from dataclasses import replace
from functools import partial

import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import Attributes
from s3mount.filesystem.half_written import AGAIN
from s3mount.filesystem.ledger import Ledger
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.reading import small_content
from s3mount.filesystem.records import Sealed
from s3mount.namespace import Inode, Version
from s3mount.readpath import RemoteObject
from s3mount.store.base import PutResult
from s3mount.store.errors import StoreError
from s3mount.writeback.intents import ABSENT, Expected, Intent, Kind
from s3mount.writeback.intents import State as IntentState
from s3mount.writeback.outcomes import Unsendable

log = logging.getLogger(__name__)

FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0  # between tries to keep bytes that lost against another host


class FileCommits(Ledger):
    """Sends files; each has at most one unfinished PUT."""

    @abstractmethod
    def attributes(self, inode: Inode, *, after: Intent | None = None) -> Intent | None:
        """The inode's attributes changed: what carries them to the bucket."""

    def of_file(self, file: OpenFile) -> list[Intent]:
        return [intent for intent in (file.put, self.last(file.inode)) if intent is not None]

    async def commit(self, file: OpenFile) -> None:
        """The file as it is now is in S3 when this returns; else it raises."""
        if file.taken and file.dirty:
            await file.give_way()
        while file.dirty and not file.inode.detached:
            wanted = file.changes
            # A PUT that runs may have started before the last change: then another one follows.
            file.half_written.awaited += 1
            try:
                intent = await self.record(file)
                if intent is not None:
                    await self.wait([intent])
            finally:
                file.half_written.awaited -= 1
            if file.sent >= wanted:
                break
        intent = self.last(file.inode)
        while intent is not None and not file.inode.detached:
            await self.wait([intent])
            if intent.state is not IntentState.CANCELLED:
                break
            intent = self.last(file.inode)  # a newer one that does its work as well
        if not file.inode.detached:
            # A directory's rename brings the object to the name by which it is known here.
            await self.wait(self.state.queue.trees_over(self._key(file.inode)))

    async def acknowledge(self, file: OpenFile) -> None:
        """The file as it is now survives kill -9 and power cuts when this returns, and will be in
        S3; else it raises. (close with write-back.)

        Bytes on the disk, then the record that names them, then that on the disk.
        """
        if file.taken and file.dirty:
            await file.give_way()
        await self.record(file)
        await self.state.books.sync()

    async def record(self, file: OpenFile) -> Intent | None:
        """The PUT of the file as it is now, or none where nothing is to be sent. With write-back
        the bytes are on the disk before the record, which takes the place of that of a close.
        Raises FilesystemError where the disk fails."""
        if not self.state.writes_back:
            return self.put(file)
        async with file.records.lock:
            if file.dirty and not file.inode.detached:
                return await self._synced(file, file.records.seal(), file.changes)
        return None

    async def _synced(self, file: OpenFile, sealed: Sealed, newest: int) -> Intent | None:
        """`newest`: the changes that the closed record may have, for this one to be written."""
        if sealed.spooled is not None:
            await sealed.spooled.sync()
        wanted = file.sent < sealed.changes and file.records.changes <= newest
        if wanted and not file.inode.detached:
            return self.put(file, sealed)
        if sealed.spooled is not None:
            # Sent meanwhile, by a PUT that had begun before; or a later close was faster.
            sealed.spooled.unwanted(sealed.record.spool)
        return None

    def send_behind(self, file: OpenFile) -> Intent | None:
        """Nobody waits for the file as it is now: its PUT. None, with write-back, where its bytes
        are on their way to the disk: the record that names them follows, for until then a power
        cut must find that of the last close, and all that it names."""
        in_memory = file.spooled is None or file.spooled.in_memory
        if not self.state.writes_back or in_memory or file.records.changes == file.changes:
            return self.put(file)
        if file.records.wants_draft:
            with self.state.books.aftermath():
                file.records.write_draft()
        sealed = file.records.seal()
        file.records.behind += 1
        self.state.start_soon(partial(self._record_behind, file, sealed))
        return None

    async def _record_behind(self, file: OpenFile, sealed: Sealed) -> None:
        """`sealed`: of the moment when its writer went; the next one may be at it by now."""
        try:
            async with file.records.lock:
                await self._synced(file, sealed, sealed.changes - 1)
        except FilesystemError as error:
            log.error("%r is sent, but not safe here before: %s", file.key, error)  # noqa: TRY400
            if file.dirty and not file.inode.detached:
                self.put(file)
        finally:
            file.records.caught_up()

    # -- files ---------------------------------------------------------------------------------

    def put(self, file: OpenFile, sealed: Sealed | None = None) -> Intent:
        """The file's unfinished PUT, or a new one; the journal has the file's bytes then.

        `sealed`: those are of some moments ago.
        """
        with self.change():
            file.rewriting = (
                sealed is not None
                and sealed.spooled is not None
                and sealed.spooled is not file.spooled
                and file.is_being_written
            )
            if sealed is None and file.records.changes != file.changes:
                sealed = file.records.seal()
            supersedes = file.records.is_in_journal
            if sealed is not None:
                file.records.write(sealed)
            intent = file.put
            if intent is None:
                intent = self._new_put(file)
            else:
                self.state.queue.resume(intent, delay=self._put_delay)
            intent.supersedes = intent.supersedes or supersedes
            intent.attributes = _attributes_of(file, sealed)
            self.state.books.update(intent)
            return intent

    @property
    def _put_delay(self) -> float:
        """With write-back nobody waits for it: a rename or removal soon after costs nothing."""
        return self._delay if self.state.writes_back else 0.0

    def _new_put(self, file: OpenFile) -> Intent:
        inode = file.inode
        key = self.state.namespace.key(inode)
        expects = self._expected(file, key)
        superseded = not file.exclusive and self._supersede_delete(key)
        intent = Intent(
            kind=Kind.PUT,
            key=key,
            content=file,
            size=file.size,
            file=file.records.put_id,
            attributes=inode.attributes,
            expects=expects,
            acknowledged=True,
        )
        intent.replaces = superseded or inode.version is not None or file.replaces
        if file.recovering is not None:
            intent.add_unanswered(file.recovering.unanswered)
        return self.add_put(file, intent)

    def _expected(self, file: OpenFile, key: str) -> Expected | None:
        """What the key holds as far as this mount knows; None while that is about to change."""
        holders = self.state.queue.holders(key)
        if len(holders) == 1:
            (only,) = holders
            if only.kind is Kind.DELETE and only.state is IntentState.WAITING:
                # An attempt without an answer may have been carried out, or may be yet.
                return None if only.attempts else only.source_etag
        if holders or file.replaces:
            return None
        return ABSENT if file.inode.version is None else file.inode.version.etag

    def add_put(self, file: OpenFile, intent: Intent) -> Intent:
        """Also for one of a mount that died."""
        file.put = intent
        intent.on_start = lambda _: file.begin_put(intent)
        intent.on_done = lambda _, result: self._file_sent(file, intent, result)
        intent.on_retry = lambda _, error: self._file_not_sent(file, error)
        intent.on_put_off = lambda _: self._put_off(file, intent)
        intent.on_failed = lambda _, error: self._file_failed(file, error)
        intent.on_finished = lambda _: self._file_finished(file, intent)
        return self._add(file.inode, intent, delay=self._put_delay)

    def _supersede_delete(self, key: str) -> bool:
        """A PUT replaces the object just as well; readers of the old one are minded then.

        Not if something in between counts on the object being gone: a directory's rename.
        """
        cancelled = [
            self.state.queue.cancel(other)
            for other in self.state.queue.holders(key)
            if other.kind is Kind.DELETE and not other.also_delete and not other.blocks
        ]
        return any(cancelled)

    def _file_sent(self, file: OpenFile, intent: Intent, result: PutResult | None) -> None:
        snapshot = file.snapshot
        if result is None or snapshot is None:
            return
        self._follow(intent.key, result.etag, snapshot.size)
        if file.kept is None:
            self.state.wrote(intent.key, result.etag, result.answered_at)
        else:
            self.state.disown(intent.key)  # it carries others' metadata on
        version = Version(
            etag=result.etag,
            size=snapshot.size,
            last_modified=result.answered_at,
            version_id=result.version_id,
        )
        inode = file.inode
        current = inode.attributes
        self.state.adopt(file)
        remote = RemoteObject(intent.key, result.etag, snapshot.size, result.version_id)
        content = small_content(file)
        clean = file.committed(remote)
        if clean and content is not None and len(content) == remote.size:
            # Small files just written are often read, or appended to, at once.
            self.state.readpath.seed(remote, 0, content)
        if inode.detached:
            inode.version = version
            self.state.orphan(file)
            return
        self.state.namespace.committed(inode, version, snapshot.attributes, key=intent.key)
        if current != snapshot.attributes:
            inode.attributes = current
            if clean:
                self.attributes(inode, after=intent)

    def _put_off(self, file: OpenFile, intent: Intent) -> None:
        """It is being written. Anew, and nothing else waits for it: a close brings another PUT."""
        if not file.rewriting and not file.inode.detached:
            file.snapshot = None
            self.state.queue.resume(intent, delay=AGAIN)
            return
        if file.inode.detached or not (intent.blocks or intent.attempts):
            self.state.queue.cancel(intent)
        file.put_off()
        self.state.spool.wake()  # who waits for room may have waited for this one

    def _file_not_sent(self, file: OpenFile, error: Exception) -> None:
        """Its bytes stay, and the PUT is tried again."""
        file.snapshot = None
        self.state.spool.wake()
        self._refused(error)

    def _file_failed(self, file: OpenFile, error: Exception) -> None:
        self._file_not_sent(file, error)
        file.error = error
        number = error.errno if isinstance(error, FilesystemError) else 0
        if isinstance(error, Unsendable):
            # What there is of it is kept elsewhere; the name shows what the bucket has.
            file.sent = file.changes
            for handle in file.handles:
                handle.lost = number
            file.lose_name()
        elif number in (errno.ESTALE, errno.EEXIST, errno.ECANCELED):
            # The bytes are beside it, or given up by request; the name belongs to the others now.
            # What was written while they were put there is still to be kept (OpenFile.give_way).
            file.sent = file.changes if number == errno.ECANCELED else file.kept_changes
            for handle in file.handles:
                if handle.wrote:
                    handle.lost = number
            file.lose_name()

    def _file_finished(self, file: OpenFile, intent: Intent) -> None:
        if file.put is intent:
            file.put = None
            self.state.spool.wake()
        if intent.state is not IntentState.DONE:
            file.snapshot = None
        if intent.state is IntentState.CANCELLED and file.rewriting and not file.inode.detached:
            file.records.park(intent)
            file.replaces = file.replaces or (intent.replaces and file.inode.version is None)
            return
        if intent.state is not IntentState.DONE:
            pass
        elif file.records.changes > file.sent and not file.inode.detached:
            # Closed again while it was sent: the rest follows, as a change of what was sent.
            file.records.rebase()
            self._new_put(file)
            return
        file.records.forget(keep_bytes=intent.state is IntentState.FAILED and file.dirty)
        if file.taken and not file.inode.detached:
            self.state.namespace.lost(file.inode)  # now that its pins are gone
            self._tell_kernel(file.inode)
        if file.handles:
            self.state.drafts.changed(file)
            return
        if file.taken and file.dirty:
            self.state.start_soon(partial(self.give_way, file))
        elif file.dirty and not file.inode.detached and intent.state is IntentState.DONE:
            self.send_behind(file)  # written while it was sent
        elif not file.dirty or file.inode.detached:
            self.close(file)

    async def give_way(self, file: OpenFile) -> None:
        """Nobody waits for these bytes, and others have the name: they are kept beside it, for as
        long as it takes."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self.commit(file)
            except StoreError as error:
                log.warning("%r cannot be put beside the other host's yet: %s", file.key, error)
                await trio.sleep(pause)
                pause = min(LAST_PAUSE, pause * 2)
                continue
            except FilesystemError as error:
                if error.errno != errno.ESTALE:
                    file.error = error
                    raise
            break
        if not file.handles and file.put is None:
            self.close(file)

    def close(self, file: OpenFile) -> None:
        """No handle and nothing unsent: forget the file's state."""
        if self.state.open_files.get(file.inode) is file:
            del self.state.open_files[file.inode]
        self.state.adopt(file)
        with self.state.books.aftermath():
            file.discard()


def _attributes_of(file: OpenFile, sealed: Sealed | None) -> Attributes | None:
    """What was written since has a time of its own, with the next close."""
    attributes = file.inode.attributes
    if sealed is None or sealed.changes == file.changes or attributes is None:
        return attributes
    then = sealed.record.attributes
    return replace(attributes, mtime_ns=then.mtime_ns, ctime_ns=then.ctime_ns)
