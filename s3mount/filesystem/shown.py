"""From inodes to what a program sees: sizes, times, permissions, how long it may be believed."""

import stat

from s3mount.core.metadata import Attributes, shown
from s3mount.filesystem.stat import Stat
from s3mount.filesystem.state import State
from s3mount.namespace import DirectoryEntry, Inode

SECTOR = 512  # the unit of st_blocks


class StatBuilder:
    def __init__(self, state: State) -> None:
        self.state = state
        self._defaults = state.config.defaults
        self._ttl = state.config.namespace.metadata_ttl

    def stat(self, inode: Inode, attributes: Attributes, *, certain: bool = True) -> Stat:
        file = self.state.open_files.get(inode)
        size = file.size if file is not None else inode.size
        timeout = self._timeout(inode) if certain else 0.0
        seen = shown(attributes, self._defaults)
        if inode.parent is None and self._defaults.root_mode is not None:
            mode = stat.S_IFMT(seen.mode) | self._defaults.root_mode
            seen = Attributes(mode, seen.uid, seen.gid, seen.mtime_ns, seen.ctime_ns, seen.atime_ns)
        return Stat(
            number=inode.number,
            attributes=seen,
            size=size,
            nlink=0 if inode.detached else 1,
            blocks=-(-size // SECTOR),
            entry_timeout=timeout,
            attr_timeout=timeout,
        )

    def listed(self, entry: DirectoryEntry) -> Stat:
        inode = entry.inode
        attributes = inode.attributes
        if attributes is None:
            attributes = self.state.namespace.provisional(inode)
        return self.stat(inode, attributes, certain=entry.certain)

    def _timeout(self, inode: Inode) -> float:
        """What others may change is believed for metadata-ttl from when it was asked for."""
        if inode.detached:
            return 0.0
        if inode.is_pinned or inode.is_local or inode in self.state.open_files:
            return self._ttl
        return min(self._ttl, max(0.0, inode.seen_at + self._ttl - self.state.clock()))
