"""An ObjectStore in memory, for tests: the same contract as the S3 store, no threads, no network.

`capabilities` says what the simulated service honours; what it does not honour it ignores, as
real services do. The synchronous side door (`objects`, `put_foreign`, `delete_foreign`,
`uploads`) is what other hosts do and see; it counts no request and calls no hook.
"""

import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from s3mount.store import base, errors
from s3mount.store.base import (
    ALWAYS,
    Body,
    Capabilities,
    Condition,
    WriteHeaders,
)
from s3mount.store.checks import check_key, check_metadata, check_put_size
from s3mount.store.memory_bucket import MemoryBucket, StoredObject, StoredUpload

__all__ = [
    "ALL_CAPABILITIES",
    "CEPH_CAPABILITIES",
    "NO_CAPABILITIES",
    "MemoryStore",
    "StoredObject",
    "StoredUpload",
]

ALL_CAPABILITIES = Capabilities(
    put_if_absent=True,
    put_if_match=True,
    complete_if_absent=True,
    complete_if_match=True,
    copy_source_if_match=True,
    part_copy=True,
    checks_crc32c=True,
    checks_md5=True,
    complete_subset=True,
    md5_etags=True,
    large_md5_etags=True,
    multipart_etags=True,
)
# Ceph 16.2 as servers.md describes it.
CEPH_CAPABILITIES = Capabilities(
    put_if_absent=True,
    put_if_match=True,
    part_copy=True,
    checks_md5=True,
    md5_etags=True,
    large_md5_etags=True,
    multipart_etags=True,
)
NO_CAPABILITIES = Capabilities()

Hook = Callable[[str, str], Awaitable[None] | None]
_ARCHIVE_CLASSES = {"GLACIER", "DEEP_ARCHIVE"}


def _as_bytes(body: Body, check: base.Check | None) -> bytes:
    # No copy if it is bytes already.
    data = b"".join(body.slices()) if isinstance(body, base.SlicedBody) else bytes(body)
    if check is not None:
        check()
    return data


class MemoryStore(MemoryBucket):
    """See the module. `clock` gives seconds since the epoch; LastModified is cut to whole ones.
    `monotonic` is the clock of `asked_at`.

    With `copies_tags` False tags are lost as on Ceph: in a copy that replaces metadata, and those
    that an upload is begun with.

    `before(operation, key)` runs before a request takes effect, `after` once it has: what they
    raise is what the caller gets (so an error from `after` is a lost answer), what they return is
    awaited if it can be. `operation` is S3's name, 'PutObject'; for listings `key` is the prefix.
    """

    def __init__(
        self,
        bucket: str = "b",
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        capabilities: Capabilities = ALL_CAPABILITIES,
        minimum_part_size: int = 5 * 1024 * 1024,
        page_size: int = 1000,
        copies_tags: bool = True,
        before: Hook | None = None,
        after: Hook | None = None,
    ) -> None:
        super().__init__(
            bucket, clock=clock, capabilities=capabilities, minimum_part_size=minimum_part_size
        )
        self.copies_tags = copies_tags
        self.monotonic = monotonic
        self.before = before
        self.after = after
        self.page_size = page_size
        self._counts: Counter[str] = Counter()

    # -- requests

    async def _begin(self, operation: str, key: str) -> None:
        self._counts[operation] += 1
        await trio.lowlevel.checkpoint()
        await self._call(self.before, operation, key)

    async def _end(self, operation: str, key: str) -> None:
        await self._call(self.after, operation, key)

    async def _call(self, hook: Hook | None, operation: str, key: str) -> None:
        if hook is not None:
            result = hook(operation, key)
            if inspect.isawaitable(result):
                await result

    async def capabilities(self) -> Capabilities:
        await trio.lowlevel.checkpoint()
        return self._capabilities

    async def check_bucket(self, prefix: str, *, max_keys: int = 1) -> base.ListPage:
        return await self.list(prefix, max_keys=max_keys)

    async def head(self, key: str, *, version_id: str | None = None) -> base.ObjectInfo:
        check_key("HeadObject", key)
        asked_at = self.monotonic()
        await self._begin("HeadObject", key)
        info = self._info(self._find("HeadObject", key, version_id), asked_at)
        await self._end("HeadObject", key)
        return info

    async def checksums(self, key: str) -> Mapping[str, str]:
        if not self._capabilities.checks_crc32c:
            return {}
        await self._begin("HeadObject", key)
        stored = self._find("HeadObject", key, None)
        await self._end("HeadObject", key)
        known = self._checksum(stored.data) if "-" not in stored.etag else None
        return {} if known is None else {"crc32c": known}

    async def get(
        self,
        key: str,
        start: int = 0,
        length: int | None = None,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        version_id: str | None = None,
    ) -> base.GetResult:
        operation = "GetObject"
        check_key(operation, key)
        asked_at = self.monotonic()
        await self._begin(operation, key)
        stored = self._find(operation, key, version_id)
        if if_match is not None and stored.etag != if_match:
            raise errors.PreconditionFailed(
                f"its ETag is {stored.etag}", operation=operation, key=key, status=412
            )
        if if_none_match is not None and stored.etag == if_none_match:
            raise errors.NotModified("", operation=operation, key=key, status=304)
        if stored.headers.get("x-amz-storage-class") in _ARCHIVE_CLASSES:
            raise errors.Archived(
                "", operation=operation, key=key, status=403, code="InvalidObjectState"
            )
        if start and start >= len(stored.data):
            raise errors.InvalidRange(
                "", operation=operation, key=key, status=416, code="InvalidRange"
            )
        end = len(stored.data) if length is None else start + length
        data = stored.data[start:end]
        self._counts["BytesIn"] += len(data)
        result = base.GetResult(self._info(stored, asked_at), start, data)
        await self._end(operation, key)
        return result

    async def list(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> base.ListPage:
        asked_at = self.monotonic()
        await self._begin("ListObjectsV2", prefix)
        page = self._page(
            prefix, delimiter, start_after, token, min(max_keys, self.page_size), asked_at
        )
        await self._end("ListObjectsV2", prefix)
        return page

    async def put(
        self,
        key: str,
        body: Body,
        headers: WriteHeaders,
        *,
        condition: Condition = ALWAYS,
        check: base.Check | None = None,
    ) -> base.PutResult:
        operation = "PutObject"
        check_key(operation, key)
        check_metadata(operation, key, headers.metadata)
        data = _as_bytes(body, check)
        check_put_size(operation, key, len(data))
        await self._begin(operation, key)
        can = self._capabilities
        self._check_condition(
            operation, key, condition, absent=can.put_if_absent, match=can.put_if_match
        )
        self._counts["BytesOut"] += len(data)
        stored = self._store(key, data, headers)
        await self._end(operation, key)
        return self._put_result(stored)

    async def delete(self, key: str) -> None:
        check_key("DeleteObject", key)
        await self._begin("DeleteObject", key)
        self._remove(key)
        await self._end("DeleteObject", key)

    async def delete_many(self, keys: Sequence[str]) -> Sequence[base.DeleteFailure]:
        if len(keys) > 1000:
            raise errors.InvalidRequest("at most 1000 keys", operation="DeleteObjects")
        first = keys[0] if keys else ""
        await self._begin("DeleteObjects", first)
        for key in keys:
            self._remove(key)
        await self._end("DeleteObjects", first)
        return []

    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_etag: str | None = None,
        replace: WriteHeaders | None = None,
        origin: base.ObjectStore | None = None,
    ) -> base.PutResult:
        operation = "CopyObject"
        check_key(operation, target)
        if replace is not None:
            check_metadata(operation, target, replace.metadata)
        elif source == target and origin is None:
            raise errors.InvalidRequest("a copy onto itself", operation=operation, key=target)
        if source_etag is not None and not self._capabilities.copy_source_if_match:
            self._counts["HeadObject"] += 1  # as the S3 store does there
        await self._begin(operation, target)
        found = self._source_of(origin)._source(operation, source, source_etag)
        check_put_size(operation, source, len(found.data))
        stored = self._store_copy(found, target, replace)
        await self._end(operation, target)
        return self._put_result(stored)

    async def tags(self, key: str) -> Mapping[str, str]:
        await self._begin("GetObjectTagging", key)
        found = self._tags(self._find("GetObjectTagging", key))
        await self._end("GetObjectTagging", key)
        return found

    async def put_tags(self, key: str, tags: Mapping[str, str]) -> None:
        await self._begin("PutObjectTagging", key)
        self._tag(key, tags)
        await self._end("PutObjectTagging", key)

    def _source_of(self, origin: base.ObjectStore | None) -> "MemoryStore":
        if origin is None:
            return self
        assert isinstance(origin, MemoryStore), "buckets in memory and others do not mix"
        return origin

    # -- multipart uploads

    async def create_upload(self, key: str, headers: WriteHeaders) -> str:
        operation = "CreateMultipartUpload"
        check_key(operation, key)
        check_metadata(operation, key, headers.metadata)
        await self._begin(operation, key)
        upload_id = self.begin_upload(key, headers)
        await self._end(operation, key)
        return upload_id

    async def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        body: Body,
        *,
        check: base.Check | None = None,
    ) -> base.Part:
        operation = "UploadPart"
        data = _as_bytes(body, check)
        await self._begin(operation, key)
        self._counts["BytesOut"] += len(data)
        part = self._add_part(operation, key, upload_id, number, data)
        await self._end(operation, key)
        return part

    async def upload_part_copy(
        self,
        key: str,
        upload_id: str,
        number: int,
        source: str,
        start: int,
        length: int,
        *,
        source_etag: str | None = None,
        origin: base.ObjectStore | None = None,
    ) -> base.Part:
        source_store = self._source_of(origin)
        if not self._capabilities.part_copy:
            got = await source_store.get(source, start, length, if_match=source_etag)
            return await self.upload_part(key, upload_id, number, got.data)
        operation = "UploadPartCopy"
        await self._begin(operation, key)
        data = source_store._source(operation, source, source_etag).data
        if length <= 0 or start + length > len(data):
            raise errors.InvalidRange("", operation=operation, key=source, status=416)
        part = self._add_part(operation, key, upload_id, number, data[start : start + length])
        await self._end(operation, key)
        return part

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[base.Part],
        *,
        condition: Condition = ALWAYS,
    ) -> base.PutResult:
        operation = "CompleteMultipartUpload"
        await self._begin(operation, key)
        upload = self._upload(operation, key, upload_id)
        can = self._capabilities
        self._check_condition(
            operation, key, condition, absent=can.complete_if_absent, match=can.complete_if_match
        )
        stored = self._finish_upload(upload, parts)
        await self._end(operation, key)
        return self._put_result(stored)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        await self._begin("AbortMultipartUpload", key)
        self.uploads.pop(upload_id, None)
        await self._end("AbortMultipartUpload", key)

    async def list_parts(self, key: str, upload_id: str) -> Sequence[base.Part]:
        await self._begin("ListParts", key)
        upload = self._upload("ListParts", key, upload_id)
        parts = [
            base.Part(number, etag, len(data), self._checksum(data))
            for number, (etag, data) in sorted(upload.parts.items())
        ]
        await self._end("ListParts", key)
        return parts

    async def list_uploads(self, prefix: str) -> Sequence[base.Upload]:
        await self._begin("ListMultipartUploads", prefix)
        found = [
            base.Upload(upload.key, upload.upload_id, upload.initiated)
            for upload in self.uploads.values()
            if upload.key.startswith(prefix)
        ]
        await self._end("ListMultipartUploads", prefix)
        return sorted(found, key=lambda upload: (upload.key, upload.initiated))

    def counts(self) -> Mapping[str, int]:
        return dict(self._counts)

    def lanes(self) -> Mapping[str, base.LaneUse]:
        return {}

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
