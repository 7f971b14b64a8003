"""What the journal of a mount that died holds, into the tree again: no request, no await.

Each unfinished intent makes the change of the tree that it made when it was acknowledged, in the
same order, and takes its old place in the queue. So the names are right from the first listing
on, reads of files that were not sent come from the spool, and whatever is done next coalesces
with the intents, waits for them and is ordered after them as if there had been no crash. The
journal keeps its records as they are, so that another crash is only another replay.

What was carried out already, and what others have changed since, is not known here: the
executors look before they act (writeback/after_crash.py, recovered_put.py).
"""

import logging
import time
from collections.abc import Callable, Mapping

from s3mount.core.errors import FilesystemError
from s3mount.core.keys import ROOT_MARKER
from s3mount.filesystem.ledger import Place
from s3mount.filesystem.mutations import Mutations
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.state import State
from s3mount.namespace import Inode, Version
from s3mount.readpath import RemoteObject
from s3mount.writeback.chunk import CorruptSpool
from s3mount.writeback.intents import Intent, Kind
from s3mount.writeback.journal_records import FileRecord, IntentRecord
from s3mount.writeback.spooled_file import SpooledFile

log = logging.getLogger(__name__)


class Replay:
    """Used once, before anything else is done to the tree. `files` are left with OpenFiles."""

    def __init__(
        self,
        state: State,
        mutations: Mutations,
        records: Mapping[int, FileRecord],
        died_at: float = 0.0,
    ) -> None:
        self.state = state
        self.mutations = mutations
        self.files: dict[int, OpenFile] = {}  # by the id of their FileRecord
        self.intents: list[Intent] = []
        self._emptied: dict[str, Place] = {}  # by the key that is to go
        # PUTs whose bytes cannot be taken over.
        self.damaged: list[tuple[Intent, CorruptSpool]] = []
        self._records = records
        self._died_at = died_at
        self._kinds: dict[Kind, Callable[[Intent], None]] = {
            Kind.PUT: self._put,
            Kind.MKDIR: self._mkdir,
            Kind.COPY: self._copy,
            Kind.ATTRIBUTES: self._attributes,
            Kind.DELETE: self._delete,
            Kind.RENAME_TREE: self._rename_tree,
        }

    def add(self, record: IntentRecord) -> None:
        """One that cannot even be tried is reported, and forgotten unless it is about bytes."""
        intent = Intent(
            kind=record.kind,
            key=record.key,
            source=record.source,
            also_delete=record.also_delete,
            source_etag=record.source_etag,
            attributes=record.attributes,
            shown=record.shown,
            headers=record.headers,
            unanswered=record.unanswered,
            condition=record.condition,
            size=record.size,
            # It may have been carried out before the crash: dropping it would not undo it.
            replaces=True,
            file=record.file,
            expects=record.expects,
            acknowledged=record.acknowledged,
            copied_phase=record.copied_phase,
            recovered=True,
            created=record.created,
            lives=(*record.lives, self._died_at, time.time()),
            sequence=record.sequence,
        )
        # What was sent by the mount that died; the next attempt here writes something else, maybe.
        intent.add_unanswered(intent.may_have_written)
        try:
            self._kinds[intent.kind](intent)
        except CorruptSpool as error:
            self.damaged.append((intent, error))
        except (FilesystemError, KeyError, ValueError) as error:
            log.exception("%s cannot be recovered", intent.describe())
            self.state.queue.report(f"{intent.describe()} cannot be recovered: {error}")
            if intent.file is None:
                self.state.journal.forget(intent)
        else:
            self.intents.append(intent)

    # -- places

    def _place(self, key: str) -> Place:
        """The directory, made if need be, and the name in it."""
        relative = key.removeprefix(self.state.config.prefix).rstrip("/")
        *above, name = relative.split("/")
        inode = self.state.namespace.root
        for component in above:
            inode = self.state.namespace.recall(inode, component, directory=True)
        if not name:
            raise ValueError(f"{key!r} has no name")
        return inode, name

    def _entry(self, place: Place) -> Inode | None:
        directory = place[0].directory
        return None if directory is None else directory.entries.get(place[1])

    def _vacate(self, place: Place) -> Inode | None:
        """What stands there, if anything does, was replaced or removed by what comes now."""
        inode = self._entry(place)
        if inode is None:
            return None
        self.state.namespace.detach(inode)
        file = self.state.open_files.get(inode)
        if file is not None:
            file.detached()
        return inode

    def _empty(self, place: Place, key: str) -> None:
        self._emptied[key] = place

    def others(self) -> list[tuple[Place, str]]:
        """Names that are to go, each with the key under which something else may stand there by
        now: a directory in a file's place, or the other way round."""
        found = []
        for key, place in self._emptied.items():
            other = key.removesuffix("/") if key.endswith("/") else f"{key}/"
            if other not in self._emptied:
                found.append((place, other))
        return found

    def _directory(self, key: str) -> Inode:
        if key in (ROOT_MARKER, self.state.config.prefix):
            return self.state.namespace.root
        return self.state.namespace.recall(*self._place(key), directory=True)

    def _file(self, key: str, intent: Intent) -> Inode:
        """Of its version only what the intent recorded is known."""
        place = self._place(key)
        version = None
        if intent.source_etag is not None:
            version = Version(intent.source_etag, intent.size, 0.0)
        return self.state.namespace.recall(
            *place,
            directory=False,
            version=version,
            attributes=intent.attributes or intent.shown,
        )

    # -- kinds

    def _put(self, intent: Intent) -> None:
        if intent.file is None or intent.file not in self._records:
            raise ValueError("its bytes are not in the journal")
        record = self._records[intent.file]
        # First: where its bytes are damaged it leaves nothing in the tree.
        spooled = self.state.spool.restore(record.spool)
        place = self._place(intent.key)
        existing = self._entry(place)
        if existing is not None and not self._is_changed(existing, record):
            self._vacate(place)
        version = None
        if record.base is not None:
            base = record.base
            version = Version(base.etag, base.size, 0.0, base.version_id)
        inode = self.state.namespace.recall(*place, directory=False, version=version)
        attributes = intent.attributes or record.attributes  # changed after the close
        inode.set_attributes(attributes, self.state.clock(), settled=False)
        file = self._open(inode, record, spooled)
        # O_EXCL spoke of the name it was made with; a rename replaces whatever has the new one.
        file.exclusive = record.exclusive and record.key == intent.key
        intent.content, intent.size = file, file.size
        self.mutations.add_put(file, intent)

    def _is_changed(self, inode: Inode, record: FileRecord) -> bool:
        """Whether the record is that file with other bytes, and not another file in its place: its
        old object may still move, and has others' metadata, maybe."""
        if record.base is None or inode in self.state.open_files:
            return False
        rewritten = inode.version is not None and inode.version.etag == record.base.etag
        return rewritten or not record.whole

    def _open(self, inode: Inode, record: FileRecord, spooled: SpooledFile) -> OpenFile:
        """As it was when it was closed, its bytes in the spool."""
        file = OpenFile(self.state, inode, new=False)
        base = record.base
        file.remote = None
        if base is not None:
            file.remote = RemoteObject(base.key, base.etag, base.size, base.version_id)
        file.visible, file.size = record.visible, record.size
        file.whole, file.exclusive = record.whole, record.exclusive
        file.replaces = True
        file.kept = record.kept
        file.spooled = spooled
        file.spooled.record_id = record.id
        file.spooled.on_amended = file.records.amend
        file.prepare_upload()
        if base is not None and file.upload is not None and record.spool.published:
            file.upload.published = base, file.spooled.write_count
        file.changed()
        file.records.restored(record)
        self.state.open_files[inode] = file
        self.files[record.id] = file
        return file

    def _mkdir(self, intent: Intent) -> None:
        inode = self._made_again(intent) or self._directory(intent.key)
        if intent.attributes is not None:
            inode.set_attributes(intent.attributes, self.state.clock(), settled=False)
        self.mutations.add_marker(inode, intent)

    def _made_again(self, intent: Intent) -> Inode | None:
        """A directory whose name an earlier intent is about to free: what that has still to remove
        is not in it. Below what a rename has still to move nothing is in it, as in any directory
        made here; else files in it may have been sent before the crash."""
        if intent.attributes is None or intent.key in (ROOT_MARKER, self.state.config.prefix):
            return None
        parent, name = place = self._place(intent.key)
        freed = parent.directory is not None and name in parent.directory.pins
        if not freed or self._entry(place) is not None:
            return None
        if self.state.queue.trees_over(intent.key):
            inode = self.state.namespace.add(parent, name, intent.attributes, directory=True)
        else:
            inode = self.state.namespace.recall(*place, directory=True)
        self.mutations.hide_below(inode)
        return inode

    def _copy(self, intent: Intent) -> None:
        if intent.source is None:
            raise ValueError("a rename without source")
        old_place = self._place(intent.source)
        if intent.key != intent.source:
            self._empty(old_place, intent.source)
        if intent.copied_phase:
            # What stands at the new name is in the bucket: only the old one is left to go.
            inode = self._vacate(old_place)
            self.mutations.add_delete(inode, intent, [old_place], delay=0.0)
            return
        inode = self._entry(old_place) or self._file(intent.source, intent)
        if inode.directory is not None:
            raise ValueError("its source is a directory")
        if intent.key != intent.source:  # else it was renamed back before it began
            new_place = self._place(intent.key)
            self._vacate(new_place)
            self.state.namespace.move(inode, *new_place)
        if intent.attributes is not None:
            inode.attributes = intent.attributes
        file = self.state.open_files.get(inode)
        if file is not None:
            file.renamed(replaces=True)
        self.mutations.add_copy(inode, intent, old_place)

    def _attributes(self, intent: Intent) -> None:
        is_directory = intent.key.endswith("/")
        inode = self._directory(intent.key) if is_directory else self._file(intent.key, intent)
        if intent.attributes is not None:
            inode.set_attributes(intent.attributes, self.state.clock(), settled=False)
        self.mutations.add_attributes(inode, intent)

    def _delete(self, intent: Intent) -> None:
        """Also one that waited for readers of the file: they are gone. What was renamed and then
        removed before the copy began had two names, maybe."""
        place = self._place(intent.key)
        inode = self._vacate(place)
        places = [place]
        for key in intent.also_delete:
            other = self._place(key)
            if other != place and not intent.key.endswith("/"):
                self._vacate(other)
                self._empty(other, key)
                places.append(other)
        self.mutations.add_delete(inode, intent, places, delay=0.0)
        self._empty(place, intent.key)

    def _rename_tree(self, intent: Intent) -> None:
        if intent.source is None:
            raise ValueError("a rename without source")
        old_place = self._place(intent.source)
        self._empty(old_place, intent.source)
        if intent.copied_phase:
            # All is at the new place. What is still at the old one is hidden by its pin.
            self._vacate(old_place)
            inode = self.state.namespace.recall(*self._place(intent.key), directory=True)
            self.mutations.add_delete(inode, intent, [old_place], delay=0.0)
            return
        inode = self.state.namespace.recall(*old_place, directory=True)
        if inode.attributes is None and intent.shown is not None:
            # While it is pinned no answer of the service tells of its marker.
            inode.set_attributes(intent.shown, self.state.clock(), settled=False)
            if intent.source_etag is not None:
                inode.version = Version(intent.source_etag, 0, 0.0)
                inode.marker = f"{inode.name}/"
        new_place = self._place(intent.key)
        self._vacate(new_place)
        stamp = self.state.namespace.move(inode, *new_place)
        self.mutations.add_tree(inode, intent, old_place, stamp)
