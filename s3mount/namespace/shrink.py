"""The bound on inodes (ruling 6): the names used longest ago go first."""

from collections.abc import Callable

from s3mount.namespace.inode import NEVER, Directory, Inode
from s3mount.namespace.tree import Tree

KEEP = 0.9  # of the bound: so that not every new name makes one drop


def shrink(tree: Tree, limit: int, drop_name: Callable[[int, str], None] | None) -> int:
    """Drops names until `KEEP * limit` are left or none can go; returns how many went.

    What the kernel remembers cannot be dropped: `drop_name` is called for it, and it goes once the
    kernel has forgotten it. Pinned and local names stay.
    """
    excess = len(tree.table) - int(limit * KEEP)
    dropped = asked = 0
    for inode in _by_age(tree):
        directory = inode.directory
        if directory is None:
            continue
        for name, child in list(directory.entries.items()):
            if dropped + asked >= excess:
                return dropped
            if _is_needed(tree, directory, child):
                continue
            if child.lookups == 0:
                del directory.entries[name]
                directory.complete_at = directory.covered_at = NEVER
                tree.table.discard(child)
                child.detached = True
                dropped += 1
            elif drop_name is not None:
                drop_name(inode.number, name)
                asked += 1
    return dropped


def _by_age(tree: Tree) -> list[Inode]:
    directories = [
        inode for inode in tree.table if inode.directory is not None and inode.directory.entries
    ]
    directories.sort(key=lambda inode: inode.directory.used_at if inode.directory else NEVER)
    return directories


def _is_needed(tree: Tree, siblings: Directory, child: Inode) -> bool:
    if child.is_local or child.name in siblings.pins:
        return True
    directory = child.directory
    return directory is not None and bool(directory.entries or directory.pins)
