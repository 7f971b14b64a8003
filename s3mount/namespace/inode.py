"""Inodes, directories and what is known of them; plain data, no request, no await.

Times are those of the namespace's monotonic clock. "Asked" is the moment just before a request
was sent: an answer tells nothing about what changed after it.
"""

import errno
from dataclasses import dataclass
from typing import Final, NamedTuple

from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import Attributes

NEVER: Final = float("-inf")
# A request with all its retries is over after 60 s (ruling 6): what changed longer ago than this
# cannot be older than an answer still to come.
LONGEST_REQUEST: Final = 120.0


class Absent:
    """The type of ABSENT: the name is known not to be there."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object: its bytes never change."""

    etag: str
    size: int
    last_modified: float
    version_id: str | None = None

    def same_bytes(self, etag: str, size: int) -> bool:
        return self.etag == etag and self.size == size


class Inode:
    """A file or directory, as long as it has this content: a foreign new version is a new inode.

    attributes: None while not known. attributes_at: when they were asked for (or set here).
    settled: they belong to `version` beyond doubt (the racy rule), so whatever confirms the
        version confirms them.
    version: None while nothing is stored, or for an implied directory.
    storage_key: where the bytes are if not at the name key; directories end in '/'.
    storage_stamp: the local rename that made it so; a rename of the directory above carries only
        what was there before it: meanwhile another directory may have been made in its old place.
    unstored: a directory made here whose marker is not stored yet: nobody else's names are in it.
    directory: None for what is not a directory.
    local_size: the size while data here is not sent yet; None: version.size.
    seen_at: when the answer that showed this version was asked for.
    marker: of directories: name + '/', name, or name + '_$folder$', as seen; None: none seen.
    detached: unlinked or replaced; `parent` and `name` are then the last ones.
    """

    __slots__ = (
        "attributes",
        "attributes_at",
        "detached",
        "directory",
        "local_size",
        "lookups",
        "marker",
        "name",
        "number",
        "parent",
        "seen_at",
        "settled",
        "storage_key",
        "storage_stamp",
        "unstored",
        "version",
    )

    def __init__(self, number: int, parent: "Inode | None", name: str, seen_at: float) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.lookups = 0
        self.attributes: Attributes | None = None
        self.attributes_at = NEVER
        self.settled = False
        self.version: Version | None = None
        self.storage_key: str | None = None
        self.storage_stamp = 0
        self.unstored = False
        self.directory: Directory | None = None
        self.local_size: int | None = None
        self.seen_at = seen_at
        self.marker: str | None = None
        self.detached = False

    @property
    def size(self) -> int:
        if self.local_size is not None:
            return self.local_size
        if self.version is None or self.directory is not None:
            return 0
        return self.version.size

    @property
    def is_directory(self) -> bool:
        return self.directory is not None

    @property
    def is_local(self) -> bool:
        """There is data here that S3 does not have (pins come on top of this)."""
        return self.local_size is not None or (self.version is None and self.directory is None)

    @property
    def is_pinned(self) -> bool:
        directory = None if self.parent is None else self.parent.directory
        return directory is not None and self.name in directory.pins

    @property
    def is_only_here(self) -> bool:
        """A directory on its way to the store: all that is in it was made here."""
        return self.unstored and self.is_pinned

    def set_attributes(self, attributes: Attributes, at: float, *, settled: bool) -> None:
        self.attributes = attributes
        self.attributes_at = at
        self.settled = settled

    def __repr__(self) -> str:
        kind = "directory" if self.directory is not None else "file"
        return f"<{kind} {self.name!r} #{self.number}{' detached' if self.detached else ''}>"


class Directory:
    """The names of one directory, as far as they are known.

    entries: what is there. complete_at: when a complete listing was asked for; NEVER: unknown.
    covered: of an incomplete listing, the last relative key it has reached, and `covered_at`.
    changed: when a name was last changed here; answers asked for before do not count for it.
    absent: names a request (asked for at that time) did not find.
    pins: names with unfinished intents, how many; no answer counts for them.
    dropped_at: when names were last dropped to save memory (shrink.py): those are there, but not
        in `entries`, and what a listing from before has shown is not complete any more.
    revision: grows whenever a name goes away.
    """

    __slots__ = (
        "absent",
        "changed",
        "complete_at",
        "covered",
        "covered_at",
        "dropped_at",
        "entries",
        "listing",
        "misses",
        "misses_since",
        "pins",
        "revision",
        "shadowed",
        "unreachable",
        "used_at",
        "walk",
    )

    def __init__(self, complete_at: float = NEVER) -> None:
        self.entries: dict[str, Inode] = {}
        self.complete_at = complete_at
        self.covered = ""
        self.covered_at = NEVER
        self.dropped_at = NEVER
        self.changed: dict[str, float] = {}
        self.absent: dict[str, float] = {}
        self.pins: dict[str, int] = {}
        self.revision = 0
        self.misses = 0  # lookups lately that no listing answered
        self.misses_since = NEVER
        self.used_at = NEVER
        self.unreachable: dict[str, str] = {}  # key -> reason
        self.shadowed: dict[str, str] = {}
        self.listing: object | None = None  # the Listing under way (listing.py)
        self.walk: object | None = None  # the TreeWalk over it (tree_walk.py)

    def protects(self, name: str, asked_at: float) -> bool:
        """An answer asked for then says nothing about this name: it changed here since."""
        return name in self.pins or self.changed.get(name, NEVER) >= asked_at

    def note_change(self, name: str, now: float) -> None:
        """The time does not go back; costs the same however much has changed lately."""
        changed = self.changed
        # Re-inserted, so that the dictionary stays in order of time.
        changed.pop(name, None)
        changed[name] = now
        if len(changed) > 2000:
            horizon = now - LONGEST_REQUEST
            while changed[oldest := next(iter(changed))] < horizon:
                del changed[oldest]
        self.absent.pop(name, None)

    def note_absent(self, name: str, asked_at: float) -> None:
        if len(self.absent) >= 2000:
            for key in list(self.absent)[:1000]:
                del self.absent[key]
        self.absent.pop(name, None)
        self.absent[name] = asked_at

    def remove(self, name: str) -> None:
        self.entries.pop(name, None)
        self.revision += 1


class DirectoryEntry(NamedTuple):
    """One name of a listing; `next_position` is where to go on after it.

    certain False: the type is, the attributes are not known yet (Namespace.provisional), so they
    must not be cached by the kernel.
    """

    name: str
    inode: Inode
    next_position: int
    certain: bool


def not_a_directory(inode: Inode) -> FilesystemError:
    return FilesystemError(errno.ENOTDIR, f"{inode.name!r} is not a directory")


def no_such_name(name: str) -> FilesystemError:
    return FilesystemError(errno.ENOENT, f"no {name!r}")
