"""What was decided is done: one name at a time, by one of many workers."""

import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import (
    DIRECTORY_TYPE,
    NO_XATTRS,
    Attributes,
    content_type_for,
    encode,
)
from s3mount.store.base import ListedObject, ObjectStore, WriteHeaders
from s3mount.store.errors import BadCredentials, NoSuchBucket, NotFound, StoreError
from s3mount.store.integrity import is_md5
from s3mount.transfer.feed.decide import (
    Action,
    Comparing,
    Known,
    LocalEntry,
    RemoteEntry,
    decide,
    relevant,
    with_xattrs_of,
)
from s3mount.transfer.feed.local_tree import attributes_of
from s3mount.transfer.feed.report import Report
from s3mount.transfer.feed.same_bytes import same_bytes, same_checksum
from s3mount.transfer.file_sender import FileSender
from s3mount.transfer.local_file import FileChanged, LocalFile
from s3mount.transfer.versions import Versions
from s3mount.writeback.copier import Copier
from s3mount.writeback.journal_records import UploadRecord

T = TypeVar("T")

# A file that changes while it is read is read anew so often before it is reported.
ATTEMPTS = 3
# Threads that read small files: mostly copies from the page cache.
READERS = 8


@dataclass(frozen=True, slots=True)
class Item:
    """A local name and what has to be done for it; `there`: the object that it is compared
    with, `known` of it."""

    local: LocalEntry
    remote: RemoteEntry | None
    action: Action
    known: Known | None = None

    @property
    def there(self) -> ListedObject | None:
        return relevant(self.local, self.remote)


class Performer:
    """`earlier`: uploads by key that an interrupted feed has left; those taken are removed."""

    def __init__(
        self,
        store: ObjectStore,
        sender: FileSender,
        copier: Copier,
        versions: Versions,
        report: Report,
        *,
        prefix: str,
        how: Comparing,
        follow: bool = False,
        dry_run: bool = False,
        earlier: dict[str, UploadRecord] | None = None,
    ) -> None:
        self.earlier = {} if earlier is None else earlier
        self._store = store
        self._sender = sender
        self._copier = copier
        self._versions = versions
        self._report = report
        self._prefix = prefix
        self._how = how
        self._follow = follow
        self._dry_run = dry_run
        self._readers = trio.CapacityLimiter(READERS)

    async def perform(self, item: Item) -> None:
        """Failures of this name alone are reported; raises what makes all others fail, too."""
        local = item.local
        try:
            action = item.action
            if action is Action.COMPARE:
                action = await self._compared(item)
            if action is Action.NOTHING:
                self._report.unchanged(local)
                return
            if not self._dry_run:
                action = await self._do(item, action)
            self._report.did(action, local.path, directory=local.is_directory)
        except (NoSuchBucket, BadCredentials):
            raise
        except (StoreError, FilesystemError, OSError) as error:
            self._report.fail(local.path, error)

    async def _do(self, item: Item, action: Action) -> Action:
        """What was done in the end."""
        if action is Action.ATTRIBUTES:
            try:
                await self._set_attributes(item)
            except NotFound:
                action = Action.SEND
        if action is Action.SEND:
            await self._send(item.local)
        return action

    # -- comparing

    async def _compared(self, item: Item) -> Action:
        there = item.there
        assert there is not None
        schedule = self._sender.schedule
        equal = await self._same(item.local, lambda file: same_bytes(file, there.etag, schedule))
        if not equal and (stored := await self._checksums(there)):
            equal = await self._same(item.local, lambda file: same_checksum(file, stored, schedule))
        return decide(item.local, item.remote, self._how, item.known, equal)

    async def _same(self, local: LocalEntry, same: Callable[[LocalFile], bool]) -> bool:
        """Abandoned when cancelled: reading a large file takes minutes."""

        def compare() -> bool:
            with self._open(local.name, at_once=False) as file:
                return file.size == local.size and same(file)

        return await trio.to_thread.run_sync(compare, limiter=self._readers, abandon_on_cancel=True)

    async def _checksums(self, there: ListedObject) -> Mapping[str, str]:
        """Where the ETag may be no MD5: of an encrypted object, of parts of another size."""
        if is_md5(there.etag) and (await self._store.capabilities()).md5_etag(there.size):
            return {}
        return await self._store.checksums(there.key)

    # -- sending

    async def _send(self, local: LocalEntry) -> None:
        if local.is_regular:
            await self._send_file(local)
            return
        key = self._prefix + local.path
        attributes = _now(local.attributes)
        body = b""
        if local.is_directory:
            key = f"{key}/" if local.path else self._prefix
        elif stat.S_ISLNK(attributes.mode):
            body = await self._in_thread(partial(os.readlink, local.name))
        headers = WriteHeaders(encode(attributes), {"content-type": _type_of(local, attributes)})
        result = await self._store.put(key, body, headers)
        self._versions.stored(key, result, len(body), attributes)

    async def _send_file(self, local: LocalEntry) -> None:
        for attempt in range(ATTEMPTS):
            try:
                async with self._sender.room_for(local.size):
                    await self._send_once(local)
            except FileChanged:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    async def _send_once(self, local: LocalEntry) -> None:
        key = self._prefix + local.path
        with await self._in_thread(partial(self._open, local.name)) as file:
            xattrs = await self._in_thread(file.xattrs) if self._how.xattrs else NO_XATTRS
            attributes = _now(attributes_of(file.stat, xattrs))
            headers = WriteHeaders(
                encode(attributes), {"content-type": content_type_for(local.path, attributes)}
            )
            sent = await self._sender.send(
                *(file, key, headers),
                earlier=self.earlier.pop(key, None),
                progress=self._report.progress,
            )
        self._report.sent_bytes += sent.sent
        self._report.kept_bytes += sent.kept
        self._versions.stored(key, sent.result, file.size, attributes)

    def _open(self, name: bytes, *, at_once: bool = True) -> LocalFile:
        limit = self._sender.single_put_limit if at_once else -1
        return LocalFile(name, follow=self._follow, content_up_to=limit)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._readers)

    # -- attributes

    async def _set_attributes(self, item: Item) -> None:
        """What others stored with the object stays."""
        there, known = item.there, item.known
        assert there is not None
        assert known is not None
        assert known.attributes is not None
        ours = item.local.attributes
        xattrs = known.attributes.xattrs
        if self._how.xattrs:
            xattrs = with_xattrs_of(known.attributes, ours)
        attributes = replace(_now(ours), xattrs=xattrs)
        copied = await self._copier.copy(
            there.key, there.key, etag=there.etag, attributes=attributes
        )
        self._versions.stored(there.key, copied.result, there.size, attributes)
        self._report.not_to_send(item.local.size if item.local.is_regular else 0)


def _now(attributes: Attributes) -> Attributes:
    """The object's status changes now, as that of any copy."""
    return replace(attributes, ctime_ns=time.time_ns())


def _type_of(local: LocalEntry, attributes: Attributes) -> str:
    if local.is_directory:
        return DIRECTORY_TYPE
    return content_type_for(local.path, attributes)
