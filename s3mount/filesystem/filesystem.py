"""FileSystem: the facade that FUSE, the control socket and the model test use.

Inode numbers and handles are ints, names are bytes. Errors are FilesystemError and StoreError.
Every coroutine may be called from many tasks at once.
"""

import contextlib
import errno
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.keys import name_to_bytes
from s3mount.core.metadata import Attributes
from s3mount.filesystem.attributes import AttributeChanges
from s3mount.filesystem.dir_handle import DirHandle
from s3mount.filesystem.files import Files
from s3mount.filesystem.leaving import Leaving
from s3mount.filesystem.mutations import Mutations
from s3mount.filesystem.names import Names
from s3mount.filesystem.recovering import Recovering
from s3mount.filesystem.rename import Rename
from s3mount.filesystem.shown import StatBuilder
from s3mount.filesystem.stat import Change, DirEntry, OpenResult, Pending, Stat, StatFs
from s3mount.filesystem.state import Invalidate, State
from s3mount.filesystem.status import describe
from s3mount.namespace import DirectoryEntry, Inode
from s3mount.writeback.journal_records import JournalContents

# What df shows as a block; sizes are multiples of it.
BLOCK_SIZE = 1024 * 1024
# What waits for the bucket looks so often for intents that followed from those it waited for:
# attributes set during a PUT, bytes written during it.
FOLLOWERS = 3
# A lookup that loses a race against another host looks again, so often.
LOOKS = 5


class FileSystem:
    """One mounted bucket. `run` must be active while anything else is called."""

    def __init__(
        self, state: State, mutations: Mutations, left: JournalContents | None = None
    ) -> None:
        """`left`: what an earlier mount left in the journal."""
        self.state = state
        self.mutations = mutations
        self.recovering = Recovering(state, mutations, left or JournalContents())
        self._names = Names(state, mutations)
        self._files = Files(state, mutations, self._names)
        self._rename = Rename(state, mutations, self._names)
        self._attributes = AttributeChanges(state, mutations)
        self._stats = StatBuilder(state)
        self._leaving = Leaving(state, mutations)
        self._directories: dict[int, DirHandle] = {}
        self._numbers = itertools.count(1)

    # -- inodes --------------------------------------------------------------------------------

    def inode(self, number: int) -> Inode:
        """Raises ESTALE for a number that was forgotten."""
        return self.state.namespace.inodes[number]

    async def lookup(self, parent: int, name: bytes) -> Stat:
        directory = self.inode(parent)
        inode, attributes = await self._find(directory, self._names.name(name))
        self.state.namespace.inodes.acquire(inode)
        return self._stats.stat(inode, attributes)

    async def _find(self, parent: Inode, name: str) -> tuple[Inode, Attributes]:
        """If what is asked for its attributes turns out to be another version, looks again."""
        for _ in range(LOOKS):
            inode = await self.state.namespace.lookup(parent, name)
            try:
                attributes = await self._attributes.known(inode)
            except FilesystemError as error:
                if error.errno != errno.ESTALE or not inode.detached:
                    raise
            if not inode.detached:
                return inode, attributes
        raise FilesystemError(errno.ESTALE, f"{name!r} is replaced again and again")

    def acquire(self, number: int) -> None:
        """The kernel holds one more reference (an entry it took from readdir)."""
        self.state.namespace.inodes.acquire(self.inode(number))

    def forget(self, pairs: Sequence[tuple[int, int]]) -> None:
        for number, count in pairs:
            self.state.namespace.inodes.forget(number, count)

    async def getattr(self, number: int) -> Stat:
        inode = self.inode(number)
        return self._stats.stat(inode, await self._attributes.known(inode))

    async def setattr(
        self,
        number: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        ctime_ns: int | None = None,
    ) -> Stat:
        inode = self.inode(number)
        if size is not None:
            await self._files.truncate(inode, size)
        # Nothing at all is chown(2) to the owner and group that it has: only ctime changes.
        if size is None or any(value is not None for value in (mode, uid, gid, atime_ns, mtime_ns)):
            await self._attributes.change(
                inode,
                mode=mode,
                uid=uid,
                gid=gid,
                atime_ns=atime_ns,
                mtime_ns=mtime_ns,
                ctime_ns=ctime_ns,
            )
        return await self.getattr(number)

    async def readlink(self, number: int) -> bytes:
        return await self._files.read_link(self.inode(number))

    # -- names ---------------------------------------------------------------------------------

    async def mkdir(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Stat:
        inode = await self._names.mkdir(self.inode(parent), self._names.name(name), mode, uid, gid)
        return self._new(inode)

    async def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> Stat:
        inode = await self._names.symlink(
            self.inode(parent), self._names.name(name), target, uid, gid
        )
        return self._new(inode)

    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, uid: int, gid: int
    ) -> Stat:
        inode = await self._names.mknod(
            self.inode(parent), self._names.name(name), mode, rdev, uid, gid
        )
        return self._new(inode)

    async def unlink(self, parent: int, name: bytes) -> None:
        await self._names.unlink(self.inode(parent), self._names.name(name))

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self._names.rmdir(self.inode(parent), self._names.name(name))

    async def rename(
        self, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        await self._rename.rename(
            self.inode(old_parent),
            self._names.name(old_name),
            self.inode(new_parent),
            self._names.name(new_name),
            flags,
        )

    # -- files ---------------------------------------------------------------------------------

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, uid: int, gid: int
    ) -> tuple[int, Stat]:
        handle, inode = await self._files.create(
            self.inode(parent), self._names.name(name), mode, flags, uid, gid
        )
        return handle, self._new(inode)

    async def open(self, number: int, flags: int, uid: int = 0, gid: int = 0) -> OpenResult:
        # A new version is a new inode, so what the kernel has cached of this one stays right.
        handle = await self._files.open(self.inode(number), flags, uid, gid)
        return OpenResult(handle, keep_cache=True)

    async def read(self, handle: int, offset: int, length: int) -> bytes | memoryview:
        return await self._files.read(handle, offset, length)

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        return await self._files.write(handle, offset, data)

    async def flush(self, handle: int) -> None:
        await self._files.flush(handle)

    async def release(self, handle: int) -> None:
        """Never waits for the network."""
        self._files.release(handle)

    async def fsync(self, handle: int, datasync: bool) -> None:
        """datasync makes no difference: bytes and metadata are one object."""
        await self._files.fsync(handle)

    # -- directories ---------------------------------------------------------------------------

    async def opendir(self, number: int) -> int:
        inode = self.inode(number)
        if inode.directory is None:
            raise FilesystemError(errno.ENOTDIR)
        handle = next(self._numbers)
        self._directories[handle] = DirHandle(inode)
        return handle

    def dots(self, handle: int) -> tuple[Stat, Stat]:
        """What `.` and `..` are, as far as it is known."""
        inode = self._directories[handle].inode
        above = inode if inode.parent is None else inode.parent
        own, parent = (
            self._stats.listed(DirectoryEntry(one.name, one, 0, False)) for one in (inode, above)
        )
        return own, parent

    async def readdir(self, handle: int, position: int) -> Iterable[DirEntry]:
        """Entries after `position`, none at the end; not acquired (see acquire).

        Each is made as it is taken: the kernel takes about 25 at a time.
        """
        directory = self._directories[handle]
        if directory.cursor is None or position == 0:
            directory.cursor = self.state.namespace.open_directory(directory.inode)
        escape = self.state.config.namespace.escape_names
        entries = await directory.cursor.read(position)
        return (
            DirEntry(
                name_to_bytes(entry.name, escape), self._stats.listed(entry), entry.next_position
            )
            for entry in entries
        )

    async def releasedir(self, handle: int) -> None:
        self._directories.pop(handle, None)

    async def fsyncdir(self, handle: int) -> None:
        """Every change of names in this directory, and below it, is in S3, and after a power cut
        nothing that came before it is done again."""
        inode = self._directories[handle].inode
        prefix = self.state.namespace.key(inode)
        await self._leaving.all_in_queue(prefix)
        for _ in range(FOLLOWERS):
            await self.mutations.wait(self.state.queue.unfinished(prefix))
        await self.state.books.sync()

    # -- extended attributes -------------------------------------------------------------------

    async def getxattr(self, number: int, name: bytes) -> bytes:
        return await self._attributes.get_xattr(self.inode(number), name)

    async def setxattr(self, number: int, name: bytes, value: bytes) -> None:
        await self._attributes.set_xattr(self.inode(number), name, value)

    async def removexattr(self, number: int, name: bytes) -> None:
        await self._attributes.remove_xattr(self.inode(number), name)

    async def listxattr(self, number: int) -> list[bytes]:
        return await self._attributes.list_xattrs(self.inode(number))

    # -- the whole -----------------------------------------------------------------------------

    def statfs(self) -> StatFs:
        """Never touches the network: a bucket has no size, so this is a size to work with."""
        blocks = self.state.config.statfs_bytes // BLOCK_SIZE
        return StatFs(BLOCK_SIZE, blocks, blocks, 2**40, 2**40, 255)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Background tasks, until cancelled."""
        async with trio.open_nursery() as nursery:
            self.state.nursery = nursery
            await nursery.start(self.state.namespace.run)
            await nursery.start(self.state.readpath.run)
            await nursery.start(self.state.uploader.run)
            await nursery.start(self.state.journal.run)
            await nursery.start(self.state.books.run)
            if self.state.journal.durable:
                await nursery.start(self.state.drafts.run)
            await nursery.start(self.state.queue.run)
            nursery.start_soon(self.recovering.uploads.run)
            task_status.started()

    async def recover(self) -> Recovering:
        """Takes up what an earlier mount left in the journal: then the names and bytes are those
        that were acknowledged, and what the bucket lacks is on its way. To be called once, when
        `run` is active and before anything else is. Sends requests in the background only."""
        await self.recovering.recover(self.drain)
        return self.recovering

    def pending(self) -> Pending:
        return self._leaving.pending()

    def left(self) -> list[str]:
        """What is pending, by name."""
        return self._leaving.left()

    @property
    def durable(self) -> bool:
        """Whether what is pending survives this process, in the journal."""
        return self.state.journal.durable

    def cut_off(self, handle: int) -> bool:
        """The program that has it open cannot go on. True: it was writing, and what it wrote is
        recorded as that of a file never closed, which is not sent. False: release it."""
        return self._files.cut_off(handle)

    async def drain(
        self, timeout: float | None, progress: Callable[[Pending], None] | None = None
    ) -> Pending:
        """Sends all that is pending; returns what is left after `timeout` seconds."""
        return await self._leaving.drain(timeout, progress)

    async def flush_all(self) -> None:
        """Everything that was acknowledged is in S3 when this returns; else it raises."""
        await self._leaving.flush_all()

    def pending_at(self, path: str) -> list[Change]:
        """What is pending for `path` (relative to the mount point); raises ENOENT: nothing."""
        return self._leaving.pending_at(path)

    async def cancel(self, path: str) -> list[Change]:
        """Gives up what is pending for `path` (relative to the mount point); says what."""
        return self._leaving.cancel(path)

    async def retry(self, path: str) -> list[Change]:
        """Tries at once what is pending for `path`, all for an empty one; says what."""
        return await self._leaving.retry(path)

    def status(self) -> dict[str, Any]:
        """JSON-able: queue, transfers, errors, request counts, caches."""
        return describe(self.state) | {"recovery": self.recovering.report()}

    @property
    def invalidate(self) -> Invalidate | None:
        """Tells the kernel to drop a name; set by the FUSE layer."""
        return self.state.invalidate

    @invalidate.setter
    def invalidate(self, callback: Invalidate | None) -> None:
        self.state.invalidate = callback
        namespace = self.state.namespace
        escape = self.state.config.namespace.escape_names
        namespace.drop_names = (
            None
            if callback is None
            else lambda parent, name: callback(parent, name_to_bytes(name, escape), 0)
        )

    async def aclose(self) -> None:
        await self.state.namespace.aclose()
        with contextlib.suppress(FilesystemError):  # said by the journal, and they stay
            await self.state.books.sync()  # gives chunk files back that waited for it
        await self.state.journal.aclose()
        self.state.spool.close(self.recovering.needed)
        await self.state.store.aclose()

    def _new(self, inode: Inode) -> Stat:
        self.state.namespace.inodes.acquire(inode)
        if inode.attributes is None:
            raise FilesystemError(errno.EIO, "a new inode without attributes")
        return self._stats.stat(inode, inode.attributes)
