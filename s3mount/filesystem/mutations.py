"""From a change of the tree to the intent that carries it to the bucket.

The namespace has been changed when these are called, and nothing here awaits. Each inode has at
most one WAITING intent of its own, into which later changes coalesce.
"""

import logging
from collections.abc import Sequence

from s3mount.core.metadata import content_type_for, encode
from s3mount.filesystem.ledger import Place, place_of
from s3mount.filesystem.tree_moves import TreeMoves
from s3mount.namespace import Inode, Version
from s3mount.store.base import (
    PutResult,
    WriteHeaders,
)
from s3mount.writeback.intents import Intent, Kind, parent_of

log = logging.getLogger(__name__)

NEVER = float("inf")


class Mutations(TreeMoves):
    """Builds intents and takes their results back into namespace and open files."""

    # -- metadata and markers ------------------------------------------------------------------

    def attributes(self, inode: Inode, *, after: Intent | None = None) -> Intent | None:
        """The inode's attributes changed: what carries them to the bucket.

        An intent that runs has begun with the old ones, so another one follows it; but not for
        the times of a directory in which a name came or went.
        """
        file = self.state.open_files.get(inode)
        sent_after = file is not None and (file.dirty or file.put is not None)
        if file is not None and sent_after and (after is None or file.put is not after):
            if file.put is None:
                file.records.attributes_changed()
            else:
                file.put.attributes = inode.attributes
                self.state.books.update(file.put)
            return file.put
        waiting = self.waiting(inode)
        if waiting is not None and waiting is not after and waiting.kind is not Kind.RENAME_TREE:
            if waiting.kind is Kind.MKDIR:
                self._fill_in_marker(inode, waiting)
            else:
                waiting.attributes = inode.attributes
            self.state.queue.changed(waiting)
            return waiting
        if inode.directory is not None and not self._foreign_marker(inode):
            return self.marker(inode)
        key = self._marker_key(inode) if inode.directory is not None else self._key(inode)
        intent = Intent(kind=Kind.ATTRIBUTES, key=key, attributes=inode.attributes)
        self._name_version(inode, intent)
        return self.add_attributes(inode, intent)

    def add_attributes(self, inode: Inode, intent: Intent) -> Intent:
        """Also for one of a mount that died: these add_ methods are what replay.py calls."""
        intent.on_start = lambda _: self._fill_in(inode, intent)
        intent.on_done = lambda _, result: self._copied(inode, intent, result)
        intent.on_failed = lambda _, error: self._namespace_failed([inode], error)
        return self._add(inode, intent, delay=self._delay)

    def _name_version(self, inode: Inode, intent: Intent) -> None:
        """The version that the intent acts on, as far as it is known yet; see also _follow."""
        if inode.version is not None:
            intent.source_etag, intent.size = inode.version.etag, inode.version.size

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
        self._fill_in_marker(inode, intent)  # for the journal
        return self.add_marker(inode, intent)

    def add_marker(self, inode: Inode, intent: Intent) -> Intent:
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
        if result is None or intent.attributes is None:
            return
        self._follow(intent.key, result.etag, 0)
        if inode.detached:
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
        # A recovered one that others follow is known by what it was to write before the crash.
        followed = intent.recovered and self.last(inode) is not intent
        if (own or intent.attributes is not None) and not followed:
            intent.attributes = inode.attributes
        if version is not None:
            intent.source_etag = version.etag
        if intent.attributes is not None and intent.kind is Kind.ATTRIBUTES:
            intent.headers = WriteHeaders(encode(intent.attributes))
        intent.add_unanswered(self.state.uploader.doubts.unanswered(intent.acts_on))

    def _copied(self, inode: Inode, intent: Intent, result: PutResult | None) -> None:
        if result is None:
            return
        if inode.version is None:
            # Of a mount that died before it knew the version: the executor has looked.
            assert intent.source_etag is not None
            inode.version = Version(intent.source_etag, intent.size, 0.0)
        source, old = intent.source or intent.key, inode.version
        if self.state.is_own(source, old.etag, old.last_modified):
            self.state.wrote(intent.key, result.etag, result.answered_at)
        else:
            self.state.disown(intent.key)
        current = inode.attributes
        version = Version(result.etag, old.size, result.answered_at, version_id=result.version_id)
        self._follow(intent.key, result.etag, old.size)
        self._repin(inode, intent.key, result)
        written = intent.attributes if intent.attributes is not None else current
        if inode.detached or written is None:
            if written is None:  # of a mount that died: nobody has asked for them yet
                self.state.namespace.stored(inode, intent.key)
            inode.version = version
            return
        self.state.namespace.committed(inode, version, written, key=intent.key)
        inode.attributes = current

    def _copy_made(self, inode: Inode, intent: Intent, result: PutResult | None) -> None:
        """The source is deleted next: whoever reads must know the new place before. So must the
        record of a file that is a change of it, in the same commit."""
        intent.copied_phase = True
        with self.state.books.aftermath():
            self.state.queue.changed(intent)
            if result is not None:
                self.state.namespace.stored(inode, intent.key)
                self._repin(inode, intent.key, result)

    def _repin(self, inode: Inode, key: str, result: PutResult) -> None:
        """Our own copy is the same bytes at another key or under another ETag."""
        file = self.state.open_files.get(inode)
        if file is not None and file.remote is not None:
            self.state.adopt(file)
            self._bring(file, file.remote, key, result.etag)
            if inode.detached:
                self.state.orphan(file)

    # -- names ---------------------------------------------------------------------------------

    def delete(
        self,
        inode: Inode,
        key: str,
        places: Sequence[Place],
        *,
        deferred: bool = False,
        instead_of: Intent | None = None,
    ) -> Intent:
        """The objects of an inode that is detached from `places`.

        `deferred`: a handle still reads them; it starts when that is closed, or somebody waits.
        `instead_of`: what was dropped for it.
        """
        legacy = _legacy_markers(inode, key) if inode.directory is not None else ()
        intent = Intent(kind=Kind.DELETE, key=key, also_delete=legacy)
        if inode.version is not None:
            intent.source_etag = inode.version.etag
        if instead_of is not None:
            intent.replaces_intent(instead_of)
        delay = NEVER if deferred else self._delay
        return self.add_delete(inode, intent, places, delay=delay)

    def discard(self, key: str, place: Place) -> Intent:
        """The object of an inode that is gone already: nothing stands at `place` any more."""
        intent = Intent(kind=Kind.DELETE, key=key)
        return self.add_delete(None, intent, [place], delay=self._delay)

    def add_delete(
        self, inode: Inode | None, intent: Intent, places: Sequence[Place], *, delay: float
    ) -> Intent:
        intent.on_failed = lambda _, error: self._namespace_failed(
            [place[0] for place in places], error
        )
        return self._add(inode, intent, *places, delay=delay)

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
            if (waiting.replaces or waiting.copy_made is not None) and not overwritten:
                keys.append(waiting.key)
            if inode.version is not None:
                waiting.source_etag = inode.version.etag
            self.state.queue.become_delete(waiting, keys, defer=reading)
            return waiting
        exists = (
            inode.version is not None
            or (last is not None and last is not waiting)
            or (waiting is not None and (waiting.replaces or waiting.kind is Kind.RENAME_TREE))
            or (file is not None and file.replaces)
            # What runs may have stored it, though nothing was heard of that yet.
            or not self.is_only(inode, waiting)
            or any(other is not waiting for other in self.state.queue.holders(key))
            # Else, while children's objects are still to be deleted, a listing would show it.
            or (inode.directory is not None and self.state.queue.is_busy_below(key))
        )
        dropped = None
        if waiting is not None and waiting.kind is not Kind.RENAME_TREE:
            self.state.queue.cancel(waiting)
            dropped = waiting
        if not exists or overwritten:
            return None
        return self.delete(inode, key, place_of(inode), deferred=reading, instead_of=dropped)

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
            intent.replaces_intent(waiting)
            intent.attributes = inode.attributes
        self._name_version(inode, intent)
        if file is None or not file.dirty:  # else its times are those of unsent bytes
            intent.shown = inode.attributes
        return self.add_copy(inode, intent, old_place)

    def add_copy(self, inode: Inode, intent: Intent, old_place: Place) -> Intent:
        intent.on_start = lambda _: self._fill_in(inode, intent)
        intent.on_copied = lambda _, result: self._copy_made(inode, intent, result)
        intent.on_done = lambda _, result: self._copied(inode, intent, result)
        intent.on_failed = lambda _, error: self._namespace_failed([inode, old_place[0]], error)
        places = (old_place, *place_of(inode))
        return self._add(inode, intent, *places, delay=self._delay)


def _legacy_markers(inode: Inode, key: str) -> tuple[str, ...]:
    """The marker's other form, if that is what the bucket has: `dir` or `dir_$folder$`."""
    if inode.marker is None or inode.marker.endswith("/"):
        return ()
    return (parent_of(key) + inode.marker,)
