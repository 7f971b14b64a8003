"""Attributes that listings do not carry: HEADs, one for each inode at a time, many in parallel."""

import errno
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from s3mount.core.config import NamespaceConfig
from s3mount.core.errors import FilesystemError
from s3mount.core.keys import ROOT_MARKER
from s3mount.core.metadata import Attributes, defaults_for, is_directory_object, is_folder_marker
from s3mount.namespace.inode import Inode
from s3mount.namespace.outage import Outage
from s3mount.namespace.remote import Remote
from s3mount.namespace.tree import Tree, directory_of
from s3mount.store.base import ObjectInfo
from s3mount.store.errors import StoreError

log = logging.getLogger(__name__)

PARALLEL_HEADS = 128  # 1000 files within 0.3 s at 30 ms a request; they take no thread
MAX_REFUSED = 3
BEHIND = 112  # HEADs nobody waits for; they leave room for those somebody waits for


class AttributeFetcher:
    """See the module; `nursery` is set while the namespace runs."""

    def __init__(self, tree: Tree, remote: Remote, config: NamespaceConfig) -> None:
        self.nursery: trio.Nursery | None = None  # for what goes on behind; None: nothing does
        self._tree = tree
        self._remote = remote
        self._config = config
        self._flights: dict[int, trio.Event] = {}
        self._behind: deque[tuple[Inode, float]] = deque()
        self._behind_tasks = 0

    @property
    def outage(self) -> Outage:
        return self._remote.outage

    @property
    def listing_only(self) -> bool:
        return self._config.attributes == "listing"

    def known(self, inode: Inode, horizon: float) -> bool:
        """The attributes are there and were true at `horizon` or later."""
        if inode.attributes is None:
            return False
        return inode.attributes_at >= horizon or inode.detached or self._tree.is_pinned(inode)

    def provisional(self, inode: Inode) -> Attributes:
        """The attributes as known, else the mount's defaults for such an object."""
        if inode.attributes is not None:
            return inode.attributes
        modified = self._tree.mounted_at if inode.version is None else inode.version.last_modified
        return defaults_for(inode.is_directory, modified, self._tree.defaults)

    async def attributes(self, inode: Inode) -> Attributes:
        """Raises StoreErrors, and ESTALE for an inode that turns out to be gone or replaced."""
        horizon = self._tree.clock() - self._config.metadata_ttl
        refused = 0  # answers that came too late: a rename had been carried out meanwhile
        while not self.known(inode, horizon):
            if inode.detached:
                raise FilesystemError(errno.ESTALE)
            if self.listing_only or inode.is_local:
                return self.provisional(inode)
            if inode.attributes is None:
                asked = await self.fetch(inode, whole=True)
            else:
                asked = await self._ask_again(inode)
            if asked:
                if inode.attributes is not None or inode.detached or refused == MAX_REFUSED:
                    break
                refused += 1
        if inode.detached and inode.attributes is None:
            raise FilesystemError(errno.ESTALE)
        return self.provisional(inode)

    async def _ask_again(self, inode: Inode) -> bool:
        """As fetch, but what is known must do while the service does not answer."""
        asked = True

        async def ask() -> None:
            nonlocal asked
            asked = await self.fetch(inode, whole=True)

        await self.outage.news(ask)
        return asked

    async def fetch(self, inode: Inode, *, whole: bool = False) -> bool:
        """Asks once, whoever else asks meanwhile; False: somebody else did.

        `whole`: by a GET where the filesystem wants. The answer may replace the inode or find it
        gone: look at `detached` afterwards.
        """
        flight = self._flights.get(inode.number)
        if flight is not None:
            await flight.wait()
            return False
        flight = self._flights[inode.number] = trio.Event()
        try:
            if inode.directory is None:
                await self._fetch_file(inode, whole)
            else:
                await self._fetch_directory(inode)
        finally:
            del self._flights[inode.number]
            flight.set()
        return True

    async def _fetch_file(self, inode: Inode, whole: bool) -> None:
        for _ in range(MAX_REFUSED):
            key = self._tree.stored_at(inode)
            if whole:
                info, asked_at = await self._remote.info(key, inode.size)
            else:
                info, asked_at = await self._remote.head(key)
            if key == self._tree.stored_at(inode):
                break
        else:
            return  # renamed meanwhile, again and again: the answer is about another file
        if info is None:
            self._tree.gone(inode, asked_at)
        else:
            self._tree.observe(inode, info, asked_at)

    async def _fetch_directory(self, inode: Inode) -> None:
        """The marker's attributes; of the forms seen `x/` first. None: the directory is implied."""
        stored = self._tree.stored_at(inode)
        directory = directory_of(inode)
        if (
            inode.parent is not None
            and inode.marker is None
            and inode.attributes_at
            < (directory.complete_at)
            >= self._tree.clock() - self._config.metadata_ttl
        ):
            # Its own fresh listing has shown no marker.
            self._tree.imply(inode, directory.complete_at)
            return
        info, asked_at = await self._remote.head(stored or ROOT_MARKER)
        other = self._tree.marker_key(inode)
        if info is None and other not in (stored, ROOT_MARKER):
            info, _ = await self._remote.head(other)
            if info is not None and not _stands_for_directory(info):
                directory.shadowed[other] = "a directory of the same name is shown"
                info = None
        if stored != self._tree.stored_at(inode) or inode.attributes_at > asked_at:
            return
        if info is not None:
            self._tree.observe(inode, info, asked_at)
        elif not self._tree.is_pinned(inode):
            self._tree.imply(inode, asked_at)

    async def refresh_all(self, inodes: Sequence[Inode]) -> None:
        """As fetch_all; where all are known it does not wait for a service that is away."""
        if any(inode.attributes is None for inode in inodes):
            await self.fetch_all(inodes)
        else:
            await self.outage.news(partial(self.fetch_all, inodes))

    async def fetch_all(self, inodes: Sequence[Inode]) -> None:
        """All of them in parallel; a request that fails is logged and leaves its inode unknown."""
        begun = self._tree.clock()
        waiting = deque((inode, begun) for inode in inodes)
        async with trio.open_nursery() as nursery:
            for _ in range(min(PARALLEL_HEADS, len(waiting))):
                nursery.start_soon(self._fetch_from, waiting)

    def fetch_behind(self, inodes: Sequence[Inode]) -> None:
        """Starts them in the background, if there is one.

        A few tasks take one after the other: a task for each would cost a fifth more CPU.
        """
        if self.nursery is None:
            return
        begun = self._tree.clock()
        self._behind.extend((inode, begun) for inode in inodes if inode.number not in self._flights)
        while self._behind_tasks < min(BEHIND, len(self._behind)):
            self._behind_tasks += 1
            self.nursery.start_soon(self._work_behind)

    async def _work_behind(self) -> None:
        try:
            await self._fetch_from(self._behind)
        finally:
            self._behind_tasks -= 1

    def start_quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs `work` in the background, if there is one; whoever needs it meets its error."""

        async def run() -> None:
            try:
                await work()
            except (StoreError, FilesystemError):
                pass
            except Exception:  # no reason to end the mount
                log.exception("looking ahead failed unexpectedly")

        if self.nursery is not None:
            self.nursery.start_soon(run)

    async def _fetch_from(self, waiting: deque[tuple[Inode, float]]) -> None:
        """Takes inodes, each with the time it was put there, until none is left."""
        while waiting:
            inode, begun = waiting.popleft()
            if inode.detached or self.known(inode, begun):
                continue
            try:
                await self.fetch(inode)
            except (StoreError, FilesystemError) as error:
                log.warning("attributes of %r: %s", self._tree.key(inode), error)
            except Exception:  # no reason to end the mount
                log.exception("attributes of %r failed unexpectedly", self._tree.key(inode))


def _stands_for_directory(info: ObjectInfo) -> bool:
    return is_folder_marker(info.key, info.size, info.metadata) or is_directory_object(
        info.key, info.size, info.headers.get("content-type"), info.metadata
    )
