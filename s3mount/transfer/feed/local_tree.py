"""The source, name after name in the order of the merge. All of it blocks: worker threads."""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from s3mount.core.errors import FilesystemError
from s3mount.core.keys import check_key, name_from_bytes
from s3mount.core.metadata import NO_XATTRS, Attributes, storable_time
from s3mount.transfer.feed.decide import LocalEntry
from s3mount.transfer.feed.rules import Rules
from s3mount.transfer.local_file import xattrs_of

ALL_THE_WAY = 0


@dataclass(frozen=True, slots=True)
class Walking:
    """`depth`: 1 is what is in the top directory itself, ALL_THE_WAY no bound. `root`: what the
    keys begin with ('': the whole bucket, whose own attributes are left alone). `xattrs`: with
    extended attributes."""

    depth: int = ALL_THE_WAY
    rules: Rules = Rules()  # noqa: RUF009 (immutable)
    follow: bool = False
    escape: bool = False
    root: str = ""
    xattrs: bool = False

    def descends_from(self, path: str) -> bool:
        """Whether what is in the directory `path` ('' is the top) takes part, by depth."""
        level = path.count("/") + 1 if path else 0
        return self.depth == ALL_THE_WAY or level < self.depth


class LocalTree:
    """Entries in ascending order of path + '/', a directory before what is in it.

    `failed(path, error)` is told of names that cannot be looked at; `complete` is False then:
    what is not there may only have been unseen. Memory: the names of the directories above.
    """

    def __init__(
        self, top: bytes, walking: Walking, failed: Callable[[str, Exception], None]
    ) -> None:
        self.complete = True
        self._top = top
        self._walking = walking
        self._failed = failed
        self._entries = self._walk(top)

    def next_batch(self, limit: int) -> list[LocalEntry]:
        """Empty at the end. Raises OSError where the top itself cannot be looked at."""
        return list(islice(self._entries, limit))

    def _walk(self, top: bytes) -> Iterator[LocalEntry]:
        """No recursion: a key has room for five hundred directories."""
        levels = [self._open("", top, os.stat(top))]
        if self._walking.root:
            yield levels[0].entry
        while levels:
            level = levels[-1]
            if not level.names:
                levels.pop()
                continue
            child, raw = level.names.pop()
            path = f"{level.entry.path}/{child}" if level.entry.path else child
            name = os.path.join(level.entry.name, raw)
            found = self._look(path, name)
            if found is None:
                continue
            if not stat.S_ISDIR(found.st_mode):
                yield LocalEntry(path, name, found.st_size, self._attributes(path, name, found))
            elif any(above.identity == (found.st_dev, found.st_ino) for above in levels):
                self._fail(path, OSError(errno.ELOOP, "leads to a directory above it"))
            elif self._walking.descends_from(path):
                levels.append(self._open(path, name, found))
                yield levels[-1].entry

    def _open(self, path: str, name: bytes, found: os.stat_result) -> "_Level":
        names = self._names(path, name)
        attributes = self._attributes(path, name, found)
        entry = LocalEntry(path, name, 0, attributes, empty=not names)
        return _Level(entry, names[::-1], (found.st_dev, found.st_ino))

    def _attributes(self, path: str, name: bytes, found: os.stat_result) -> Attributes:
        has_some = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)  # xattr(7)
        if not (self._walking.xattrs and has_some):
            return attributes_of(found)
        try:
            return attributes_of(found, xattrs_of(name))
        except FileNotFoundError:
            return attributes_of(found)  # vanished since: what is done for it will tell
        except OSError as error:
            self._fail(path, error)
            return attributes_of(found)

    def _look(self, path: str, name: bytes) -> os.stat_result | None:
        try:
            return os.stat(name) if self._walking.follow else os.lstat(name)
        except FileNotFoundError as error:
            if self._walking.follow and os.path.islink(name):
                self._fail(path, OSError(errno.ENOENT, "a symlink to nothing"))
            else:
                self._failed(path, error)  # vanished since it was listed: it is not there
        except OSError as error:
            self._fail(path, error)
        return None

    def _names(self, path: str, name: bytes) -> list[tuple[str, bytes]]:
        """What takes part of a directory, in order, as in keys and as on disk."""
        rules, follow = self._walking.rules, self._walking.follow
        names: list[tuple[str, bytes]] = []
        try:
            with os.scandir(name) as entries:
                for entry in entries:
                    try:
                        is_directory = entry.is_dir(follow_symlinks=follow)
                    except OSError:
                        is_directory = False  # looked at again, and reported, in its turn
                    below = self._key_name(path, entry.name, is_directory)
                    if below is None:
                        continue
                    whole = f"{path}/{below}" if path else below
                    if rules.admit(whole, is_directory=is_directory):
                        names.append((below, entry.name))
        except OSError as error:
            self._fail(path, error)
        names.sort(key=lambda one: one[0] + "/")
        return names

    def _key_name(self, path: str, raw: bytes, is_directory: bool) -> str | None:
        try:
            name = name_from_bytes(raw, self._walking.escape)
            above = f"{self._walking.root}{path}/" if path else self._walking.root
            check_key(above + name + ("/" if is_directory else ""))
        except FilesystemError as error:
            shown = os.fsdecode(os.path.join(os.fsencode(path), raw))
            if error.errno == errno.EILSEQ:
                error = FilesystemError(
                    errno.EILSEQ, "its name is not UTF-8: --escape-names stores it as %XX"
                )
            self._fail(shown, error)
            return None
        return name

    def _fail(self, path: str, error: Exception) -> None:
        self.complete = False
        self._failed(path, error)


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory; `names` still to come, the next one last."""

    entry: LocalEntry
    names: list[tuple[str, bytes]]
    identity: tuple[int, int]


def attributes_of(found: os.stat_result, xattrs: Mapping[str, bytes] = NO_XATTRS) -> Attributes:
    """As the mount stores them."""
    is_device = stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)
    return Attributes(
        mode=found.st_mode,
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_ns=storable_time(found.st_mtime_ns),
        ctime_ns=storable_time(found.st_ctime_ns),
        atime_ns=storable_time(found.st_atime_ns),
        rdev=found.st_rdev if is_device else 0,
        xattrs=xattrs,
    )


def count(top: bytes, walking: Walking) -> Iterator[tuple[int, int]]:
    """Files that take part and their bytes, batch by batch, for a progress bar's total."""
    tree = LocalTree(top, walking, lambda path, error: None)
    while batch := tree.next_batch(1000):
        yield (
            sum(not one.is_directory for one in batch),
            sum(one.size for one in batch if one.is_regular),
        )
