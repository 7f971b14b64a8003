"""What the modules of the file system share: the layers below and the files that are open."""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from s3mount.core.config import MountConfig
from s3mount.filesystem.drafts import Drafts
from s3mount.namespace import Inode, Namespace
from s3mount.readpath import ReadPath, RemoteObject
from s3mount.store.base import ObjectStore
from s3mount.writeback.bookkeeping import Bookkeeper
from s3mount.writeback.copier import Copier
from s3mount.writeback.journal import Journal
from s3mount.writeback.queue import IntentQueue
from s3mount.writeback.spool import Spool
from s3mount.writeback.uploader import Uploader

if TYPE_CHECKING:
    from s3mount.filesystem.open_file import OpenFile

log = logging.getLogger(__name__)

# ETags of versions that this mount wrote itself: their objects have no foreign metadata, which
# spares the HEAD before they are written again. About 100 bytes each.
OWN_VERSIONS = 20_000
# LastModified has whole seconds, an answer's Date comes a moment later.
SAME_TIME = 2.0

# Conflicts that `status` still knows of.
CONFLICTS = 100

Invalidate = Callable[[int, bytes, int], None]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another host was faster: `key` is theirs; this host's bytes are in the objects `kept`."""

    key: str
    kept: Sequence[str]
    at: float  # seconds since the epoch


class State:
    """One per mount; holds no logic but the bookkeeping of open files."""

    def __init__(
        self,
        config: MountConfig,
        store: ObjectStore,
        namespace: Namespace,
        readpath: ReadPath,
        spool: Spool,
        uploader: Uploader,
        clock: Callable[[], float],
        journal: Journal,
    ) -> None:
        self.config = config
        self.store = store
        self.namespace = namespace
        self.readpath = readpath
        self.spool = spool
        self.uploader = uploader
        self.clock = clock
        self.journal = journal
        self.books = Bookkeeper(journal, durable_spool=self.writes_back)
        self.drafts = Drafts(self)
        self.copier = Copier(store, config.writeback, uploader)
        self.queue: IntentQueue  # set by build.py: its executors need this state
        # Commits a file and waits; set by build.py to Mutations.commit.
        self.publish: Callable[[OpenFile], Awaitable[None]]
        self.open_files: dict[Inode, OpenFile] = {}
        # Unlinked or replaced files that are still open here, by the key of their bytes.
        self.orphans: dict[str, set[OpenFile]] = {}
        # Tells the kernel to drop a name: (parent, name, inode number). Set by the FUSE layer.
        self.invalidate: Invalidate | None = None
        self.nursery: trio.Nursery | None = None  # while the file system runs
        # A write-behind change was refused (EACCES): the next ones wait for their own outcome.
        self.cautious = config.writeback.sync
        self.conflicts: deque[Conflict] = deque(maxlen=CONFLICTS)  # newest last
        self._own: OrderedDict[str, tuple[str, float]] = OrderedDict()  # ETag and time by key

    def start_soon(self, function: Callable[[], Awaitable[None]]) -> None:
        """Runs in the background; what it raises is logged, for nobody waits for it."""

        async def guarded() -> None:
            try:
                await function()
            except Exception as error:
                log.warning("background task failed: %s", error)

        if self.nursery is not None:
            self.nursery.start_soon(guarded)

    def wrote(self, key: str, etag: str, at: float) -> None:
        """Remembers that this version came from this mount, all of its metadata too.

        `at`: the time of the answer, by the service's clock.
        """
        self._own[key] = etag, at
        self._own.move_to_end(key)
        if len(self._own) > OWN_VERSIONS:
            self._own.popitem(last=False)

    def is_own(self, key: str, etag: str, last_modified: float) -> bool:
        """Key and time count: another host's empty file has the ETag of ours."""
        known, at = self._own.get(key, ("", 0.0))
        return known == etag and abs(last_modified - at) <= SAME_TIME

    def disown(self, key: str) -> None:
        """What is under the key now may carry others' metadata, or there is nothing."""
        self._own.pop(key, None)

    def note_conflict(self, key: str, kept: Sequence[str]) -> None:
        self.conflicts.append(Conflict(key, tuple(kept), time.time()))

    def remote_of(self, inode: Inode) -> RemoteObject | None:
        """Where the committed bytes of `inode` are now; None if it has none."""
        if inode.version is None:
            return None
        return RemoteObject(
            self.namespace.stored_at(inode),
            inode.version.etag,
            inode.version.size,
            inode.version.version_id,
        )

    def replaced(self, inode: Inode) -> None:
        """Another host has put another object in the inode's place, or removed it."""
        file = self.open_files.get(inode)
        if file is not None:
            file.taken = True

    @property
    def writes_back(self) -> bool:
        """close returns once the file is safe on the local disk (--durability=journal)."""
        return self.config.writeback.durability == "journal"

    def progress(self) -> float:
        return self.uploader.progress_at

    def orphan(self, file: "OpenFile") -> None:
        """The file lost its name while open: whoever replaces its object must mind its readers."""
        if file.remote is not None and file.handles:
            self.orphans.setdefault(file.remote.key, set()).add(file)

    def adopt(self, file: "OpenFile") -> None:
        """Undoes `orphan`."""
        if file.remote is not None:
            files = self.orphans.get(file.remote.key)
            if files is not None:
                files.discard(file)
                if not files:
                    del self.orphans[file.remote.key]
