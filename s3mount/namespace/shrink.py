"""The bound on inodes (ruling 6): the names used longest ago go first."""

from collections.abc import Callable, Iterable

from s3mount.namespace.cursor import DirectoryCursor
from s3mount.namespace.inode import LONGEST_REQUEST, NEVER, Directory, Inode
from s3mount.namespace.tree import Tree

KEEP = 0.9  # of the bound: so that not every new name makes one drop


def shrink(
    tree: Tree,
    limit: int,
    drop_name: Callable[[int, str], None] | None,
    cursors: Iterable[DirectoryCursor] = (),
) -> int:
    """Drops names until `KEEP * limit` are left or none can go; returns how many went.

    What the kernel remembers cannot be dropped: `drop_name` is called for it, and it goes once the
    kernel has forgotten it. Pinned and local names stay, what changed here of late (for what is
    not there then counts as removed), and what the cursors have still to show.
    """
    now = tree.clock()
    ahead: dict[Inode, set[str]] = {}
    for cursor in cursors:
        ahead.setdefault(cursor.inode, set()).update(cursor.ahead())
    excess = len(tree.table) - int(limit * KEEP)
    dropped = asked = 0
    for inode in _by_age(tree):
        directory = inode.directory
        if directory is None or inode.is_only_here:
            continue
        needed = ahead.get(inode, ())
        for name, child in list(directory.entries.items()):
            if dropped + asked >= excess:
                return dropped
            if name in needed or _is_needed(directory, child, now):
                continue
            if child.lookups == 0:
                del directory.entries[name]
                directory.complete_at = directory.covered_at = NEVER
                directory.dropped_at = now
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


def _is_needed(siblings: Directory, child: Inode, now: float) -> bool:
    if child.is_local or siblings.protects(child.name, now - LONGEST_REQUEST):
        return True
    directory = child.directory
    return directory is not None and bool(directory.entries or directory.pins)
