"""open, create, read, write, flush, release, fsync: the life of file handles."""

import contextlib
import errno
import itertools
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import trio

from s3mount.core.errors import FilesystemError
from s3mount.filesystem.handle import FileHandle
from s3mount.filesystem.mutations import Mutations
from s3mount.filesystem.names import Names
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.siblings import Siblings
from s3mount.filesystem.state import State
from s3mount.filesystem.writing import room_to_begin
from s3mount.namespace import Inode
from s3mount.store.base import ObjectInfo
from s3mount.store.errors import (
    AccessDenied,
    Archived,
    NotFound,
    StoreError,
)
from s3mount.store.parallel import side_by_side
from s3mount.writeback.intents import Kind

log = logging.getLogger(__name__)

# An answer asked for less than this before the open counts as asked for by it (design.md 17).
FRESH = 1.0
# What is about to be thrown away is sent before, if other changes wait for that and it takes no
# longer than this.
LAST_CHANCE = 5.0


class Files:
    def __init__(self, state: State, mutations: Mutations, names: Names) -> None:
        self.state = state
        self.mutations = mutations
        self.names = names
        self.siblings = Siblings(state)
        self.handles: dict[int, FileHandle] = {}
        self._numbers = itertools.count(1)

    def handle(self, number: int) -> FileHandle:
        try:
            return self.handles[number]
        except KeyError:
            raise FilesystemError(errno.EBADF) from None

    # -- open ----------------------------------------------------------------------------------

    async def open(self, inode: Inode, flags: int, uid: int = 0, gid: int = 0) -> int:
        """ESTALE if others replaced the object: the kernel then looks the name up again.

        `uid` and `gid` are the caller's: whose O_TRUNC takes set-user-id away.
        """
        if inode.directory is not None:
            raise FilesystemError(errno.EISDIR)
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        # As Linux has it, O_RDONLY | O_TRUNC truncates; the kernel has checked the permission.
        truncate = bool(flags & os.O_TRUNC)
        if (writable or truncate) and self.state.config.read_only:
            raise FilesystemError(errno.EROFS)
        await self._look(inode, writable=writable, truncate=truncate)
        if not writable:
            self.siblings.opened(inode)
        file = self._file(inode)
        number = self._register(file, flags)
        if truncate:
            try:
                await self._truncate(file, 0)
                self.handles[number].emptied = True
                _drop_privileges(inode, uid, gid)
            except BaseException:
                self.release(number)
                raise
        return number

    async def _look(self, inode: Inode, *, writable: bool, truncate: bool) -> None:
        """Raises ESTALE where the name means another file by now; attributes are known then."""
        opened = self.state.open_files.get(inode)
        if opened is None or not opened.busy:
            await self._confirm(inode, writable=writable, truncate=truncate)
            if inode.attributes is None:
                await self.state.namespace.attributes(inode)
        opened = self.state.open_files.get(inode)
        if inode.detached and (opened is None or opened.taken):
            raise FilesystemError(errno.ESTALE, "the name means another file now")

    async def _confirm(self, inode: Inode, *, writable: bool, truncate: bool) -> None:
        """Ruling 17: the version is looked at again, together with the first read. Not for a reader
        while the service answers nothing at all: what is known of the file is shown then."""
        state = self.state
        if inode.detached or inode.version is None or inode.is_pinned or truncate:
            return
        if state.clock() - inode.seen_at < FRESH and inode.attributes is not None:
            return
        key = state.namespace.stored_at(inode)
        found: list[ObjectInfo] = []
        empty = inode.version.size == 0

        async def ask() -> None:
            if writable or empty:
                found.append(await state.store.head(key))
            else:
                length = state.config.read.first_request
                found.append((await state.readpath.fetch_small(key, length))[0])

        try:
            if writable or inode.attributes is None:
                await ask()
            elif not await state.namespace.news(ask):
                return
        except (NotFound, Archived):
            # The namespace knows about renames on their way, and what to tell the program.
            fresh = await state.namespace.revalidate(inode, 0.0)
        else:
            fresh = state.namespace.observe(inode, found[0])
        if fresh is not inode:
            raise FilesystemError(errno.ESTALE, "replaced by another host")

    def _file(self, inode: Inode) -> OpenFile:
        file = self.state.open_files.get(inode)
        if file is None:
            file = OpenFile(self.state, inode, new=False)
            self.state.open_files[inode] = file
        return file

    def _register(self, file: OpenFile, flags: int) -> int:
        number = next(self._numbers)
        handle = FileHandle(file, flags, self.state.readpath)
        self.handles[number] = handle
        file.handles.add(handle)
        return number

    async def create(
        self, parent: Inode, name: str, mode: int, flags: int, uid: int, gid: int
    ) -> tuple[int, Inode]:
        exclusive = bool(flags & os.O_EXCL)
        try:
            await self.names.vacant(parent, name)
        except FilesystemError as error:
            if error.errno != errno.EEXIST or exclusive:
                raise
            inode = await self.names.find(parent, name)
            if inode is None:
                raise FilesystemError(errno.EAGAIN) from error
            return await self.open(inode, flags, uid, gid), inode
        attributes = self.names.new_attributes(parent, stat.S_IFREG | stat.S_IMODE(mode), uid, gid)
        file = await self.names.create(parent, name, attributes, exclusive=exclusive)
        number = self._register(file, flags)
        if exclusive and self.state.config.writeback.exclusive_at == "open":
            try:
                await self.mutations.commit(file)
            except BaseException:
                self.release(number)
                raise
        return number, file.inode

    # -- bytes ---------------------------------------------------------------------------------

    async def read(self, number: int, offset: int, length: int) -> bytes | memoryview:
        handle = self.handle(number)
        return await handle.file.read(handle, offset, length)

    async def write(self, number: int, offset: int, data: bytes) -> int:
        handle = self.handle(number)
        written = await handle.file.write(None if handle.append else offset, data)
        handle.wrote = True
        return written

    async def truncate(self, inode: Inode, size: int) -> None:
        """ftruncate and truncate: the handle is not told (SETATTR never carries it).

        With a handle open for writing its close sends the file; else this call does.
        """
        if inode.directory is not None:
            raise FilesystemError(errno.EISDIR)
        await self._look(inode, writable=True, truncate=size == 0)
        with self._using(inode) as handle:
            file = handle.file
            await self._truncate(file, size)
            writers = [other for other in file.handles if other.writable]
            for writer in writers:
                writer.wrote = True
            if not writers and file.dirty and not inode.detached:
                await self._closed(file)

    async def _truncate(self, file: OpenFile, size: int) -> None:
        """To the size that it has, too: `: > stamp` of an empty file makes it newer."""
        put = file.put
        if size == 0 and put is not None and (put.blocks or file.fills_spool):
            # A rename, say, waits for it: it would have to wait until the new bytes are closed.
            # Or what was closed would take the room that the new bytes need.
            with trio.move_on_after(LAST_CHANCE), contextlib.suppress(FilesystemError, StoreError):
                await self.mutations.wait([put])
            if file.is_being_written:
                await room_to_begin(file)
        await file.truncate(size)
        if not file.dirty and not file.inode.detached:
            await self.mutations.settle(self.mutations.attributes(file.inode))

    @contextlib.contextmanager
    def _using(self, inode: Inode) -> Iterator[FileHandle]:
        """A handle for the time of one call: while it waits nobody closes the file."""
        file = self._file(inode)
        handle = FileHandle(file, os.O_RDONLY, self.state.readpath)
        file.handles.add(handle)
        try:
            yield handle
        finally:
            self._drop(handle)

    async def read_link(self, inode: Inode) -> bytes:
        """The target is the object's body."""
        if inode.attributes is None or not stat.S_ISLNK(inode.attributes.mode):
            raise FilesystemError(errno.EINVAL)
        with self._using(inode) as handle:
            return bytes(await handle.file.read(handle, 0, handle.file.size))

    # -- the end of a handle -------------------------------------------------------------------

    async def flush(self, number: int) -> None:
        """A close(2) of one descriptor of it. design.md 4 says why that is not yet the end."""
        handle = self.handle(number)
        file = handle.file
        _raise_lost(handle)
        if not handle.writable or not handle.wrote:
            return
        if file.inode.detached and not file.taken:
            return
        if handle.flushed and not self.state.writes_back:
            return  # shared by processes that end one after the other: RELEASE sends the rest
        handle.flushed = True
        handle.wrote = False
        try:
            await self._closed(file)
        except BaseException as error:
            handle.wrote = True
            handle.flushed = False
            _note_lost(handle, error)
            raise
        handle.emptied = False

    async def _closed(self, file: OpenFile) -> None:
        """What close(2) waits for: that the file is safe, in S3 or here."""
        if self.state.writes_back:
            await self.mutations.acknowledge(file)
        else:
            await self.mutations.commit(file)

    def release(self, number: int) -> None:
        """The last descriptor is gone. Never waits; what is unsent enters the queue."""
        handle = self.handles.pop(number, None)
        if handle is not None:
            self._drop(handle)

    def _drop(self, handle: FileHandle) -> None:
        handle.close_reader()
        file = handle.file
        file.handles.discard(handle)
        if file.taken and file.dirty and not file.is_being_written:
            # RELEASE has nobody to tell: the bytes are kept, and the log says where.
            self.state.start_soon(partial(self.mutations.give_way, file))
            return
        if file.inode.detached:
            if not file.handles:
                self._let_go(file)
            return
        # The kernel may send a RELEASE when the next program is already at it: what that writes is
        # half a file until its own close, unless this handle has something to send.
        unsent = handle.wrote or handle.emptied
        if file.dirty and file.error is None and (unsent or not file.is_being_written):
            if handle.writable or not file.handles:
                self._given_up(file)
        elif not file.handles and not file.dirty and file.put is None:
            self.mutations.close(file)

    def cut_off(self, number: int) -> bool:
        """See FileSystem.cut_off."""
        handle = self.handle(number)
        file = handle.file
        if not handle.writable or not file.dirty or file.inode.detached:
            return False
        if file.records.wants_draft:
            with self.state.books.aftermath():
                file.records.write_draft()
        return True

    def _given_up(self, file: OpenFile) -> None:
        """Nobody is told, so nobody waits; a power cut within the next moment may undo it, but not
        what was closed before."""
        if file.put is not None and file.records.changes == file.changes and not file.rewriting:
            return
        try:
            self.mutations.send_behind(file)
        except FilesystemError as error:
            log.error("%r: %s", file.key, error)  # noqa: TRY400

    def _let_go(self, file: OpenFile) -> None:
        """The last reader of an unlinked file: its object may go now."""
        intent = self.mutations.last(file.inode)
        if intent is not None and intent.kind is Kind.DELETE:
            self.state.queue.hurry(intent)
        if file.put is None:
            self.mutations.close(file)

    async def fsync(self, number: int) -> None:
        """Bytes, name and attributes of the file are in S3 when this returns. With write-back the
        journal's disk has all that was acknowledged before, as a local disk would."""
        handle = self.handle(number)
        file = handle.file
        _raise_lost(handle)
        if file.inode.detached and not file.taken:
            return
        handle.wrote = False
        try:
            if self.state.writes_back:
                commit = partial(self.mutations.commit, file)
                await side_by_side(commit, self.state.books.sync_if_possible)
            else:
                await self.mutations.commit(file)
        except BaseException as error:
            handle.wrote = handle.wrote or isinstance(error, AccessDenied)
            _note_lost(handle, error)
            raise


def _raise_lost(handle: FileHandle) -> None:
    """Unless something is still to be put beside, which raises as well."""
    if handle.lost and not handle.file.dirty:
        raise FilesystemError(
            handle.lost, "what it wrote lost against another host, or was given up"
        )


def _note_lost(handle: FileHandle, error: BaseException) -> None:
    if handle.file.taken and isinstance(error, FilesystemError):
        handle.lost = error.errno


def _drop_privileges(inode: Inode, uid: int, gid: int) -> None:
    """What the kernel does before every other write: with O_TRUNC it leaves that to us.

    It does not tell the caller's further groups, so that set-group-id without group-execute,
    which has no meaning on Linux, goes for them too. Rides in the PUT of the truncated file.
    """
    old = inode.attributes
    if old is None or uid == 0 or not old.mode & (stat.S_ISUID | stat.S_ISGID):
        return
    mode = old.mode & ~stat.S_ISUID
    if mode & stat.S_IXGRP or gid != old.gid:
        mode &= ~stat.S_ISGID
    inode.attributes = replace(old, mode=mode)
