"""A file system in memory that knows what would survive a power cut: fsync decides.

The rules are ext4's, where they promise least:

- written bytes, sizes and truncations survive when the file was fsynced (or fdatasynced) after;
- a new name survives an fsync of its directory, or of the new file itself, with the directories
  above that are new as well;
- a rename or an unlink survives an fsync of (one of) its directories only;
- of what is volatile a cut keeps nothing (`drop`), or any part of it (`random`): each block of
  4 KiB written since the last fsync or not, the new size or the old one, and the changes of names
  up to some moment.
"""

import pickle
import random
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 4096
ROOT = 1


@dataclass(slots=True)
class Node:
    number: int
    mode: int
    data: bytearray = field(default_factory=bytearray)
    safe: bytearray = field(default_factory=bytearray)  # as of the last fsync
    dirty: set[int] = field(default_factory=set)  # blocks that may differ from `safe`
    names: dict[str, int] = field(default_factory=dict)
    safe_names: dict[str, int] = field(default_factory=dict)
    changed: int = field(default_factory=time.time_ns)
    opens: int = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class NameChange:
    """`number` leaves `old` (directory, name) and comes to `new`; None: made, removed."""

    number: int
    old: tuple[int, str] | None
    new: tuple[int, str] | None

    def touches(self, directory: int) -> bool:
        return any(place is not None and place[0] == directory for place in (self.old, self.new))


# What a cut leaves: path below the root -> (mode, bytes).
Image = dict[str, tuple[int, bytes]]


class VolatileDisk:
    def __init__(self, image: Image | None = None) -> None:
        self.nodes = {ROOT: Node(ROOT, stat.S_IFDIR | 0o755)}
        self._next = ROOT + 1
        self._log: list[NameChange] = []
        self.syncs = 0
        for path, (mode, data) in sorted((image or {}).items()):
            parent = ROOT
            *above, name = path.split("/")
            for each in above:
                parent = self.nodes[parent].names[each]
            node = self._new(mode)
            node.data, node.safe = bytearray(data), bytearray(data)
            self.nodes[parent].names[name] = self.nodes[parent].safe_names[name] = node.number

    def _new(self, mode: int) -> Node:
        node = Node(self._next, mode)
        self.nodes[node.number] = node
        self._next += 1
        return node

    # -- names

    def make(self, parent: int, name: str, mode: int) -> Node:
        """Raises FileExistsError."""
        names = self.nodes[parent].names
        if name in names:
            raise FileExistsError(name)
        node = self._new(mode)
        names[name] = node.number
        self._log.append(NameChange(node.number, None, (parent, name)))
        return node

    def remove(self, parent: int, name: str) -> None:
        number = self.nodes[parent].names.pop(name)
        self._log.append(NameChange(number, (parent, name), None))

    def rename(self, old: tuple[int, str], new: tuple[int, str]) -> None:
        number = self.nodes[old[0]].names.pop(old[1])
        self.nodes[new[0]].names[new[1]] = number
        self._log.append(NameChange(number, old, new))

    def is_safe(self, prefix: str) -> bool:
        """Whether nothing is volatile of the bytes of all files whose names begin so."""
        named = (
            self.nodes[number]
            for node in self.nodes.values()
            for name, number in node.names.items()
            if name.startswith(prefix)
        )
        return not any(node.dirty or len(node.data) != len(node.safe) for node in named)

    def name_of(self, number: int) -> str | None:
        names = (item for node in self.nodes.values() for item in node.names.items())
        return next((name for name, named in names if named == number), None)

    # -- bytes

    def write(self, number: int, offset: int, data: bytes) -> None:
        node = self.nodes[number]
        end = offset + len(data)
        if offset > len(node.data):
            self.truncate(number, offset)
        node.data[offset:end] = data
        node.dirty.update(range(offset // BLOCK, -(-end // BLOCK)))
        node.changed = time.time_ns()

    def truncate(self, number: int, size: int) -> None:
        node = self.nodes[number]
        old = len(node.data)
        if size < old:
            del node.data[size:]
        else:
            node.data.extend(bytes(size - old))
        node.dirty.update(range(min(size, old) // BLOCK, -(-max(size, old) // BLOCK)))
        node.changed = time.time_ns()

    # -- what survives

    def sync_file(self, number: int) -> None:
        self.syncs += 1
        node = self.nodes[number]
        _take(node, node.dirty, len(node.data))
        node.dirty.clear()
        self._sync_birth(number)

    def _sync_birth(self, number: int) -> None:
        """The name that a new file was made with, and those of new directories above."""
        for change in list(self._log):
            if change.number == number and change.old is None and change.new is not None:
                self._log.remove(change)
                self._make_safe(change)
                self._sync_birth(change.new[0])

    def sync_directory(self, number: int) -> None:
        self.syncs += 1
        kept = []
        for change in self._log:
            if change.touches(number):
                self._make_safe(change)
            else:
                kept.append(change)
        self._log = kept
        self._sync_birth(number)
        self._forget_nodes()

    def _make_safe(self, change: NameChange) -> None:
        if change.old is not None:
            names = self.nodes[change.old[0]].safe_names
            # Another file may be safe under that name already.
            if names.get(change.old[1]) == change.number:
                del names[change.old[1]]
        if change.new is not None:
            self.nodes[change.new[0]].safe_names[change.new[1]] = change.number

    def _forget_nodes(self) -> None:
        """Files that no name leads to any more, now or after a cut, give their memory back."""
        used = {ROOT, *(change.number for change in self._log)}
        for node in self.nodes.values():
            used.update(node.names.values(), node.safe_names.values())
            if node.opens or node.is_directory:
                used.add(node.number)
        for number in self.nodes.keys() - used:
            del self.nodes[number]

    def cut(self, chance: random.Random | None) -> Image:
        """What is left after a power cut: with `chance` any part of what is volatile as well."""
        if chance is not None:
            for change in self._log[: chance.randrange(len(self._log) + 1)]:
                self._make_safe(change)
            for node in self.nodes.values():
                kept = {block for block in sorted(node.dirty) if chance.random() < 0.5}
                _take(node, kept, chance.choice((len(node.safe), len(node.data))))
        return self._image(ROOT, "", safe=True)

    def whole(self) -> Image:
        """After an orderly unmount everything is left."""
        return self._image(ROOT, "", safe=False)

    def _image(self, number: int, above: str, *, safe: bool) -> Image:
        image: Image = {}
        node = self.nodes[number]
        for name, child in (node.safe_names if safe else node.names).items():
            found = self.nodes[child]
            image[above + name] = (found.mode, bytes(found.safe if safe else found.data))
            if found.is_directory:
                image |= self._image(child, f"{above}{name}/", safe=safe)
        return image


def _take(node: Node, blocks: set[int], size: int) -> None:
    """Blocks of `data` become safe, and the size."""
    safe = node.safe
    if len(safe) > size:
        del safe[size:]
    safe.extend(bytes(size - len(safe)))
    for block in blocks:
        begin, end = block * BLOCK, min((block + 1) * BLOCK, len(node.data), size)
        if begin < end:
            safe[begin:end] = node.data[begin:end]


def save(image: Image, path: Path) -> None:
    path.write_bytes(pickle.dumps(image))


def load(path: Path) -> Image:
    image: Image = pickle.loads(path.read_bytes())
    return image
