"""Renames of directories: one intent each, whatever is below."""

from abc import abstractmethod
from collections.abc import Sequence

from s3mount.filesystem.commits import FileCommits
from s3mount.filesystem.ledger import ACTING, Place, place_of
from s3mount.filesystem.open_file import OpenFile
from s3mount.namespace import Inode, Version
from s3mount.readpath import RemoteObject
from s3mount.writeback.intents import Intent, Kind


class TreeMoves(FileCommits):
    @abstractmethod
    def marker(self, inode: Inode, *, instead_of: Sequence[str] = ()) -> Intent:
        """Writes the directory's marker."""

    def _retarget(self, intent: Intent, inode: Inode, key: str) -> bool:
        if not self.state.queue.retarget(intent, key=key):
            return False
        intent.expects = None
        if intent.kind is Kind.PUT:  # nothing of it was ever sent to the old name
            self._unpin(intent)
        self._pin(intent, place_of(inode))
        return True

    def move_tree(
        self,
        inode: Inode,
        old_prefix: str,
        new_prefix: str,
        old_place: Place,
        stamp: int,
        *,
        replaces: bool,
    ) -> Intent:
        """A directory's rename, already done in the namespace, which gave it `stamp`.

        `replaces`: the target may have a marker.
        """
        waiting = self.waiting(inode)
        unmade = waiting is not None and waiting.kind is Kind.MKDIR and inode.version is None
        if (
            waiting is not None
            and unmade
            and self.is_only(inode, waiting)
            and not waiting.replaces
            and self._known_empty(inode, old_prefix)
            and self._retarget(waiting, inode, new_prefix)
        ):
            waiting.replaces = replaces
            self.state.namespace.unmoved(inode)
            return waiting
        intent = Intent(kind=Kind.RENAME_TREE, key=new_prefix, source=old_prefix)
        intent.shown = inode.attributes
        if inode.version is not None and inode.marker is not None and inode.marker.endswith("/"):
            intent.source_etag = inode.version.etag
        self.add_tree(inode, intent, old_place, stamp)
        if inode.marker is None or inode.marker.endswith("/"):
            return intent
        # `old` or `old_$folder$` is not below `old/`, so the copies leave it behind.
        legacy = old_prefix[:-1] + inode.marker[len(inode.name) :]
        inode.marker = inode.version = None
        marker = self.marker(inode, instead_of=[legacy])
        self._pin(marker, [old_place])
        return marker

    def add_tree(self, inode: Inode, intent: Intent, old_place: Place, stamp: int) -> Intent:
        intent.on_copied = lambda *_: self._tree_copied(intent, stamp)
        intent.on_failed = lambda _, error: self._namespace_failed([inode, old_place[0]], error)
        return self._add(inode, intent, old_place, *place_of(inode), delay=self._delay)

    def _known_empty(self, inode: Inode, prefix: str) -> bool:
        """A directory made here, never filled, whose marker is not written yet."""
        directory = inode.directory
        return (
            directory is not None
            and inode.unstored  # else there may be children that were never listed
            and not directory.entries
            and not any(
                intent.kind is not Kind.MKDIR for intent in self.state.queue.unfinished(prefix)
            )
        )

    def _follow_tree(self, intent: Intent) -> None:
        """What was changed, moved or removed while its directory was on its way has the copy's ETag
        by now; further renames of directories may still be to come in between."""
        unfinished = self.state.queue.unfinished()
        later: list[Intent] = []
        for other in unfinished:
            if other.sequence <= intent.sequence:
                continue
            if other.kind is Kind.RENAME_TREE:
                later.append(other)
            elif other.kind in ACTING and other.source_etag is not None:
                moved = intent.copied.get(_before(other.acts_on, later))
                if moved is not None and other.source_etag == moved.source_etag:
                    other.source_etag = moved.result.etag
                    self.state.queue.changed(other)

    def _tree_copied(self, intent: Intent, stamp: int) -> None:
        """Copies may have other ETags: multipart objects, encrypted ones.

        Who knows another version than was copied is not told: another host has replaced it.
        """
        intent.copied_phase = True
        self.state.queue.changed(intent)
        old_prefix, new_prefix = intent.source or "", intent.key
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
        self._follow_tree(intent)
        for file in self.state.open_files.values():
            remote = file.remote
            if remote is not None and remote.key.startswith(old_prefix):
                self.state.adopt(file)
                key = new_prefix + remote.key[len(old_prefix) :]
                source_etag, version = versions.get(key, (None, None))
                if version is not None and source_etag == remote.etag:
                    self._bring(file, remote, key, version.etag)
                elif version is None and intent.recovered:
                    self._bring(file, remote, key, remote.etag)  # by the mount that died
                if file.inode.detached:
                    self.state.orphan(file)

    def _bring(self, file: OpenFile, remote: RemoteObject, key: str, etag: str) -> None:
        before = remote.key, remote.etag
        self.state.readpath.repin(remote, key=key, etag=etag)
        file.records.base_moved(*before)


def _before(key: str, trees: Sequence[Intent]) -> str:
    """Where what is to be at `key` was before these renames, given in their order."""
    for tree in reversed(trees):
        if tree.source is not None and key.startswith(tree.key):
            key = tree.source + key[len(tree.key) :]
    return key
