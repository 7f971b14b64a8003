"""Names to inodes: from what is known, else by as few requests as will do (rulings 14, 15)."""

from dataclasses import dataclass

import trio

from s3mount.core.config import NamespaceConfig
from s3mount.core.keys import FOLDER_SUFFIX, LAST_BEFORE_SLASH, check_key
from s3mount.core.metadata import is_directory_object, is_folder_marker
from s3mount.namespace.attribute_fetcher import AttributeFetcher
from s3mount.namespace.inode import ABSENT, NEVER, Absent, Inode, no_such_name
from s3mount.namespace.listing import Listing
from s3mount.namespace.remote import Remote
from s3mount.namespace.stat_cache import Row
from s3mount.namespace.tree import Tree, directory_of
from s3mount.store.base import (
    ListedObject,
    ObjectInfo,
)
from s3mount.store.parallel import side_by_side

# Lookups in a directory never listed, before its first page is asked for: a program that opens
# a file or two pays for no listing, one that walks the directory soon costs 0 requests a name.
MANY_LOOKUPS = 8
# A stale listing is asked for again by a lookup if it fits this many pages.
MAX_RELISTED_PAGES = 10
PAGE = 1000
# With a metadata-ttl below this a listing is stale before a program has asked for its names.
SHORT_TTL = 0.5
# A listing that a program works with is asked for again at this share of metadata-ttl, behind it:
# creating a thousand files then never waits for one.
RENEW_AFTER = 0.7
# Keys asked for behind `name`: the directory's first one, and siblings up to `name_$folder$`.
BELOW_KEYS = 10


@dataclass(slots=True)
class _Below:
    """What a LIST found of the directory `name`."""

    exists: bool = False
    marker: ListedObject | None = None
    may_have_folder: bool = False  # a legacy marker `name_$folder$` is there, or not ruled out
    folder: ObjectInfo | None = None  # that marker
    row: Row | None = None  # the stat cache's, of `marker`


class _Flight:
    """A lookup under way, for those who want the same name."""

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.inode: Inode | None = None
        self.error: Exception | None = None


class Resolver:
    def __init__(
        self, tree: Tree, remote: Remote, fetcher: AttributeFetcher, config: NamespaceConfig
    ) -> None:
        self._tree = tree
        self._remote = remote
        self._fetcher = fetcher
        self._config = config
        self._flights: dict[tuple[int, str], _Flight] = {}

    def peek(self, parent: Inode, name: str) -> Inode | Absent | None:
        """What is known without the network; None: nothing, or nothing fresh."""
        directory = directory_of(parent)
        if parent.detached:
            return ABSENT
        now = self._tree.clock()
        horizon = now - self._config.metadata_ttl
        directory.used_at = now
        if horizon <= directory.complete_at < now - RENEW_AFTER * self._config.metadata_ttl:
            self._renew(parent, now)
        inode = directory.entries.get(name)
        if inode is not None:
            fresh = (
                inode.seen_at >= horizon
                or inode.is_local
                or name in directory.pins
                or parent.is_only_here
            )
            return inode if fresh else None
        if name in directory.pins or directory.complete_at >= horizon or parent.is_only_here:
            return ABSENT
        asked_at = max(directory.changed.get(name, NEVER), directory.absent.get(name, NEVER))
        if name + FOLDER_SUFFIX < directory.covered:
            asked_at = max(asked_at, directory.covered_at)
        return ABSENT if asked_at >= horizon else None

    def _renew(self, inode: Inode, now: float) -> None:
        """Asks behind for the directory's names and attributes, and for those above it."""
        ttl = self._config.metadata_ttl
        if ttl < SHORT_TTL or self._fetcher.nursery is None:
            return
        due = now - ttl / 2
        step: Inode | None = inode
        while step is not None:
            directory = directory_of(step)
            if len(directory.entries) > PAGE or directory.listing is not None:
                return
            if NEVER < directory.complete_at < due and not step.is_only_here:
                self._fetcher.start_quietly(self.listing(step).finish)
            if NEVER < step.attributes_at < due and not self._fetcher.listing_only:
                self._fetcher.fetch_behind([step])
            step = step.parent

    async def lookup(self, parent: Inode, name: str) -> Inode:
        """Raises FilesystemError ENOENT, ENOTDIR, ENAMETOOLONG; StoreErrors."""
        known = self.peek(parent, name)
        if known is None and self._once_known(parent, name) is None:
            return await self._coalesced(parent, name)
        if known is None:
            found: list[Inode] = []

            async def ask() -> None:
                found.append(await self._coalesced(parent, name))

            if await self._remote.outage.news(ask):
                return found[0]
            known = self._once_known(parent, name)
        if known is None or isinstance(known, Absent):
            raise no_such_name(name)
        return known

    def _once_known(self, parent: Inode, name: str) -> Inode | Absent | None:
        """What was known of the name, however long ago."""
        directory = directory_of(parent)
        inode = directory.entries.get(name)
        if inode is None and directory.complete_at != NEVER:
            return ABSENT
        return inode

    async def _coalesced(self, parent: Inode, name: str) -> Inode:
        """One resolution for all who ask for the name at the same time."""
        place = (parent.number, name)
        flight = self._flights.get(place)
        if flight is not None:
            await flight.landed.wait()
            if flight.error is not None:
                raise flight.error
            if flight.inode is not None and not flight.inode.detached:
                return flight.inode
            return await self.lookup(parent, name)
        flight = self._flights[place] = _Flight()
        try:
            flight.inode = await self._resolve(parent, name)
        except Exception as error:
            flight.error = error
            raise
        finally:
            del self._flights[place]
            flight.landed.set()
        return flight.inode

    async def _resolve(self, parent: Inode, name: str) -> Inode:
        if self._wants_listing(parent, name):
            await self.refresh(parent)
            directory = directory_of(parent)
            known = directory.entries.get(name)
            if known is not None:
                return known
            if directory.complete_at != NEVER:  # else names were dropped meanwhile
                raise no_such_name(name)
        if self._wants_first_page(parent):
            await self.listing(parent).more(0)
            known_now = self.peek(parent, name)
            if isinstance(known_now, Absent):
                raise no_such_name(name)
            if known_now is not None:
                return known_now
        return await self._look(parent, name)

    def _wants_listing(self, parent: Inode, name: str) -> bool:
        """A stale listing: one LIST of a page is cheaper than the two requests of _look()."""
        directory = directory_of(parent)
        if self._config.metadata_ttl < SHORT_TTL:
            return False  # the next name would want a listing of its own
        now = self._tree.clock()
        if now - directory.misses_since > max(self._config.metadata_ttl, 2.0):
            directory.misses, directory.misses_since = 0, now
        directory.misses += 1
        pages = len(directory.entries) // PAGE + 1
        if directory.complete_at == NEVER or pages > MAX_RELISTED_PAGES:
            return False
        return directory.misses >= pages

    def _wants_first_page(self, parent: Inode) -> bool:
        directory = directory_of(parent)
        if directory.complete_at != NEVER or directory.misses < MANY_LOOKUPS:
            return False
        return directory.covered_at < self._tree.clock() - 10 * self._config.metadata_ttl

    def listing(self, inode: Inode) -> Listing:
        """The listing under way, if it began a TTL ago at most and all that it has shown is still
        known, else a new one."""
        directory = directory_of(inode)
        current = directory.listing
        horizon = self._tree.clock() - self._config.metadata_ttl
        if (
            isinstance(current, Listing)
            and not current.done
            and current.created_at >= max(horizon, directory.dropped_at)
        ):
            return current
        started = Listing(self._tree, self._remote, self._fetcher, self._config, inode)
        directory.listing = started
        return started

    async def refresh(self, inode: Inode) -> None:
        """The directory's names are complete afterwards, as of now or later."""
        await self.listing(inode).finish()

    # -- one name

    async def _look(self, parent: Inode, name: str) -> Inode:
        """HEAD `name` and LIST `name/` in parallel; a known file or directory needs but one."""
        key = self._tree.child_key(parent, name)
        check_key(key)
        known = directory_of(parent).entries.get(name)
        asked_at = self._tree.clock()
        info: ObjectInfo | None = None
        below = _Below()

        async def ask_info() -> None:
            nonlocal info
            size = None if known is None or known.version is None else known.version.size
            info, _ = await self._remote.info(key, size)

        async def ask_below() -> None:
            nonlocal below
            below = await self._ask_below(key)

        if known is not None and known.directory is None:
            await ask_info()
            if info is None:
                await ask_below()
        elif known is not None and known.marker != name:
            await ask_below()
            if not below.exists:
                await ask_info()
        else:
            await side_by_side(ask_info, ask_below)
        if info is None and below.may_have_folder and not below.exists:
            folder, _ = await self._remote.head(key + FOLDER_SUFFIX)
            if folder is not None and is_folder_marker(folder.key, folder.size, folder.metadata):
                below.folder = folder
        # From here on no await: the answers meet the tree as it is now.
        if self._tree.child_key(parent, name) != key:
            # The rename of a directory above was carried out meanwhile: look at the new place.
            return await self._look(parent, name)
        inode = self._settle(parent, name, info, below, asked_at)
        if inode is None:
            raise no_such_name(name)
        return inode

    async def _ask_below(self, key: str) -> _Below:
        """One LIST: the directory's first key and, with compat_dir, a legacy marker."""
        directory_key = key + "/"
        if self._config.compat_dir:
            page, _ = await self._remote.list(
                key, delimiter="", start_after=key + LAST_BEFORE_SLASH, max_keys=BELOW_KEYS
            )
        else:
            page, _ = await self._remote.list(directory_key, delimiter="", max_keys=1)
        keys = [one.key for one in page.objects]
        if keys and keys[0].startswith(directory_key):
            if keys[0] != directory_key:
                return _Below(exists=True)
            row = await self._remote.row(directory_key)
            return _Below(exists=True, marker=page.objects[0], row=row)
        if not self._config.compat_dir:
            return _Below()
        folder_key = key + FOLDER_SUFFIX
        cut_short = page.next_token is not None and (not keys or keys[-1] < folder_key)
        return _Below(may_have_folder=cut_short or folder_key in keys)

    def _settle(
        self,
        parent: Inode,
        name: str,
        info: ObjectInfo | None,
        below: _Below,
        asked_at: float,
    ) -> Inode | None:
        """Merges the answers; returns what the name stands for now, which may be none of them."""
        directory = directory_of(parent)
        existing = directory.entries.get(name)
        if directory.protects(name, asked_at):
            return existing
        if below.exists:
            return self._settle_directory(parent, name, info, below, asked_at)
        if info is not None and not (
            self._config.compat_dir and is_folder_marker(info.key, info.size, info.metadata)
        ):
            return self._settle_object(parent, name, info, asked_at)
        if below.folder is not None:
            if existing is not None and existing.directory is not None:
                existing.marker = name + FOLDER_SUFFIX
                existing.seen_at = max(existing.seen_at, asked_at)
                return self._tree.observe(existing, below.folder, asked_at)
            return self._tree.seen_info(parent, name, below.folder, asked_at, is_folder=True)
        if existing is not None:
            self._tree.gone(existing, asked_at)
        else:
            directory.note_absent(name, asked_at)
        return directory.entries.get(name)

    def _settle_object(
        self, parent: Inode, name: str, info: ObjectInfo, asked_at: float
    ) -> Inode | None:
        entries = directory_of(parent).entries
        existing = entries.get(name)
        if existing is not None and (existing.directory is None or _is_bare_marker(info)):
            if not self._tree.is_pinned(existing):
                self._tree.rehouse(existing)
            self._tree.observe(existing, info, asked_at)
            return entries.get(name)
        # There is no directory any more, or there was nothing.
        if existing is not None and not self._tree.gone(existing, asked_at):
            return existing
        return self._tree.seen_info(parent, name, info, asked_at)

    def _settle_directory(
        self,
        parent: Inode,
        name: str,
        info: ObjectInfo | None,
        below: _Below,
        asked_at: float,
    ) -> Inode | None:
        bare = info is not None and _is_bare_marker(info)
        if info is not None and not bare:
            directory_of(parent).shadowed[info.key] = "a directory of the same name is shown"
        marker = name if bare else None
        inode = self._tree.seen_directory(parent, name, asked_at, marker)
        if inode is None or inode.directory is None:
            return inode
        if info is not None and bare and below.marker is None:
            self._tree.observe(inode, info, asked_at)
        else:
            self._tree.seen_marker(inode, below.marker, asked_at, below.row)
        return inode


def _is_bare_marker(info: ObjectInfo) -> bool:
    """The object is a directory's marker without a slash."""
    content_type = info.headers.get("content-type")
    return is_directory_object(info.key, info.size, content_type, info.metadata)
