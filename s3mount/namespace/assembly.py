"""From keys in S3's order to names: pure, one directory at a time.

`x`, thousands of `x-...`, then `x/`: the directory shows x once, as a directory. So a name is
held back until the listing is past `x/`. Legacy `x_$folder$` markers arrive as Found.folder; the
caller has looked whether they are markers before it feeds them.
"""

from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import NamedTuple

from s3mount.core.keys import FOLDER_SUFFIX, name_problem
from s3mount.store.base import ListedObject

_by_key = itemgetter(0)


class Found(NamedTuple):
    """A name of the directory. `listed` of a file: its object; of a directory: its own `x/`.

    `twin`: a zero-byte object `x` beside `x/`, maybe a marker without slash.
    """

    name: str
    is_directory: bool
    listed: ListedObject | None
    twin: ListedObject | None = None
    folder: bool = False


class Assembler:
    """Feed it the keys of one directory in order; take() what is certain so far."""

    def __init__(self, prefix: str, *, escape: bool = False) -> None:
        self.prefix = prefix  # of the storage keys
        self.marker: ListedObject | None = None  # the directory's own `prefix` object
        self.unreachable: dict[str, str] = {}
        self.shadowed: dict[str, str] = {}
        self._escape = escape
        self._held: dict[str, Found] = {}
        self._ready: list[Found] = []
        self._last_directory: str | None = None

    @property
    def held(self) -> Collection[str]:
        """Names that come out with the next page."""
        return self._held.keys()

    def feed_page(
        self,
        objects: Sequence[ListedObject],
        prefixes: Sequence[str],
        folders: Collection[str] = (),
    ) -> None:
        """One page of a listing with delimiter. `folders`: keys that are `_$folder$` markers."""
        cut = len(self.prefix)
        rows: list[tuple[str, ListedObject | None]] = [(one.key[cut:], one) for one in objects]
        if prefixes:
            rows.extend((prefix[cut:], None) for prefix in prefixes)
            rows.sort(key=_by_key)
        for relative, listed in rows:
            if listed is None:
                self.feed_directory(relative[:-1])
            elif folders and listed.key in folders:
                self.feed_folder(relative, listed)
            else:
                self.feed_object(relative, listed)

    def feed_object(self, name: str, listed: ListedObject) -> None:
        if self._held:
            self._release(name)
        if not name:
            self.marker = listed
            if listed.size:
                self.shadowed[listed.key] = "has data, but its name ends in a slash"
            return
        problem = name_problem(name, self._escape)
        if problem is None:
            self._held[name] = Found(name, False, listed)
        else:
            self.unreachable[listed.key] = problem

    def feed_directory(self, name: str) -> None:
        """`name/` comes now; repeated calls for one name count once."""
        if name == self._last_directory:
            return
        self._last_directory = name
        if self._held:
            self._release(name + "/")
        problem = name_problem(name, self._escape)
        if problem is not None:
            self.unreachable[f"{self.prefix}{name}/"] = problem
            return
        hidden = self._held.pop(name, None)
        twin = None
        if hidden is not None and hidden.listed is not None:
            if hidden.listed.size == 0:
                twin = hidden.listed
            else:
                self.shadowed[hidden.listed.key] = "a directory of the same name is shown"
        self._ready.append(Found(name, True, None, twin))

    def feed_folder(self, relative: str, listed: ListedObject) -> None:
        """`name_$folder$`, a directory unless name itself was there before."""
        if self._held:
            self._release(relative)
        name = relative.removesuffix(FOLDER_SUFFIX)
        problem = name_problem(name, self._escape)
        if problem is not None:
            self.unreachable[listed.key] = problem
        else:
            self._ready.append(Found(name, True, listed, folder=True))

    def take(self, *, last: bool) -> list[Found]:
        """The names that became certain since; with `last` all that are left."""
        if last:
            self._release(None)
        ready, self._ready = self._ready, []
        return ready

    def _release(self, reached: str | None) -> None:
        """`reached` is the relative key the listing has come to; None: its end."""
        for name in list(self._held):
            if reached is None or name + "/" < reached:
                self._ready.append(self._held.pop(name))


class InTree(NamedTuple):
    """A name somewhere in a tree. `directory`: the path of what it is in, '' or ending in '/'.

    `marker`: a directory's own `x/`, where there is one.
    """

    directory: str
    found: Found
    marker: ListedObject | None = None


class _Level(NamedTuple):
    path: str
    assembler: Assembler
    dead: bool  # no path can name it


class TreeAssembler:
    """The same for a whole tree: the keys of a flat listing, in order. Directories come before
    what is in them. `unreachable`, `shadowed`: how many keys so far are not shown."""

    def __init__(self, prefix: str, *, escape: bool = False) -> None:
        self.unreachable = 0
        self.shadowed = 0
        self._prefix = prefix
        self._escape = escape
        self._levels = [_Level("", Assembler(prefix, escape=escape), False)]
        self._ready: list[InTree] = []

    def feed(self, listed: ListedObject, *, folder: bool = False) -> None:
        """`folder`: it is a legacy `_$folder$` marker, and nothing else stands for its name."""
        relative = listed.key[len(self._prefix) :]
        cut = relative.rfind("/") + 1
        directory, name = relative[:cut], relative[cut:]
        if directory != self._levels[-1].path:
            self._leave_to(directory)
            self._enter(directory, None if name else listed)
        level = self._levels[-1]
        if level.dead:
            self.unreachable += 1
        elif folder:
            level.assembler.feed_folder(name, listed)
        else:
            level.assembler.feed_object(name, listed)
        self._collect(level, last=False)

    def feed_page(
        self,
        objects: Sequence[ListedObject],
        prefixes: Sequence[str],
        folders: Collection[str] = (),
    ) -> None:
        """A page of a listing with delimiter, of the top directory alone."""
        self._levels[0].assembler.feed_page(objects, prefixes, folders)
        self._collect(self._levels[0], last=False)

    def take(self, *, last: bool) -> list[InTree]:
        """As Assembler.take."""
        if last:
            while self._levels:
                self._collect(self._levels.pop(), last=True)
        ready, self._ready = self._ready, []
        return ready

    def _leave_to(self, directory: str) -> None:
        while not directory.startswith(self._levels[-1].path):
            self._collect(self._levels.pop(), last=True)

    def _enter(self, directory: str, marker: ListedObject | None) -> None:
        level = self._levels[-1]
        if directory == level.path:
            return
        for name in directory[len(level.path) : -1].split("/"):
            path, dead = f"{level.path}{name}/", True
            if not level.dead:
                level.assembler.feed_directory(name)
                dead = bool(level.assembler.unreachable)
                level.assembler.unreachable.clear()  # what is below it is counted
                self._collect(level, last=False)
                if path == directory and not dead and marker is not None:
                    self._ready[-1] = self._ready[-1]._replace(marker=marker)
            level = _Level(path, Assembler(self._prefix + path, escape=self._escape), dead)
            self._levels.append(level)

    def _collect(self, level: _Level, *, last: bool) -> None:
        """What is certain now; what is not shown is counted and forgotten."""
        assembler = level.assembler
        self._ready.extend(InTree(level.path, found) for found in assembler.take(last=last))
        self.unreachable += len(assembler.unreachable)
        self.shadowed += len(assembler.shadowed)
        if assembler.unreachable:
            assembler.unreachable.clear()
        if assembler.shadowed:
            assembler.shadowed.clear()
