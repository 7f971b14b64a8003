"""The tree of inodes and the merging of answers into it. No await at all.

Every answer of the store comes in through `observe`, one of the `seen_*` methods or `gone`, with
the time it was asked for; each of them leaves alone what changed here since then (ruling 14) and
what is pinned or local.
"""

import stat
from dataclasses import replace

from s3mount.core.metadata import Attributes, defaults_for, is_directory_object
from s3mount.namespace.decoding import attributes_of
from s3mount.namespace.inode import NEVER, Directory, Inode, Version
from s3mount.namespace.local_tree import LocalTree, directory_of
from s3mount.namespace.stat_cache import Row, is_racy
from s3mount.store.base import (
    ListedObject,
    ObjectInfo,
)

__all__ = ["Tree", "directory_of"]


class Tree(LocalTree):
    """See the module."""

    # -- answers

    def seen_object(
        self,
        parent: Inode,
        name: str,
        listed: ListedObject,
        asked_at: float,
        row: Row | None,
    ) -> Inode | None:
        """A listing shows a file; returns the inode that stands for the name now, if any."""
        siblings = directory_of(parent)
        existing = siblings.entries.get(name)
        if siblings.protects(name, asked_at) or (existing is not None and existing.is_local):
            return existing
        if existing is not None:
            version = existing.version
            # A marker without slash looks like an empty file in a listing.
            same_kind = existing.directory is None or existing.marker == name
            if same_kind and version is not None:
                if version.same_bytes(listed.etag, listed.size):
                    self.rehouse(existing)
                    self._confirm(existing, listed, asked_at, row)
                    return existing
                if existing.directory is not None and self._holds_local(existing.directory):
                    return existing
            if existing.seen_at > asked_at:
                return existing
            if existing.directory is not None and self._holds_local(existing.directory):
                return existing
        elif siblings.absent.get(name, NEVER) > asked_at:
            return None
        self._retire(siblings, existing)
        is_marker = row is not None and row.matches(listed) and stat.S_ISDIR(row.attributes.mode)
        inode = self._new(parent, name, asked_at, is_marker, row.number if row else None)
        if is_marker:
            inode.marker = name
        inode.version = Version(listed.etag, listed.size, listed.last_modified)
        self._store_below(parent, inode, name + ("/" if is_marker else ""))
        if row is not None and row.matches(listed) and not row.racy:
            inode.set_attributes(row.attributes, asked_at, settled=True)
        self._install(siblings, existing, inode)
        return inode

    def _confirm(
        self, inode: Inode, listed: ListedObject, asked_at: float, row: Row | None
    ) -> None:
        """The listing shows the bytes we know; their metadata may have changed all the same."""
        version = inode.version
        if version is None:
            return
        if int(version.last_modified) != int(listed.last_modified):
            if inode.seen_at > asked_at:
                return
            # Somebody wrote the same bytes, or other metadata: what we know may be old.
            inode.version = Version(
                listed.etag, listed.size, listed.last_modified, version.version_id
            )
            inode.settled = False
            inode.attributes_at = NEVER
        elif inode.settled:
            inode.attributes_at = max(inode.attributes_at, asked_at)
        if not inode.settled and row is not None and row.matches(listed) and not row.racy:
            touched = inode.attributes
            inode.set_attributes(row.attributes, asked_at, settled=True)
            self.keep_times(inode, touched)
        inode.seen_at = max(inode.seen_at, asked_at)

    def seen_directory(
        self, parent: Inode, name: str, asked_at: float, marker: str | None = None
    ) -> Inode | None:
        """The store has keys below `name/`. `marker`: a form of marker seen, if any was."""
        siblings = directory_of(parent)
        existing = siblings.entries.get(name)
        if siblings.protects(name, asked_at):
            return existing
        if existing is not None:
            if existing.directory is not None:
                self.rehouse(existing)
                existing.seen_at = max(existing.seen_at, asked_at)
                if marker is not None and (existing.marker is None or marker.endswith("/")):
                    existing.marker = marker
                return existing
            if existing.is_local or existing.seen_at > asked_at:
                return existing
        elif siblings.absent.get(name, NEVER) > asked_at:
            return None
        self._retire(siblings, existing)
        inode = self._new(parent, name, asked_at, True, None)
        inode.marker = marker
        self._store_below(parent, inode, name + "/")
        self._install(siblings, existing, inode)
        return inode

    def seen_marker(
        self, inode: Inode, listed: ListedObject | None, asked_at: float, row: Row | None
    ) -> None:
        """A listing of the directory itself shows its marker, or (None) that there is none."""
        if self.is_pinned(inode) or inode.directory is None:
            return
        if inode.parent is not None and directory_of(inode.parent).protects(inode.name, asked_at):
            return
        own_form = inode.name + "/"
        if listed is None:
            if inode.marker == own_form and inode.attributes_at < asked_at:
                inode.marker = inode.version = None
                inode.settled, inode.attributes_at = False, NEVER
            if inode.marker is None and inode.attributes_at < asked_at:
                self.imply(inode, asked_at)
            return
        inode.marker = own_form
        if inode.version is None or not inode.version.same_bytes(listed.etag, listed.size):
            if inode.version is not None or inode.attributes_at < asked_at:
                inode.attributes_at = NEVER
            inode.version = Version(listed.etag, listed.size, listed.last_modified)
            inode.settled = False
        self._confirm(inode, listed, asked_at, row)

    def observe(self, inode: Inode, info: ObjectInfo, asked_at: float) -> Inode:
        """A HEAD or GET of the inode's storage key (or marker) answered `info`."""
        if inode.detached or self.is_pinned(inode):
            self._learn_attributes(inode, info, asked_at)
            return inode
        parent = inode.parent
        if parent is not None and directory_of(parent).protects(inode.name, asked_at):
            return inode
        if inode.directory is not None:
            return self._observe_marker(inode, info, asked_at)
        if parent is None or (inode.seen_at > asked_at and not self._is_same(inode, info)):
            return inode
        if self._is_same(inode, info):
            attributes = self._decoded(info, is_directory=False)
            known = inode.attributes
            if not self._is_directory(info) and (
                known is None or stat.S_IFMT(known.mode) == stat.S_IFMT(attributes.mode)
            ):
                self._take_info(inode, info, attributes, asked_at)
                self.keep_times(inode, known)
                return inode
        return self.seen_info(parent, inode.name, info, asked_at)

    def seen_info(
        self,
        parent: Inode,
        name: str,
        info: ObjectInfo,
        asked_at: float,
        *,
        is_folder: bool = False,
    ) -> Inode:
        """A HEAD or GET of `name` shows a version that no inode stands for yet.

        `is_folder`: `info` is that of its legacy marker `name_$folder$`.
        """
        siblings = directory_of(parent)
        existing = siblings.entries.get(name)
        is_directory = is_folder or self._is_directory(info)
        self._retire(siblings, existing)
        inode = self._new(parent, name, asked_at, is_directory, None)
        if is_directory:
            inode.marker = name + info.key[len(self.child_key(parent, name)) :]
        self._store_below(parent, inode, name + ("/" if is_directory else ""))
        self._take_info(inode, info, self._decoded(info, is_directory=is_directory), asked_at)
        self._install(siblings, existing, inode)
        return inode

    def _learn_attributes(self, inode: Inode, info: ObjectInfo, asked_at: float) -> None:
        """Of an inode on its way elsewhere, whose attributes nobody has asked for yet."""
        if inode.attributes is None and (inode.is_directory or self._is_same(inode, info)):
            attributes = self._decoded(info, is_directory=inode.is_directory)
            inode.set_attributes(attributes, asked_at, settled=False)

    def _observe_marker(self, inode: Inode, info: ObjectInfo, asked_at: float) -> Inode:
        if inode.attributes_at <= asked_at:
            if inode.parent is not None:
                inode.marker = inode.name + info.key[len(self.stored_at(inode)) - 1 :]
            touched = inode.attributes if self._is_same(inode, info) else None
            self._take_info(inode, info, self._decoded(info, is_directory=True), asked_at)
            self.keep_times(inode, touched)
        return inode

    def imply(self, inode: Inode, asked_at: float) -> None:
        """The directory has no marker: its attributes are the defaults."""
        touched = inode.attributes if inode.version is None else None
        inode.marker = inode.version = None
        implied = defaults_for(True, self.mounted_at, self.defaults)
        inode.set_attributes(implied, asked_at, settled=False)
        self.keep_times(inode, touched)

    def keep_times(self, inode: Inode, touched: Attributes | None) -> None:
        """Times that changes here made newer than what the store has of the same version.

        Of a directory: names that came and went, its own rename. Of other files: what changes
        ctime alone, as a chmod to the mode that it has, which is not worth a request.
        """
        new = inode.attributes
        if touched is None or new is None:
            return
        if inode.directory is None and replace(touched, ctime_ns=new.ctime_ns) != new:
            return
        mtime, ctime = max(touched.mtime_ns, new.mtime_ns), max(touched.ctime_ns, new.ctime_ns)
        inode.attributes = replace(new, mtime_ns=mtime, ctime_ns=ctime)

    def _take_info(
        self, inode: Inode, info: ObjectInfo, attributes: Attributes, asked_at: float
    ) -> None:
        inode.version = Version(info.etag, info.size, info.last_modified, info.version_id)
        inode.seen_at = max(inode.seen_at, asked_at)
        settled = not is_racy(info.last_modified, info.answered_at)
        inode.set_attributes(attributes, asked_at, settled=settled)
        self.remember(Row.of(info.key, inode.version, attributes, info.answered_at, inode.number))

    def gone(self, inode: Inode, asked_at: float) -> bool:
        """The store does not have the inode any more. False: that answer does not count."""
        parent = inode.parent
        if parent is None or inode.detached or self.is_pinned(inode):
            return False
        siblings = directory_of(parent)
        if siblings.protects(inode.name, asked_at) or inode.seen_at > asked_at:
            return False
        if inode.directory is not None and self._holds_local(inode.directory):
            return False
        siblings.remove(inode.name)
        siblings.note_absent(inode.name, asked_at)
        self.let_go(inode)
        if self.on_replaced is not None:
            self.on_replaced(inode)
        return True

    # -- the journal of a mount that died

    def recall(
        self,
        parent: Inode,
        name: str,
        *,
        directory: bool,
        version: Version | None = None,
        attributes: Attributes | None = None,
    ) -> Inode:
        """The journal says that this stands at the name; no answer has shown it yet.

        The inode that is there, if it is of this kind, stays as it is.
        """
        siblings = directory_of(parent)
        existing = siblings.entries.get(name)
        if existing is not None and (existing.directory is not None) == directory:
            return existing
        self._retire(siblings, existing)
        inode = self._new(parent, name, NEVER, directory, None)
        inode.version = version
        self._store_below(parent, inode, name + ("/" if directory else ""))
        if attributes is not None:
            inode.set_attributes(attributes, NEVER, settled=False)
        self.attach(siblings, inode)
        return inode

    # -- inside

    @staticmethod
    def _store_below(parent: Inode, inode: Inode, relative: str) -> None:
        """Where a renamed directory's bytes are still at the old place, those below it are, too."""
        if parent.storage_key is not None:
            inode.storage_key = parent.storage_key + relative
            inode.storage_stamp = parent.storage_stamp

    def _is_same(self, inode: Inode, info: ObjectInfo) -> bool:
        return inode.version is not None and inode.version.same_bytes(info.etag, info.size)

    @staticmethod
    def _is_directory(info: ObjectInfo) -> bool:
        content_type = info.headers.get("content-type")
        return is_directory_object(info.key, info.size, content_type, info.metadata)

    def _decoded(self, info: ObjectInfo, *, is_directory: bool) -> Attributes:
        return attributes_of(info, self.defaults, is_directory=is_directory)

    def _holds_local(self, directory: Directory) -> bool:
        """Something below exists only here, so the directory does."""
        if directory.pins:
            return True
        return any(
            child.is_local or (child.directory is not None and self._holds_local(child.directory))
            for child in directory.entries.values()
        )

    def _new(
        self, parent: Inode, name: str, asked_at: float, is_directory: bool, number: int | None
    ) -> Inode:
        if number is None or number in self.table:
            number = self.table.free_number(self.key(parent) + name)
        inode = Inode(number, parent, name, asked_at)
        if is_directory:
            inode.directory = Directory()
        return inode

    def _retire(self, siblings: Directory, old: Inode | None) -> None:
        """Another version takes the place of `old`, and its number if the kernel never knew it."""
        if old is not None:
            siblings.remove(old.name)
            self.let_go(old)

    def _install(self, siblings: Directory, old: Inode | None, new: Inode) -> None:
        self.attach(siblings, new)
        if old is not None and self.on_replaced is not None:
            self.on_replaced(old)
