"""An ObjectStore in memory, for tests: the same contract as the S3 store, no threads, no network.

`capabilities` says what the simulated service honours; what it does not honour it ignores, as
real services do. The synchronous side door (`objects`, `put_foreign`, `delete_foreign`,
`uploads`) is what other hosts do and see; it counts no request and calls no hook.
"""

import base64
import hashlib
import inspect
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import trio

from s3mount.store import base
from s3mount.store.base import ALWAYS, Body, Capabilities, Condition, WriteHeaders
from s3mount.store.checks import check_key, check_metadata, check_put_size

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
)
# Ceph 16.2 as servers.md describes it.
CEPH_CAPABILITIES = Capabilities(
    put_if_absent=True, put_if_match=True, part_copy=True, checks_md5=True
)
NO_CAPABILITIES = Capabilities()

Hook = Callable[[str, str], Awaitable[None] | None]
_ARCHIVE_CLASSES = {"GLACIER", "DEEP_ARCHIVE"}
_SHOWN_HEADERS = frozenset(base.KEPT_HEADERS) | {"x-amz-restore", "x-amz-missing-meta"}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One version of one key. `headers` holds all that was sent with it."""

    key: str
    data: bytes = field(repr=False)
    metadata: Mapping[str, str]
    headers: Mapping[str, str]
    etag: str
    last_modified: float
    version_id: str | None = None


@dataclass(slots=True)
class StoredUpload:
    key: str
    upload_id: str
    headers: WriteHeaders
    initiated: float
    parts: dict[int, tuple[str, bytes]] = field(default_factory=dict, repr=False)


def _as_bytes(body: Body) -> bytes:
    if isinstance(body, base.SlicedBody):
        return b"".join(body.slices())
    return bytes(body)  # no copy if it is bytes already


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def multipart_etag(part_etags: Sequence[str]) -> str:
    digests = b"".join(bytes.fromhex(etag) for etag in part_etags)
    return f"{_md5(digests)}-{len(part_etags)}"


class MemoryStore:
    """See the module. `clock` gives seconds since the epoch; LastModified is cut to whole ones.
    `monotonic` is the clock of `asked_at`.

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
        before: Hook | None = None,
        after: Hook | None = None,
    ) -> None:
        self.bucket = bucket
        self.clock = clock
        self.monotonic = monotonic
        self.before = before
        self.after = after
        self.uploads: dict[str, StoredUpload] = {}
        self.minimum_part_size = minimum_part_size
        self.page_size = page_size
        self._capabilities = capabilities
        self._objects: dict[str, StoredObject] = {}
        self._versions: dict[tuple[str, str], StoredObject] = {}
        self._ordered: list[str] | None = []  # None: to be sorted anew
        self._counts: Counter[str] = Counter()
        self._serial = 0

    # -- the side door

    @property
    def objects(self) -> Mapping[str, StoredObject]:
        """The current version of every key, live; not ordered."""
        return MappingProxyType(self._objects)

    def put_foreign(
        self,
        key: str,
        data: bytes = b"",
        metadata: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> StoredObject:
        """Another host writes `key`."""
        return self._store(key, data, WriteHeaders(metadata or {}, headers or {}))

    def delete_foreign(self, key: str) -> None:
        """Another host deletes `key`; nothing happens if it is not there."""
        self._remove(key)

    # -- the bucket

    def _now(self) -> float:
        return float(int(self.clock()))

    def _next_id(self, kind: str) -> str:
        self._serial += 1
        return f"{kind}-{self._serial}"

    def _store(
        self, key: str, data: bytes, headers: WriteHeaders, etag: str | None = None
    ) -> StoredObject:
        stored = StoredObject(
            key=key,
            data=data,
            metadata=MappingProxyType({k.lower(): v for k, v in headers.metadata.items()}),
            headers=MappingProxyType({k.lower(): v for k, v in headers.headers.items()}),
            etag=etag or _md5(data),
            last_modified=self._now(),
            version_id=self._next_id("version") if self._capabilities.versioned else None,
        )
        if key not in self._objects:
            self._ordered = None
        self._objects[key] = stored
        if stored.version_id is not None:
            self._versions[key, stored.version_id] = stored
        return stored

    def _remove(self, key: str) -> None:
        if self._objects.pop(key, None) is not None:
            self._ordered = None

    def _find(self, operation: str, key: str, version_id: str | None = None) -> StoredObject:
        if version_id is not None:
            stored = self._versions.get((key, version_id))
        else:
            stored = self._objects.get(key)
        if stored is None:
            raise base.NotFound("", operation=operation, key=key, status=404, code="NoSuchKey")
        return stored

    def _upload(self, operation: str, key: str, upload_id: str) -> StoredUpload:
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise base.NoSuchUpload(
                "", operation=operation, key=key, status=404, code="NoSuchUpload"
            )
        return upload

    def _check_condition(
        self, operation: str, key: str, condition: Condition, *, absent: bool, match: bool
    ) -> None:
        """`absent`, `match`: does the service honour that condition for this request?"""
        current = self._objects.get(key)
        lost_race = condition.absent and absent and current is not None
        changed = (
            condition.etag is not None
            and match
            and (current is None or current.etag != condition.etag)
        )
        if lost_race or changed:
            raise base.PreconditionFailed(
                "", operation=operation, key=key, status=412, code="PreconditionFailed"
            )

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

    def _info(self, stored: StoredObject, asked_at: float) -> base.ObjectInfo:
        shown = {name: value for name, value in stored.headers.items() if name in _SHOWN_HEADERS}
        if shown.get("x-amz-storage-class") == "STANDARD":
            del shown["x-amz-storage-class"]
        shown.setdefault("content-type", "binary/octet-stream")
        if tagging := stored.headers.get("x-amz-tagging"):
            shown["x-amz-tagging-count"] = str(tagging.count("&") + 1)
        return base.ObjectInfo(
            key=stored.key,
            size=len(stored.data),
            etag=stored.etag,
            last_modified=stored.last_modified,
            metadata=stored.metadata,
            headers=shown,
            version_id=stored.version_id,
            answered_at=self._now(),
            asked_at=asked_at,
        )

    def _put_result(self, stored: StoredObject) -> base.PutResult:
        return base.PutResult(stored.etag, stored.version_id, self._now())

    async def capabilities(self) -> Capabilities:
        await trio.lowlevel.checkpoint()
        return self._capabilities

    async def check_bucket(self, prefix: str) -> None:
        await self.list(prefix, max_keys=1)

    async def head(self, key: str, *, version_id: str | None = None) -> base.ObjectInfo:
        check_key("HeadObject", key)
        asked_at = self.monotonic()
        await self._begin("HeadObject", key)
        info = self._info(self._find("HeadObject", key, version_id), asked_at)
        await self._end("HeadObject", key)
        return info

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
            raise base.PreconditionFailed(
                f"its ETag is {stored.etag}", operation=operation, key=key, status=412
            )
        if if_none_match is not None and stored.etag == if_none_match:
            raise base.NotModified("", operation=operation, key=key, status=304)
        if stored.headers.get("x-amz-storage-class") in _ARCHIVE_CLASSES:
            raise base.Archived(
                "", operation=operation, key=key, status=403, code="InvalidObjectState"
            )
        if start and start >= len(stored.data):
            raise base.InvalidRange(
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

    def _page(
        self,
        prefix: str,
        delimiter: str,
        start_after: str,
        token: str | None,
        max_keys: int,
        asked_at: float,
    ) -> base.ListPage:
        if self._ordered is None:
            self._ordered = sorted(self._objects)  # by code point, which is by UTF-8 byte
        keys = self._ordered
        index = max(bisect_left(keys, prefix), bisect_right(keys, start_after))
        if token is not None:
            index = max(index, self._token_index(keys, token))
        objects: list[base.ListedObject] = []
        prefixes: list[str] = []
        token_now = ""
        while index < len(keys) and keys[index].startswith(prefix):
            if len(objects) + len(prefixes) >= max_keys:
                return base.ListPage(objects, prefixes, token_now, self._now(), asked_at)
            key = keys[index]
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                prefixes.append(key[: cut + len(delimiter)])
                token_now = f"p{prefixes[-1]}"
                index = self._token_index(keys, token_now)
            else:
                token_now = f"o{key}"
                objects.append(self._listed(key))
                index += 1
        return base.ListPage(objects, prefixes, None, self._now(), asked_at)

    @staticmethod
    def _token_index(keys: Sequence[str], token: str) -> int:
        """The first key after the object (o) of `token`, or after all below its prefix (p)."""
        last = token[1:]
        if token[0] == "p":
            return bisect_left(keys, last[:-1] + chr(ord(last[-1]) + 1))
        return bisect_right(keys, last)

    def _listed(self, key: str) -> base.ListedObject:
        stored = self._objects[key]
        return base.ListedObject(
            key,
            len(stored.data),
            stored.etag,
            stored.last_modified,
            stored.headers.get("x-amz-storage-class", "STANDARD"),
        )

    async def put(
        self, key: str, body: Body, headers: WriteHeaders, *, condition: Condition = ALWAYS
    ) -> base.PutResult:
        operation = "PutObject"
        check_key(operation, key)
        check_metadata(operation, key, headers.metadata)
        data = _as_bytes(body)
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
            raise base.InvalidRequest("at most 1000 keys", operation="DeleteObjects")
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
    ) -> base.PutResult:
        operation = "CopyObject"
        check_key(operation, target)
        if replace is not None:
            check_metadata(operation, target, replace.metadata)
        elif source == target:
            raise base.InvalidRequest("a copy onto itself", operation=operation, key=target)
        if source_etag is not None and not self._capabilities.copy_source_if_match:
            self._counts["HeadObject"] += 1  # as the S3 store does there
        await self._begin(operation, target)
        found = self._source(operation, source, source_etag)
        check_put_size(operation, source, len(found.data))
        stored = self._store(
            target, found.data, replace or WriteHeaders(found.metadata, found.headers)
        )
        await self._end(operation, target)
        return self._put_result(stored)

    def _source(self, operation: str, source: str, source_etag: str | None) -> StoredObject:
        found = self._find(operation, source)
        if source_etag is not None and found.etag != source_etag:
            raise base.PreconditionFailed(
                f"the source's ETag is {found.etag}", operation=operation, key=source, status=412
            )
        return found

    # -- multipart uploads

    async def create_upload(self, key: str, headers: WriteHeaders) -> str:
        operation = "CreateMultipartUpload"
        check_key(operation, key)
        check_metadata(operation, key, headers.metadata)
        await self._begin(operation, key)
        upload_id = self._next_id("upload")
        self.uploads[upload_id] = StoredUpload(key, upload_id, headers, self._now())
        await self._end(operation, key)
        return upload_id

    async def upload_part(self, key: str, upload_id: str, number: int, body: Body) -> base.Part:
        operation = "UploadPart"
        data = _as_bytes(body)
        await self._begin(operation, key)
        self._counts["BytesOut"] += len(data)
        part = self._add_part(operation, key, upload_id, number, data)
        await self._end(operation, key)
        return part

    def _add_part(
        self, operation: str, key: str, upload_id: str, number: int, data: bytes
    ) -> base.Part:
        if not 1 <= number <= 10_000:
            raise base.InvalidRequest("part numbers are 1 to 10000", operation=operation, key=key)
        check_put_size(operation, key, len(data))
        upload = self._upload(operation, key, upload_id)
        etag = _md5(data)
        upload.parts[number] = etag, data
        return base.Part(number, etag, len(data), self._checksum(data))

    def _checksum(self, data: bytes) -> str | None:
        if not self._capabilities.checks_crc32c:
            return None
        from awscrt import checksums

        return base64.b64encode(checksums.crc32c(data).to_bytes(4, "big")).decode()

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
    ) -> base.Part:
        if not self._capabilities.part_copy:
            got = await self.get(source, start, length, if_match=source_etag)
            return await self.upload_part(key, upload_id, number, got.data)
        operation = "UploadPartCopy"
        await self._begin(operation, key)
        data = self._source(operation, source, source_etag).data
        if length <= 0 or start + length > len(data):
            raise base.InvalidRange("", operation=operation, key=source, status=416)
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
        self._check_parts(upload, parts)
        data = b"".join(upload.parts[part.number][1] for part in parts)
        etag = multipart_etag([part.etag for part in parts])
        stored = self._store(key, data, upload.headers, etag)
        del self.uploads[upload_id]
        await self._end(operation, key)
        return self._put_result(stored)

    def _check_parts(self, upload: StoredUpload, parts: Sequence[base.Part]) -> None:
        """Raises InvalidPart, or InvalidRequest for a part that is too small or out of order."""
        operation, key = "CompleteMultipartUpload", upload.key
        numbers = [part.number for part in parts]
        if numbers != sorted(set(numbers)) or not numbers:
            raise base.InvalidRequest(
                "no parts, or not ascending", operation=operation, key=key, code="InvalidPartOrder"
            )
        for part in parts:
            if upload.parts.get(part.number, ("", b""))[0] != part.etag:
                raise base.InvalidPart(
                    f"part {part.number}", operation=operation, key=key, status=400
                )
        if len(parts) < len(upload.parts) and not self._capabilities.complete_subset:
            raise base.InvalidPart("not all parts", operation=operation, key=key, status=400)
        for part in parts[:-1]:
            if len(upload.parts[part.number][1]) < self.minimum_part_size:
                raise base.InvalidRequest(
                    f"part {part.number}",
                    operation=operation,
                    key=key,
                    status=400,
                    code="EntityTooSmall",
                )

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

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
