"""Small files read one after another in a directory: the next ones are fetched ahead."""

from collections import OrderedDict
from dataclasses import dataclass

from s3mount.filesystem.state import State
from s3mount.namespace import Inode
from s3mount.readpath import SiblingReadahead
from s3mount.store.base import ObjectInfo

# Directories whose reading order is remembered at a time: a few programs at once.
DIRECTORIES = 16


@dataclass(slots=True)
class _Order:
    """The files of a directory in the order of its listing."""

    revision: int
    count: int
    files: list[Inode]
    position: dict[int, int]  # by inode number
    readahead: SiblingReadahead


class Siblings:
    """Hears of each file opened for reading."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._last: OrderedDict[int, _Order | None] = OrderedDict()
        self._asked: dict[str, Inode] = {}
        state.readpath.on_info = self._answered

    def opened(self, inode: Inode) -> None:
        parent = inode.parent
        config = self.state.config.read
        if parent is None or inode.size > config.small_object or not config.sibling_window:
            return
        if parent.number not in self._last:
            # The first file of a directory tells nothing yet.
            self._last[parent.number] = None
            if len(self._last) > DIRECTORIES:
                self._last.popitem(last=False)
            return
        order = self._order(parent)
        position = order.position.get(inode.number)
        if position is None:
            return
        wanted = [
            order.files[i]
            for i in order.readahead.opened(position, len(order.files), self.state.clock())
        ]
        self._fetch([other for other in wanted if self._worth_it(other)])

    def _order(self, parent: Inode) -> _Order:
        self._last.move_to_end(parent.number)
        order = self._last[parent.number]
        directory = parent.directory
        if directory is None:
            raise ValueError("a parent that is no directory")
        if (
            order is None
            or order.revision != directory.revision
            or order.count != len(directory.entries)
        ):
            files = [other for other in directory.entries.values() if not other.is_directory]
            readahead = (
                SiblingReadahead(self.state.config.read.sibling_window)
                if order is None
                else order.readahead
            )
            order = _Order(
                directory.revision,
                len(directory.entries),
                files,
                {other.number: i for i, other in enumerate(files)},
                readahead,
            )
            self._last[parent.number] = order
        return order

    def _worth_it(self, inode: Inode) -> bool:
        version = inode.version
        return (
            version is not None
            and 0 < version.size <= self.state.config.read.small_object
            and not inode.is_pinned
            and inode not in self.state.open_files
        )

    def _fetch(self, inodes: list[Inode]) -> None:
        items = []
        for inode in inodes:
            if inode.version is not None:
                key = self.state.namespace.stored_at(inode)
                self._asked[key] = inode
                items.append((key, inode.version.size, inode.version.etag))
        if items:
            self.state.readpath.prefetch_whole(items)

    def _answered(self, info: ObjectInfo) -> None:
        """What the GET told of metadata and version spares the HEAD and the look at open."""
        inode = self._asked.pop(info.key, None)
        if inode is not None and not inode.detached and not inode.is_pinned:
            self.state.namespace.observe(inode, info)
