"""The reference: a file system as plain objects in memory, as POSIX and semantics.md want it."""

import errno
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.model.mounted import GID, UID


class Refused(Exception):
    """The operation fails with `errno`."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


@dataclass(eq=False)
class Node:
    """A file, directory, symlink or special file; `mode` with its type bits.

    mtime: None until it was seen or set. marker: the bucket must hold a directory's own object.
    foreign: metadata and headers that others gave it and that must survive.
    largest: the size that it ever had: what was large may not have fit the spool.
    replaced: others have put another object in its place: handles read it as it was, or ESTALE.
    """

    mode: int
    uid: int = UID
    gid: int = GID
    content: bytearray = field(default_factory=bytearray)  # of a symlink its target
    rdev: int = 0
    mtime: int | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: "dict[str, Node]" = field(default_factory=dict)
    linked: bool = True
    marker: bool = True
    foreign: dict[str, str] = field(default_factory=dict)
    content_type: str | None = None
    replaced: bool = False
    largest: int = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    def write(self, offset: int, data: bytes) -> None:
        if offset > len(self.content):
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset : offset + len(data)] = data
        self.largest = max(self.largest, len(self.content))
        self.mtime = None

    def truncate(self, size: int) -> None:
        """Also to the size that it has: the times change."""
        self.largest = max(self.largest, len(self.content), size)
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))
        self.mtime = None

    def touched(self) -> None:
        """A name in this directory came or went."""
        self.mtime = None


@dataclass(eq=False)
class Handle:
    number: int  # the file system's
    node: Node
    flags: int


class Tree:
    """The names. Paths have no leading slash; '' is the root."""

    def __init__(self) -> None:
        self.root = Node(stat.S_IFDIR | 0o755, marker=False)

    def find(self, path: str) -> Node:
        node = self.root
        for name in filter(None, path.split("/")):
            if not node.is_directory:
                raise Refused(errno.ENOTDIR)
            if name not in node.children:
                raise Refused(errno.ENOENT)
            node = node.children[name]
        return node

    def get(self, path: str) -> Node | None:
        try:
            return self.find(path)
        except Refused:
            return None

    def parent(self, path: str) -> tuple[Node, str]:
        above, _, name = path.rpartition("/")
        return self.find(above), name

    def walk(self) -> Iterator[tuple[str, Node]]:
        """All but the root, parents first, in order of names."""
        pending = [("", self.root)]
        while pending:
            path, node = pending.pop()
            if node is not self.root:
                yield path, node
            for name in sorted(node.children, reverse=True):
                pending.append((f"{path}/{name}" if path else name, node.children[name]))

    def paths(self, *, files: bool = False, directories: bool = False) -> list[str]:
        return [
            path
            for path, node in self.walk()
            if (files and node.is_file) or (directories and node.is_directory)
        ]

    # -- changes, each with the errors that the file system must give

    def add(self, path: str, node: Node) -> Node:
        parent, name = self.parent(path)
        if name in parent.children:
            raise Refused(errno.EEXIST)
        parent.children[name] = node
        parent.touched()
        return node

    def unlink(self, path: str) -> Node:
        parent, name = self.parent(path)
        node = self.find(path)
        if node.is_directory:
            raise Refused(errno.EISDIR)
        self._remove(parent, name)
        return node

    def rmdir(self, path: str) -> None:
        parent, name = self.parent(path)
        node = self.find(path)
        if not node.is_directory:
            raise Refused(errno.ENOTDIR)
        if node.children:
            raise Refused(errno.ENOTEMPTY)
        self._remove(parent, name)

    def _remove(self, parent: Node, name: str) -> None:
        parent.children.pop(name).linked = False
        parent.touched()

    def rename(self, old: str, new: str, *, replace: bool) -> None:
        old_parent, old_name = self.parent(old)
        new_parent, new_name = self.parent(new)
        node = self.find(old)
        target = new_parent.children.get(new_name)
        if target is node:
            return
        if node.is_directory and f"{new}/".startswith(f"{old}/"):
            raise Refused(errno.EINVAL)
        if target is not None:
            if not replace:
                raise Refused(errno.EEXIST)
            if node.is_directory != target.is_directory:
                raise Refused(errno.ENOTDIR if node.is_directory else errno.EISDIR)
            if target.children:
                raise Refused(errno.ENOTEMPTY)
            self._remove(new_parent, new_name)
        del old_parent.children[old_name]
        new_parent.children[new_name] = node
        old_parent.touched()
        new_parent.touched()
