"""The tree of inodes: what is known, local changes, and the merging of answers. No await at all.

Every answer of the store comes in through one of the `seen_*` methods and `gone`, with the time
it was asked for; each of them leaves alone what changed here since then (ruling 14) and what is
pinned or local.
"""

import errno
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace

from s3mount.core.config import AttributeDefaults
from s3mount.core.errors import FilesystemError
from s3mount.core.keys import ROOT_MARKER, check_key
from s3mount.core.metadata import Attributes, decode, is_directory_object
from s3mount.namespace.inode import (
    NEVER,
    Directory,
    Inode,
    Version,
    not_a_directory,
)
from s3mount.namespace.inode_table import ROOT_NUMBER, InodeTable
from s3mount.namespace.stat_cache import Row, is_racy
from s3mount.store.base import ListedObject, ObjectInfo


class Tree:
    """See the module. `remember(row)` takes rows for the stat cache."""

    def __init__(
        self,
        prefix: str,
        defaults: AttributeDefaults,
        clock: Callable[[], float],
        remember: Callable[[Row], None],
        on_replaced: Callable[[Inode], None] | None,
    ) -> None:
        self.prefix = prefix
        self.defaults = defaults
        self.clock = clock
        self.remember = remember
        self.on_replaced = on_replaced
        self.table = InodeTable()
        self.root = Inode(ROOT_NUMBER, None, "", NEVER)
        self.root.directory = Directory()
        self.root.lookups = 1
        self.table.insert(self.root)

    # -- keys

    def key(self, inode: Inode) -> str:
        """The name key: where the tree shows the inode; a directory's ends in '/'."""
        names = [""] if inode.directory is not None else []
        step: Inode = inode
        while step.parent is not None:
            names.append(step.name)
            step = step.parent
        if step is inode:
            return self.prefix
        names.reverse()
        return self.prefix + "/".join(names)

    def stored_at(self, inode: Inode) -> str:
        """The storage key: where the bytes are now."""
        return inode.storage_key if inode.storage_key is not None else self.key(inode)

    def child_key(self, parent: Inode, name: str) -> str:
        """Where an object `name` of this directory is stored, as far as others know it."""
        return self.stored_at(parent) + name

    def marker_key(self, inode: Inode) -> str:
        """The key of the directory's marker as seen, else that of the form we write."""
        stored = self.stored_at(inode)
        if inode.parent is None:
            return stored or ROOT_MARKER
        if inode.marker is None:
            return stored
        return stored[:-1] + inode.marker[len(inode.name) :]

    def is_pinned(self, inode: Inode) -> bool:
        return inode.is_local or inode.is_pinned

    # -- local changes

    def add(self, parent: Inode, name: str, attributes: Attributes, *, directory: bool) -> Inode:
        siblings = directory_of(parent)
        if name in siblings.entries:
            raise FilesystemError(errno.EEXIST)
        key = self.key(parent) + name
        check_key(key + "/" if directory else key)
        now = self.clock()
        inode = Inode(self.table.free_number(key), parent, name, now)
        inode.set_attributes(attributes, now, settled=False)
        if directory:
            inode.directory = Directory(complete_at=now)
        siblings.note_change(name, now)
        self._attach(siblings, inode)
        return inode

    def detach(self, inode: Inode) -> None:
        """Removed here."""
        if inode.detached:
            return
        if inode.parent is None:
            raise FilesystemError(errno.EBUSY)
        siblings = directory_of(inode.parent)
        if inode.storage_key is None and inode.version is not None:
            inode.storage_key = self.stored_at(inode)  # the parent may be renamed later
        siblings.remove(inode.name)
        siblings.note_change(inode.name, self.clock())
        self._let_go(inode)

    def move(self, inode: Inode, parent: Inode, name: str) -> None:
        """Renamed here; the target name must be free. Storage keys stay what they are."""
        target = directory_of(parent)
        if inode.parent is None or inode.detached:
            raise FilesystemError(errno.EBUSY)
        if name in target.entries:
            raise FilesystemError(errno.EEXIST)
        check_key(self.key(parent) + name)
        now = self.clock()
        self._freeze(inode)
        source = directory_of(inode.parent)
        source.remove(inode.name)
        source.note_change(inode.name, now)
        if inode.marker is not None:
            inode.marker = name + inode.marker[len(inode.name) :]
        inode.parent, inode.name = parent, name
        target.entries[name] = inode
        target.note_change(name, now)
        inode.seen_at = now
        self._thaw(inode)

    def _freeze(self, inode: Inode) -> None:
        """Pins the storage keys of the inode and all below it to what they are."""
        below = [inode]
        while below:
            one = below.pop()
            if one.directory is None:
                if one.storage_key is None and one.version is not None:
                    one.storage_key = self.key(one)
                continue
            if one.storage_key is None:
                one.storage_key = self.key(one)
            below.extend(one.directory.entries.values())

    def _thaw(self, inode: Inode) -> None:
        """Forgets storage keys that are the name keys (a rename there and back)."""
        if inode.storage_key != self.key(inode):
            return
        below = [inode]
        while below:
            one = below.pop()
            if one.storage_key == self.key(one):
                one.storage_key = None
            if one.directory is not None:
                below.extend(one.directory.entries.values())

    def committed(
        self,
        inode: Inode,
        version: Version,
        attributes: Attributes,
        *,
        key: str,
        answered_at: float = 0.0,
    ) -> None:
        now = self.clock()
        name_key = self.key(inode)
        if inode.directory is None:
            inode.storage_key = None if key == name_key else key
        elif key in (name_key, ROOT_MARKER):
            inode.storage_key = None
            inode.marker = inode.name + "/"
        inode.version = version
        inode.seen_at = now
        inode.set_attributes(
            attributes, now, settled=not is_racy(version.last_modified, answered_at)
        )
        if not inode.detached and inode.parent is not None:
            directory_of(inode.parent).note_change(inode.name, now)
        self.remember(Row.of(key, version, attributes, answered_at, inode.number))

    def rehomed(
        self, old_prefix: str, new_prefix: str, versions: Mapping[str, Version] | None = None
    ) -> None:
        now = self.clock()
        for inode in self.table:
            stored = inode.storage_key
            if stored is None or not stored.startswith(old_prefix):
                continue
            key = new_prefix + stored[len(old_prefix) :]
            inode.storage_key = key if inode.detached or key != self.key(inode) else None
            version = None if versions is None else versions.get(key)
            if version is not None:
                inode.version = version
                inode.settled = False
                if inode.attributes is not None:
                    self.remember(Row.of(key, version, inode.attributes, 0.0, inode.number))
            if inode.parent is not None and not inode.detached:
                directory_of(inode.parent).note_change(inode.name, now)

    def forget_names(self, inode: Inode) -> None:
        directory = directory_of(inode)
        directory.complete_at = directory.covered_at = NEVER
        directory.absent.clear()
        for child in directory.entries.values():
            if not self.is_pinned(child):
                child.seen_at = NEVER

    # -- answers

    def seen_object(
        self,
        parent: Inode,
        name: str,
        listed: ListedObject,
        asked_at: float,
        answered_at: float,
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
        if parent.storage_key is not None:
            inode.storage_key = parent.storage_key + name + ("/" if is_marker else "")
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
            inode.set_attributes(row.attributes, asked_at, settled=True)
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
        if parent.storage_key is not None:
            inode.storage_key = f"{parent.storage_key}{name}/"
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
        if parent.storage_key is not None:
            inode.storage_key = parent.storage_key + name + ("/" if is_directory else "")
        self._take_info(inode, info, self._decoded(info, is_directory=is_directory), asked_at)
        self._install(siblings, existing, inode)
        return inode

    def _observe_marker(self, inode: Inode, info: ObjectInfo, asked_at: float) -> Inode:
        if inode.attributes_at <= asked_at:
            if inode.parent is not None:
                inode.marker = inode.name + info.key[len(self.stored_at(inode)) - 1 :]
            touched = inode.attributes if self._is_same(inode, info) else None
            self._take_info(inode, info, self._decoded(info, is_directory=True), asked_at)
            self.keep_times(inode, touched)
        return inode

    def keep_times(self, inode: Inode, touched: Attributes | None) -> None:
        """Times of a directory that changes here made newer than what its marker says."""
        new = inode.attributes
        if touched is not None and new is not None and touched.mtime_ns > new.mtime_ns:
            newest = max(touched.ctime_ns, new.ctime_ns)
            inode.attributes = replace(new, mtime_ns=touched.mtime_ns, ctime_ns=newest)

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
        self._let_go(inode)
        if self.on_replaced is not None:
            self.on_replaced(inode)
        return True

    # -- inside

    def _is_same(self, inode: Inode, info: ObjectInfo) -> bool:
        return inode.version is not None and inode.version.same_bytes(info.etag, info.size)

    @staticmethod
    def _is_directory(info: ObjectInfo) -> bool:
        content_type = info.headers.get("content-type")
        return is_directory_object(info.key, info.size, content_type, info.metadata)

    def _decoded(self, info: ObjectInfo, *, is_directory: bool) -> Attributes:
        return decode(
            info.metadata,
            is_directory=is_directory,
            size=info.size,
            content_type=info.headers.get("content-type"),
            last_modified=info.last_modified,
            defaults=self.defaults,
        )

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

    def _attach(self, siblings: Directory, inode: Inode) -> None:
        siblings.entries[inode.name] = inode
        siblings.absent.pop(inode.name, None)
        self.table.insert(inode)

    def _retire(self, siblings: Directory, old: Inode | None) -> None:
        """Another version takes the place of `old`, and its number if the kernel never knew it."""
        if old is not None:
            siblings.remove(old.name)
            self._let_go(old)

    def _install(self, siblings: Directory, old: Inode | None, new: Inode) -> None:
        self._attach(siblings, new)
        if old is not None and self.on_replaced is not None:
            self.on_replaced(old)

    def _let_go(self, inode: Inode) -> None:
        inode.detached = True
        self.table.drop_if_unused(inode)


def directory_of(inode: Inode) -> Directory:
    """Raises FilesystemError ENOTDIR."""
    if inode.directory is None:
        raise not_a_directory(inode)
    return inode.directory
