"""Single questions to a service, on one key of our own: wrong values, to see whether it notices.

A question that is answered neither by a success nor by a clear refusal (403, no connection)
raises that StoreError, so that nothing wrong is remembered.
"""

import contextlib
import functools
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
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
from s3mount.store.request import Answer, Request
from s3mount.store.retry import backoff
from s3mount.store.sender import Sender

T = TypeVar("T")

log = logging.getLogger(__name__)

_BODY = b"s3mount probes what this service honours; this object is deleted again"
_WRONG_ETAG = "0" * 32
_MOST_VERSIONS = 20  # more than the questions below can write
_CLEANING_ATTEMPTS = 5
_UNCLEAR = (errors.AccessDenied, errors.NoSuchBucket, errors.QuotaExceeded, errors.SlowDown)
_LOST = (errors.ConnectionLost, errors.DeadlineExceeded)


class Questions:
    """What is asked on one key; `clean_up` removes all traces of it."""

    def __init__(
        self,
        bucket: str,
        key: str,
        sender: Sender,
        headers: RequestHeaders,
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._sender = sender
        self._headers = headers
        self._etag = ""
        self._written = False
        self.versioned = False
        # Whether ETags were those of S3, as far as any was seen.
        self.md5_etags: bool | None = None
        self.large_md5_etags = False
        self.multipart_etags: bool | None = None
        self._uploads: set[str] = set()
        self._may_have_more = False  # an upload whose creation had no answer: its id is not known

    async def write(self) -> None:
        """An object to ask about."""
        result = await self._put({})
        if isinstance(result, StoreError):
            raise result

    async def clean_up(self) -> None:
        """Best effort: what remains is one small object with a telling name."""
        if self._may_have_more:
            await self._quietly("list uploads", self._find_uploads)
        for upload_id in tuple(self._uploads):
            await self._quietly("abort", functools.partial(self._abort, upload_id))
        if self._written:
            await self._quietly("delete", self._delete)

    async def _find_uploads(self) -> None:
        """Those of this key, which nobody else has."""
        query = (("uploads", ""), ("prefix", self._key))
        request = Request(
            "ListMultipartUploads", "GET", None, query, self._headers.list(), about=self._key
        )
        found, _ = await self._sender.read(
            request, lambda answer: parse_uploads(answer.body, self._key), lane=Lane.METADATA
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

    # -- PUT

    async def put_if_absent(self) -> bool:
        """Right where the key is absent, refused where it is there."""
        right = await self._put({"if-none-match": "*"})
        if isinstance(right, StoreError):
            plain = await self._put({})
            if isinstance(plain, StoreError):
                raise plain
            return False
        return _refused(await self._put({"if-none-match": "*"}), errors.PreconditionFailed)

    async def put_if_match(self) -> tuple[bool, bool]:
        """(is it honoured, is the ETag to be quoted)"""
        for quoted in (True, False):
            form = '"{}"' if quoted else "{}"
            wrong = await self._put({"if-match": form.format(_WRONG_ETAG)})
            if not _refused(wrong, errors.PreconditionFailed):
                return False, True
            right = await self._put({"if-match": form.format(self._etag)})
            if not isinstance(right, StoreError):
                return True, quoted
        return False, True

    async def _put(self, condition: dict[str, str]) -> base.PutResult | StoreError:
        headers = self._headers.write(WriteHeaders()) | condition
        request = Request("PutObject", "PUT", self._key, (), headers, _BODY)
        digest, etags = integrity.Digest(), integrity.Md5Etags(encrypted=True)
        can = base.Capabilities()
        self._written = True  # also where the answer is lost
        result = await self._ask(
            request, lambda answer: results.put_result(self._key, digest, etags, answer, can)
        )
        if not isinstance(result, StoreError):
            self._note_written(result)
            self._note_md5(result.etag)
        return result

    def _note_md5(self, etag: str) -> None:
        self.md5_etags = self.md5_etags is not False and etag == integrity.md5(_BODY)

    def _note_written(self, result: base.PutResult) -> None:
        self._written = True
        self._etag = result.etag
        self.versioned = self.versioned or result.version_id is not None

    # -- checksums, on parts of an upload that is aborted

    async def checksums(self) -> tuple[bool, bool]:
        """(a wrong CRC32C is refused and a right one taken, the same of Content-MD5)"""
        upload_id = await self._create(announce_crc32c=True)
        announced = upload_id is not None
        if upload_id is None:
            upload_id = await self._create(announce_crc32c=False)
        if upload_id is None:
            return False, False
        other = b"x"
        crc, md5 = integrity.crc32c, integrity.md5
        checked = []
        for wrong, right in (
            (integrity.Digest(crc32c=crc(other)), integrity.Digest(crc32c=crc(_BODY))),
            (integrity.Digest(md5=md5(other)), integrity.Digest(md5=md5(_BODY))),
        ):
            refused = isinstance(await self._part(upload_id, 1, wrong), StoreError)
            taken = not isinstance(await self._part(upload_id, 1, right), StoreError)
            checked.append(refused and taken)
        self.large_md5_etags = await self._large_md5_etags(upload_id, announced)
        await self._abort(upload_id)
        return checked[0] and announced, checked[1]

    async def _large_md5_etags(self, upload_id: str, announced: bool) -> bool:
        """Asked twice: an answer damaged on its way is not remembered for ever."""
        body = bytes(base.LARGE_BODY + 1)
        digest = integrity.Digest(crc32c=integrity.crc32c(body) if announced else None)
        for _ in range(2):
            etag = await self._part_etag(upload_id, 2, digest, body)
            if etag == integrity.md5(body):
                return True
        return False

    async def _create(self, *, announce_crc32c: bool) -> str | None:
        headers = self._headers.write(WriteHeaders())
        if announce_crc32c:
            headers["x-amz-checksum-algorithm"] = "CRC32C"
        request = Request("CreateMultipartUpload", "POST", self._key, (("uploads", ""),), headers)
        try:
            result = await self._ask(request, functools.partial(results.upload_id, self._key))
        except StoreError:
            self._may_have_more = True
            raise
        if isinstance(result, StoreError):
            return None
        self._uploads.add(result)
        return result

    async def _part(
        self, upload_id: str, number: int, digest: integrity.Digest
    ) -> base.Part | StoreError:
        etag = await self._part_etag(upload_id, number, digest, _BODY)
        if isinstance(etag, StoreError):
            return etag
        self._note_md5(etag)
        return base.Part(number, etag, len(_BODY), digest.crc32c)

    async def _part_etag(
        self, upload_id: str, number: int, digest: integrity.Digest, body: bytes
    ) -> str | StoreError:
        query = (("partNumber", str(number)), ("uploadId", upload_id))
        headers = self._headers.read() | digest.headers()
        request = Request("UploadPart", "PUT", self._key, query, headers, body)
        return await self._ask(
            request, lambda answer: results.etag_of("UploadPart", self._key, answer)
        )

    async def _abort(self, upload_id: str) -> None:
        with contextlib.suppress(
            errors.NoSuchUpload, errors.NotFound
        ):  # a refused Complete took it
            request = abort_request(self._key, upload_id, self._headers.list())
            await self._sender.write(request.operation, self._key, lambda: request, lambda _: None)
        self._uploads.discard(upload_id)

    # -- copies

    async def copies(self) -> tuple[bool, bool]:
        """(both copies heed If-Match of the source, a part copy copies its range)"""
        upload_id = await self._create(announce_crc32c=False)
        copied = await self._copy(_WRONG_ETAG)
        heeded = _refused(copied, errors.PreconditionFailed)
        if upload_id is None:
            return False, False
        length = len(_BODY) // 2
        first, last = 3, 3 + length - 1
        headers = self._headers.read() | self._headers.copy_source(self._bucket, self._key)
        headers["x-amz-copy-source-range"] = f"bytes={first}-{last}"
        query = (("partNumber", "1"), ("uploadId", upload_id))
        part = await self._part_copy(query, headers, length)
        part_copy = await self._is_range(part, upload_id, _BODY[first : last + 1])
        wrong = headers | {"x-amz-copy-source-if-match": f'"{_WRONG_ETAG}"'}
        refused = _refused(await self._part_copy(query, wrong, length), errors.PreconditionFailed)
        if heeded and refused:
            heeded = not isinstance(await self._copy(self._etag), StoreError)
        await self._abort(upload_id)
        return heeded and refused, part_copy

    async def _copy(self, source_etag: str) -> base.PutResult | StoreError:
        headers = self._headers.copy(self._bucket, self._key, WriteHeaders())
        headers["x-amz-copy-source-if-match"] = f'"{source_etag}"'
        request = Request("CopyObject", "PUT", self._key, (), headers)
        result = await self._ask(
            request, functools.partial(results.copy_result, "CopyObject", self._key)
        )
        if not isinstance(result, StoreError):
            self._note_written(result)
        return result

    async def _part_copy(
        self, query: tuple[tuple[str, str], ...], headers: dict[str, str], length: int
    ) -> base.Part | StoreError:
        request = Request("UploadPartCopy", "PUT", self._key, query, headers)
        return await self._ask(
            request, functools.partial(results.copied_part, self._key, 1, length)
        )

    async def _is_range(
        self, part: base.Part | StoreError, upload_id: str, expected: bytes
    ) -> bool:
        """AWS copies no ranges of objects up to 5 MiB, and says so: that is the real thing."""
        if isinstance(part, StoreError):
            return isinstance(part, errors.InvalidRequest) and "byte-range" in str(part)
        if part.etag == integrity.md5(expected):
            return True
        # An ETag that is no MD5 proves nothing: at least the size must be right.
        request = Request(
            "ListParts", "GET", self._key, (("uploadId", upload_id),), self._headers.read()
        )
        listed = await self._ask(request, lambda answer: parse_parts(answer.body, self._key))
        if isinstance(listed, StoreError):
            return False
        return [found.size for found in listed[0]] == [len(expected)]

    # -- Complete

    async def complete_if_match(self, quoted: bool, crc32c: bool) -> bool:
        form = '"{}"' if quoted else "{}"
        upload = await self._upload_of(1, crc32c)
        if upload is None:
            return False
        wrong = await self._complete(*upload, {"if-match": form.format(_WRONG_ETAG)})
        if not _refused(wrong, errors.PreconditionFailed):
            return False
        right = await self._complete(*upload, {"if-match": form.format(self._etag)})
        return not isinstance(right, StoreError)

    async def complete_if_absent(self, crc32c: bool) -> bool:
        upload = await self._upload_of(1, crc32c)
        if upload is None:
            return False
        wrong = await self._complete(*upload, {"if-none-match": "*"})
        if not _refused(wrong, errors.PreconditionFailed):
            return False
        await self._delete()
        right = await self._complete(*upload, {"if-none-match": "*"})
        return not isinstance(right, StoreError)

    async def complete_subset(self, crc32c: bool) -> bool:
        upload = await self._upload_of(2, crc32c)
        if upload is None:
            return False
        upload_id, parts = upload
        return not isinstance(await self._complete(upload_id, parts[:1], {}), StoreError)

    async def _upload_of(self, count: int, crc32c: bool) -> tuple[str, list[base.Part]] | None:
        upload_id = await self._create(announce_crc32c=crc32c)
        if upload_id is None:
            return None
        crc = integrity.crc32c(_BODY) if crc32c else None
        parts = []
        for number in range(1, count + 1):
            part = await self._part(upload_id, number, integrity.Digest(crc32c=crc))
            if isinstance(part, StoreError):
                return None
            parts.append(part)
        return upload_id, parts

    async def _complete(
        self, upload_id: str, parts: Sequence[base.Part], conditions: dict[str, str]
    ) -> base.PutResult | StoreError:
        request = complete_request(self._key, upload_id, parts, self._headers.read() | conditions)
        answer = await self._ask(request, functools.partial(results.completed, self._key, parts))
        if isinstance(answer, StoreError):
            return answer
        result = answer[0]
        self._uploads.discard(upload_id)
        if not result.etag:  # Ceph's first answer to a Complete
            result = replace(result, etag=await self._current_etag())
        self._note_written(result)
        expected = integrity.multipart_etag([part.etag for part in parts])
        self.multipart_etags = self.multipart_etags is not False and result.etag == expected
        return result

    async def _current_etag(self) -> str:
        request = Request("HeadObject", "HEAD", self._key, (), self._headers.read())
        etag = await self._ask(
            request, lambda answer: results.etag_of("HeadObject", self._key, answer)
        )
        return "" if isinstance(etag, StoreError) else etag

    # -- all of them

    async def _delete(self) -> None:
        """With every version that we made, so that nothing remains in a versioned bucket."""
        if not self.versioned:
            await self._delete_version("")
            return
        for _ in range(_MOST_VERSIONS):
            request = Request("HeadObject", "HEAD", self._key, (), self._headers.read())
            version = await self._ask(request, lambda answer: version_id(answer.headers) or "")
            if isinstance(version, StoreError):  # the last one is gone
                return
            await self._delete_version(version)

    async def _delete_version(self, version: str) -> None:
        query = (("versionId", version),) if version else ()
        request = Request("DeleteObject", "DELETE", self._key, query, self._headers.list())
        refused = await self._ask(request, lambda _: None)
        if isinstance(refused, errors.TransientError):
            raise refused

    async def _ask(self, request: Request, parse: Callable[[Answer], T]) -> T | StoreError:
        """The refusal itself is an answer; raises it where it tells nothing."""
        try:
            return await self._sender.write(request.operation, self._key, lambda: request, parse)
        except StoreError as error:
            return _clear(error)


def _refused(result: object, kind: type[StoreError]) -> bool:
    return isinstance(result, kind)


def _clear(error: StoreError) -> StoreError:
    """The refusal itself as an answer; raises it where it tells nothing of the question."""
    if isinstance(error, (*_UNCLEAR, *_LOST)):
        raise error
    return error
