"""Changes of the tree: create, mkdir, symlink, mknod, unlink, rmdir.

Each method first awaits what must be known, then decides and changes without an await, then, if
asked to (--sync), waits for the bucket.
"""

import errno
import stat
from dataclasses import replace

from s3mount.core.errors import FilesystemError
from s3mount.core.keys import check_key, name_from_bytes
from s3mount.core.metadata import Attributes
from s3mount.filesystem.mutations import Mutations
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.state import State
from s3mount.filesystem.timestamps import now_ns
from s3mount.namespace import ABSENT, Inode
from s3mount.writeback.intents import Intent, Kind

PATH_MAX = 4096  # a symlink's target, including the NUL


class Names:
    def __init__(self, state: State, mutations: Mutations) -> None:
        self.state = state
        self.mutations = mutations

    def name(self, raw: bytes) -> str:
        """As it stands in keys. Raises EILSEQ, ENAMETOOLONG."""
        return name_from_bytes(raw, self.state.config.namespace.escape_names)

    async def find(self, parent: Inode, name: str) -> Inode | None:
        """The inode at that name, asking the bucket only if that is not known."""
        known = self.state.namespace.peek(parent, name)
        if known is ABSENT:
            return None
        if isinstance(known, Inode):
            return known
        try:
            return await self.state.namespace.lookup(parent, name)
        except FilesystemError as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    async def vacant(self, parent: Inode, name: str, *, directory: bool = False) -> None:
        """Raises EEXIST if the name is taken; ENAMETOOLONG, EROFS, ENOTDIR, ESTALE."""
        self.check_parent(parent)
        check_key(self.state.namespace.key(parent) + name + ("/" if directory else ""))
        if await self.find(parent, name) is not None:
            raise FilesystemError(errno.EEXIST)

    def check_parent(self, parent: Inode) -> None:
        if self.state.config.read_only:
            raise FilesystemError(errno.EROFS)
        if parent.directory is None:
            raise FilesystemError(errno.ENOTDIR)
        if parent.detached:
            raise FilesystemError(errno.ENOENT, "the directory was removed")

    # -- making --------------------------------------------------------------------------------

    async def mkdir(self, parent: Inode, name: str, mode: int, uid: int, gid: int) -> Inode:
        await self.vacant(parent, name, directory=True)
        attributes = self.new_attributes(parent, stat.S_IFDIR | stat.S_IMODE(mode), uid, gid)
        with self.mutations.change():
            self._still_vacant(parent, name)
            inode = self.state.namespace.add(parent, name, attributes, directory=True)
            if inode.is_pinned:
                self.mutations.hide_below(inode)
            self.touch(parent)
            intent = self.mutations.marker(inode)
        await self.mutations.settle(intent)
        return inode

    async def create(
        self, parent: Inode, name: str, attributes: Attributes, *, exclusive: bool
    ) -> OpenFile:
        """A new file that is not in the bucket yet; the caller opens or commits it.

        The name must be known to be vacant.
        """
        self._still_vacant(parent, name)
        inode = self.state.namespace.add(parent, name, attributes, directory=False)
        file = OpenFile(self.state, inode, new=True, exclusive=exclusive)
        self.state.open_files[inode] = file
        self.touch(parent)
        return file

    async def symlink(self, parent: Inode, name: str, target: bytes, uid: int, gid: int) -> Inode:
        if len(target) >= PATH_MAX:
            raise FilesystemError(errno.ENAMETOOLONG)
        await self.vacant(parent, name)
        attributes = self.new_attributes(parent, stat.S_IFLNK | 0o777, uid, gid)
        file = await self.create(parent, name, attributes, exclusive=False)
        try:
            await file.write(0, target)
            if file.spooled is not None and not file.spooled.in_memory:
                await file.spooled.sync()  # before a record names it
        except BaseException:
            self.detach(file.inode)
            raise
        await self.mutations.settle(self.mutations.put(file))
        return file.inode

    async def mknod(
        self, parent: Inode, name: str, mode: int, rdev: int, uid: int, gid: int
    ) -> Inode:
        if not stat.S_IFMT(mode):
            mode |= stat.S_IFREG
        await self.vacant(parent, name)
        attributes = self.new_attributes(parent, mode, uid, gid)
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            attributes = replace(attributes, rdev=rdev)
        file = await self.create(parent, name, attributes, exclusive=False)
        await self.mutations.settle(self.mutations.put(file))
        return file.inode

    def new_attributes(self, parent: Inode, mode: int, uid: int, gid: int) -> Attributes:
        """A set-group-id directory hands its group down, and to directories the bit as well."""
        above = parent.attributes
        if above is not None and above.mode & stat.S_ISGID:
            gid = above.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        now = now_ns()
        return Attributes(mode, uid, gid, now, now, now)

    def _still_vacant(self, parent: Inode, name: str) -> None:
        """Another task may have made the name while this one waited."""
        self.check_parent(parent)
        if isinstance(self.state.namespace.peek(parent, name), Inode):
            raise FilesystemError(errno.EEXIST)

    def touch(self, directory: Inode) -> None:
        """A name in it came or went. Stored with the next marker that is written anyway."""
        if directory.attributes is not None and self.state.config.update_parent_times:
            now = now_ns()
            directory.attributes = replace(directory.attributes, mtime_ns=now, ctime_ns=now)

    def touch_status(self, inode: Inode) -> None:
        """Its name changed, which POSIX counts as a change of its status. Stored as touch() is."""
        if inode.attributes is not None:
            inode.attributes = replace(inode.attributes, ctime_ns=now_ns())

    # -- removing ------------------------------------------------------------------------------

    async def unlink(self, parent: Inode, name: str) -> None:
        self.check_parent(parent)
        inode = await self.find(parent, name)
        if inode is None:
            raise FilesystemError(errno.ENOENT)
        if inode.directory is not None:
            raise FilesystemError(errno.EISDIR)
        await self.know_marker(parent)
        if inode.detached:
            raise FilesystemError(errno.ENOENT)
        with self.mutations.change():
            self.keep_implied(parent, inode)
            intent = self.detach(inode)
        await self.mutations.settle(intent)
        self.touch(parent)

    async def rmdir(self, parent: Inode, name: str) -> None:
        self.check_parent(parent)
        inode = await self.find(parent, name)
        if inode is None:
            raise FilesystemError(errno.ENOENT)
        if inode.directory is None:
            raise FilesystemError(errno.ENOTDIR)
        await self.know_marker(parent)
        await self.know_marker(inode)
        if not await self.state.namespace.is_empty(inode) or inode.directory.entries:
            raise FilesystemError(errno.ENOTEMPTY)
        if inode.detached:
            raise FilesystemError(errno.ENOENT)
        with self.mutations.change():
            self.keep_implied(parent, inode)
            intent = self.detach(inode)
        await self.mutations.settle(intent)
        self.touch(parent)

    async def know_marker(self, directory: Inode) -> None:
        """Whether the directory has a marker and what that says, if that is not known yet."""
        if directory.attributes is None:
            await self.state.namespace.attributes(directory)

    def keep_implied(self, parent: Inode, leaving: Inode) -> None:
        """A directory without a marker must not vanish with its last child: it gets one first.

        Children that were seen long ago may be gone by now: they do not keep it. Nor do files that
        were never closed, which a crash takes, and which other hosts do not see.
        """
        directory = parent.directory
        if parent.parent is None or directory is None or parent.version is not None:
            return
        last = self.mutations.last(parent)
        if last is not None and last.kind is not Kind.RENAME_TREE:
            return
        peek = self.state.namespace.peek
        if not any(
            other is not leaving and peek(parent, name) is other and self._is_sent(other)
            for name, other in directory.entries.items()
        ):
            self.mutations.marker(parent)

    def _is_sent(self, inode: Inode) -> bool:
        """In the bucket, or in the queue."""
        file = self.state.open_files.get(inode)
        return inode.version is not None or file is None or file.put is not None

    def detach(self, inode: Inode, *, overwritten: bool = False) -> Intent | None:
        """The inode loses its name; returns the DELETE of its objects, if it has any.

        `overwritten`: a rename puts another object under its key, which is not deleted then.
        """
        file = self.state.open_files.get(inode)
        reading = file is not None and bool(file.handles) and file.needs_remote
        intent = self.mutations.remove(inode, overwritten=overwritten, reading=reading)
        self.state.namespace.detach(inode)
        self.touch_status(inode)
        if file is not None:
            self._detach_file(file)
        return intent

    def _detach_file(self, file: OpenFile) -> None:
        file.detached()
        self.state.orphan(file)
        if not file.handles and file.put is None:
            self.mutations.close(file)
