"""From a change of the tree to the intent that carries it to the bucket.

The namespace has been changed when these are called; nothing here awaits but `commit` and
`settle`. Each inode has at most one WAITING intent of its own, into which later changes coalesce.
"""

import errno
import logging
from collections.abc import Iterable, Sequence

from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import content_type_for, encode
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.state import State
from s3mount.namespace import Inode, Pin, Version
from s3mount.readpath import RemoteObject
from s3mount.store.base import AccessDenied, PutResult, WriteHeaders
from s3mount.writeback.intents import Intent, Kind, parent_of
from s3mount.writeback.intents import State as IntentState

log = logging.getLogger(__name__)

NEVER = float("inf")

Place = tuple[Inode, str]


class Mutations:
    """Builds intents and takes their results back into namespace and open files."""

    def __init__(self, state: State) -> None:
        self.state = state
        # The newest unfinished intent of an inode (numbers are given anew, inodes are not).
        self._last: dict[Inode, Intent] = {}
        self._pins: dict[Intent, list[Pin]] = {}

    # -- looking -------------------------------------------------------------------------------

    def last(self, inode: Inode) -> Intent | None:
        return self._last.get(inode)

    def waiting(self, inode: Inode) -> Intent | None:
        """The inode's intent that has not started: what it will do can still be changed."""
        intent = self._last.get(inode)
        return intent if intent is not None and intent.state is IntentState.WAITING else None

    def of_file(self, file: OpenFile) -> list[Intent]:
        return [intent for intent in (file.put, self.last(file.inode)) if intent is not None]

    # -- waiting -------------------------------------------------------------------------------

    async def wait(self, intents: Iterable[Intent]) -> None:
        await self.state.queue.wait(
            intents,
            timeout=self.state.config.writeback.no_progress_timeout,
            progress=self.state.progress,
        )

    async def settle(self, *intents: Intent | None) -> None:
        """For --sync, and while the bucket refuses changes: waits for the outcome of this one."""
        if self.state.cautious:
            await self.wait(intent for intent in intents if intent is not None)
            self.state.cautious = self.state.config.writeback.sync

    async def commit(self, file: OpenFile) -> None:
        """The file as it is now is in S3 when this returns; else it raises."""
        if file.taken and file.dirty:
            await file.give_way()
        while file.dirty and not file.inode.detached:
            wanted = file.changes
            # A PUT that runs may have started before the last change: then another one follows.
            await self.wait([self.put(file)])
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

    # -- files ---------------------------------------------------------------------------------

    def put(self, file: OpenFile) -> Intent:
        """The file's unfinished PUT, or a new one."""
        if file.put is not None:
            return file.put
        inode = file.inode
        key = self.state.namespace.key(inode)
        superseded = not file.exclusive and self._supersede_delete(key)
        intent = Intent(kind=Kind.PUT, key=key, content=file, size=file.size)
        intent.replaces = superseded or inode.version is not None or file.replaces
        file.put = intent
        intent.on_start = lambda _: file.begin_put(intent)
        intent.on_done = lambda _, result: self._file_sent(file, intent, result)
        intent.on_failed = lambda _, error: self._file_failed(file, error)
        intent.on_finished = lambda _: self._file_finished(file, intent)
        return self._add(inode, intent)

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
        content = file.small_content()
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

    def _file_failed(self, file: OpenFile, error: Exception) -> None:
        file.snapshot = None
        file.error = error
        self._refused(error)
        conflict = isinstance(error, FilesystemError) and error.errno in (
            errno.ESTALE,
            errno.EEXIST,
        )
        if conflict or (isinstance(error, FilesystemError) and error.errno == errno.ECANCELED):
            # The bytes are beside it, or given up by request; the name belongs to the others now.
            file.sent = file.changes
            self._forget_name(file.inode)

    def _file_finished(self, file: OpenFile, intent: Intent) -> None:
        if file.put is intent:
            file.put = None
        if intent.state is not IntentState.DONE:
            file.snapshot = None
        if file.handles:
            return
        if file.dirty and not file.inode.detached and intent.state is IntentState.DONE:
            self.put(file)  # written while it was sent
        elif not file.dirty or file.inode.detached:
            self.close(file)

    def close(self, file: OpenFile) -> None:
        """No handle and nothing unsent: forget the file's state."""
        if self.state.open_files.get(file.inode) is file:
            del self.state.open_files[file.inode]
        self.state.adopt(file)
        file.discard()

    # -- metadata and markers ------------------------------------------------------------------

    def attributes(self, inode: Inode, *, after: Intent | None = None) -> Intent | None:
        """The inode's attributes changed: what carries them to the bucket.

        An intent that runs has begun with the old ones, so another one follows it; but not for
        the times of a directory in which a name came or went.
        """
        file = self.state.open_files.get(inode)
        sent_after = file is not None and (file.dirty or file.put is not None)
        if file is not None and sent_after and (after is None or file.put is not after):
            return file.put
        waiting = self.waiting(inode)
        if waiting is not None and waiting is not after and waiting.kind is not Kind.RENAME_TREE:
            if waiting.kind is Kind.COPY:
                waiting.attributes = inode.attributes
            return waiting
        if inode.directory is not None and not self._foreign_marker(inode):
            return self.marker(inode)
        key = self._marker_key(inode) if inode.directory is not None else self._key(inode)
        intent = Intent(kind=Kind.ATTRIBUTES, key=key, attributes=inode.attributes)
        intent.on_start = lambda _: self._fill_in(inode, intent)
        intent.on_done = lambda _, result: self._copied(inode, intent, result)
        intent.on_failed = lambda _, error: self._namespace_failed([inode], error)
        return self._add(inode, intent, delay=self._delay)

    def _foreign_marker(self, inode: Inode) -> bool:
        """Another program's marker may carry metadata of its own, which a copy keeps."""
        return (
            inode.version is not None
            and (inode.marker is None or inode.marker.endswith("/"))
            and not self.state.is_own(
                self._marker_key(inode), inode.version.etag, inode.version.last_modified
            )
        )

    def marker(self, inode: Inode, *, instead_of: Sequence[str] = ()) -> Intent:
        """The directory's marker object, with the attributes it has when the intent starts.

        `instead_of`: keys that are deleted once it is there.
        """
        waiting = self.waiting(inode)
        if waiting is not None and waiting.kind is not Kind.RENAME_TREE:
            return waiting
        key = self._marker_key(inode)
        superseded = self._supersede_delete(key)
        legacy = _legacy_markers(inode, key)
        intent = Intent(kind=Kind.MKDIR, key=key, also_delete=(*legacy, *instead_of))
        intent.replaces = superseded
        intent.on_start = lambda _: self._fill_in_marker(inode, intent)
        intent.on_done = lambda _, result: self._marker_written(inode, intent, result)
        intent.on_failed = lambda _, error: self._namespace_failed([inode], error)
        return self._add(inode, intent, delay=self._delay)

    def _fill_in_marker(self, inode: Inode, intent: Intent) -> None:
        intent.attributes = inode.attributes
        if inode.attributes is not None:
            intent.headers = WriteHeaders(
                encode(inode.attributes),
                {"content-type": content_type_for(inode.name, inode.attributes)},
            )

    def _marker_written(self, inode: Inode, intent: Intent, result: PutResult | None) -> None:
        if result is None or intent.attributes is None or inode.detached:
            return
        self.state.wrote(intent.key, result.etag, result.answered_at)
        inode.marker = inode.name + "/"
        current = inode.attributes
        self.state.namespace.committed(
            inode, Version(result.etag, 0, result.answered_at), intent.attributes, key=intent.key
        )
        inode.attributes = current  # changed while the intent ran: see attributes()

    def _fill_in(self, inode: Inode, intent: Intent) -> None:
        """The version that the intent acts on, and the newest attributes.

        A rename's own ctime goes along with what this mount wrote; of others' files a rename
        leaves the metadata as it is.
        """
        version = inode.version
        own = version is not None and self.state.is_own(
            intent.source or intent.key, version.etag, version.last_modified
        )
        if own or intent.attributes is not None:
            intent.attributes = inode.attributes
        if version is not None:
            intent.source_etag = version.etag

    def _copied(self, inode: Inode, intent: Intent, result: PutResult | None) -> None:
        if result is None or inode.version is None:
            return
        source, old = intent.source or intent.key, inode.version
        if self.state.is_own(source, old.etag, old.last_modified):
            self.state.wrote(intent.key, result.etag, result.answered_at)
        else:
            self.state.disown(intent.key)
        written = intent.attributes if intent.attributes is not None else inode.attributes
        if written is None:
            return
        current = inode.attributes
        version = Version(
            result.etag, inode.version.size, result.answered_at, version_id=result.version_id
        )
        self._repin(inode, intent.key, result)
        if inode.detached:
            inode.version = version
            return
        self.state.namespace.committed(inode, version, written, key=intent.key)
        inode.attributes = current

    def _copy_made(self, inode: Inode, intent: Intent, result: PutResult | None) -> None:
        """The source is deleted next: whoever reads must know the new place before."""
        if result is not None:
            self.state.namespace.stored(inode, intent.key)
            self._repin(inode, intent.key, result)

    def _repin(self, inode: Inode, key: str, result: PutResult) -> None:
        """Our own copy is the same bytes at another key or under another ETag."""
        file = self.state.open_files.get(inode)
        if file is not None and file.remote is not None:
            self.state.adopt(file)
            self.state.readpath.repin(file.remote, key=key, etag=result.etag)
            if inode.detached:
                self.state.orphan(file)

    # -- names ---------------------------------------------------------------------------------

    def delete(
        self, inode: Inode, key: str, places: Sequence[Place], *, deferred: bool = False
    ) -> Intent:
        """The objects of an inode that is detached from `places`.

        `deferred`: a handle still reads them; it starts when that is closed, or somebody waits.
        """
        legacy = _legacy_markers(inode, key) if inode.directory is not None else ()
        intent = Intent(kind=Kind.DELETE, key=key, also_delete=legacy)
        if inode.version is not None:
            intent.source_etag = inode.version.etag
        intent.on_failed = lambda _, error: self._namespace_failed(
            [place[0] for place in places], error
        )
        return self._add(inode, intent, *places, delay=NEVER if deferred else self._delay)

    def discard(self, key: str, place: Place) -> Intent:
        """The object of an inode that is gone already: nothing stands at `place` any more."""
        intent = Intent(kind=Kind.DELETE, key=key)
        intent.on_failed = lambda _, error: self._namespace_failed([place[0]], error)
        return self._add(None, intent, place, delay=self._delay)

    def remove(self, inode: Inode, *, overwritten: bool, reading: bool) -> Intent | None:
        """The inode goes away: its objects do, and what has not started for it is dropped.

        To be called just before it is detached. `overwritten`: a rename is about to put another
        object under its key, which is not deleted then. `reading`: a handle still reads it.
        """
        key = self._key(inode) if inode.directory is None else self._marker_key(inode)
        waiting, last = self.waiting(inode), self.last(inode)
        file = self.state.open_files.get(inode)
        if waiting is not None and waiting.kind is Kind.COPY and waiting.source is not None:
            keys = [waiting.source]
            if waiting.replaces and not overwritten:
                keys.append(waiting.key)
            self.state.queue.become_delete(waiting, keys, defer=reading)
            return waiting
        exists = (
            inode.version is not None
            or (last is not None and last is not waiting)
            or (waiting is not None and (waiting.replaces or waiting.kind is Kind.RENAME_TREE))
            or (file is not None and file.replaces)
            # What runs may have stored it, though nothing was heard of that yet.
            or any(other is not waiting for other in self.state.queue.holders(key))
            # Else, while children's objects are still to be deleted, a listing would show it.
            or (inode.directory is not None and self.state.queue.is_busy_below(key))
        )
        if waiting is not None and waiting.kind is not Kind.RENAME_TREE:
            self.state.queue.cancel(waiting)
        if not exists or overwritten:
            return None
        return self.delete(inode, key, place_of(inode), deferred=reading)

    def move(
        self, inode: Inode, old_key: str, new_key: str, old_place: Place, *, replaces: bool
    ) -> Intent | None:
        """A file's rename, already done in the namespace. None: nothing is in the bucket yet.

        `replaces`: the target key may hold another object.
        """
        file = self.state.open_files.get(inode)
        waiting = self.waiting(inode)
        if waiting is not None and not waiting.replaces:
            unsent = inode.version is None and waiting.kind is Kind.PUT
            if (unsent or waiting.kind is Kind.COPY) and self._retarget(waiting, inode, new_key):
                waiting.replaces = replaces
                return waiting
        if inode.version is None and (file is None or file.put is None):
            return None
        intent = Intent(kind=Kind.COPY, key=new_key, source=old_key, replaces=replaces)
        if waiting is not None and waiting.kind is Kind.ATTRIBUTES:
            # chmod, chown, utimens, rename: one copy.
            self.state.queue.cancel(waiting)
            intent.attributes = inode.attributes
        intent.on_start = lambda _: self._fill_in(inode, intent)
        intent.on_copied = lambda _, result: self._copy_made(inode, intent, result)
        intent.on_done = lambda _, result: self._copied(inode, intent, result)
        intent.on_failed = lambda _, error: self._namespace_failed([inode, old_place[0]], error)
        places = (old_place, *place_of(inode))
        return self._add(inode, intent, *places, delay=self._delay)

    def _retarget(self, intent: Intent, inode: Inode, key: str) -> bool:
        if not self.state.queue.retarget(intent, key=key):
            return False
        self._pin(intent, place_of(inode))
        return True

    def move_tree(
        self, inode: Inode, old_prefix: str, new_prefix: str, old_place: Place, stamp: int
    ) -> Intent:
        """A directory's rename, already done in the namespace, which gave it `stamp`."""
        waiting = self.waiting(inode)
        unmade = waiting is not None and waiting.kind is Kind.MKDIR and inode.version is None
        if (
            waiting is not None
            and unmade
            and self._known_empty(inode, old_prefix)
            and self._retarget(waiting, inode, new_prefix)
        ):
            self.state.namespace.unmoved(inode)
            return waiting
        intent = Intent(kind=Kind.RENAME_TREE, key=new_prefix, source=old_prefix)
        intent.on_copied = lambda *_: self._tree_copied(intent, old_prefix, new_prefix, stamp)
        intent.on_failed = lambda _, error: self._namespace_failed([inode, old_place[0]], error)
        places = (old_place, *place_of(inode))
        self._add(inode, intent, *places, delay=self._delay)
        if inode.marker is None or inode.marker.endswith("/"):
            return intent
        # `old` or `old_$folder$` is not below `old/`, so the copies leave it behind.
        legacy = old_prefix[:-1] + inode.marker[len(inode.name) :]
        inode.marker = inode.version = None
        marker = self.marker(inode, instead_of=[legacy])
        self._pin(marker, [old_place])
        return marker

    def _known_empty(self, inode: Inode, prefix: str) -> bool:
        """A directory made here, never filled, whose marker is not written yet."""
        directory = inode.directory
        return (
            directory is not None
            and not directory.entries
            and not any(
                intent.kind is not Kind.MKDIR for intent in self.state.queue.unfinished(prefix)
            )
        )

    def _tree_copied(
        self, intent: Intent, old_prefix: str, new_prefix: str, stamp: int
    ) -> None:
        """Copies may have other ETags: multipart objects, encrypted ones.

        Who knows another version than was copied is not told: another host has replaced it.
        """
        versions = {
            key: (
                moved.source_etag,
                Version(
                    moved.result.etag,
                    moved.size,
                    moved.result.answered_at,
                    moved.result.version_id,
                ),
            )
            for key, moved in intent.copied.items()
        }
        self.state.namespace.rehomed(old_prefix, new_prefix, versions, stamp)
        for file in self.state.open_files.values():
            remote = file.remote
            if remote is not None and remote.key.startswith(old_prefix):
                self.state.adopt(file)
                key = new_prefix + remote.key[len(old_prefix) :]
                source_etag, version = versions.get(key, (None, None))
                if version is not None and source_etag == remote.etag:
                    self.state.readpath.repin(remote, key=key, etag=version.etag)
                if file.inode.detached:
                    self.state.orphan(file)

    # -- results -------------------------------------------------------------------------------

    def _namespace_failed(self, inodes: Sequence[Inode], error: Exception) -> None:
        """What was acknowledged did not happen: show what is really there from now on."""
        self._refused(error)
        for inode in inodes:
            self._forget_name(inode)
            if inode.directory is not None:
                self.state.namespace.forget_names(inode)

    def _forget_name(self, inode: Inode) -> None:
        parent = inode.parent
        if parent is not None and parent.directory is not None:
            self.state.namespace.forget_names(parent)
            if self.state.invalidate is not None:
                self.state.invalidate(parent.number, inode.name.encode("utf-8", "replace"), 0)

    def _refused(self, error: Exception) -> None:
        if isinstance(error, AccessDenied):
            self.state.cautious = True

    # -- the queue -----------------------------------------------------------------------------

    @property
    def _delay(self) -> float:
        return self.state.config.writeback.namespace_delay

    def _key(self, inode: Inode) -> str:
        return self.state.namespace.key(inode)

    def _marker_key(self, inode: Inode) -> str:
        """s3fs keeps the root's own attributes with the key `/`."""
        return self.state.namespace.key(inode) or "/"

    def _add(
        self, inode: Inode | None, intent: Intent, *places: Place, delay: float = 0.0
    ) -> Intent:
        """Pins the names until the intent is finished: no listing may contradict it before."""
        self._pin(intent, places or (place_of(inode) if inode is not None else ()))
        before = intent.on_finished

        def finished(done: Intent) -> None:
            if inode is not None and self._last.get(inode) is done:
                del self._last[inode]
            for pin in self._pins.pop(done, ()):
                pin.release()
            if before is not None:
                before(done)

        intent.on_finished = finished
        if inode is not None:
            self._last[inode] = intent
        return self.state.queue.add(intent, delay=delay)

    def _pin(self, intent: Intent, places: Sequence[Place]) -> None:
        pins = self._pins.setdefault(intent, [])
        pins.extend(self.state.namespace.pin(parent, name) for parent, name in places)


def place_of(inode: Inode) -> tuple[Place, ...]:
    """Where the inode stands: directory and name; empty for the root."""
    return () if inode.parent is None else ((inode.parent, inode.name),)


def _legacy_markers(inode: Inode, key: str) -> tuple[str, ...]:
    """The marker's other form, if that is what the bucket has: `dir` or `dir_$folder$`."""
    if inode.marker is None or inode.marker.endswith("/"):
        return ()
    return (parent_of(key) + inode.marker,)
