"""The names below a prefix as a mount shows them, page by page, without a mount."""

from collections.abc import Sequence
from functools import partial

from s3mount.core.keys import FOLDER_SUFFIX, ROOT_MARKER
from s3mount.namespace.assembly import InTree, TreeAssembler
from s3mount.namespace.listing import ask_folder_markers
from s3mount.namespace.remote import Remote
from s3mount.store.base import ListPage
from s3mount.writeback.parallel import all_of

PARALLEL_LOOKS = 64


class Names:
    """Directories come before what is in them. Memory: a page of names, and one more."""

    def __init__(self, remote: Remote, prefix: str, *, recursive: bool) -> None:
        """`prefix`: '' or with a slash at its end."""
        self.done = False
        self.found = False  # anything at all, the directory's own marker counts
        self._remote = remote
        self._prefix = prefix
        self._recursive = recursive
        self._token: str | None = None
        self._assembler = TreeAssembler(prefix)

    @property
    def unreachable(self) -> int:
        """Keys that no path can name, so far; they are left out."""
        return self._assembler.unreachable

    @property
    def shadowed(self) -> int:
        """Objects that are hidden by a directory of the same name, so far."""
        return self._assembler.shadowed

    async def next_page(self) -> Sequence[InTree]:
        """Those that became certain; maybe none although there are more. Raises StoreErrors."""
        delimiter = "" if self._recursive else "/"
        page, _ = await self._remote.list(self._prefix, delimiter=delimiter, token=self._token)
        alone, hidden = await self._folder_markers(page)
        if not self._prefix and self._recursive:
            hidden.add(ROOT_MARKER)  # the bucket root's own attributes
        objects = [one for one in page.objects if one.key not in hidden] if hidden else page.objects
        if self._recursive:
            for listed in objects:
                self._assembler.feed(listed, folder=listed.key in alone)
        else:
            self._assembler.feed_page(objects, await self._prefixes(page), alone)
        self.found = self.found or bool(page.objects or page.prefixes)
        self._token = page.next_token
        self.done = page.next_token is None
        return self._assembler.take(last=self.done)

    async def _prefixes(self, page: ListPage) -> Sequence[str]:
        """Without what is there for the bucket root's own marker alone."""
        if self._prefix or ROOT_MARKER not in page.prefixes:
            return page.prefixes
        below, _ = await self._remote.list(ROOT_MARKER, delimiter="", max_keys=2)
        if [one.key for one in below.objects] != [ROOT_MARKER]:
            return page.prefixes
        return [prefix for prefix in page.prefixes if prefix != ROOT_MARKER]

    async def _folder_markers(self, page: ListPage) -> tuple[set[str], set[str]]:
        """The legacy markers of the page: those that alone stand for their name, and those beside
        which something else is shown."""
        candidates = [
            one.key for one in page.objects if one.size == 0 and one.key.endswith(FOLDER_SUFFIX)
        ]
        if not candidates:
            return set(), set()
        alone = set(await ask_folder_markers(self._remote, candidates))
        hidden: set[str] = set()

        async def look(key: str) -> None:
            name = key.removesuffix(FOLDER_SUFFIX)
            below, _ = await self._remote.list(f"{name}/", delimiter="", max_keys=1)
            if below.objects or (await self._remote.head(name))[0] is not None:
                hidden.add(key)

        await all_of([partial(look, key) for key in alone], PARALLEL_LOOKS)
        return alone - hidden, hidden
