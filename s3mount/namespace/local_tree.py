"""The tree of inodes, their keys, and what is done to it here. No await at all."""

import errno
from collections.abc import Callable, Mapping

from s3mount.core.config import AttributeDefaults
from s3mount.core.errors import FilesystemError
from s3mount.core.keys import ROOT_MARKER, check_key
from s3mount.core.metadata import Attributes
from s3mount.namespace.inode import (
    NEVER,
    Directory,
    Inode,
    Version,
    not_a_directory,
)
from s3mount.namespace.inode_table import ROOT_NUMBER, InodeTable
from s3mount.namespace.stat_cache import Row, is_racy


class LocalTree:
    """See the module; tree.py adds the answers. `remember(row)` takes rows for the stat cache.

    `mounted_at` (seconds since the epoch) stands in for the times of implied directories.
    """

    def __init__(
        self,
        prefix: str,
        defaults: AttributeDefaults,
        clock: Callable[[], float],
        remember: Callable[[Row], None],
        on_replaced: Callable[[Inode], None] | None,
        mounted_at: float,
    ) -> None:
        self.prefix = prefix
        self.mounted_at = mounted_at
        self.defaults = defaults
        self.clock = clock
        self.remember = remember
        self.on_replaced = on_replaced
        self.table = InodeTable()
        self._stamp = 0  # of the last local rename
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
            inode.unstored = True
        siblings.note_change(name, now)
        self.attach(siblings, inode)
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
            inode.storage_stamp = self._stamp
        siblings.remove(inode.name)
        siblings.note_change(inode.name, self.clock())
        self.let_go(inode)

    def move(self, inode: Inode, parent: Inode, name: str) -> int:
        """Renamed here; the target name must be free. Storage keys stay what they are.

        Returns the stamp by which rehomed() knows what this rename carries.
        """
        target = directory_of(parent)
        if inode.parent is None or inode.detached:
            raise FilesystemError(errno.EBUSY)
        if name in target.entries:
            raise FilesystemError(errno.EEXIST)
        check_key(self.key(parent) + name)
        now = self.clock()
        self._stamp += 1
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
        return self._stamp

    def _freeze(self, inode: Inode) -> None:
        """Pins the storage keys of the inode and all below it to what they are."""
        below = [inode]
        while below:
            one = below.pop()
            if one.directory is None:
                if one.storage_key is None and one.version is not None:
                    one.storage_key, one.storage_stamp = self.key(one), self._stamp
                continue
            if one.storage_key is None:
                one.storage_key, one.storage_stamp = self.key(one), self._stamp
            below.extend(one.directory.entries.values())

    def stored(self, inode: Inode, key: str) -> None:
        """A copy has brought the inode's bytes to `key`."""
        # Its stamp stays: renames of directories above that came later carry these bytes along.
        inode.storage_key = None if key == self.key(inode) and not inode.detached else key

    def unmoved(self, inode: Inode) -> None:
        """The renamed directory was empty and unstored: nothing of it is at its old place."""
        inode.storage_key = None

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
            self.stored(inode, key)
        elif key in (name_key, ROOT_MARKER):
            inode.storage_key = None
            inode.marker = inode.name + "/"
        inode.version = version
        inode.unstored = False
        inode.seen_at = now
        inode.set_attributes(
            attributes, now, settled=not is_racy(version.last_modified, answered_at)
        )
        if not inode.detached and inode.parent is not None:
            directory_of(inode.parent).note_change(inode.name, now)
        self.remember(Row.of(key, version, attributes, answered_at, inode.number))

    def rehomed(
        self,
        old_prefix: str,
        new_prefix: str,
        versions: Mapping[str, tuple[str, Version]] | None = None,
        stamp: int | None = None,
    ) -> None:
        now = self.clock()
        for inode in self.table:
            stored = inode.storage_key
            if stored is None or not stored.startswith(old_prefix):
                continue
            if stamp is not None and inode.storage_stamp > stamp:
                continue
            key = new_prefix + stored[len(old_prefix) :]
            inode.storage_key = key if inode.detached or key != self.key(inode) else None
            source_etag, version = (versions or {}).get(key, ("", None))
            known = inode.version
            if version is not None and known is not None and known.etag == source_etag:
                inode.version = version
                inode.settled = False
                if inode.attributes is not None:
                    self.remember(Row.of(key, version, inode.attributes, 0.0, inode.number))
            if inode.parent is not None and not inode.detached:
                directory_of(inode.parent).note_change(inode.name, now)

    def rehouse(self, inode: Inode) -> None:
        """The store shows the inode at its place in the tree: a rename of it came to nothing."""
        if inode.parent is None:
            return
        above = inode.parent.storage_key
        home = None if above is None else f"{above}{inode.name}{'/' if inode.directory else ''}"
        if inode.storage_key == home:
            return
        below = [inode]
        while below:
            one = below.pop()
            one.storage_key = None if home is None else home + self.key(one)[len(self.key(inode)) :]
            if one.directory is not None:
                entries = one.directory.entries.values()
                below.extend(child for child in entries if not self.is_pinned(child))

    def lost(self, inode: Inode) -> None:
        """Others have put something else at its name, or nothing: what, is not known yet."""
        if inode.parent is None or inode.detached:
            return
        siblings = directory_of(inode.parent)
        siblings.remove(inode.name)
        siblings.changed.pop(inode.name, None)
        siblings.complete_at = siblings.covered_at = NEVER
        self.let_go(inode)

    def forget_names(self, inode: Inode) -> None:
        directory = directory_of(inode)
        directory.complete_at = directory.covered_at = NEVER
        inode.unstored = False
        directory.absent.clear()
        for child in directory.entries.values():
            if not self.is_pinned(child):
                child.seen_at = NEVER

    # -- inside

    def attach(self, siblings: Directory, inode: Inode) -> None:
        siblings.entries[inode.name] = inode
        siblings.absent.pop(inode.name, None)
        self.table.insert(inode)

    def let_go(self, inode: Inode) -> None:
        inode.detached = True
        self.table.drop_if_unused(inode)


def directory_of(inode: Inode) -> Directory:
    """Raises FilesystemError ENOTDIR."""
    if inode.directory is None:
        raise not_a_directory(inode)
    return inode.directory
