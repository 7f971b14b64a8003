"""Handles of directories: a stable cursor over a listing."""

from s3mount.namespace import DirectoryCursor, Inode


class DirHandle:
    """One opendir(2). A rewind (position 0) starts a new listing, as POSIX wants."""

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.cursor: DirectoryCursor | None = None
