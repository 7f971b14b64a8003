"""Reading a directory: a stable position, each name once, whatever comes and goes meanwhile."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from s3mount.core.errors import FilesystemError
from s3mount.namespace.attribute_fetcher import AttributeFetcher
from s3mount.namespace.inode import NEVER, DirectoryEntry, Inode
from s3mount.namespace.tree import Tree, directory_of
from s3mount.store.parallel import side_by_side

# Entries of one read: the kernel takes about 25 to 100 at a time, the rest is asked for again.
BATCH = 128
# How far ahead of the reader attributes are asked for: all of a page's HEADs run in parallel.
AHEAD = 1000
# Objects up to this size may be something other than a regular file: a symlink's target has at
# most 4095 bytes, special files and markers none.
MAX_SPECIAL = 4095
# Looks a name up in a directory; FilesystemError: it is not there.
Find = Callable[[Inode, str], Awaitable[Inode]]


class Names(Protocol):
    """A growing list of names; Listing is one."""

    @property
    def done(self) -> bool: ...

    @property
    def names(self) -> Sequence[str]: ...

    async def more(self, than: int) -> None: ...


class KnownNames:
    """The names of a directory that is known."""

    done = True

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    async def more(self, than: int) -> None:
        return


class DirectoryCursor:
    """Positions count the names in order of their appearance, so that they stay right while
    entries come and go; what has gone when it is its turn is left out.
    """

    def __init__(
        self,
        tree: Tree,
        fetcher: AttributeFetcher,
        inode: Inode,
        names: Names,
        horizon: float,
        find: Find,
    ) -> None:
        self.inode = inode
        self._tree = tree
        self._fetcher = fetcher
        self._find = find
        self._begun = tree.clock()
        self._position = 0  # of the last read
        self._directory = directory_of(inode)
        self._names = names
        self._horizon = horizon  # attributes asked for later than this are good enough
        self._asked_to = 0  # attributes of the names before this position were asked for behind
        self._batch: list[DirectoryEntry] = []
        self._batch_start = 0
        self._batch_revision = -1

    async def read(self, position: int) -> list[DirectoryEntry]:
        """The entries from `position` on, at most 128; [] only at the end. Raises StoreErrors."""
        self._position = position
        while True:
            kept = self._kept(position)
            if kept:
                return kept
            while position >= len(self._names.names):
                if self._names.done:
                    return []
                await self._more(position)
            end = min(position + BATCH, len(self._names.names))
            await self._find_dropped(position, end)
            await self._fetch(position, end)
            self._read_ahead(end)
            batch = self._entries(position, end)
            self._batch, self._batch_start = batch, position
            self._batch_revision = self._directory.revision
            if batch:
                return batch
            position = end

    def ahead(self) -> Sequence[str]:
        """The names that are still to be read; they are not dropped meanwhile (shrink.py)."""
        return self._names.names[self._position :]

    async def _find_dropped(self, start: int, end: int) -> None:
        """After a seek back to names that were dropped to save memory once they had been read."""
        if self._directory.dropped_at < self._begun:
            return
        names = self._names.names
        missing = [n for n in names[start:end] if n not in self._directory.entries]

        async def find(name: str) -> None:
            with contextlib.suppress(FilesystemError):  # it is gone
                await self._find(self.inode, name)

        await side_by_side(*(partial(find, name) for name in missing))

    async def _more(self, position: int) -> None:
        """The next names; the old ones again if they were known and the service is away."""
        if position > 0 or self._directory.complete_at == NEVER:
            await self._names.more(position)
        elif not await self._fetcher.outage.news(partial(self._names.more, position)):
            self._names = KnownNames(list(self._directory.entries))

    def _kept(self, position: int) -> list[DirectoryEntry]:
        """The rest of the last batch, if nothing of it went away."""
        batch = self._batch
        if not batch or self._batch_revision != self._directory.revision:
            return []
        if not self._batch_start <= position < batch[-1].next_position:
            return []
        return [entry for entry in batch if entry.next_position > position]

    def _present(self, start: int, end: int) -> list[tuple[int, str, Inode]]:
        entries = self._directory.entries
        names = self._names.names
        return [
            (position, names[position], inode)
            for position in range(start, end)
            if (inode := entries.get(names[position])) is not None
        ]

    async def _fetch(self, start: int, end: int) -> None:
        """Waits for the attributes that tell the type, starts asking for the others."""
        if self._fetcher.listing_only:
            return
        if end > self._asked_to:
            last = min(start + AHEAD, len(self._names.names))
            self._fetcher.fetch_behind(
                [
                    inode
                    for _, _, inode in self._present(max(start, self._asked_to), last)
                    if not self._fetcher.known(inode, self._horizon)
                ]
            )
            self._asked_to = last
        begun = self._tree.clock()
        waited = self._untyped(start, end)
        if waited:
            await self._fetcher.refresh_all(waited)
        overtaken = [
            inode
            for inode in waited
            if inode.attributes is None and self._directory.protects(inode.name, begun)
        ]
        if overtaken:  # a change of ours was carried out meanwhile: that answer does not count
            await self._fetcher.refresh_all(overtaken)

    def _untyped(self, start: int, end: int) -> list[Inode]:
        """Those of which it must be known first whether they are regular files."""
        return [
            inode
            for _, _, inode in self._present(start, end)
            if self._type_unknown(inode) and not self._fetcher.known(inode, self._horizon)
        ]

    @staticmethod
    def _type_unknown(inode: Inode) -> bool:
        return (
            inode.directory is None
            and inode.version is not None
            and inode.version.size <= MAX_SPECIAL
        )

    def _read_ahead(self, end: int) -> None:
        """Asks for the next page while the reader is busy with this one."""
        count = len(self._names.names)
        if not self._names.done and end >= count - AHEAD // 2:
            self._fetcher.start_quietly(partial(self._names.more, count))

    def _entries(self, start: int, end: int) -> list[DirectoryEntry]:
        known = self._fetcher.known
        always = self._fetcher.listing_only
        return [
            DirectoryEntry(name, inode, position + 1, always or known(inode, self._horizon))
            for position, name, inode in self._present(start, end)
        ]
