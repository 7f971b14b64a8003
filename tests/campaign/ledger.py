"""What was acknowledged to a workload: the tree that must be there after a crash.

A workload changes its own directory of the mount by `Ledger.do`; while an operation is in
progress its changes are *pending*: each group of them may be there, all of it, or not at all.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

CERTAIN = 16  # more random bytes than these have no equals


@dataclass(frozen=True, slots=True)
class Entry:
    """What one name is; None for `mode` or `mtime_ns`: anything is right."""

    kind: str  # file, directory, link
    digest: str = ""  # of a file's bytes, or a link's target
    size: int = 0
    mode: int | None = None
    mtime_ns: int | None = None

    @property
    def content(self) -> "Content":
        return self.kind, self.digest, self.size

    def matches(self, found: "Entry | None") -> bool:
        return (
            found is not None
            and self.content == found.content
            and self.mode in (None, found.mode)
            and self.mtime_ns in (None, found.mtime_ns)
        )


Content = tuple[str, str, int]
Tree = dict[str, Entry]
Group = Mapping[str, "Entry | None"]  # changes that come together; None: the name is gone


def digest(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def file_entry(data: bytes | bytearray, mode: int | None = None) -> Entry:
    return Entry("file", digest(data), len(data), mode)


def read_tree(root: Path) -> Tree:
    """What is below `root`, read through the file system. A name that a directory shows twice is
    there once more, as one that nobody knows."""
    tree: Tree = {}

    def refuse(error: OSError) -> None:
        raise error  # os.walk itself would show a directory that cannot be read as empty

    for directory, names, files in os.walk(root, onerror=refuse):
        for name in names + files:
            path = Path(directory, name)
            shown = str(path.relative_to(root))
            tree[shown if shown not in tree else f"{shown} (shown twice)"] = read_entry(path)
    return tree


def read_entry(path: Path) -> Entry:
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        return Entry("directory", mode=mode)
    if stat.S_ISLNK(found.st_mode):
        return Entry("link", os.readlink(path))
    data = path.read_bytes()
    return replace(file_entry(data, mode), mtime_ns=found.st_mtime_ns)


def matches(wanted: Entry | None, found: Entry | None) -> bool:
    return found is None if wanted is None else wanted.matches(found)


@dataclass(frozen=True)
class Step:
    """One acknowledged operation. `kept`: it was a close or an fsync of a file's bytes; `renamed`:
    which got their names afterwards."""

    what: str
    groups: Sequence[Group]
    kept: bool
    acknowledged: float  # time.monotonic()
    renamed: bool = False


@dataclass(frozen=True)
class Unfinished:
    """A file that was written by time.monotonic() `since`, and never closed."""

    data: bytes
    since: float


@dataclass
class Ledger:
    """Of one workload's directory, whose name is `name`."""

    name: str
    trace: Path
    tree: Tree = field(default_factory=dict)
    pending: Sequence[Group] = ()
    steps: list[Step] = field(default_factory=list)  # since the last check
    base: Tree = field(default_factory=dict)  # as of the last check
    # What each name has been since then, or was about to be.
    ever: dict[str, set[Content]] = field(default_factory=dict)
    # Bytes that the bucket has, under whatever name: as of the last check, and fsynced since.
    stored: set[str] = field(default_factory=set)
    unfinished: dict[str, Unfinished] = field(default_factory=dict)
    extra: Callable[[str], bool] = lambda name: False  # leftovers of a program that was cut off
    died: float | None = None  # the first death since the last check
    safe_until: float = 0.0  # before it: the disk says that it had all changes up to then

    def do(
        self,
        what: str,
        groups: Sequence[Group],
        action: Callable[[], None],
        *,
        kept: bool = False,
        renamed: bool = False,
    ) -> None:
        """Raises what `action` raises; then the groups stay pending."""
        self.note(f"begin {what}")
        self.pending = groups
        for group in groups:
            self._remember(group)
        action()
        self.steps.append(Step(what, groups, kept, time.monotonic(), renamed))
        self.pending = ()
        for group in groups:
            apply(self.tree, group)
        self.note(f"done {what}")

    def _remember(self, group: Group) -> None:
        for path, entry in group.items():
            if entry is not None:
                self.ever.setdefault(path, set()).add(entry.content)

    def halves(self, found: Tree) -> list[str]:
        """What is in the bucket of a dead mount that no name has ever been: a stub, half a file."""
        known = {content for contents in self.ever.values() for content in contents}
        return [
            f"{self.name}/{path}: nobody has closed a file like that: {entry}"
            for path, entry in sorted(found.items())
            if entry.kind != "directory"
            and entry.content not in (known if self.extra(path) else self.ever.get(path, ()))
        ]

    def missing(self, found: Tree, *, all_closed: bool) -> list[str]:
        """What the bucket of a dead mount must have and has not, under any name: what it had at
        the last check, what was fsynced, and (`all_closed`) what was closed."""
        there = {entry.digest for entry in found.values() if entry.kind == "file"}
        # What is in progress may have replaced it already.
        unsure = {path for group in self.pending for path in group}
        return [
            f"{self.name}/{path}: acknowledged, and not in the bucket: {entry}"
            for path, entry in self.tree.items()
            if entry.kind == "file"
            and (all_closed or entry.digest in self.stored)
            and entry.digest not in there
            and path not in unsure
        ]

    def amend(self, path: str, entry: Entry) -> None:
        """More is known of what the last step made, e.g. its mtime."""
        self.tree[path] = entry
        last = self.steps.pop()
        groups = [*last.groups[:-1], {**last.groups[-1], path: entry}]
        self.steps.append(replace(last, groups=groups))

    def note(self, text: str) -> None:
        with self.trace.open("a") as out:
            out.write(f"{time.time():.3f} {self.name}: {text}\n")

    def settle(self, found: Tree) -> list[str]:
        """After a kill: compares, takes what is there as the new truth, returns what is wrong."""
        wrong = self._compare(self.tree, self.pending, found)
        self.accept(found)
        return wrong

    def _compare(self, tree: Tree, pending: Sequence[Group], found: Tree) -> list[str]:
        expected = dict(tree)
        for group in pending:
            changed = dict(expected)
            apply(changed, group)
            if all(matches(changed.get(path), found.get(path)) for path in group):
                expected = changed
        imply_directories(expected)
        wrong = []
        for path in sorted({*expected, *found}):
            wanted, there = expected.get(path), found.get(path)
            if wanted is None and pending and self.extra(path):
                continue
            if not matches(wanted, there):
                wrong.append(f"{self.name}/{path}: acknowledged {wanted}, found {there}")
        return wrong

    def settle_after_cut(
        self, found: Tree, window: float, *, all_kept: bool
    ) -> tuple[list[str], float]:
        """After a power cut: as `settle`, and the age of the oldest change that was lost.

        Changes of names may be lost, the youngest first, if they were made in the last `window`
        seconds and after the last fsync of the journal. What close or fsync acknowledged may not,
        nor (`all_kept`: they are in one journal) what came before.
        """
        assert self.died is not None
        safe_until = max(self.safe_until, self.died - window)
        floor = 0
        for number, step in enumerate(self.steps):
            if step.acknowledged < safe_until:
                floor = number + 1
            elif all_kept and step.kept:
                floor = number + (not step.renamed)
        wrong = self._compare(self.tree, self.pending, found)
        best, age = wrong, 0.0
        dropped: set[int] = set()
        pending = list(self.pending)
        for number, step in enumerate(self.steps[floor:], floor):
            # A symbolic link is an object like a file's: it may be there before older changes.
            link = not all_kept and step.what.startswith("symlink")
            if wrong and (step.renamed or link):
                dropped.add(number)
                pending += step.groups
                age = max(age, self.died - step.acknowledged)
        if dropped:
            best = self._compare(self._without(dropped), pending, found)
        for number in reversed(range(floor, len(self.steps))):
            if not best:
                break
            if self.steps[number].kept or number in dropped:
                continue  # it is in the bucket, whatever became of its neighbours
            dropped.add(number)
            best = self._compare(self._without(dropped), pending, found)
            age = max(age, self.died - self.steps[number].acknowledged)
        best = [*best, *self._bytes_gone(dropped, found)]
        self.accept(found)
        return (best, age) if not best else (wrong or best, 0.0)

    def _bytes_gone(self, dropped: set[int], found: Tree) -> list[str]:
        """Of files whose last name may be lost, but not what they were called before."""
        there = {entry.digest for entry in found.values() if entry.kind == "file"}
        renamed = [self.steps[number] for number in dropped if self.steps[number].renamed]
        paths = {path for step in renamed for group in step.groups for path in group}
        wanted = {path: self.tree[path] for path in sorted(paths) if path in self.tree}
        return [
            f"{self.name}/{path}: acknowledged {entry}, under no name"
            for path, entry in wanted.items()
            if entry.kind == "file" and entry.digest not in there
        ]

    def _without(self, dropped: set[int]) -> Tree:
        tree = dict(self.base)
        for number, step in enumerate(self.steps):
            if number not in dropped:
                for group in step.groups:
                    apply(tree, group)
        return tree

    def accept(self, found: Tree) -> None:
        self.tree = dict(found)
        self.base = dict(found)
        self.pending = ()
        self.steps = []
        self.ever = {}
        self._remember(found)
        # A leftover is removed, and its bytes written anew, by the program that finds it.
        self.stored = {
            entry.digest
            for path, entry in found.items()
            if entry.size > CERTAIN and not self.extra(path)
        }
        self.died, self.safe_until = None, 0.0
        self.note("checked")


def imply_directories(tree: Tree) -> None:
    """A directory whose mkdir is lost is there for what is in it."""
    for path in list(tree):
        above = path.rpartition("/")[0]
        while above and above not in tree:
            tree[above] = Entry("directory")
            above = above.rpartition("/")[0]


def apply(tree: Tree, group: Group) -> None:
    for path, entry in group.items():
        if entry is None:
            tree.pop(path, None)
        else:
            tree[path] = entry
