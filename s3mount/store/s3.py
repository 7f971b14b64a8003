"""The S3 store: each method of the protocol as requests, and what becomes of their answers.

Requests go by wire.py; threads, retries and deadlines are the performer's (open.py shows how they
are stacked). boto3 is asked for configuration, credentials and addresses alone (endpoint.py).
"""

import time
from collections.abc import Mapping, Sequence

import trio

from s3mount.core.config import StoreConfig
from s3mount.store import base, errors, integrity, results
from s3mount.store.answers import object_info, stored_checksums
from s3mount.store.base import (
    ALWAYS,
    Body,
    Capabilities,
    Condition,
    WriteHeaders,
)
from s3mount.store.call import Lane
from s3mount.store.capabilities import CapabilityProbe, Known
from s3mount.store.checks import (
    check_key,
    check_match,
    check_metadata,
    check_put_size,
    same_metadata,
)
from s3mount.store.copies import ServerCopies
from s3mount.store.counts import Counts
from s3mount.store.deleting import BatchDelete
from s3mount.store.endpoint import Connection
from s3mount.store.headers import RequestHeaders
from s3mount.store.limit import Lanes
from s3mount.store.multipart import MultipartUploads
from s3mount.store.pages import Pages
from s3mount.store.quick_head import QuickHead
from s3mount.store.quick_put import QUICK_BODY
from s3mount.store.request import Answer, Request, body_size
from s3mount.store.sender import Sender
from s3mount.store.tagging import Tagging
from s3mount.store.wire import Wire

# So long after an answer that proves the bucket's existence a 404 speaks of the key alone.
BUCKET_SEEN = 5.0
_READ_BACK_LIMIT = 64 * 1024 * 1024  # more is not worth it: the put fails, its caller looks


class S3Store:
    """See base.ObjectStore; made by open.open_store."""

    def __init__(
        self,
        config: StoreConfig,
        connection: Connection,
        wire: Wire,
        quick: QuickHead,
        sender: Sender,
        probe: CapabilityProbe,
        uploads: MultipartUploads,
        counts: Counts,
        lanes: Lanes,
    ) -> None:
        self._config = config
        self._connection = connection
        self._wire = wire
        self._quick = quick
        self._sender = sender
        self._probe = probe
        self._uploads = uploads
        self._counts = counts
        self._lanes = lanes
        self._headers = RequestHeaders(config)
        self._etags = integrity.Md5Etags(encrypted=self._headers.encrypted)
        self._deletes = BatchDelete(sender, self._headers)
        self._copies = ServerCopies(self, sender, probe, self._headers, uploads)
        self._pages = Pages(config, sender, self._headers)
        self._tagging = Tagging(sender, self._headers)
        self._bucket_seen_at = -BUCKET_SEEN  # time.monotonic() of an answer that proves it

    @property
    def bucket(self) -> str:
        return self._config.bucket

    async def capabilities(self) -> Capabilities:
        return (await self._probe.known()).capabilities

    async def check_bucket(self, prefix: str, *, max_keys: int = 1) -> base.ListPage:
        self._probe.prefix = prefix
        # Whether there is an answer at all must be known at once, whatever has been deleted there.
        page = await self._pages.page(prefix, "/", "", None, max_keys, follow=max_keys > 1)
        self._bucket_seen_at = time.monotonic()
        return page

    # -- reading

    async def head(self, key: str, *, version_id: str | None = None) -> base.ObjectInfo:
        check_key("HeadObject", key)
        request = Request("HeadObject", "HEAD", key, _version(version_id), self._headers.read())
        try:
            if (found := await self._quick.ask(request)) is None:
                found = await self._sender.read(
                    request,
                    lambda answer: object_info(key, answer.headers, answer.asked_at),
                    lane=Lane.METADATA,
                )
        except errors.NotFound:
            await self._check_bucket_is_there(key)
            raise
        self._bucket_seen_at = time.monotonic()
        return found

    async def checksums(self, key: str) -> Mapping[str, str]:
        check_key("HeadObject", key)
        if not (await self._probe.known()).capabilities.checks_crc32c:
            return {}
        headers = self._headers.read() | {"x-amz-checksum-mode": "ENABLED"}
        request = Request("HeadObject", "HEAD", key, (), headers)
        return await self._sender.read(
            request, lambda answer: stored_checksums(answer.headers), lane=Lane.METADATA
        )

    async def _check_bucket_is_there(self, key: str) -> None:
        """A HEAD's 404 has no body to say which of both is missing, and a file that is not there
        is forgotten: raises NoSuchBucket where it is the bucket."""
        if time.monotonic() - self._bucket_seen_at < BUCKET_SEEN:
            return
        try:
            await self.list(key, max_keys=1)
        except errors.NoSuchBucket:
            raise
        except errors.StoreError:
            return  # it may not be listed: nothing is known

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
        check_key("GetObject", key)
        if length == 0:
            return await self._get_nothing(key, start, if_match, version_id)
        headers = self._headers.read() | results.range_header(start, length)
        if start == 0 and self._probe.known_so_far().capabilities.checks_crc32c:
            headers["x-amz-checksum-mode"] = "ENABLED"
        if if_match is not None:
            headers["if-match"] = f'"{if_match}"'
        if if_none_match is not None:
            headers["if-none-match"] = f'"{if_none_match}"'
        request = Request("GetObject", "GET", key, _version(version_id), headers)
        version = results.OneVersion(if_match)
        try:
            result = await self._sender.read(
                request,
                lambda answer: version.checked(results.get_result(key, start, length, answer)),
                lane=Lane.READ,
                size=length or 0,
            )
        except errors.InvalidRange:
            if start:
                raise
            return await self._get_nothing(key, start, if_match, version_id)
        if if_none_match is not None and result.info.etag == if_none_match:
            raise errors.NotModified("", operation="GetObject", key=key, status=200)
        return result

    async def _get_nothing(
        self, key: str, start: int, if_match: str | None, version_id: str | None
    ) -> base.GetResult:
        """A range of no bytes: the object is empty, or none were asked for."""
        info = await self.head(key, version_id=version_id)
        check_match("GetObject", info, if_match)
        if start and start >= info.size:
            raise errors.InvalidRange("", operation="GetObject", key=key, status=416)
        return base.GetResult(info, start, b"")

    async def list(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> base.ListPage:
        page = await self._pages.page(prefix, delimiter, start_after, token, max_keys)
        self._bucket_seen_at = time.monotonic()
        return page

    # -- writing

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
        size = body_size(body)
        check_key(operation, key)
        check_metadata(operation, key, headers.metadata)
        check_put_size(operation, key, size)
        known = await self._known_for(size, condition)
        sent = self._headers.write(headers) | known.of_put(condition)
        can = known.capabilities
        digest = integrity.Digest()

        damaged: set[str] = set()  # ETags of bodies of ours that were stored otherwise

        def build() -> Request:
            nonlocal digest
            tells = can.checks_md5 or self._etags.may_tell(operation, can)
            digest = integrity.digest_for(
                body, checks_crc32c=can.checks_crc32c, md5_tells=tells, check=check
            )
            return Request(operation, "PUT", key, (), sent | digest.headers(), body)

        def parse(answer: Answer) -> base.PutResult:
            try:
                return results.put_result(key, digest, self._etags, answer, can)
            except results.StoredOtherwise as error:
                damaged.add(error.etag)
                raise

        try:
            result = await self._sender.write(
                operation, key, build, parse, size=size, quick=size <= QUICK_BODY
            )
        except errors.PreconditionFailed as error:
            if not error.ambiguous:
                raise
            there = await self.head(key)
            if there.etag in damaged:  # our own body, damaged on its way: it is replaced
                replacing = Condition(etag=there.etag)
                return await self.put(key, body, headers, condition=replacing, check=check)
            ours = await self._own_put(there, body, headers)
            if ours is None:
                raise
            return ours
        self._bucket_seen_at = time.monotonic()
        return result

    async def _known_for(self, size: int, condition: Condition) -> Known:
        """Small unconditional PUTs do not wait for the probing: their Content-MD5 is cheap."""
        if condition == ALWAYS and size <= integrity.SMALL_BODY:
            return self._probe.known_so_far()
        return await self._probe.known()

    async def _own_put(
        self, info: base.ObjectInfo, body: Body, headers: WriteHeaders
    ) -> base.PutResult | None:
        """After an attempt with unknown outcome a condition failed: is what is there ours?"""
        if info.size != body_size(body) or not same_metadata(info, headers):
            return None
        expected = await trio.to_thread.run_sync(integrity.md5, body)
        if info.etag != expected:  # which may be no MD5: then the bytes tell
            if info.size > _READ_BACK_LIMIT:
                return None
            there = await self.get(info.key, if_match=info.etag)
            if await trio.to_thread.run_sync(integrity.md5, there.data) != expected:
                return None
        return base.PutResult(info.etag, info.version_id, info.answered_at)

    async def delete(self, key: str) -> None:
        check_key("DeleteObject", key)
        await self._deletes.one(key)

    async def delete_many(self, keys: Sequence[str]) -> Sequence[base.DeleteFailure]:
        return await self._deletes.many(keys)

    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_etag: str | None = None,
        replace: WriteHeaders | None = None,
        origin: base.ObjectStore | None = None,
    ) -> base.PutResult:
        return await self._copies.whole(origin or self, source, target, source_etag, replace)

    async def tags(self, key: str) -> Mapping[str, str]:
        check_key("GetObjectTagging", key)
        return await self._tagging.get(key)

    async def put_tags(self, key: str, tags: Mapping[str, str]) -> None:
        check_key("PutObjectTagging", key)
        await self._tagging.put(key, tags)

    # -- multipart uploads

    async def create_upload(self, key: str, headers: WriteHeaders) -> str:
        check_key("CreateMultipartUpload", key)
        check_metadata("CreateMultipartUpload", key, headers.metadata)
        return await self._uploads.create(key, headers)

    async def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        body: Body,
        *,
        check: base.Check | None = None,
    ) -> base.Part:
        check_put_size("UploadPart", key, body_size(body))
        return await self._uploads.part(key, upload_id, number, body, check)

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
        return await self._copies.part(
            *(key, upload_id, number), origin or self, source, start, length, source_etag
        )

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[base.Part],
        *,
        condition: Condition = ALWAYS,
    ) -> base.PutResult:
        try:
            return await self._uploads.complete(key, upload_id, parts, condition)
        except (errors.PreconditionFailed, errors.NoSuchUpload, errors.TransientError) as error:
            if not error.ambiguous:
                raise
            # What became of it is not known: is the object there the one of these parts?
            ours = await self._uploads.find(key, parts)
            if ours is None:
                raise
            return ours

    async def abort_upload(self, key: str, upload_id: str) -> None:
        await self._uploads.abort(key, upload_id)

    async def list_parts(self, key: str, upload_id: str) -> Sequence[base.Part]:
        return await self._uploads.parts(key, upload_id)

    async def list_uploads(self, prefix: str) -> Sequence[base.Upload]:
        return await self._uploads.pending(prefix)

    # -- the rest

    def counts(self) -> Mapping[str, int]:
        return self._counts.snapshot()

    def lanes(self) -> Mapping[str, base.LaneUse]:
        """Those of threads, and 'head': the quick HEADs that need none."""
        return {**self._lanes.use(), "head": self._quick.use()}

    async def aclose(self) -> None:
        """Idle connections are closed; requests under way end by themselves."""
        await self._quick.aclose()
        self._wire.close()
        self._connection.close()
        await trio.lowlevel.checkpoint()


def _version(version_id: str | None) -> tuple[tuple[str, str], ...]:
    return () if version_id is None else (("versionId", version_id),)
