"""What has to be done so that a key becomes what a local name is. Pure: no I/O.

A name is compared in at most three steps, each of which costs more than the one before: by the
listing alone, with the object's attributes (`Action.ASK`), with the file's bytes
(`Action.COMPARE`).
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from s3mount.core.metadata import NANOSECONDS, USER_XATTRS, Attributes
from s3mount.store.base import ListedObject

DirectoryMarkers = Literal["all", "empty", "none"]


class Action(Enum):
    NOTHING = "nothing"
    SEND = "send"  # the whole object
    ATTRIBUTES = "attributes"  # the bytes are the same: a copy onto itself on the server
    DELETE = "delete"
    CONFLICT = "conflict"  # a file here, a directory there, or the other way round
    ASK = "ask"  # decide again with the object's attributes
    COMPARE = "compare"  # decide again with `same_bytes`


@dataclass(frozen=True, slots=True)
class LocalEntry:
    """A name in the source. `path`: relative to its top, as in keys ('' is the top itself);
    `empty`: of a directory, whether nothing in it takes part."""

    path: str
    name: bytes  # on disk, with its whole path
    size: int
    attributes: Attributes
    empty: bool = False

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.attributes.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.attributes.mode)


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """A name below the key root. `listed`: the object of just this key, a file or a marker without
    slash; `marker`: that of the key with a slash at its end; `below`: there are keys below it."""

    path: str
    listed: ListedObject | None = None
    marker: ListedObject | None = None
    below: bool = False

    @property
    def is_directory(self) -> bool:
        """For certain."""
        return self.below or self.marker is not None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an object's metadata: from the answer to a HEAD, or from an earlier one of
    the same version. `attributes` None: it is gone."""

    attributes: Attributes | None
    modified: int = 0  # its Last-Modified, in seconds


@dataclass(frozen=True, slots=True)
class Comparing:
    """How to compare; `checksum`: all files of equal size by their bytes; `xattrs`: extended
    attributes as well."""

    missing_only: bool = False
    checksum: bool = False
    delete: bool = False
    directories: DirectoryMarkers = "all"
    xattrs: bool = False


def relevant(local: LocalEntry, remote: RemoteEntry | None) -> ListedObject | None:
    """The object that stands for what the local name is; an empty one may be a marker."""
    if remote is None:
        return None
    if not local.is_directory:
        return remote.listed
    if remote.marker is None and remote.listed is not None and remote.listed.size == 0:
        return remote.listed
    return remote.marker


def decide(
    local: LocalEntry | None,
    remote: RemoteEntry | None,
    how: Comparing,
    known: Known | None = None,
    same_bytes: bool | None = None,
) -> Action:
    """`known`: of relevant(local, remote), None before it was asked for."""
    if local is None:
        has_objects = remote is not None and (remote.listed or remote.marker)
        return Action.DELETE if has_objects and how.delete else Action.NOTHING
    if local.is_directory:
        return _directory(local, remote, how, known)
    if remote is not None and remote.is_directory and not how.delete:
        return Action.CONFLICT
    there = relevant(local, remote)
    if there is None:
        return Action.SEND
    if how.missing_only:
        return Action.NOTHING
    if there.size != local.size:
        return Action.SEND
    if known is None:
        return Action.ASK
    if known.attributes is None:
        return Action.SEND
    if stat.S_ISDIR(known.attributes.mode) and not how.delete:
        return Action.CONFLICT
    if stat.S_IFMT(known.attributes.mode) != stat.S_IFMT(local.attributes.mode):
        return Action.SEND
    if not local.is_regular:
        return _special(local, known.attributes)
    return _regular(local, known, known.attributes, how, same_bytes)


def _directory(
    local: LocalEntry, remote: RemoteEntry | None, how: Comparing, known: Known | None
) -> Action:
    there = relevant(local, remote)
    if there is None:
        known = None
    if remote is not None and remote.listed is not None and not remote.is_directory:
        if remote.listed.size > 0:
            return Action.SEND if how.delete else Action.CONFLICT
        if known is None:  # an empty file, or a marker without slash?
            return Action.NOTHING if how.missing_only else Action.ASK
    is_marker = there is not None and (known is None or _is_directory(known))
    if known is not None and not is_marker and known.attributes is not None:
        assert remote is not None
        if not remote.is_directory and not how.delete:
            return Action.CONFLICT
        there = None
    if there is None or (known is not None and known.attributes is None):
        return _absent_marker(local, remote, how)
    if how.directories != "all" or how.missing_only:
        return Action.NOTHING
    if known is None:
        return Action.ASK
    assert known.attributes is not None
    same = same_attributes(local.attributes, known, known.attributes, how)
    return Action.NOTHING if same else Action.ATTRIBUTES


def _is_directory(known: Known) -> bool:
    return known.attributes is not None and stat.S_ISDIR(known.attributes.mode)


def _absent_marker(local: LocalEntry, remote: RemoteEntry | None, how: Comparing) -> Action:
    if remote is not None and remote.is_directory and how.missing_only:
        return Action.NOTHING
    wanted = how.directories == "all" or (how.directories == "empty" and local.empty)
    if how.directories == "empty" and remote is not None and remote.below:
        wanted = False
    return Action.SEND if wanted else Action.NOTHING


def _special(local: LocalEntry, there: Attributes) -> Action:
    """A symlink's target has its length and its mtime in common, or it is sent: it is tiny."""
    ours = local.attributes
    same = (ours.mode, ours.uid, ours.gid, ours.rdev) == (
        there.mode,
        there.uid,
        there.gid,
        there.rdev,
    )
    return Action.NOTHING if same and same_time(ours.mtime_ns, there.mtime_ns) else Action.SEND


def _regular(
    local: LocalEntry,
    known: Known,
    there: Attributes,
    how: Comparing,
    same_bytes: bool | None,
) -> Action:
    same_mtime = has_same_mtime(local.attributes, known, there)
    if same_bytes is None and (how.checksum or not same_mtime):
        # Reading a file costs less than sending it, where its mtime alone differs.
        return Action.COMPARE
    if same_bytes is False:
        return Action.SEND
    if same_attributes(local.attributes, known, there, how):
        return Action.NOTHING
    return Action.ATTRIBUTES


def same_attributes(ours: Attributes, known: Known, there: Attributes, how: Comparing) -> bool:
    """Mode, owner and mtime, and the user's own extended attributes, if they are fed."""
    same = (ours.mode, ours.uid, ours.gid) == (there.mode, there.uid, there.gid)
    if how.xattrs and with_xattrs_of(there, ours) != there.xattrs:
        return False
    return same and has_same_mtime(ours, known, there)


def has_same_mtime(ours: Attributes, known: Known, there: Attributes) -> bool:
    """Where the object has no mtime of its own (then it shows its Last-Modified) it counts as the
    same if the file did not change since, as `aws s3 sync` has it."""
    if same_time(ours.mtime_ns, there.mtime_ns):
        return True
    return there.mtime_ns == known.modified * NANOSECONDS and ours.mtime_ns <= there.mtime_ns


def same_time(ours: int, theirs: int) -> bool:
    """Other tools store whole seconds."""
    if theirs % NANOSECONDS == 0:
        return ours // NANOSECONDS == theirs // NANOSECONDS
    return ours == theirs


def with_xattrs_of(there: Attributes, ours: Attributes) -> Mapping[str, bytes]:
    """What the object is to have: the user's own are ours, others' stay."""
    others = {
        name: value for name, value in there.xattrs.items() if not name.startswith(USER_XATTRS)
    }
    return {**others, **ours.xattrs}
