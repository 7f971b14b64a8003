"""The keys below the key root, name after name in the order of the merge."""

from collections.abc import Iterator

from s3mount.core.keys import ROOT_MARKER
from s3mount.store.base import ListedObject, ListPage, ObjectStore
from s3mount.transfer.feed.decide import RemoteEntry


class KeyAssembler:
    """Feed it relative keys in S3's order; it answers names in the order of path + '/'.

    `x`, `x-y`, then `x/z`: an object is held back until the keys are past `x/`, so that it comes
    together with its directory. Held are at most as many as a key has characters. Pure.
    """

    def __init__(self) -> None:
        self._held: list[tuple[str, ListedObject]] = []  # each a beginning of the next
        self._above = ""  # the directory of the last key, with its slash

    def feed(self, relative: str, listed: ListedObject | None) -> Iterator[RemoteEntry]:
        """`listed` None: a common prefix, ending in a slash; its own marker is not told."""
        cut = relative.rfind("/") + 1
        directory, name = relative[:cut], relative[cut:]
        yield from self._release(relative)
        yield from self._enter(directory, None if name else listed)
        if name and listed is not None:
            self._held.append((relative, listed))

    def end(self) -> Iterator[RemoteEntry]:
        while self._held:
            path, listed = self._held.pop()
            yield RemoteEntry(path, listed)

    def _release(self, reached: str) -> Iterator[RemoteEntry]:
        """Those that nothing can come below any more. The last held is the first in order: its
        path goes on where the others end."""
        while self._held and self._held[-1][0] + "/" < reached:
            if reached.startswith(self._held[-1][0] + "/"):
                break
            path, listed = self._held.pop()
            yield RemoteEntry(path, listed)

    def _enter(self, directory: str, marker: ListedObject | None) -> Iterator[RemoteEntry]:
        """The directories between the last key's and this one's."""
        while not directory.startswith(self._above):
            self._above = self._above[: self._above.rfind("/", 0, -1) + 1]
        for name in directory[len(self._above) : -1].split("/") if directory != self._above else ():
            path = self._above + name
            listed = None
            if self._held and self._held[-1][0] == path:
                listed = self._held.pop()[1]
            self._above = f"{path}/"
            own = marker if self._above == directory else None
            yield RemoteEntry(path, listed, own, below=own is None)


class RemoteTree:
    """Page by page. `below` of an entry with a marker tells nothing: its first key is all that was
    seen so far."""

    def __init__(self, store: ObjectStore, prefix: str, *, flat: bool = True) -> None:
        """`flat`: all below the prefix, else one level of it."""
        self.pages = 0
        self._store = store
        self._prefix = prefix
        self._flat = flat
        self._token: str | None = None
        self._done = False
        self._assembler = KeyAssembler()

    async def next_batch(self) -> list[RemoteEntry] | None:
        """Of one page of the listing; None at the end. Raises StoreErrors."""
        if self._done:
            return None
        page = await self._store.list(
            self._prefix, delimiter="" if self._flat else "/", token=self._token
        )
        self.pages += 1
        self._token = page.next_token
        self._done = page.next_token is None
        entries = [entry for one in self._rows(page) for entry in one]
        if self._done:
            entries += self._assembler.end()
        return entries

    def _rows(self, page: ListPage) -> Iterator[Iterator[RemoteEntry]]:
        cut = len(self._prefix)
        rows: list[tuple[str, ListedObject | None]] = [(one.key, one) for one in page.objects]
        if page.prefixes:
            rows += [(one, None) for one in page.prefixes]
            rows.sort(key=lambda row: row[0])
        for key, listed in rows:
            if key == self._prefix:
                yield iter((RemoteEntry("", None, listed, below=True),))
            elif not (key == ROOT_MARKER and not self._prefix):  # the bucket root's attributes
                yield self._assembler.feed(key[cut:], listed)
