"""OpenFile: the state of one file shared by all its handles. Spooled bytes win over remote ones.

    0 ........ visible ........ size
    |  remote (base)  |  zeros  |          what is not in `spooled.present`
    |#### ######   ##    #######|          what is: written here, not sent or not given back yet

`visible` is how many leading bytes of the base object still show through: truncation lowers it for
good, growth leaves a hole. `changes` counts what was done to bytes or size; `sent` is the value of
`changes` that the last committed PUT contained, so `changes != sent` means dirty.

Nothing here awaits between reading and changing these fields but where a comment says so. `lock`
guards the size against changing while a commit sends it: truncation and commit hold it; writes do
not need it, for a byte written during a commit stays dirty for the next one.
"""

import errno
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import Attributes
from s3mount.filesystem.conflict import keep_conflicting_bytes
from s3mount.filesystem.half_written import HalfWritten
from s3mount.filesystem.reading import fetch_rest, read_file
from s3mount.filesystem.records import FileRecords
from s3mount.filesystem.sending import condition_of, headers_of, send_file
from s3mount.filesystem.state import State
from s3mount.filesystem.timestamps import now_ns
from s3mount.filesystem.writing import truncate_file, unreserve
from s3mount.namespace import Inode
from s3mount.readpath import RemoteObject
from s3mount.store.base import (
    Condition,
    ObjectInfo,
    PutResult,
    WriteHeaders,
)
from s3mount.writeback.chunk import CorruptSpool
from s3mount.writeback.intents import Intent, NotYetError
from s3mount.writeback.lock import Lock
from s3mount.writeback.spooled_file import SpooledFile
from s3mount.writeback.uploader import FileUpload

if TYPE_CHECKING:
    from s3mount.filesystem.handle import FileHandle
    from s3mount.filesystem.recovered_put import RecoveredPut

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a commit in progress contains."""

    changes: int
    attributes: Attributes
    size: int
    stamp: int = 0  # SpooledFile.write_count then


class OpenFile:
    """In `State.open_files` from the first open or change until clean and closed."""

    def __init__(self, state: State, inode: Inode, *, new: bool, exclusive: bool = False) -> None:
        self.state = state
        self.inode = inode
        self.records = FileRecords(self)
        self.handles: set[FileHandle] = set()
        self.remote: RemoteObject | None = None if new else state.remote_of(inode)
        self.visible = self.remote.size if self.remote is not None else 0
        self.size = self.visible
        self.changes = 1 if new else 0
        self.sent = 0
        self.kept_changes = 0  # the value of `changes` that the last conflict file contains
        # O_EXCL: the first commit must not find the name taken by another host.
        self.exclusive = exclusive
        # The old bytes were thrown away by O_TRUNC: the commit is unconditional, last close wins.
        self.whole = new
        # The key that it will be sent to may hold another object (renamed over it).
        self.replaces = False
        # What the object carries that is not ours: known from a HEAD or None (not asked yet).
        self.kept: ObjectInfo | None = None
        self.spooled: SpooledFile | None = None
        self.upload: FileUpload | None = None
        self.put: Intent | None = None  # the unfinished PUT
        self.snapshot: Snapshot | None = None  # while it runs
        # The PUT of a mount that died: looked at before each attempt.
        self.recovering: RecoveredPut | None = None
        # The old bytes were thrown away while they waited for their PUT, and the new ones are not
        # all there yet: it is put off until a close, for half a file is never published.
        self.rewriting = False
        self.half_written = HalfWritten(self)
        self.error: Exception | None = None  # of the last commit, if final
        self.conflict_name: str | None = None  # where its bytes are being kept
        # Others replaced or removed its object: the name is theirs, and so a commit a conflict.
        self.taken = False
        self.pin = None if not new else state.namespace.pin(_parent(inode), inode.name)
        self.lock = Lock()
        if new:
            inode.local_size = 0

    # -- state ---------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        return self.changes != self.sent

    @property
    def key(self) -> str:
        return self.state.namespace.key(self.inode)

    @property
    def busy(self) -> bool:
        """Whether bytes or attributes are here that the bucket does not have."""
        return self.dirty or self.put is not None

    @property
    def is_being_written(self) -> bool:
        """Whether a handle may still write: what is here may be half a file."""
        return any(handle.writable for handle in self.handles)

    @property
    def unsent_bytes(self) -> int:
        """Written here, and the service does not have them yet."""
        return 0 if self.upload is None else self.upload.unsent_bytes

    @property
    def holds_spool(self) -> bool:
        return self.spooled is not None and bool(self.spooled.present)

    @property
    def can_drain(self) -> bool:
        """Whether what the spool has of it is sent sooner or later: not without a name."""
        busy = self.upload is not None and self.upload.busy
        return busy or self.put is not None or not self.inode.detached

    @property
    def fills_spool(self) -> bool:
        """Whether the spool has no room for the old bytes and new ones beside them, or not all of
        the old ones are in it: parts of an upload have the rest."""
        if self.spooled is None:
            return False
        return bool(self.spooled.dropped) or 4 * self.size > self.state.spool.pool.limit

    def touch(self) -> None:
        """mtime and ctime are now; they ride in the next PUT.

        Once the multipart upload has begun its metadata is fixed: from then on mtime stands
        still, as S3's own Last-Modified of such an object does, for setting it afterwards would
        copy the whole object. (utimens sets it all the same.)
        """
        attributes = self.inode.attributes
        begun = self.upload is not None and self.upload.headers is not None
        if attributes is not None and not begun:
            now = now_ns()
            self.inode.attributes = replace(attributes, mtime_ns=now, ctime_ns=now)

    def changed(self) -> None:
        """Bytes or size changed: to be called after every change, without an await before it."""
        self.changes += 1
        self.inode.local_size = self.size
        if self.pin is None and not self.inode.detached:
            self.pin = self.state.namespace.pin(_parent(self.inode), self.inode.name)
        self.state.drafts.changed(self)

    def renamed(self, *, replaces: bool) -> None:
        """The inode has another name; with `replaces` over another object."""
        if self.pin is not None:
            self.pin.release()
            self.pin = self.state.namespace.pin(_parent(self.inode), self.inode.name)
        if self.exclusive:
            # O_EXCL spoke of the old name; rename(2) replaces whatever has the new one.
            self.exclusive = False
        self.replaces = replaces

    def lose_name(self) -> None:
        """Others have the name now: what is asked of it is answered by the bucket again."""
        self.taken = True
        self.inode.local_size = None
        if self.pin is not None:
            self.pin.release()
            self.pin = None

    def detached(self) -> None:
        """The inode has no name any more: handles go on, nothing of it is sent."""
        if self.pin is not None:
            self.pin.release()
            self.pin = None
        if self.put is not None and self.rewriting:
            self.state.queue.cancel(self.put)
        if self.put is None:
            self.records.forget()
        # Parts that left the spool are read from nowhere else: then the upload stays to the end.
        dropped = self.spooled is not None and bool(self.spooled.dropped)
        if self.upload is not None and self.put is None and not (dropped and self.handles):
            self.state.start_soon(self.upload.abort)

    @property
    def needs_remote(self) -> bool:
        """Open handles may still read bytes that only the object has."""
        if self.remote is None or self.remote.version_id is not None:
            return False
        return self.spooled is None or not self.spooled.present.covers(0, self.visible)

    # -- bytes ---------------------------------------------------------------------------------

    async def read(self, handle: "FileHandle", offset: int, length: int) -> bytes | memoryview:
        """ESTALE only where the bytes are lost: not if a change of our own was faster."""
        return await read_file(self, handle, offset, length)

    async def write(self, offset: int | None, data: bytes) -> int:
        """At our own end of file for `offset` None (O_APPEND). Waits only for room in the spool."""
        if offset is None:
            offset = self.size
        end = offset + len(data)
        if end > self.state.config.writeback.max_object_size:
            raise FilesystemError(errno.EFBIG, "larger than the service's largest object")
        self.prepare_upload()
        if self.spooled is None or self.upload is None:
            raise FilesystemError(errno.EIO, "no spool")
        if not self.spooled.try_write(offset, data):
            # Reserved before the wait, so that another O_APPEND write comes after this one.
            before, sent = self.size, self.sent
            self.size = max(self.size, end)
            try:
                await self.spooled.write(offset, data)
            except BaseException:
                unreserve(self, before, offset, end, sent)
                raise
        self.size = max(self.size, end)
        self.changed()
        self.touch()
        ahead = self.snapshot is None and not self.records.waits
        if ahead and not self.inode.detached:
            self.upload.wrote(self.size, self._destination)
        return len(data)

    async def truncate(self, size: int) -> None:
        await truncate_file(self, size)

    def _destination(self) -> tuple[str, WriteHeaders]:
        """Where an upload that begins now, ahead of the commit, goes."""
        return self.state.namespace.key(self.inode), headers_of(self)

    def prepare_upload(self) -> None:
        if self.spooled is None:
            self.spooled = self.state.spool.create_file()
            self.spooled.record_id = self.records.id
            self.spooled.on_amended = self.records.amend
        if self.upload is None:
            self.upload = self.state.uploader.upload_for(self.spooled)
            self.upload.on_published = self.records.published
            self.upload.on_overwrite = self.records.renew

    # -- commit --------------------------------------------------------------------------------

    def begin_put(self, intent: Intent) -> None:
        """The PUT starts: it will contain all that is here now."""
        attributes = self.inode.attributes
        if attributes is None:
            raise FilesystemError(errno.EIO, "attributes unknown")
        if self.rewriting or self.half_written.puts_off:
            raise NotYetError
        if self.records.freezes and self.records.changes != self.changes:
            # It was written since, and what is sent was not.
            attributes = intent.attributes or attributes
        self.snapshot = Snapshot(self.changes, attributes, self.size)
        intent.size = self.size
        intent.headers = headers_of(self)
        intent.add_unanswered(self.state.uploader.doubts.unanswered(intent.key))
        version = self.inode.version
        if version is not None and not self.replaces and not intent.recovered:
            intent.expects = version.etag
        intent.condition = condition_of(self, intent)

    def put_off(self) -> None:
        """The PUT does not run for now: what is written goes ahead in parts again."""
        self.snapshot = None
        if self.upload is not None and not self.inode.detached:
            self.upload.wrote(self.size, self._destination)

    async def send(self, key: str, headers: WriteHeaders, condition: Condition) -> PutResult:
        """Carries the PUT out (an intents.Content)."""
        async with self.lock:
            try:
                return await send_file(self, key, headers, condition)
            except CorruptSpool as error:
                if self.recovering is None:
                    raise
                raise await self.recovering.damaged(error) from error

    async def keep(self, key: str, headers: WriteHeaders) -> None:
        """Puts the bytes beside what others have put under `key`."""
        changes = self.changes
        await keep_conflicting_bytes(self, key, headers)
        self.kept_changes = changes

    async def give_way(self) -> None:
        """Keeps the bytes beside what others have put under the name, and raises ESTALE."""
        async with self.lock:
            key = self.state.namespace.key(self.inode)
            if self.dirty:
                self.prepare_upload()
                await self.keep(key, headers_of(self))
                self.sent = self.kept_changes
        raise FilesystemError(
            errno.ESTALE, f"another host changed {key!r} meanwhile; the bytes are kept beside it"
        )

    async def read_base(self, offset: int, length: int) -> bytes:
        """Bytes of the base object for a part that is sent with changes in it."""
        remote = self.remote
        if remote is None:
            return bytes(length)
        if remote.size > self.state.config.read.small_object:
            return bytes(await self.state.readpath.fetch_range(remote, offset, length))
        # Whole and kept: a log that grows line by line is then read once, not at each line.
        whole = await self.state.readpath.fetch_range(remote, 0, remote.size)
        self.state.readpath.seed(remote, 0, whole)
        return whole[offset : offset + length]

    async def publish_if_dropped(self, offset: int, length: int) -> None:
        if self.upload is not None and self.upload.needs_early_publish(offset, length):
            if self.inode.detached:
                raise FilesystemError(errno.ENOSPC, "unlinked, and its bytes left the full spool")
            await self._publish_early()

    async def _publish_early(self) -> None:
        """design.md 7: the one exception to 'never partial', under disk pressure only."""
        name = self.state.namespace.key(self.inode)
        if self.state.config.writeback.refuse_early_publish:
            raise FilesystemError(errno.ENOSPC, f"{name!r}: its first parts left the spool already")
        log.warning("%r is published before it is complete: the spool has no room for it", name)
        await self.state.publish(self)

    async def rescue(self) -> None:
        """Its object is about to vanish: fetches what open handles have not read (design.md 18).

        Where it does not fit the spool the readers get ESTALE afterwards.
        """
        async with self.lock:
            await fetch_rest(self)

    # -- the end -------------------------------------------------------------------------------

    def committed(self, remote: RemoteObject) -> bool:
        """The running PUT is done. Returns True if all that is here now is in S3."""
        if self.snapshot is None:
            return False
        self.remote = remote
        cut = None
        if self.spooled is not None:
            cut = self.spooled.lowest_size_since(self.snapshot.stamp)
        self.visible = min(self.snapshot.size, self.size, self.size if cut is None else cut)
        self.sent = self.snapshot.changes
        self.records.commits += 1
        self.whole = self.exclusive = self.replaces = False
        self.recovering = None
        self.error = None
        self.snapshot = None
        if not self.dirty:
            self.inode.local_size = None
            if self.pin is not None:
                self.pin.release()
                self.pin = None
        return not self.dirty

    def close_spool(self) -> None:
        if self.spooled is not None:
            self.spooled.close()
        self.spooled = self.upload = None

    def discard(self) -> None:
        """Clean (or given up) and closed: everything that this file holds is given back."""
        self.close_spool()
        if self.pin is not None:
            self.pin.release()
            self.pin = None
        self.inode.local_size = None
        self.records.forget()


def _parent(inode: Inode) -> Inode:
    if inode.parent is None:
        raise FilesystemError(errno.ESTALE, "has no name any more")
    return inode.parent
