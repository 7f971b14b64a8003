"""Server-side copies of one object: in one request, or in parts side by side."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from s3mount.core.config import MIB, WritebackConfig
from s3mount.core.metadata import Attributes, content_type_renamed, encode, with_mtime
from s3mount.store.base import (
    KEPT_HEADERS,
    Condition,
    ObjectInfo,
    ObjectStore,
    Part,
    PutResult,
    WriteHeaders,
)
from s3mount.store.errors import PreconditionFailed, StoreError
from s3mount.store.integrity import multipart_etag
from s3mount.writeback.begun_upload import BegunUpload
from s3mount.writeback.doubts import Doubts, Sent
from s3mount.writeback.kept_tags import COPY, CREATE, KeptTags, Tags, count_of, with_tags
from s3mount.writeback.parallel import all_of
from s3mount.writeback.part_table import SentPart

# Below this one CopyObject is never slower than create + parts + complete.
PARTS_FROM = 128 * MIB
# A CopyObject this fast moves no bytes (Ceph: 1 GiB in 0.1 s); then parts would only be slower.
COPY_BY_REFERENCE = 1024 * MIB
# Rates of smaller copies measure the latency, not the rate.
MEASURED_FROM = 16 * MIB
# Part copies of one object at once: sixteen of 64 MiB copy 1 GiB in one go.
PARALLEL_PARTS = 16

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """`tags_lost`: why the copy does not have the source's tags; '' if it has."""

    result: PutResult
    info: ObjectInfo  # of the source
    tags_lost: str = ""


class CopyUploads(Protocol):
    """What the Copier needs of whoever keeps the books of uploads: the mount's Uploader, or
    transfer's for a copy without a mount."""

    @property
    def doubts(self) -> Doubts:
        """Told of answers that were lost."""
        ...

    async def begin_upload(self, key: str, headers: WriteHeaders) -> tuple[BegunUpload, str]: ...

    def progressed(self) -> None:
        """A part was copied: a long copy is no standstill."""
        ...


def headers_of_copy(
    info: ObjectInfo, target: str, attributes: Attributes | None, *, renames: bool
) -> WriteHeaders:
    """What a copy of the object to `target` carries; see Copier.copy."""
    if attributes is None:
        metadata = with_mtime(info.metadata, info.last_modified)
    else:
        metadata = encode(attributes, info.metadata)
    kept = {name: info.headers[name] for name in KEPT_HEADERS if name in info.headers}
    if renames and "content-type" in kept:
        kept["content-type"] = content_type_renamed(
            kept["content-type"], info.metadata, info.key, target
        )
    return WriteHeaders(metadata, kept)


class Copier:
    """Copies objects and rewrites metadata; remembers which way is the faster one here."""

    def __init__(self, store: ObjectStore, config: WritebackConfig, uploader: CopyUploads) -> None:
        self._store = store
        self._config = config
        self._uploader = uploader
        self._doubts = uploader.doubts
        self._tags = KeptTags(store)
        self._copy_rate: float | None = None  # bytes a second of CopyObject, the best seen

    async def copy(
        self,
        source: str,
        target: str,
        *,
        etag: str | None,
        attributes: Attributes | None,
        renames: bool = False,
        origin: ObjectStore | None = None,
        progress: Progress = lambda amount: None,
    ) -> Copied:
        """Copies bytes, metadata, headers and tags; with `attributes` these replace the old ones.
        `renames`: the file has another name afterwards, which may mean another Content-Type.
        `origin`: the store of the source's bucket, where that is another one. `progress` is told of
        bytes as they are copied.

        An object whose mtime is its Last-Modified gets it as metadata: the copy's is now.

        Raises PreconditionFailed if the source is not the version `etag`, NotFound if it is gone.
        """
        info = await (origin or self._store).head(source)
        if etag is not None and info.etag != etag:
            raise PreconditionFailed(
                f"is another version now ({info.etag}, expected {etag})",
                operation="CopyObject",
                key=source,
            )
        headers = headers_of_copy(info, target, attributes, renames=renames)
        operation = CREATE if self._in_parts(info) else COPY
        tags = await self._tags.of(info, origin or self._store, operation)
        if operation == CREATE:
            result = await self._copy_parts(info, target, headers, tags, origin, progress)
        else:
            result = await self._copy_whole(info, target, headers, origin)
            progress(info.size)
        lost = await self._tags.see_to(tags, operation, target, result)
        return Copied(result, info, lost)

    async def _copy_whole(
        self, info: ObjectInfo, target: str, headers: WriteHeaders, origin: ObjectStore | None
    ) -> PutResult:
        started = time.monotonic()
        # A copy of parts gets another ETag.
        etags = () if "-" in info.etag else (info.etag,)
        with self._doubts.of([target], Sent(info.size, headers, etags)):
            result = await self._store.copy(
                info.key, target, source_etag=info.etag, replace=headers, origin=origin
            )
        if info.size >= MEASURED_FROM:
            rate = info.size / max(1e-3, time.monotonic() - started)
            self._copy_rate = max(rate, self._copy_rate or 0.0)
        return result

    def _in_parts(self, info: ObjectInfo) -> bool:
        if info.size > self._config.max_copy_size:
            return True
        if count_of(info):
            return False  # which CopyObject takes along on most services
        return info.size >= PARTS_FROM and (
            self._copy_rate is None or self._copy_rate < COPY_BY_REFERENCE
        )

    async def _copy_parts(
        self,
        info: ObjectInfo,
        target: str,
        headers: WriteHeaders,
        tags: Tags,
        origin: ObjectStore | None,
        progress: Progress,
    ) -> PutResult:
        config = self._config
        step = max(config.copy_part_size, -(-info.size // config.max_parts), config.min_part_size)
        begun, upload_id = await self._begin(target, headers, tags)
        parts: dict[int, Part] = {}

        async def one(number: int, start: int) -> None:
            length = min(step, info.size - start)
            part = parts[number] = await self._store.upload_part_copy(
                *(target, upload_id, number, info.key, start, length),
                source_etag=info.etag,
                origin=origin,
            )
            begun.has(SentPart(part, start, start + length, 0, info.etag), part.checksum)
            self._uploader.progressed()
            progress(length)

        starts = enumerate(range(0, info.size, step), 1)
        try:
            await all_of([partial(one, *start) for start in starts], PARALLEL_PARTS)
            ordered = [parts[number] for number in sorted(parts)]
            etag = multipart_etag([part.etag for part in ordered])
            sent = Sent(info.size, headers, () if etag is None else (etag,))
            with self._doubts.of([target], sent):
                result = await self._store.complete_upload(
                    target, upload_id, ordered, condition=Condition()
                )
        except BaseException:
            with trio.move_on_after(10) as scope:
                scope.shield = True
                await begun.abort()
            raise
        begun.ended()
        return result

    async def _begin(
        self, target: str, headers: WriteHeaders, tags: Tags
    ) -> tuple[BegunUpload, str]:
        """Where tags are refused (they need a permission of their own) without them."""
        if tags.values:
            try:
                return await self._uploader.begin_upload(target, with_tags(headers, tags))
            except StoreError as error:
                if error.transient or error.ambiguous:
                    raise
        return await self._uploader.begin_upload(target, headers)
