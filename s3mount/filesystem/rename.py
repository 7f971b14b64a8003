"""rename(2), of files and of directories of any size."""

import errno

from s3mount.core.errors import FilesystemError
from s3mount.core.keys import check_key
from s3mount.filesystem.mutations import Mutations
from s3mount.filesystem.names import Names
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.state import State
from s3mount.namespace import Inode
from s3mount.writeback.intents import ABSENT, Expected, Intent, Kind

# As renameat2(2) has them.
NOREPLACE = 1
EXCHANGE = 2


class Rename:
    def __init__(self, state: State, mutations: Mutations, names: Names) -> None:
        self.state = state
        self.mutations = mutations
        self.names = names

    async def rename(
        self, old_parent: Inode, old_name: str, new_parent: Inode, new_name: str, flags: int
    ) -> None:
        """Returns once recorded, whatever the size; the bucket follows."""
        if flags & ~NOREPLACE:
            raise FilesystemError(errno.EINVAL, "only RENAME_NOREPLACE is known")
        self.names.check_parent(old_parent)
        self.names.check_parent(new_parent)
        inode = await self.names.find(old_parent, old_name)
        if inode is None:
            raise FilesystemError(errno.ENOENT)
        target = await self.names.find(new_parent, new_name)
        if target is inode:
            return
        await self._check(inode, target, new_parent, flags)
        await self.names.know_marker(old_parent)
        if inode.directory is not None:
            await self.names.know_marker(inode)
        elif inode.attributes is None:
            await self.state.namespace.attributes(inode)
        check_key(
            self.state.namespace.key(new_parent) + new_name + ("/" if inode.directory else "")
        )
        await self._publish_dropped(inode)
        # From here on without an await: what was found must still stand.
        if inode.detached or inode.parent is not old_parent or inode.name != old_name:
            raise FilesystemError(errno.ENOENT)
        if target is not None and target.detached:
            target = None
        with self.mutations.change():
            self.names.keep_implied(old_parent, inode)
            intents = self._move(inode, target, new_parent, new_name)
            for file in self._files_in(inode):
                file.records.renamed()
                self.state.drafts.changed(file)
        self.names.touch(old_parent)
        self.names.touch(new_parent)
        await self.mutations.settle(*intents)

    async def _publish_dropped(self, inode: Inode) -> None:
        """Bytes that left a full spool are only in an unfinished upload, which is bound to the old
        name. That may get another object once it is free, so the upload is completed before.
        """
        for file in self._files_in(inode):
            if not file.inode.detached:
                await file.publish_if_dropped(0, file.size)

    def _files_in(self, inode: Inode) -> list[OpenFile]:
        """The state of the file, or of all open files below the directory."""
        if inode.directory is None:
            file = self.state.open_files.get(inode)
            return [] if file is None else [file]
        return [
            file
            for file in self.state.open_files.values()
            if file.inode.parent is not None and _below(file.inode.parent, inode)
        ]

    async def _check(
        self, inode: Inode, target: Inode | None, new_parent: Inode, flags: int
    ) -> None:
        if inode.directory is not None and _below(new_parent, inode):
            raise FilesystemError(errno.EINVAL, "a directory cannot move into itself")
        if target is None:
            return
        if flags & NOREPLACE:
            raise FilesystemError(errno.EEXIST)
        if target.directory is None:
            if inode.directory is not None:
                raise FilesystemError(errno.ENOTDIR)
            return
        if inode.directory is None:
            raise FilesystemError(errno.EISDIR)
        if not await self.state.namespace.is_empty(target) or target.directory.entries:
            raise FilesystemError(errno.ENOTEMPTY)

    def _move(
        self, inode: Inode, target: Inode | None, new_parent: Inode, new_name: str
    ) -> list[Intent | None]:
        namespace = self.state.namespace
        old_key = namespace.key(inode)
        old_place = (_parent(inode), inode.name)
        file = self.state.open_files.get(inode)
        intents: list[Intent | None] = []
        replaces = False
        expects: Expected | None = ABSENT
        if target is not None:
            expects = None
            if target.version is not None and self.mutations.last(target) is None:
                expects = target.version.etag
            replaced = self.state.open_files.get(target)
            replaces = (
                target.version is not None
                or self.mutations.last(target) is not None
                or (replaced is not None and replaced.replaces)
            )
            intents.append(self.names.detach(target, overwritten=self._overwrites(inode)))
        stamp = namespace.move(inode, new_parent, new_name)
        self.names.touch_status(inode)
        new_key = namespace.key(inode)
        if inode.directory is not None:
            tree = self.mutations.move_tree(
                inode, old_key, new_key, old_place, stamp, replaces=replaces
            )
            return [*intents, tree]
        unsent_over = file is not None and file.replaces and file.put is None
        if file is not None:
            file.renamed(replaces=replaces)
        moved = self.mutations.move(inode, old_key, new_key, old_place, replaces=replaces)
        if moved is not None:
            moved.expects = expects
            self.state.books.update(moved)
        if moved is None and unsent_over:
            # It had taken this name from another file, whose object is still there.
            intents.append(self.mutations.discard(old_key, old_place))
        if moved is None and file is not None and file.dirty and not file.handles:
            moved = self.mutations.send_behind(file)
        intents.append(moved)
        return intents

    def _overwrites(self, inode: Inode) -> bool:
        """Whether an object comes to stand at the new key: an implied directory has none.

        If that is not sure: no. The delete comes before the rename then, and does no harm.
        """
        last = self.mutations.last(inode)
        if inode.directory is None or (last is not None and last.kind is not Kind.RENAME_TREE):
            return True
        return inode.marker is not None and inode.marker.endswith("/")


def _below(directory: Inode, ancestor: Inode) -> bool:
    current: Inode | None = directory
    while current is not None:
        if current is ancestor:
            return True
        current = current.parent
    return False


def _parent(inode: Inode) -> Inode:
    if inode.parent is None:
        raise FilesystemError(errno.EBUSY, "the root cannot be renamed")
    return inode.parent
