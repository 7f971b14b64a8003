"""A LIST of one directory under way, page by page, shared by all who read it."""

import errno
import functools
from collections.abc import Mapping, Sequence

import trio

from s3mount.core.config import NamespaceConfig
from s3mount.core.errors import FilesystemError
from s3mount.core.keys import FOLDER_SUFFIX, split_key
from s3mount.core.metadata import is_folder_marker
from s3mount.namespace.assembly import Assembler, Found
from s3mount.namespace.attribute_fetcher import AttributeFetcher
from s3mount.namespace.inode import NEVER, Inode
from s3mount.namespace.remote import Remote
from s3mount.namespace.stat_cache import Row
from s3mount.namespace.tree import Tree, directory_of
from s3mount.store.base import (
    ListedObject,
    ListPage,
    ObjectInfo,
)
from s3mount.store.parallel import side_by_side

# Of one listing, which holds them until it ends, in 200 bytes each: a gigabyte. What has been shown
# of a large directory leaves the tree long before (shrink.py).
MOST_NAMES = 5_000_000


class Merge:
    """One directory's names from a listing into the tree; sees to it that each comes once.

    names: in order of appearance, each once, also those that were removed here meanwhile.
    """

    def __init__(self, tree: Tree, inode: Inode, assembler: Assembler) -> None:
        self.tree = tree
        self.inode = inode
        self.directory = directory_of(inode)
        self.assembler = assembler
        self.started_at = NEVER  # when the first page was asked for
        self.names: list[str] = []
        self._seen: set[str] = set()  # in `names`
        self._merged: set[str] = set()  # since the start, or the last restart
        self._held_at: dict[str, float] = {}  # names of earlier pages: when those were asked for
        self._marker_done = False

    def restart(self, assembler: Assembler) -> None:
        """The directory is stored elsewhere now: begin again, showing no name twice."""
        self.assembler = assembler
        self.started_at = NEVER
        self._merged.clear()
        self._held_at.clear()
        self._marker_done = False

    def apply(
        self,
        asked_at: float,
        rows: Mapping[str, Row],
        marker_row: Row | None,
        *,
        last: bool,
        marker: bool = True,
    ) -> None:
        """Merges what the assembler has ready. `last`: nothing more will come.

        `marker` False: the listing did not begin where the directory's own marker would be.
        """
        if self.started_at == NEVER:
            self.started_at = asked_at
        if marker and not self._marker_done:
            self._marker_done = True
            if self.inode.parent is not None:
                self.tree.seen_marker(self.inode, self.assembler.marker, asked_at, marker_row)
        seen_object = self.tree.seen_object
        parent = self.inode
        taken = self.assembler.take(last=last)
        for name in self.assembler.held:
            self._held_at.setdefault(name, asked_at)
        for found in taken:
            name = found.name
            known_at = self._held_at.pop(name, asked_at)
            if name in self._merged:
                self._again(found, asked_at)
                continue
            self._merged.add(name)
            if name not in self._seen:
                self._seen.add(name)
                self.names.append(name)
            if found.is_directory or found.listed is None:
                self.tree.seen_directory(parent, name, asked_at, _marker_of(found))
            else:
                seen_object(parent, name, found.listed, known_at, rows.get(name))
        if last:
            self._finish()

    def _again(self, found: Found, asked_at: float) -> None:
        """A name that was there before: a legacy marker beside `x/`, or beside a file."""
        entry = self.directory.entries.get(found.name)
        if found.folder and found.listed is not None:
            if entry is not None and entry.directory is not None:
                self.tree.seen_directory(self.inode, found.name, asked_at, _marker_of(found))
            else:
                self.assembler.shadowed[found.listed.key] = "a file of the same name is shown"

    def _finish(self) -> None:
        entries = self.directory.entries
        for name, child in list(entries.items()):
            if name not in self._merged:
                self.tree.gone(child, self.started_at)
                if name in entries and name not in self._seen:
                    self.names.append(name)
        self._seen = self._merged = set()
        self.directory.unreachable = self.assembler.unreachable
        self.directory.shadowed = self.assembler.shadowed
        if self.directory.dropped_at < self.started_at:
            self.directory.complete_at = max(self.directory.complete_at, self.started_at)
        self.directory.misses = 0


def _marker_of(found: Found) -> str | None:
    if found.folder:
        return found.name + FOLDER_SUFFIX
    return found.name if found.twin is not None else None


async def ask_folder_markers(remote: Remote, keys: Sequence[str]) -> dict[str, ObjectInfo]:
    """Those of the keys that are legacy markers, by HEADs in parallel."""
    markers: dict[str, ObjectInfo] = {}

    async def ask(key: str) -> None:
        info, _ = await remote.head(key)
        if info is not None and is_folder_marker(info.key, info.size, info.metadata):
            markers[key] = info

    await side_by_side(*(functools.partial(ask, key) for key in keys))
    return markers


class Listing:
    """See the module.

    `lock` guards `token` and the order of the pages; whoever needs more names takes it and asks
    for one page. It is taken before no other lock.
    """

    def __init__(
        self,
        tree: Tree,
        remote: Remote,
        fetcher: AttributeFetcher,
        config: NamespaceConfig,
        inode: Inode,
    ) -> None:
        self.inode = inode
        self.created_at = tree.clock()
        self.done = False
        self.prefix = tree.stored_at(inode)
        self._tree = tree
        self._remote = remote
        self._fetcher = fetcher
        self._config = config
        self._merge = Merge(tree, inode, Assembler(self.prefix, escape=config.escape_names))
        self._token: str | None = None
        self._slash_seen = False  # the root's own marker, or keys that begin with a slash
        self._lock = trio.Lock()

    @property
    def names(self) -> Sequence[str]:
        return self._merge.names

    async def more(self, than: int) -> None:
        """Returns once there are more than `than` names, or a page brought none, or it is done."""
        async with self._lock:
            if not self.done and len(self.names) <= than:
                await self._next_page()

    async def finish(self) -> None:
        while not self.done:
            await self.more(len(self.names))

    async def _next_page(self) -> None:
        prefix = self.prefix
        page, asked_at = await self._remote.list(prefix, token=self._token)
        folders = await self._folder_markers(page)
        only_marker = False
        if self.inode.parent is None and prefix == "" and "/" in page.prefixes:
            self._slash_seen = True
            only_marker = await self._only_root_marker()
        rows, marker_row = await self._rows(page)
        # From here on no await: the answer meets the tree as it is now.
        stored_now = self._tree.stored_at(self.inode)
        if stored_now != prefix:
            self.prefix, self._token = stored_now, None
            self._merge.restart(Assembler(stored_now, escape=self._config.escape_names))
            return
        last = page.next_token is None
        assembler = self._merge.assembler
        assembler.feed_page(page.objects, page.prefixes, folders)
        if only_marker:
            assembler.unreachable.pop("/", None)
        self._merge.apply(asked_at, rows, marker_row, last=last)
        self._observe_folders(folders, asked_at)
        self._token = page.next_token
        self._note_reach(page)
        self._check_size()
        if last:
            self._end()

    def _check_size(self) -> None:
        """Raises FilesystemError(EFBIG) for a directory that memory does not hold."""
        assembler = self._merge.assembler
        if len(self.names) + len(assembler.unreachable) + len(assembler.shadowed) <= MOST_NAMES:
            return
        directory = directory_of(self.inode)
        if directory.listing is self:
            directory.listing = None
        raise FilesystemError(
            errno.EFBIG,
            f"{self.prefix!r} has more than {MOST_NAMES} names; `s3mount ls` lists them",
        )

    def _end(self) -> None:
        self.done = True
        directory = directory_of(self.inode)
        if directory.listing is self:
            directory.listing = None
        without_marker = self.inode.parent is None and self.prefix == "" and not self._slash_seen
        if without_marker and self.inode.attributes_at < self._merge.started_at:
            # A listing of the whole bucket without `/`: its root has no attributes of its own.
            self._tree.imply(self.inode, self._merge.started_at)

    def _note_reach(self, page: ListPage) -> None:
        """How far the names are known, for lookups in a listing that is not complete."""
        directory = directory_of(self.inode)
        last = max(
            page.objects[-1].key if page.objects else "",
            page.prefixes[-1] if page.prefixes else "",
        )
        if last and directory.dropped_at < self._merge.started_at:
            directory.covered = last[len(self.prefix) :]
            directory.covered_at = self._merge.started_at

    async def _rows(self, page: ListPage) -> tuple[Mapping[str, Row], Row | None]:
        if self._remote.stat_cache is None:
            return {}, None
        ranges: list[tuple[str, str, str | None]] = []
        cut = len(self.prefix)
        names = [*self._merge.assembler.held]  # they are merged with this page
        names += [one.key[cut:] for one in page.objects if len(one.key) > cut]
        ranges.append((self.prefix, names[0], names[-1]) if names else ("", "", ""))
        if self._token is None and self.prefix:
            above, own = split_key(self.prefix)
            ranges.append((above, own, own))
        loaded = await self._remote.rows(ranges)
        marker_row = next(iter(loaded[1].values()), None) if len(loaded) > 1 else None
        return loaded[0], marker_row

    async def _only_root_marker(self) -> bool:
        """Nothing but `/` itself begins with a slash."""
        page, _ = await self._remote.list("/", delimiter="", max_keys=2)
        return [one.key for one in page.objects] == ["/"]

    # -- legacy markers

    async def _folder_markers(self, page: ListPage) -> dict[str, ObjectInfo | None]:
        """Which objects of the page are `_$folder$` markers: a HEAD tells, where not known."""
        if not self._config.compat_dir:
            return {}
        candidates = [
            one for one in page.objects if one.size == 0 and one.key.endswith(FOLDER_SUFFIX)
        ]
        if not candidates:
            return {}
        known = {one.key: self._known_marker(one) for one in candidates}
        markers: dict[str, ObjectInfo | None] = {key: None for key in known if known[key]}
        unknown = [key for key in known if known[key] is None]
        markers.update(await ask_folder_markers(self._remote, unknown))
        return markers

    def _known_marker(self, listed: ListedObject) -> bool | None:
        if self._fetcher.listing_only:
            return True
        entries = directory_of(self.inode).entries
        name = listed.key[len(self.prefix) :]
        file = entries.get(name)
        if file is not None:
            return False
        directory = entries.get(name.removesuffix(FOLDER_SUFFIX))
        if directory is not None and directory.marker == name and directory.version is not None:
            same = int(directory.version.last_modified) == int(listed.last_modified)
            return True if same else None
        return None

    def _observe_folders(self, folders: Mapping[str, ObjectInfo | None], asked_at: float) -> None:
        for key, info in folders.items():
            marker = key[len(self.prefix) :]
            entry = directory_of(self.inode).entries.get(marker.removesuffix(FOLDER_SUFFIX))
            if info is not None and entry is not None and entry.marker == marker:
                self._tree.observe(entry, info, asked_at)
