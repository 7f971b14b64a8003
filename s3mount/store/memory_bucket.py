"""What the in-memory store keeps, and other hosts' side door to it. Synchronous."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from urllib.parse import parse_qsl, urlencode

from s3mount.store import base, errors, integrity
from s3mount.store.base import (
    Capabilities,
    Condition,
    WriteHeaders,
)
from s3mount.store.checks import check_put_size

_TAGGING = "x-amz-tagging"
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


class MemoryBucket:
    """Objects, their old versions where the service is `versioned`, and uploads in progress."""

    def __init__(
        self,
        bucket: str,
        *,
        clock: Callable[[], float],
        capabilities: Capabilities,
        minimum_part_size: int,
    ) -> None:
        self.bucket = bucket
        self.clock = clock
        self.uploads: dict[str, StoredUpload] = {}
        self.minimum_part_size = minimum_part_size
        self.copies_tags = True
        self._capabilities = capabilities
        self._objects: dict[str, StoredObject] = {}
        self._versions: dict[tuple[str, str], StoredObject] = {}
        self._ordered: list[str] | None = []  # None: to be sorted anew
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
            etag=etag or integrity.md5(data),
            last_modified=self._now(),
            version_id=self._next_id("version") if self._capabilities.versioned else None,
        )
        if key not in self._objects:
            self._ordered = None
        self._objects[key] = stored
        if stored.version_id is not None:
            self._versions[key, stored.version_id] = stored
        return stored

    def _store_copy(
        self, found: StoredObject, target: str, given: WriteHeaders | None
    ) -> StoredObject:
        """Tags go along, whatever becomes of the metadata, unless the service is as Ceph."""
        if given is None:
            given = WriteHeaders(found.metadata, found.headers)
        elif self.copies_tags and _TAGGING in found.headers:
            tagging = {_TAGGING: found.headers[_TAGGING]}
            given = WriteHeaders(given.metadata, {**given.headers, **tagging})
        return self._store(target, found.data, given)

    @staticmethod
    def _tags(stored: StoredObject) -> dict[str, str]:
        return dict(parse_qsl(stored.headers.get(_TAGGING, ""), keep_blank_values=True))

    def _tag(self, key: str, tags: Mapping[str, str]) -> None:
        """The object stays the same version."""
        stored = self._find("PutObjectTagging", key)
        headers = {name: value for name, value in stored.headers.items() if name != _TAGGING}
        if tags:
            headers[_TAGGING] = urlencode(tags)
        self._objects[key] = replace(stored, headers=MappingProxyType(headers))

    def _remove(self, key: str) -> None:
        if self._objects.pop(key, None) is not None:
            self._ordered = None

    def _find(self, operation: str, key: str, version_id: str | None = None) -> StoredObject:
        if version_id is not None:
            stored = self._versions.get((key, version_id))
        else:
            stored = self._objects.get(key)
        if stored is None:
            raise errors.NotFound("", operation=operation, key=key, status=404, code="NoSuchKey")
        return stored

    def _upload(self, operation: str, key: str, upload_id: str) -> StoredUpload:
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise errors.NoSuchUpload(
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
            raise errors.PreconditionFailed(
                "", operation=operation, key=key, status=412, code="PreconditionFailed"
            )

    # -- what requests do to it

    def _info(self, stored: StoredObject, asked_at: float) -> base.ObjectInfo:
        shown = {name: value for name, value in stored.headers.items() if name in _SHOWN_HEADERS}
        if shown.get("x-amz-storage-class") == "STANDARD":
            del shown["x-amz-storage-class"]
        shown.setdefault("content-type", "binary/octet-stream")
        if count := len(self._tags(stored)):
            shown["x-amz-tagging-count"] = str(count)
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

    def _source(self, operation: str, source: str, source_etag: str | None) -> StoredObject:
        found = self._find(operation, source)
        if source_etag is not None and found.etag != source_etag:
            raise errors.PreconditionFailed(
                f"the source's ETag is {found.etag}", operation=operation, key=source, status=412
            )
        return found

    def _add_part(
        self, operation: str, key: str, upload_id: str, number: int, data: bytes
    ) -> base.Part:
        if not 1 <= number <= 10_000:
            raise errors.InvalidRequest("part numbers are 1 to 10000", operation=operation, key=key)
        check_put_size(operation, key, len(data))
        upload = self._upload(operation, key, upload_id)
        etag = integrity.md5(data)
        upload.parts[number] = etag, data
        return base.Part(number, etag, len(data), self._checksum(data))

    def _checksum(self, data: bytes) -> str | None:
        if not self._capabilities.checks_crc32c:
            return None
        return integrity.crc32c(data)

    def begin_upload(self, key: str, headers: WriteHeaders) -> str:
        """Also from the side: another host begins one. Returns its id."""
        upload_id = self._next_id("upload")
        if not self.copies_tags:
            kept = {name: value for name, value in headers.headers.items() if name != _TAGGING}
            headers = WriteHeaders(headers.metadata, kept)
        self.uploads[upload_id] = StoredUpload(key, upload_id, headers, self._now())
        return upload_id

    def _finish_upload(self, upload: StoredUpload, parts: Sequence[base.Part]) -> StoredObject:
        """What Complete makes of these parts; raises as _check_parts."""
        self._check_parts(upload, parts)
        data = b"".join(upload.parts[part.number][1] for part in parts)
        etag = integrity.multipart_etag([part.etag for part in parts])
        stored = self._store(upload.key, data, upload.headers, etag)
        del self.uploads[upload.upload_id]
        return stored

    def _check_parts(self, upload: StoredUpload, parts: Sequence[base.Part]) -> None:
        """Raises InvalidPart, or InvalidRequest for a part that is too small or out of order."""
        operation, key = "CompleteMultipartUpload", upload.key
        numbers = [part.number for part in parts]
        if numbers != sorted(set(numbers)) or not numbers:
            raise errors.InvalidRequest(
                "no parts, or not ascending", operation=operation, key=key, code="InvalidPartOrder"
            )
        for part in parts:
            if upload.parts.get(part.number, ("", b""))[0] != part.etag:
                raise errors.InvalidPart(
                    f"part {part.number}", operation=operation, key=key, status=400
                )
        if len(parts) < len(upload.parts) and not self._capabilities.complete_subset:
            raise errors.InvalidPart("not all parts", operation=operation, key=key, status=400)
        for part in parts[:-1]:
            if len(upload.parts[part.number][1]) < self.minimum_part_size:
                raise errors.InvalidRequest(
                    f"part {part.number}",
                    operation=operation,
                    key=key,
                    status=400,
                    code="EntityTooSmall",
                )
