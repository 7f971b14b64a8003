"""A walk over sub-directories pays ahead: one flat LIST of the tree instead of one LIST each.

`find`, `rm -r`, `cp -a` and rsync open the sub-directories of a directory one after another. Once
two have been opened in order, all keys from there on are listed without a delimiter, page by page,
a few pages ahead of the reader (ruling 16).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import trio

from s3mount.core.config import NamespaceConfig
from s3mount.core.errors import FilesystemError
from s3mount.core.keys import FOLDER_SUFFIX, split_key
from s3mount.namespace.assembly import Assembler
from s3mount.namespace.attribute_fetcher import AttributeFetcher
from s3mount.namespace.cursor import Names
from s3mount.namespace.inode import NEVER, Inode
from s3mount.namespace.listing import Merge, ask_folder_markers
from s3mount.namespace.remote import Remote
from s3mount.namespace.stat_cache import Row
from s3mount.namespace.tree import Tree, directory_of
from s3mount.store.base import (
    ListedObject,
    ListPage,
    ObjectInfo,
)
from s3mount.store.errors import StoreError

log = logging.getLogger(__name__)

PAGES_AHEAD = 4  # of what the reader wants: about 0.4 s of a find, so they are still fresh then
# A directory larger than this many pages is read better by its own, streaming listing.
MAX_PAGES_WAITED = 5
IDLE = 10.0  # seconds without a reader after which the walk is given up
MIN_FOLLOWING = 3  # sub-directories still to come, for a flat listing to pay
REMEMBERED = 64  # directories whose sub-directories were opened lately


class _Level:
    """A directory the walk is in, and its names as far as they have been listed."""

    def __init__(self, above: "_Level | None", relative: str, name: str, assembler: Assembler):
        self.above = above
        self.relative = relative  # to the walk's prefix, ending in '/'; '' is the walk's own
        self.name = name
        self.assembler = assembler
        self.merge: Merge | None = None
        self.dead = False  # it cannot be named, or is another directory by now
        self.ended = False


class TreeWalk:
    """One flat listing of what is below `inode`, from the sub-directory `first` on."""

    def __init__(
        self,
        tree: Tree,
        remote: Remote,
        fetcher: AttributeFetcher,
        config: NamespaceConfig,
        inode: Inode,
        first: str,
    ) -> None:
        self.prefix = tree.stored_at(inode)
        self.stopped = False
        self._tree = tree
        self._remote = remote
        self._fetcher = fetcher
        self._config = config
        self._inode = inode
        self._start = first + "/"
        self._position = ""  # relative key of the last object listed
        self._wanted = self._start
        self._pages_unwanted = 0
        self._news = trio.Event()  # set and replaced when a page has come, or the walk has ended
        self._demand = trio.Event()  # set when a reader comes
        base = _Level(None, "", "", self._assembler(""))
        base.merge = Merge(tree, inode, base.assembler)
        self._levels = [base]
        self._touched: list[_Level] = []

    # -- readers

    def covers(self, stored: str) -> bool:
        """The directory stored there is still to come, or the walk is in it."""
        if self.stopped or not stored.startswith(self.prefix):
            return False
        relative = stored[len(self.prefix) :]
        return relative >= self._start and not self._passed(relative)

    def _passed(self, relative: str) -> bool:
        return self._position > relative and not self._position.startswith(relative)

    async def wait_for(self, stored: str) -> None:
        """Returns once the walk has left that directory, or has stopped."""
        relative = stored[len(self.prefix) :]
        pages_waited = 0
        while not self.stopped and not self._passed(relative):
            if self._position.startswith(relative):
                pages_waited += 1
                if pages_waited > MAX_PAGES_WAITED:
                    self.stop()
                    return
            self._wanted = max(self._wanted, relative)
            self._pages_unwanted = 0
            self._demand.set()
            await self._news.wait()
        self._wanted = max(self._wanted, relative)
        self._pages_unwanted = 0
        self._demand.set()

    def stop(self) -> None:
        self.stopped = True
        self._demand.set()
        self._news.set()
        directory = directory_of(self._inode)
        if directory.walk is self:
            directory.walk = None

    # -- the walk

    async def run(self) -> None:
        """To the end of the tree, or until nobody has wanted it for a while."""
        token: str | None = None
        try:
            while not self.stopped:
                if not await self._is_wanted():
                    break
                token = await self._next_page(token)
                if token is None:
                    break
                self._news.set()
                self._news = trio.Event()
        except (StoreError, FilesystemError) as error:
            log.debug("flat listing of %r given up: %s", self.prefix, error)
        except Exception:  # no reason to end the mount
            log.exception("the flat listing of %r failed unexpectedly", self.prefix)
        finally:
            self.stop()

    async def _is_wanted(self) -> bool:
        while self._pages_unwanted >= PAGES_AHEAD and not self._wanted > self._position:
            self._demand = trio.Event()
            with trio.move_on_after(IDLE) as waiting:
                await self._demand.wait()
            if waiting.cancelled_caught or self.stopped:
                return False
        return True

    async def _next_page(self, token: str | None) -> str | None:
        # The first key wanted is the marker of the first directory itself.
        start_after = "" if token is not None else f"{self.prefix}{self._start[:-1]}."
        page, asked_at = await self._remote.list(
            self.prefix, delimiter="", token=token, start_after=start_after
        )
        folders = await self._folders(page)
        rows = await self._rows(page)
        # From here on no await: the answer meets the tree as it is now.
        if self._tree.stored_at(self._inode) != self.prefix or self._inode.detached:
            return None
        self._touched = [level for level in self._levels if not level.dead]
        for listed in page.objects:
            self._feed(listed, folders)
        if page.objects:
            self._position = page.objects[-1].key[len(self.prefix) :]
        if page.next_token is None:
            self._leave_to("")
        self._merge(asked_at, rows, folders)
        self._pages_unwanted += 1
        return page.next_token

    def _assembler(self, relative: str) -> Assembler:
        return Assembler(self.prefix + relative, escape=self._config.escape_names)

    def _feed(self, listed: ListedObject, folders: Mapping[str, ObjectInfo]) -> None:
        relative = listed.key[len(self.prefix) :]
        cut = relative.rfind("/") + 1
        directory, name = relative[:cut], relative[cut:]
        if directory != self._levels[-1].relative:
            self._enter(directory)
        level = self._levels[-1]
        if level.dead:
            return
        if listed.key in folders:
            level.assembler.feed_folder(name, listed)
        else:
            level.assembler.feed_object(name, listed)

    def _leave_to(self, directory: str) -> None:
        """Ends the levels that `directory` is not in."""
        while len(self._levels) > 1 and not directory.startswith(self._levels[-1].relative):
            self._levels.pop().ended = True

    def _enter(self, directory: str) -> None:
        self._leave_to(directory)
        level = self._levels[-1]
        if directory == level.relative:
            return
        for name in directory[len(level.relative) : -1].split("/"):
            below = _Level(level, f"{level.relative}{name}/", name, self._assembler(""))
            below.assembler.prefix = self.prefix + below.relative
            if level.dead:
                below.dead = True
            else:
                level.assembler.feed_directory(name)
                below.dead = f"{level.assembler.prefix}{name}/" in level.assembler.unreachable
                self._touched.append(below)
            self._levels.append(below)
            level = below

    def _merge(
        self,
        asked_at: float,
        rows: Mapping[str, Mapping[str, Row]],
        folders: Mapping[str, ObjectInfo],
    ) -> None:
        """Into the tree, parents first, since they make the inodes of their sub-directories."""
        wanted: list[Inode] = []
        for level in self._touched:
            merge = self._merge_of(level)
            if merge is None:
                continue
            prefix = level.assembler.prefix
            above, own = split_key(prefix) if prefix else ("", "")
            marker_row = rows.get(above, {}).get(own)
            count = len(merge.names)
            is_base = level.above is None
            merge.apply(
                asked_at,
                rows.get(prefix, {}),
                marker_row,
                last=level.ended,
                marker=not is_base,
            )
            self._observe_folders(merge, folders, asked_at)
            entries = merge.directory.entries
            wanted += [entries[name] for name in merge.names[count:] if name in entries]
            if not is_base:
                wanted.append(merge.inode)
        if not self._fetcher.listing_only:
            horizon = asked_at - self._config.metadata_ttl
            known = self._fetcher.known
            self._fetcher.fetch_behind([one for one in wanted if not known(one, horizon)])

    def _merge_of(self, level: _Level) -> Merge | None:
        if level.merge is None and not level.dead:
            above = None if level.above is None else level.above.merge
            inode = None if above is None else above.directory.entries.get(level.name)
            if (
                inode is None
                or inode.directory is None
                or inode.is_only_here
                or self._tree.stored_at(inode) != level.assembler.prefix
            ):
                level.dead = True  # removed or renamed here
            else:
                level.merge = Merge(self._tree, inode, level.assembler)
        if level.merge is not None and (
            level.merge.inode.detached
            or self._tree.stored_at(level.merge.inode) != level.assembler.prefix
        ):
            level.merge, level.dead = None, True
        return level.merge

    # -- beside the pages

    async def _folders(self, page: ListPage) -> dict[str, ObjectInfo]:
        if not self._config.compat_dir or self._fetcher.listing_only:
            return {}
        keys = [
            one.key for one in page.objects if one.size == 0 and one.key.endswith(FOLDER_SUFFIX)
        ]
        return await ask_folder_markers(self._remote, keys)

    def _observe_folders(
        self, merge: Merge, folders: Mapping[str, ObjectInfo], asked_at: float
    ) -> None:
        for key, info in folders.items():
            prefix, name = split_key(key)
            entry = merge.directory.entries.get(name.removesuffix(FOLDER_SUFFIX))
            if prefix == merge.assembler.prefix and entry is not None and entry.marker == name:
                self._tree.observe(entry, info, asked_at)

    async def _rows(self, page: ListPage) -> Mapping[str, Mapping[str, Row]]:
        """By directory prefix and name; markers are the names 'x/' of the directory above."""
        if self._remote.stat_cache is None:
            return {}
        ranges: dict[str, tuple[str, str]] = {}
        for level in self._levels:
            if level.assembler.held:  # they are merged with this page
                held = sorted(level.assembler.held)
                ranges[level.assembler.prefix] = (held[0], held[-1])
        for listed in page.objects:
            prefix, name = split_key(listed.key)
            first, last = ranges.get(prefix, (name, name))
            ranges[prefix] = (min(first, name), max(last, name))
        loaded = await self._remote.rows([(key, *ends) for key, ends in ranges.items()])
        return dict(zip(ranges, loaded, strict=True))


class _Opened(NamedTuple):
    name: str
    run: int  # how many were opened in order
    at: float


class TreeWalks:
    """Sees sub-directories being opened in order, and starts walks."""

    def __init__(
        self, tree: Tree, remote: Remote, fetcher: AttributeFetcher, config: NamespaceConfig
    ) -> None:
        self._tree = tree
        self._remote = remote
        self._fetcher = fetcher
        self._config = config
        self._opened: dict[int, _Opened] = {}

    def walk_over(self, inode: Inode) -> TreeWalk | None:
        """The walk that will bring this directory's names, if there is one or one is due."""
        if inode.parent is None or not self._config.prefetch_tree or inode.is_pinned:
            return None
        stored = self._tree.stored_at(inode)
        above: Inode | None = inode.parent
        while above is not None:
            walk = None if above.directory is None else above.directory.walk
            if isinstance(walk, TreeWalk) and walk.covers(stored):
                return walk
            above = above.parent
        return self._start(inode.parent, inode.name, stored)

    def _start(self, parent: Inode, name: str, stored: str) -> TreeWalk | None:
        now = self._tree.clock()
        last = self._opened.pop(parent.number, None)
        in_order = last is not None and last.name < name and now - last.at < IDLE
        count = last.run + 1 if last is not None and in_order else 1
        if len(self._opened) >= REMEMBERED:
            del self._opened[next(iter(self._opened))]
        self._opened[parent.number] = _Opened(name, count, now)
        if count < 2 or self._fetcher.nursery is None or not self._pays(parent, name):
            return None
        if stored != self._tree.stored_at(parent) + name + "/":
            return None
        walk = TreeWalk(self._tree, self._remote, self._fetcher, self._config, parent, name)
        directory_of(parent).walk = walk
        self._fetcher.nursery.start_soon(walk.run)
        return walk

    @staticmethod
    def _pays(parent: Inode, name: str) -> bool:
        directory = directory_of(parent)
        if directory.complete_at == NEVER and not directory.covered:
            return False
        following = 0
        for other, inode in directory.entries.items():
            if inode.directory is not None and other >= name:
                following += 1
                if following >= MIN_FOLLOWING:
                    return True
        return False


class WalkedNames:
    """The names of a directory that a walk brings; if it does not, those of its own listing."""

    def __init__(
        self,
        walk: TreeWalk,
        inode: Inode,
        stored: str,
        known_names: Callable[[Inode], Names],
    ) -> None:
        self._walk: TreeWalk | None = walk
        self._inode = inode
        self._stored = stored
        self._known_names = known_names
        self._names: Names | None = None

    @property
    def done(self) -> bool:
        return self._names is not None and self._names.done

    @property
    def names(self) -> Sequence[str]:
        return () if self._names is None else self._names.names

    async def more(self, than: int) -> None:
        if self._names is None:
            if self._walk is not None:
                await self._walk.wait_for(self._stored)
                self._walk = None
            if self._names is None:
                self._names = self._known_names(self._inode)
        else:
            await self._names.more(than)
