"""One key of our own, on which probing.py asks a service: its requests, and what they have shown.

A request that is answered neither by a success nor by a clear refusal (403, no connection) raises
that StoreError, so that nothing wrong is remembered.
"""

import contextlib
import functools
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import trio

from s3mount.store import base, errors, integrity, results
from s3mount.store.answers import version_id
from s3mount.store.base import WriteHeaders
from s3mount.store.call import Lane
from s3mount.store.errors import StoreError
from s3mount.store.headers import RequestHeaders
from s3mount.store.listing import parse_parts, parse_uploads
from s3mount.store.multipart import abort_request, complete_request
from s3mount.store.parallel import side_by_side
from s3mount.store.request import Answer, Request
from s3mount.store.retry import backoff
from s3mount.store.sender import Sender

T = TypeVar("T")

log = logging.getLogger(__name__)

BODY = b"s3mount probes what this service honours; this object is deleted again"
_MOST_VERSIONS = 20  # more than the questions can write
_CLEANING_ATTEMPTS = 5
_UNCLEAR = (errors.AccessDenied, errors.NoSuchBucket, errors.QuotaExceeded, errors.SlowDown)
_LOST = (errors.ConnectionLost, errors.DeadlineExceeded)


class ProbeObject:
    """Answers are results, or the StoreErrors that refuse. `clean_up` removes all traces."""

    def __init__(self, bucket: str, key: str, sender: Sender, headers: RequestHeaders) -> None:
        self.bucket = bucket
        self.key = key
        self.etag = ""  # of the last version
        self.versioned = False
        # Whether ETags were those of S3, as far as any was seen.
        self.md5_etags: bool | None = None
        self.multipart_etags: bool | None = None
        self._sender = sender
        self._headers = headers
        self._written = False
        self._uploads: set[str] = set()
        self._may_have_more = False  # an upload whose creation had no answer: its id is not known

    async def clean_up(self) -> None:
        """Best effort: what remains is one small object with a telling name."""
        if self._may_have_more:
            await self._quietly("list uploads", self._find_uploads)
        steps: list[tuple[str, Callable[[], Awaitable[None]]]]
        steps = [("abort", functools.partial(self.abort, one)) for one in self._uploads]
        if self._written:
            steps.append(("delete", self.delete))
        await side_by_side(*(functools.partial(self._quietly, *step) for step in steps))

    async def _find_uploads(self) -> None:
        """Those of this key, which nobody else has."""
        query = (("uploads", ""), ("prefix", self.key))
        request = Request(
            "ListMultipartUploads", "GET", None, query, self._headers.list(), about=self.key
        )
        found, _ = await self._sender.read(
            request, lambda answer: parse_uploads(answer.body, self.key), lane=Lane.METADATA
        )
        self._uploads.update(one.upload_id for one in found)

    async def _quietly(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        for attempt in itertools.count():
            try:
                await step()
            except StoreError as error:
                if error.transient and attempt < _CLEANING_ATTEMPTS:
                    await trio.sleep(backoff(attempt, error, 0.5))
                    continue
                log.warning("after probing, %s: %s", what, error)
            return

    # -- the object

    async def write(self) -> None:
        """An object to ask about."""
        result = await self.put({})
        if isinstance(result, StoreError):
            raise result

    async def put(self, condition: dict[str, str]) -> base.PutResult | StoreError:
        headers = self._headers.write(WriteHeaders()) | condition
        request = Request("PutObject", "PUT", self.key, (), headers, BODY)
        digest, etags = integrity.Digest(), integrity.Md5Etags(encrypted=True)
        can = base.Capabilities()
        self._written = True  # also where the answer is lost
        result = await self._ask(
            request, lambda answer: results.put_result(self.key, digest, etags, answer, can)
        )
        if not isinstance(result, StoreError):
            self._note_written(result)
            self._note_md5(result.etag)
        return result

    def _note_md5(self, etag: str) -> None:
        self.md5_etags = self.md5_etags is not False and etag == integrity.md5(BODY)

    def _note_written(self, result: base.PutResult) -> None:
        self._written = True
        self.etag = result.etag
        self.versioned = self.versioned or result.version_id is not None

    async def copy(self, source_etag: str) -> base.PutResult | StoreError:
        """Onto itself, if it is the version of this ETag."""
        headers = self._headers.copy(self.bucket, self.key, WriteHeaders())
        headers["x-amz-copy-source-if-match"] = f'"{source_etag}"'
        request = Request("CopyObject", "PUT", self.key, (), headers)
        result = await self._ask(
            request, functools.partial(results.copy_result, "CopyObject", self.key)
        )
        if not isinstance(result, StoreError):
            self._note_written(result)
        return result

    async def delete(self) -> None:
        """With every version that we made, so that nothing remains in a versioned bucket."""
        if not self.versioned:
            await self._delete_version("")
            return
        for _ in range(_MOST_VERSIONS):
            request = Request("HeadObject", "HEAD", self.key, (), self._headers.read())
            version = await self._ask(request, lambda answer: version_id(answer.headers) or "")
            if isinstance(version, StoreError):  # the last one is gone
                return
            await self._delete_version(version)

    async def _delete_version(self, version: str) -> None:
        query = (("versionId", version),) if version else ()
        request = Request("DeleteObject", "DELETE", self.key, query, self._headers.list())
        refused = await self._ask(request, lambda _: None)
        if isinstance(refused, errors.TransientError):
            raise refused

    async def _current_etag(self) -> str:
        request = Request("HeadObject", "HEAD", self.key, (), self._headers.read())
        etag = await self._ask(
            request, lambda answer: results.etag_of("HeadObject", self.key, answer)
        )
        return "" if isinstance(etag, StoreError) else etag

    # -- its uploads

    async def create(self, *, announce_crc32c: bool) -> str | None:
        """None: refused."""
        headers = self._headers.write(WriteHeaders())
        if announce_crc32c:
            headers["x-amz-checksum-algorithm"] = "CRC32C"
        request = Request("CreateMultipartUpload", "POST", self.key, (("uploads", ""),), headers)
        try:
            result = await self._ask(request, functools.partial(results.upload_id, self.key))
        except StoreError:
            self._may_have_more = True
            raise
        if isinstance(result, StoreError):
            return None
        self._uploads.add(result)
        return result

    async def part(
        self, upload_id: str, number: int, digest: integrity.Digest
    ) -> base.Part | StoreError:
        etag = await self.part_etag(upload_id, number, digest, BODY)
        if isinstance(etag, StoreError):
            return etag
        self._note_md5(etag)
        return base.Part(number, etag, len(BODY), digest.crc32c)

    async def part_etag(
        self, upload_id: str, number: int, digest: integrity.Digest, body: bytes
    ) -> str | StoreError:
        query = (("partNumber", str(number)), ("uploadId", upload_id))
        headers = self._headers.read() | digest.headers()
        request = Request("UploadPart", "PUT", self.key, query, headers, body)
        return await self._ask(
            request, lambda answer: results.etag_of("UploadPart", self.key, answer)
        )

    async def part_copy(
        self, upload_id: str, number: int, first: int, length: int, source_etag: str | None = None
    ) -> base.Part | StoreError:
        """A range of the object, if it is the version of `source_etag`."""
        query = (("partNumber", str(number)), ("uploadId", upload_id))
        headers = self._headers.read() | self._headers.copy_source(self.bucket, self.key)
        headers["x-amz-copy-source-range"] = f"bytes={first}-{first + length - 1}"
        if source_etag is not None:
            headers["x-amz-copy-source-if-match"] = f'"{source_etag}"'
        request = Request("UploadPartCopy", "PUT", self.key, query, headers)
        return await self._ask(
            request, functools.partial(results.copied_part, self.key, number, length)
        )

    async def part_sizes(self, upload_id: str) -> Mapping[int, int]:
        """By number; none where they are not told."""
        query = (("uploadId", upload_id),)
        request = Request("ListParts", "GET", self.key, query, self._headers.read())
        listed = await self._ask(request, lambda answer: parse_parts(answer.body, self.key))
        if isinstance(listed, StoreError):
            return {}
        return {found.number: found.size for found in listed[0]}

    async def upload_of(self, count: int, crc32c: bool) -> tuple[str, Sequence[base.Part]] | None:
        """An upload with so many parts; None where something of it is refused."""
        upload_id = await self.create(announce_crc32c=crc32c)
        if upload_id is None:
            return None
        digest = integrity.Digest(crc32c=integrity.crc32c(BODY) if crc32c else None)
        parts: dict[int, base.Part | StoreError] = {}

        async def send(number: int) -> None:
            parts[number] = await self.part(upload_id, number, digest)

        numbers = range(1, count + 1)
        await side_by_side(*(functools.partial(send, number) for number in numbers))
        sent = [one for number in numbers if not isinstance(one := parts[number], StoreError)]
        return (upload_id, sent) if len(sent) == count else None

    async def complete(
        self, upload_id: str, parts: Sequence[base.Part], conditions: dict[str, str]
    ) -> base.PutResult | StoreError:
        request = complete_request(self.key, upload_id, parts, self._headers.read() | conditions)
        try:
            answer = await self._ask(request, functools.partial(results.completed, self.key, parts))
        except StoreError:
            self._written = True  # perhaps
            raise
        if isinstance(answer, StoreError):
            self._written = self._written or answer.ambiguous
            return answer
        result = answer[0]
        self._written = True
        self._uploads.discard(upload_id)
        if not result.etag:  # Ceph's first answer to a Complete
            result = replace(result, etag=await self._current_etag())
        self._note_written(result)
        expected = integrity.multipart_etag([part.etag for part in parts])
        self.multipart_etags = self.multipart_etags is not False and result.etag == expected
        return result

    async def abort(self, upload_id: str) -> None:
        with contextlib.suppress(
            errors.NoSuchUpload, errors.NotFound
        ):  # a refused Complete took it
            request = abort_request(self.key, upload_id, self._headers.list())
            await self._sender.write(request.operation, self.key, lambda: request, lambda _: None)
        self._uploads.discard(upload_id)

    # -- all of them

    async def _ask(self, request: Request, parse: Callable[[Answer], T]) -> T | StoreError:
        """The refusal itself is an answer; raises it where it tells nothing."""
        try:
            return await self._sender.write(request.operation, self.key, lambda: request, parse)
        except StoreError as error:
            if isinstance(error, (*_UNCLEAR, *_LOST)):
                raise
            return error
