"""The facade: names, inodes and attributes of a bucket, for the filesystem layer.

The parts: tree.py (what is known, merged without an await), resolver.py (one name), listing.py
and cursor.py (all names), attribute_fetcher.py (HEADs), tree_walk.py (a flat LIST for a walk),
stat_cache.py (attributes on disk).
"""

import errno
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping

import trio

from s3mount.core.config import AttributeDefaults, NamespaceConfig
from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import Attributes
from s3mount.namespace.attribute_fetcher import AttributeFetcher
from s3mount.namespace.cursor import DirectoryCursor, KnownNames, Names
from s3mount.namespace.inode import Absent, Inode, Version
from s3mount.namespace.remote import FetchInfo, Remote
from s3mount.namespace.resolver import Resolver
from s3mount.namespace.shrink import shrink
from s3mount.namespace.stat_cache import StatCache, fingerprint
from s3mount.namespace.tree import Tree, directory_of
from s3mount.namespace.tree_walk import TreeWalks, WalkedNames
from s3mount.store.base import (
    ObjectInfo,
    ObjectStore,
)

SAMPLES = 20  # keys shown of each kind of oddity


class Pin:
    """While held, no answer of the store changes the name; release() as often as you like."""

    def __init__(self, tree: Tree, parent: Inode, name: str) -> None:
        self._tree = tree
        self._directory = directory_of(parent)
        self._name = name
        self._held = True
        self._directory.pins[name] = self._directory.pins.get(name, 0) + 1

    def release(self) -> None:
        """Only answers asked for after this count."""
        if not self._held:
            return
        self._held = False
        pins = self._directory.pins
        pins[self._name] -= 1
        if not pins[self._name]:
            del pins[self._name]
        now = self._tree.clock()
        self._directory.note_change(self._name, now)
        inode = self._directory.entries.get(self._name)
        if inode is not None:
            inode.seen_at = max(inode.seen_at, now)


class Namespace:
    """See the module; synchronous methods never wait, asynchronous ones may ask the store.

    They raise FilesystemError and StoreErrors. `prefix` is empty or ends in '/'. `fetch_info`
    (storage key, listed size) may replace the HEAD of a lookup by a GET. `on_replaced` is told of
    inodes that other hosts replaced or removed, after they were detached.
    """

    def __init__(
        self,
        store: ObjectStore,
        config: NamespaceConfig,
        defaults: AttributeDefaults,
        prefix: str,
        *,
        stat_cache: StatCache | None = None,
        clock: Callable[[], float] = time.monotonic,
        fetch_info: FetchInfo | None = None,
        on_replaced: Callable[[Inode], None] | None = None,
    ) -> None:
        self.config = config
        self.defaults = defaults
        self.drop_names: Callable[[int, str], None] | None = None
        if stat_cache is not None and not stat_cache.fingerprint:
            stat_cache.fingerprint = fingerprint(defaults)
        self._remote = Remote(store, clock, stat_cache, fetch_info)
        self._tree = Tree(prefix, defaults, clock, self._remote.remember, on_replaced, time.time())
        self._fetcher = AttributeFetcher(self._tree, self._remote, config)
        self._resolver = Resolver(self._tree, self._remote, self._fetcher, config)
        self._walks = TreeWalks(self._tree, self._remote, self._fetcher, config)
        self._cursors: weakref.WeakSet[DirectoryCursor] = weakref.WeakSet()  # those in use
        self._clock = clock
        self.root = self._tree.root
        self.inodes = self._tree.table

    # -- keys

    def key(self, inode: Inode) -> str:
        """Where the tree shows the inode (its last place, if detached); directories end in '/'."""
        return self._tree.key(inode)

    def stored_at(self, inode: Inode) -> str:
        """Where its bytes are now; of a directory the storage prefix."""
        return self._tree.stored_at(inode)

    def marker_key(self, inode: Inode) -> str:
        """The key of a directory's marker as it was seen, else where ours would be."""
        return self._tree.marker_key(inode)

    # -- looking

    def peek(self, parent: Inode, name: str) -> Inode | Absent | None:
        """The inode or ABSENT, as far as known without the network; None: unknown or stale."""
        return self._resolver.peek(parent, name)

    async def lookup(self, parent: Inode, name: str) -> Inode:
        """Raises ENOENT, ENOTDIR, ENAMETOOLONG."""
        return await self._resolver.lookup(parent, name)

    async def attributes(self, inode: Inode) -> Attributes:
        """Not older than metadata_ttl. Raises ESTALE where the inode is gone or replaced."""
        return await self._fetcher.attributes(inode)

    def provisional(self, inode: Inode) -> Attributes:
        """The attributes as far as known, else the defaults; never waits."""
        return self._fetcher.provisional(inode)

    def certain(self, inode: Inode) -> bool:
        """The attributes are known and fresh (with --attributes=listing: always)."""
        horizon = self._clock() - self.config.metadata_ttl
        return self._fetcher.listing_only or self._fetcher.known(inode, horizon)

    async def revalidate(self, inode: Inode, max_age: float = 1.0) -> Inode:
        """The inode of this name's present version: the same one, or a new one in its place.

        An answer asked for at most `max_age` seconds ago counts. Raises ENOENT.
        """
        if inode.detached:
            return self._successor(inode)
        if self._tree.is_pinned(inode) or inode.seen_at >= self._clock() - max_age:
            return inode
        if inode.parent is None:
            return inode
        if inode.directory is not None:
            return await self.lookup(inode.parent, inode.name)
        await self._fetcher.fetch(inode, whole=True)
        return self._successor(inode)

    async def news(self, ask: Callable[[], Awaitable[object]]) -> bool:
        """Asks; False while the service answers nothing at all (outage.py)."""

        async def answered() -> None:
            await ask()
            self._remote.outage.answered()

        return await self._remote.outage.news(answered)

    def observe(self, inode: Inode, info: ObjectInfo) -> Inode:
        """Somebody asked the inode's storage key and got `info`; the result is revalidate()'s."""
        asked_at = info.asked_at or self._clock()
        self._tree.observe(inode, info, asked_at)
        return self._successor(inode)

    def _successor(self, inode: Inode) -> Inode:
        if not inode.detached or inode.parent is None:
            return inode
        siblings = inode.parent.directory
        successor = None if siblings is None else siblings.entries.get(inode.name)
        if successor is None:
            raise FilesystemError(errno.ENOENT, f"{self.key(inode)!r} is gone")
        return successor

    # -- directories

    def open_directory(self, inode: Inode) -> DirectoryCursor:
        """A reader of the names; raises ENOTDIR."""
        directory_of(inode).used_at = self._clock()
        horizon = self._clock() - self.config.metadata_ttl
        names = self._names(inode)
        cursor = DirectoryCursor(self._tree, self._fetcher, inode, names, horizon, self.lookup)
        self._cursors.add(cursor)
        return cursor

    def _names(self, inode: Inode) -> Names:
        if self._is_known(inode):
            return KnownNames(list(directory_of(inode).entries))
        walk = self._walks.walk_over(inode)
        if walk is not None:
            return WalkedNames(walk, inode, self.stored_at(inode), self._listed_names)
        return self._resolver.listing(inode)

    def _listed_names(self, inode: Inode) -> Names:
        if self._is_known(inode):
            return KnownNames(list(directory_of(inode).entries))
        return self._resolver.listing(inode)

    def _is_known(self, inode: Inode) -> bool:
        horizon = self._clock() - self.config.metadata_ttl
        return inode.detached or inode.is_only_here or directory_of(inode).complete_at >= horizon

    async def is_empty(self, inode: Inode) -> bool:
        """Nothing but a marker. Keys that no path can name count as content."""
        directory = directory_of(inode)
        if inode.detached:
            return not directory.entries
        if any(child.is_local or child.is_pinned for child in directory.entries.values()):
            return False
        if not self._is_known(inode):
            listing = self._resolver.listing(inode)
            while not listing.done:
                await listing.more(len(listing.names))
                # The first name that is there decides; a huge directory costs one page.
                seen = listing.created_at
                if any(child.seen_at >= seen for child in directory.entries.values()):
                    return False
                if directory.dropped_at > seen:
                    return False  # what was dropped was there
        return not directory.entries and not directory.unreachable

    # -- local changes

    def add(self, parent: Inode, name: str, attributes: Attributes, *, directory: bool) -> Inode:
        """A new file or directory of ours, nothing stored yet. Raises EEXIST, ENAMETOOLONG."""
        return self._tree.add(parent, name, attributes, directory=directory)

    def detach(self, inode: Inode) -> None:
        """Removed here: the name is gone, whatever answers asked for before may say."""
        self._tree.detach(inode)

    def move(self, inode: Inode, parent: Inode, name: str) -> int:
        """Renamed here, the storage keys stay; a target must have been detached before.

        Returns the stamp of this rename, for rehomed().
        """
        return self._tree.move(inode, parent, name)

    def stored(self, inode: Inode, key: str) -> None:
        """A copy has brought the inode's bytes to `key`."""
        self._tree.stored(inode, key)

    def unmoved(self, inode: Inode) -> None:
        """The renamed directory was empty and unstored: nothing of it is at its old place."""
        self._tree.unmoved(inode)

    def pin(self, parent: Inode, name: str) -> Pin:
        """While the pin is held only what is done here changes the name."""
        return Pin(self._tree, parent, name)

    def committed(
        self,
        inode: Inode,
        version: Version,
        attributes: Attributes,
        *,
        key: str,
        answered_at: float = 0.0,
    ) -> None:
        """The inode is this version at this key now. `answered_at`: the Date of the answer."""
        self._tree.committed(inode, version, attributes, key=key, answered_at=answered_at)

    def rehomed(
        self,
        old_prefix: str,
        new_prefix: str,
        versions: Mapping[str, tuple[str, Version]] | None = None,
        stamp: int | None = None,
    ) -> None:
        """All that was stored below the old prefix is below the new one now.

        `stamp`: of the rename that did it (None: the last one), for later ones may have put
        other things in the old place.
        `versions`: by new key the ETag that was copied and the version that came of it; without
        it a copy with another ETag would be taken for a foreign new version.
        """
        self._tree.rehomed(old_prefix, new_prefix, versions, stamp)

    def recall(
        self,
        parent: Inode,
        name: str,
        *,
        directory: bool,
        version: Version | None = None,
        attributes: Attributes | None = None,
    ) -> Inode:
        """What the journal of a mount that died says of the name; it must be pinned, or hold what
        is, for else the next answer of the store counts. What is known there already stays."""
        return self._tree.recall(
            parent, name, directory=directory, version=version, attributes=attributes
        )

    def found(self, parent: Inode, name: str, info: ObjectInfo) -> None:
        """What stands at a name of which nothing is known but that something else is to go."""
        if name not in directory_of(parent).entries and not parent.detached:
            self._tree.seen_info(parent, name, info, info.asked_at or self._clock())

    def lost(self, inode: Inode) -> None:
        """Others have put something else at its name, or nothing: the next lookup asks."""
        self._tree.lost(inode)

    def forget_names(self, inode: Inode) -> None:
        """What is known of the directory counts as stale, but for what is pinned or local."""
        self._tree.forget_names(inode)

    # -- life

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Background work until cancelled: HEADs behind readdir, the stat cache, the bound."""
        async with trio.open_nursery() as nursery:
            self._fetcher.nursery = self._remote.outage.run_in = nursery
            nursery.start_soon(self._remote.flush_regularly)
            nursery.start_soon(self._bound_regularly)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._fetcher.nursery = self._remote.outage.run_in = None

    async def _bound_regularly(self) -> None:
        while True:
            await self.inodes.exceed(self.config.max_inodes)
            await trio.sleep(1.0)
            self.bound()

    def bound(self) -> None:
        """Drops the names used longest ago if there are more than max_inodes; run() calls it."""
        if len(self.inodes) > self.config.max_inodes:
            shrink(self._tree, self.config.max_inodes, self.drop_names, self._cursors)

    async def aclose(self) -> None:
        """Writes the rest of the stat cache."""
        await self._remote.aclose()

    def report(self) -> dict[str, object]:
        """For status: counts, and samples of the keys that are not shown."""
        unreachable: dict[str, str] = {}
        shadowed: dict[str, str] = {}
        for inode in self.inodes:
            if inode.directory is not None and not inode.detached:
                unreachable.update(inode.directory.unreachable)
                shadowed.update(inode.directory.shadowed)
        return {
            "inodes": len(self.inodes),
            "listings": self._remote.listings,
            "heads": self._remote.heads,
            "unreachable": len(unreachable),
            "unreachable_samples": dict(sorted(unreachable.items())[:SAMPLES]),
            "shadowed": len(shadowed),
            "shadowed_samples": dict(sorted(shadowed.items())[:SAMPLES]),
        }
