"""What scripts of operations acknowledge, and what of that a power cut may take.

(semantics.md, 'power loss': nothing that close or fsync acknowledged is lost; of the changes of
names at most the last ones, in order.)
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from s3mount.core.errors import FilesystemError
from s3mount.store.memory import MemoryStore
from tests.model.bucket import attributes_of
from tests.model.mounted import Client

Step = tuple[Any, ...]  # the name of an operation, its arguments


@dataclass(frozen=True)
class Entry:
    """What one name is; None for `mode` or `mtime`: anything is right."""

    kind: int  # S_IFREG, S_IFLNK, S_IFDIR
    data: bytes | None = b""  # of a file, or a link's target; None: cannot be read yet
    mode: int | None = None
    mtime: int | None = None  # in nanoseconds

    @property
    def content(self) -> bytes:
        assert self.data is not None
        return self.data

    def matches(self, found: "Entry | None") -> bool:
        return (
            found is not None
            and self.kind == found.kind
            and found.data in (self.data, None)
            and self.mode in (None, found.mode)
            and self.mtime in (None, found.mtime)
        )

    def __str__(self) -> str:
        data = self.data or b""
        runs = b" ".join(data[start : start + 1] for start in range(0, len(data), 1024))
        mode = "-" if self.mode is None else f"{self.mode:o}"
        return f"<{self.kind:o} {mode} {self.mtime} {len(data)} bytes, of each KiB one: {runs!r}>"


DIRECTORY = Entry(stat.S_IFDIR)
Tree = Mapping[str, Entry]
Group = Mapping[str, Entry | None]  # changes that come together; None: the name is gone


def with_directories(tree: Tree) -> dict[str, Entry]:
    """And those that are implied by what is in them. Where a file has the name of such a one its
    removal was lost, and hidden it is all the same."""
    result = dict(tree)
    for path in tree:
        above = path.rpartition("/")[0]
        while above:
            if above not in result or result[above].kind != stat.S_IFDIR:
                result[above] = DIRECTORY
            above = above.rpartition("/")[0]
    return result


def tree_of(store: MemoryStore) -> dict[str, Entry]:
    """The bucket as another host sees it."""
    found: dict[str, Entry] = {}
    for key, stored in store.objects.items():
        attributes = attributes_of(stored)
        kind = stat.S_IFMT(attributes.mode)
        data = b"" if kind == stat.S_IFDIR else stored.data
        mode = stat.S_IMODE(attributes.mode)
        found[key.rstrip("/")] = Entry(kind, data, mode, attributes.mtime_ns)
    return with_directories(found)


async def tree_shown(
    client: Client, path: str = "", *, may_be_stale: bool = False
) -> dict[str, Entry]:
    """The same through the mount. `may_be_stale`: bytes that answer ESTALE may be anything."""
    found: dict[str, Entry] = {}
    for name in await client.ls(path):
        below = f"{path}/{name}" if path else name
        shown = await client.stat(below)
        kind, mode = stat.S_IFMT(shown.attributes.mode), stat.S_IMODE(shown.attributes.mode)
        data: bytes | None = b""
        if kind == stat.S_IFDIR:
            found |= await tree_shown(client, below, may_be_stale=may_be_stale)
        else:
            link = kind == stat.S_IFLNK
            try:
                data = await (client.readlink(below) if link else client.read(below))
            except FilesystemError as error:
                if error.errno != errno.ESTALE or not may_be_stale:
                    raise
                data = None
        found[below] = Entry(kind, data, mode, shown.attributes.mtime_ns)
    return found


@dataclass
class Node:
    live: Entry
    closed: Entry | None = None  # what a close has left
    writers: int = 0
    dirty: bool = False

    def write(self, data: bytes) -> None:
        self.live = replace(self.live, data=data, mtime=None)
        self.dirty = True

    def close(self) -> None:
        self.closed, self.dirty = self.live, False


@dataclass(frozen=True)
class Operation:
    """`kept`: a close or an fsync: what it acknowledged is safe. `settles`: so is all before."""

    step: Step
    group: Group
    kept: bool
    settles: bool
    writing: frozenset[str]  # names of files that are being written when it is acknowledged
    early: bool = False  # it may be in the bucket before what came before it
    behind: bool = False  # a RELEASE, for whose bytes nobody waits


def _over(content: bytes, offset: int, data: bytes) -> bytes:
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]


class Ledger:
    """Of a script on a mount with that `durability`."""

    def __init__(self, steps: Sequence[Step], durability: str) -> None:
        self.durability = durability
        self._names: dict[str, Node] = {}
        self._open: dict[str, Node] = {}
        self._flushed: set[str] = set()
        self._behind: set[str] = set()
        self.operations = [self._operation(step) for step in steps]

    def _operation(self, step: Step) -> Operation:
        name, *arguments = step
        before = self._tree()
        kept = bool(getattr(self, f"_{name}")(*arguments))
        after = self._tree()
        changed = before.items() ^ after.items()
        group = {path: after.get(path) for path, _ in changed}
        behind = name == "close" and not kept
        closes = kept and name in ("write", "edit", "truncate", "flush", "close", "fsync")
        settles = name in ("drain", "fsyncdir") or (self.durability == "journal" and closes)
        if name in ("wait", "drain", "fsyncdir"):
            self._behind = set()
        writing = {path for path, node in self._names.items() if node.dirty}
        if behind:
            self._behind |= group.keys()
        writing |= self._behind
        early = name == "symlink" or behind
        return Operation(step, group, kept, settles, frozenset(writing), early, behind)

    def _tree(self) -> dict[str, Entry]:
        return {path: node.closed for path, node in self._names.items() if node.closed is not None}

    # -- what each operation does; True: it is kept

    def _node(self, path: str) -> Node:
        return self._names.setdefault(path, Node(Entry(stat.S_IFREG, b"", 0o644)))

    def _foreign(self, path: str, data: bytes) -> bool:
        self._names[path] = node = Node(Entry(stat.S_IFREG, data, 0o644))
        node.close()
        return True

    def _write(self, path: str, data: bytes, flags: int = 0) -> bool:
        node = self._node(path)
        node.write(node.live.content + data if flags & os.O_APPEND else data)
        node.close()
        return True

    def _edit(self, path: str, offset: int, data: bytes) -> bool:
        node = self._names[path]
        node.write(_over(node.live.content, offset, data))
        node.close()
        return True

    def _truncate(self, path: str, size: int) -> bool:
        node = self._names[path]
        node.write(node.live.content[:size].ljust(size, b"\0"))
        node.close()
        return True

    def _rename(self, old: str, new: str) -> None:
        moved = {
            path: node
            for path, node in self._names.items()
            if path == old or path.startswith(f"{old}/")
        }
        for path in moved:
            del self._names[path]
        for path, node in moved.items():
            self._names[new + path[len(old) :]] = node

    def _unlink(self, path: str) -> None:
        del self._names[path]

    _rmdir = _unlink

    def _symlink(self, path: str, target: bytes) -> None:
        self._names[path] = node = Node(Entry(stat.S_IFLNK, target))
        node.close()

    def _mkdir(self, path: str) -> None:
        self._names[path] = node = Node(DIRECTORY)
        node.close()

    def _change(self, path: str, **changes: int) -> None:
        node = self._names[path]
        node.live = replace(node.live, **changes)  # type: ignore[arg-type]
        if node.closed is not None:
            node.closed = replace(node.closed, **changes)  # type: ignore[arg-type]

    def _chmod(self, path: str, mode: int) -> None:
        self._change(path, mode=mode)

    def _utimens(self, path: str, mtime: int) -> None:
        self._change(path, mtime=mtime)

    def _open_(self, handle: str, path: str, flags: int = 0) -> None:
        node = self._open[handle] = self._node(path)
        if flags & os.O_TRUNC:
            node.write(b"")

    def _pwrite(self, handle: str, offset: int, data: bytes) -> None:
        node = self._open[handle]
        node.write(_over(node.live.content, offset, data))

    def _flush(self, handle: str) -> bool:
        """The first one: what is written afterwards is left to RELEASE (design.md, 4)."""
        self._flushed.add(handle)
        return self._fsync(handle)

    def _fsync(self, handle: str) -> bool:
        self._open[handle].close()
        return True

    def _close(self, handle: str) -> bool:
        node = self._open.pop(handle)
        kept = not (node.dirty and handle in self._flushed)
        node.close()
        return kept

    def _read(self, path: str) -> None:
        pass

    def _wait(self, seconds: float) -> None:
        pass

    def _drain(self) -> bool:
        return True

    def _fsyncdir(self) -> bool:
        return True

    # -- judging

    def writing(self, done: int) -> set[str]:
        """Names of files that may be half written then: something of them may be recoverable."""
        names = set(self.operations[done - 1].writing) if done else set()
        if done < len(self.operations):
            names |= self.operations[done].writing
            if self._may_write(self.operations[done]):
                names |= self.operations[done].group.keys()
        return names

    def _may_write(self, operation: Operation) -> bool:
        return operation.kept and operation.step[0] not in ("drain", "fsyncdir")

    def allowed(
        self, done: int, acknowledged: Sequence[int], commits: int
    ) -> Iterator[dict[str, Entry]]:
        """Trees that may be there when `done` operations were acknowledged, by the time of which
        the journal had `acknowledged` commits each, and `commits` of them are left."""
        floor = settled = 0
        for number, operation in enumerate(self.operations[:done]):
            if operation.settles or acknowledged[number] <= commits:
                floor = number + 1
            if operation.step[0] in ("wait", "drain", "fsyncdir"):
                settled = number
        droppable = [
            number
            for number, operation in enumerate(self.operations[:done])
            if (number >= floor and not operation.kept) or (operation.behind and number >= settled)
        ]
        pending = self.operations[done : done + 1]
        for lost in range(len(droppable) + 1):
            dropped = droppable[lost:]
            early = [n for n in dropped if self.operations[n].early]
            for there in _subsets(early):
                tree: dict[str, Entry] = {}
                for number in range(done):
                    if number not in dropped or number in there:
                        apply(tree, self.operations[number].group)
                yield with_directories(tree)
                for operation in pending:
                    for again in self._as_before(operation, done):
                        yield with_directories({**tree, **again})
                    apply(tree, operation.group)
                    yield with_directories(tree)

    def _as_before(self, operation: Operation, done: int) -> Iterator[dict[str, Entry]]:
        """What a file that is being closed was before it was unlinked or given other attributes.
        That is in the PUT as well (one request, no moment without either), and a cut in the
        middle of a close may leave neither the new bytes nor that."""
        lost = self.durability == "close" and self._may_write(operation)
        for path in operation.group if lost else ():
            for before in reversed(self.operations[:done]):
                if path in before.group:
                    entry = before.group[path]
                    if entry is not None:
                        yield {path: entry}
                    if before.step[0] not in ("unlink", "chmod", "utimens"):
                        break


def _subsets(numbers: Sequence[int]) -> Iterator[set[int]]:
    for bits in range(1 << len(numbers)):
        yield {number for at, number in enumerate(numbers) if bits >> at & 1}


def apply(tree: dict[str, Entry], group: Group) -> None:
    for path, entry in group.items():
        if entry is None:
            tree.pop(path, None)
        else:
            tree[path] = entry


def fits(tree: Tree, found: Tree) -> bool:
    return tree.keys() == found.keys() and all(
        entry.matches(found[path]) for path, entry in tree.items()
    )
