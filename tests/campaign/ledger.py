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


@dataclass(frozen=True, slots=True)
class Entry:
    """What one name is; None for `mode` or `mtime_ns`: anything is right."""

    kind: str  # file, directory, link
    digest: str = ""  # of a file's bytes, or a link's target
    size: int = 0
    mode: int | None = None
    mtime_ns: int | None = None

    def matches(self, found: "Entry | None") -> bool:
        return (
            found is not None
            and (self.kind, self.digest, self.size) == (found.kind, found.digest, found.size)
            and self.mode in (None, found.mode)
            and self.mtime_ns in (None, found.mtime_ns)
        )


Tree = dict[str, Entry]
Group = Mapping[str, "Entry | None"]  # changes that come together; None: the name is gone


def digest(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def file_entry(data: bytes | bytearray, mode: int | None = None) -> Entry:
    return Entry("file", digest(data), len(data), mode)


def read_tree(root: Path) -> Tree:
    """What is below `root`, read through the file system."""
    tree: Tree = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = Path(directory, name)
            tree[str(path.relative_to(root))] = read_entry(path)
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
    """One acknowledged operation. `kept`: it was a close or an fsync of a file's bytes."""

    what: str
    groups: Sequence[Group]
    kept: bool
    acknowledged: float  # time.monotonic()


@dataclass
class Ledger:
    """Of one workload's directory, whose name is `name`."""

    name: str
    trace: Path
    tree: Tree = field(default_factory=dict)
    pending: Sequence[Group] = ()
    steps: list[Step] = field(default_factory=list)  # since the last check
    base: Tree = field(default_factory=dict)  # as of the last check
    unfinished: dict[str, float] = field(default_factory=dict)  # written, never closed: since when
    extra: Callable[[str], bool] = lambda name: False  # leftovers of a program that was cut off

    def do(
        self, what: str, groups: Sequence[Group], action: Callable[[], None], *, kept: bool = False
    ) -> None:
        """Raises what `action` raises; then the groups stay pending."""
        self.note(f"begin {what}")
        self.pending = groups
        action()
        self.steps.append(Step(what, groups, kept, time.monotonic()))
        self.pending = ()
        for group in groups:
            apply(self.tree, group)
        self.note(f"done {what}")

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
        """After a crash: compares, takes what is there as the new truth, returns what is wrong."""
        wrong: list[str] = []
        expected = dict(self.tree)
        for group in self.pending:
            changed = dict(expected)
            apply(changed, group)
            if all(matches(changed.get(path), found.get(path)) for path in group):
                expected = changed
        for path in sorted({*expected, *found}):
            wanted, there = expected.get(path), found.get(path)
            if wanted is None and self.pending and self.extra(path):
                continue
            if not matches(wanted, there):
                wrong.append(f"{self.name}/{path}: acknowledged {wanted}, found {there}")
        self.accept(found)
        return wrong

    def accept(self, found: Tree) -> None:
        self.tree = dict(found)
        self.base = dict(found)
        self.pending = ()
        self.steps = []
        self.note("checked")


def apply(tree: Tree, group: Group) -> None:
    for path, entry in group.items():
        if entry is None:
            tree.pop(path, None)
        else:
            tree[path] = entry
