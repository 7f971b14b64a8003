"""The kernel's requests: each callback is one FileSystem call and its reply.

pyfuse3 ends the mount on any exception but FUSEError, and a writer then goes on, silently, in
the directory underneath. So every handler is wrapped by `answered`: whatever happens in it, the
kernel gets an errno and the mount lives on.
"""

import errno
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from s3mount.core.posix_acl import ACLS
from s3mount.filesystem.filesystem import FileSystem
from s3mount.fuse.attributes import entry_attributes, statvfs_data, wanted_changes
from s3mount.fuse.errno import ORDINARY, cause_of, describe, errno_of, is_expected
from s3mount.fuse.seldom import Seldom

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Handler = Callable[Concatenate["Operations", P], Coroutine[Any, Any, R]]

# ESTALE of these is how the kernel is told to look a name up again (ruling 17), not a failure.
RETRIED_BY_KERNEL = frozenset({"lookup", "getattr", "open", "opendir", "setattr"})


def answered(handler: Handler[P, R]) -> Handler[P, R]:
    """Turns whatever `handler` raises into the FUSEError that the kernel is answered with.

    Errors of the file system are logged in one line, unexpected ones with their traceback.
    """
    name = handler.__name__

    @functools.wraps(handler)
    async def wrapper(self: "Operations", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception as raised:
            error = cause_of(raised)
            number = errno_of(error)
            if not is_expected(error):
                log.exception("%s failed unexpectedly", name)
            elif number in ORDINARY or (number == errno.ESTALE and name in RETRIED_BY_KERNEL):
                log.debug("%s: %s", name, describe(error, self.bucket))
            elif number == errno.EILSEQ:  # a program may ask for such names all the time
                self.unnameable.warning(f"{name}: {describe(error, self.bucket)}")
            else:
                log.warning("%s: %s", name, describe(error, self.bucket))
            raise FUSEError(number) from None

    return wrapper


DOTS = 2  # `.` and `..`, the entries that no file system call knows


class Operations(pyfuse3.Operations):
    """Handlers for one mounted FileSystem.

    `bucket` is for messages only. With `xattrs` off all xattr requests answer ENOSYS, the only
    answer that stops the kernel from asking for security.capability before every write.
    """

    supports_dot_lookup = False
    # Measured: with it SETATTR may arrive after UNLINK and large writes cost half as much again.
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, filesystem: FileSystem, bucket: str, *, xattrs: bool = False) -> None:
        super().__init__()
        self._filesystem = filesystem
        self.bucket = bucket
        self.unnameable = Seldom(log)
        self._xattrs = xattrs
        # Released by the kernel with a RELEASE each, by release_all() when the kernel is gone.
        self._open_files: set[int] = set()

    def init(self) -> None:
        """The kernel is there: from now on, not in a recovery before, it has names to forget."""
        self._filesystem.invalidate = invalidate_entry

    async def release_all(self, *, cut_off: bool) -> None:
        """Releases what the kernel never will: at umount it drops RELEASEs not yet read.

        `cut_off`: programs still had files open; what they wrote and did not close is not sent.
        """
        for handle in tuple(self._open_files):
            if cut_off and self._filesystem.cut_off(handle):
                continue
            try:
                await self.release(FileHandleT(handle))
            except FUSEError:
                continue  # already logged

    # --- names ---

    @answered
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return entry_attributes(await self._filesystem.lookup(parent_inode, name))

    @answered
    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        self._filesystem.forget(inode_list)

    @answered
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        stat = await self._filesystem.mknod(parent_inode, name, mode, rdev, ctx.uid, ctx.gid)
        return entry_attributes(stat)

    @answered
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        stat = await self._filesystem.mkdir(parent_inode, name, mode, ctx.uid, ctx.gid)
        return entry_attributes(stat)

    @answered
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        stat = await self._filesystem.symlink(parent_inode, name, target, ctx.uid, ctx.gid)
        return entry_attributes(stat)

    @answered
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(await self._filesystem.readlink(inode))

    @answered
    async def link(
        self,
        inode: InodeT,
        new_parent_inode: InodeT,
        new_name: FileNameT,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """S3 has no second name for an object, and a silent copy would be a lie."""
        raise FUSEError(errno.EOPNOTSUPP)

    @answered
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._filesystem.unlink(parent_inode, name)

    @answered
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._filesystem.rmdir(parent_inode, name)

    @answered
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        await self._filesystem.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    # --- attributes ---

    @answered
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return entry_attributes(await self._filesystem.getattr(inode))

    @answered
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """`fh` is None even for ftruncate (measured), so the inode alone decides."""
        changes = wanted_changes(fields, attr)
        return entry_attributes(await self._filesystem.setattr(inode, **changes))

    @answered
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        self._require_xattrs()
        return await self._filesystem.getxattr(inode, name)

    @answered
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        self._require_xattrs()
        await self._must_own_acl(inode, name, ctx)
        await self._filesystem.setxattr(inode, name, value)

    @answered
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        """Names in `trusted.` are for root alone, as xattr(7) has it."""
        self._require_xattrs()
        names = await self._filesystem.listxattr(inode)
        return [
            XAttrNameT(name) for name in names if not (ctx.uid and name.startswith(b"trusted."))
        ]

    @answered
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        self._require_xattrs()
        await self._must_own_acl(inode, name, ctx)
        await self._filesystem.removexattr(inode, name)

    async def _must_own_acl(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        """ACLs set the mode. Kernels before 6.2 check nothing where a file system stores them."""
        if ctx.uid and name.startswith(ACLS):
            found = await self._filesystem.getattr(inode)
            if found.attributes.uid != ctx.uid:
                raise FUSEError(errno.EPERM)

    def _require_xattrs(self) -> None:
        if not self._xattrs:
            raise FUSEError(errno.ENOSYS)

    @answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return statvfs_data(self._filesystem.statfs())

    # --- files ---

    @answered
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        handle, stat = await self._filesystem.create(
            parent_inode, name, mode, flags, ctx.uid, ctx.gid
        )
        self._open_files.add(handle)
        return FileInfo(fh=FileHandleT(handle)), entry_attributes(stat)

    @answered
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        result = await self._filesystem.open(inode, flags, ctx.uid, ctx.gid)
        self._open_files.add(result.handle)
        return FileInfo(fh=FileHandleT(result.handle), keep_cache=result.keep_cache)

    @answered
    async def read(  # type: ignore[override]  # a memoryview is passed on without a copy
        self, fh: FileHandleT, off: int, size: int
    ) -> bytes | memoryview:
        return await self._filesystem.read(fh, off, size)

    @answered
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self._filesystem.write(fh, off, buf)

    @answered
    async def flush(self, fh: FileHandleT) -> None:
        await self._filesystem.flush(fh)

    @answered
    async def release(self, fh: FileHandleT) -> None:
        self._open_files.discard(fh)
        await self._filesystem.release(fh)

    @answered
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._filesystem.fsync(fh, datasync)

    # --- directories ---

    @answered
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(await self._filesystem.opendir(inode))

    @answered
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Every entry that the kernel takes counts as a lookup (readdirplus is always on), but for
        `.` and `..`. Those come first, so that the file system's own positions are two less.
        """
        dots = () if start_id >= DOTS else self._filesystem.dots(fh)
        for number, stat in list(enumerate(dots, start=1))[start_id:]:
            attributes = entry_attributes(stat)
            if not pyfuse3.readdir_reply(token, FileNameT(b"." * number), attributes, number):
                return
        for entry in await self._filesystem.readdir(fh, max(0, start_id - DOTS)):
            attributes = entry_attributes(entry.stat)
            name = FileNameT(entry.name)
            if not pyfuse3.readdir_reply(token, name, attributes, entry.next_position + DOTS):
                break
            self._filesystem.acquire(entry.stat.number)

    @answered
    async def releasedir(self, fh: FileHandleT) -> None:
        await self._filesystem.releasedir(fh)

    @answered
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._filesystem.fsyncdir(fh)


def invalidate_entry(parent: int, name: bytes, deleted: int) -> None:
    """Makes the kernel forget a name; from a thread of pyfuse3, for it waits for requests."""
    pyfuse3.invalidate_entry_async(
        InodeT(parent), FileNameT(name), InodeT(deleted), ignore_enoent=True
    )
