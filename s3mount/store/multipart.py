"""Multipart uploads: create, parts, Complete, abort, and the listings of them."""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from s3mount.store import base, errors, integrity, results
from s3mount.store.answers import object_info
from s3mount.store.base import (
    Body,
    Condition,
    WriteHeaders,
)
from s3mount.store.call import Lane
from s3mount.store.capabilities import CapabilityProbe
from s3mount.store.headers import RequestHeaders
from s3mount.store.listing import complete_body, parse_parts, parse_uploads
from s3mount.store.request import Answer, Request, body_size
from s3mount.store.sender import SERVER_SIDE_PATIENCE, SERVER_SIDE_SILENCE, Sender

log = logging.getLogger(__name__)

# Of one listing, about 300 bytes each in memory. Who has more has forgotten them for years.
MOST_UPLOADS = 1_000_000
# What a page counts for at least: one without any that was asked for leads on all the same.
_LEAST_OF_PAGE = 100


def complete_request(
    key: str, upload_id: str, parts: Sequence[base.Part], headers: Mapping[str, str]
) -> Request:
    return Request(
        "CompleteMultipartUpload",
        "POST",
        key,
        (("uploadId", upload_id),),
        {**headers, "content-type": "application/xml"},
        complete_body(parts),
        silence=SERVER_SIDE_SILENCE,
    )


def abort_request(key: str, upload_id: str, headers: Mapping[str, str]) -> Request:
    return Request("AbortMultipartUpload", "DELETE", key, (("uploadId", upload_id),), headers)


def _parse_uploads(
    prefix: str, sent_markers: tuple[str, str], answer: Answer
) -> tuple[list[base.Upload], tuple[str, str] | None]:
    return parse_uploads(answer.body, prefix, sent_markers)


class MultipartUploads:
    def __init__(
        self,
        sender: Sender,
        probe: CapabilityProbe,
        headers: RequestHeaders,
    ) -> None:
        self._sender = sender
        self._probe = probe
        self._headers = headers
        self._etags = integrity.Md5Etags(encrypted=headers.encrypted)

    async def create(self, key: str, headers: WriteHeaders) -> str:
        """Returns the upload id. By the wire, since its headers are those of a PUT."""
        operation = "CreateMultipartUpload"
        can = (await self._probe.known()).capabilities
        sent = self._headers.write(headers)
        if can.checks_crc32c:  # AWS refuses checksums of parts that were not announced here
            sent["x-amz-checksum-algorithm"] = "CRC32C"
        request = Request(operation, "POST", key, (("uploads", ""),), sent)
        return await self._sender.write(
            operation, key, lambda: request, functools.partial(results.upload_id, key)
        )

    async def part(
        self,
        key: str,
        upload_id: str,
        number: int,
        body: Body,
        check: base.Check | None = None,
    ) -> base.Part:
        operation = "UploadPart"
        can = (await self._probe.known()).capabilities
        size = body_size(body)
        query = (("partNumber", str(number)), ("uploadId", upload_id))
        digest = integrity.Digest()

        def build() -> Request:
            nonlocal digest
            tells = can.checks_md5 or self._etags.may_tell(operation, can)
            digest = integrity.digest_for(
                body, checks_crc32c=can.checks_crc32c, md5_tells=tells, check=check
            )
            headers = self._headers.read() | digest.headers()
            return Request(operation, "PUT", key, query, headers, body)

        def parse(answer: Answer) -> base.Part:
            etag = results.checked_etag(operation, key, digest, self._etags, answer, can)
            return base.Part(number, etag, size, digest.crc32c)

        return await self._sender.write(operation, key, build, parse, size=size)

    async def copied_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        copy_source: Mapping[str, str],
        start: int,
        length: int,
        condition: Mapping[str, str],
    ) -> base.Part:
        """`copy_source`: the headers that name the source."""
        operation = "UploadPartCopy"
        headers = {**self._headers.read(), **copy_source, **condition}
        headers["x-amz-copy-source-range"] = f"bytes={start}-{start + length - 1}"
        query = (("partNumber", str(number)), ("uploadId", upload_id))
        request = Request(operation, "PUT", key, query, headers, silence=SERVER_SIDE_SILENCE)
        return await self._sender.write(
            operation,
            key,
            lambda: request,
            functools.partial(results.copied_part, key, number, length),
            patience=SERVER_SIDE_PATIENCE,
        )

    async def complete(
        self, key: str, upload_id: str, parts: Sequence[base.Part], condition: Condition
    ) -> base.PutResult:
        """Raises CorruptAnswer, ambiguous, unless the object is known to be made of `parts`."""
        known = await self._probe.known()
        headers = self._headers.read()
        if condition.absent and known.capabilities.complete_if_absent:
            headers["if-none-match"] = "*"
        elif condition.etag is not None and known.capabilities.complete_if_match:
            headers["if-match"] = known.if_match(condition.etag)
        request = complete_request(key, upload_id, parts, headers)
        result, proved = await self._sender.write(
            request.operation,
            key,
            lambda: request,
            functools.partial(results.completed, key, parts),
            patience=SERVER_SIDE_PATIENCE,
        )
        expected = self.etag_of(parts)
        if result.etag and (
            result.etag == expected or (proved and not known.capabilities.multipart_etags)
        ):
            return result
        return await self._looked_at(key, parts, result)

    def etag_of(self, parts: Sequence[base.Part]) -> str | None:
        """What an object of these parts has for an ETag; None if it cannot be told."""
        if self._headers.encrypted:
            return None
        return integrity.multipart_etag([part.etag for part in parts])

    async def _looked_at(
        self, key: str, parts: Sequence[base.Part], answered: base.PutResult
    ) -> base.PutResult:
        """The answer to Complete does not tell what the object is made of: a HEAD does.

        Where the answer has no ETag at all (Ceph's first one) and something else is found,
        another host has replaced our object since: the answer itself said that it was made.
        """
        log.info("Complete of %r answered with ETag %r: looked at", key, answered.etag)
        found = await self.find(key, parts, answered.etag)
        if found is not None:
            return found
        expected = self.etag_of(parts)
        known = (await self._probe.known()).capabilities
        if not answered.etag and expected is not None and known.multipart_etags:
            return replace(answered, etag=expected)
        raise errors.CorruptAnswer(
            f"answered with ETag {answered.etag or 'none'}, and not our object there",
            operation="CompleteMultipartUpload",
            key=key,
            ambiguous=True,
        )

    async def find(
        self, key: str, parts: Sequence[base.Part], answered: str = ""
    ) -> base.PutResult | None:
        """Is the object at `key` the one of these parts? `answered`: the ETag that Complete has
        told, which is believed where the service does not make ETags of its parts'."""
        request = Request("HeadObject", "HEAD", key, (), self._headers.read())
        try:
            info = await self._sender.read(
                request,
                lambda answer: object_info(key, answer.headers, answer.asked_at),
                lane=Lane.METADATA,
            )
        except errors.NotFound:
            return None
        if info.size != sum(part.size for part in parts):
            return None
        expected = self.etag_of(parts)
        if expected is not None and info.etag != expected:
            known = (await self._probe.known()).capabilities
            if known.multipart_etags or info.etag != answered:
                return None
        return base.PutResult(info.etag, info.version_id, info.answered_at)

    async def abort(self, key: str, upload_id: str) -> None:
        request = abort_request(key, upload_id, self._headers.list())
        try:
            await self._sender.write(request.operation, key, lambda: request, lambda _: None)
        except errors.NoSuchUpload:
            return

    async def parts(self, key: str, upload_id: str) -> Sequence[base.Part]:
        parts: list[base.Part] = []
        marker: int | None = 0
        while marker is not None:
            found, marker = await self._parts_page(key, upload_id, marker)
            parts += found
        return parts

    async def pending(self, prefix: str) -> Sequence[base.Upload]:
        operation = "ListMultipartUploads"
        uploads: list[base.Upload] = []
        seen = 0
        markers: tuple[str, str] | None = ("", "")
        while markers is not None:
            query = [("uploads", "")]
            if prefix:
                query.append(("prefix", prefix))
            if markers[0]:
                query += [("key-marker", markers[0]), ("upload-id-marker", markers[1])]
            request = Request(
                operation, "GET", None, tuple(query), self._headers.list(), about=prefix
            )
            parse = functools.partial(_parse_uploads, prefix, markers)
            found, markers = await self._sender.read(request, parse, lane=Lane.METADATA)
            uploads += found
            seen += max(len(found), _LEAST_OF_PAGE)
            if seen > MOST_UPLOADS:
                raise errors.StoreError(
                    f"more than {MOST_UPLOADS} unfinished uploads: end them by a lifecycle rule of"
                    " the bucket (AbortIncompleteMultipartUpload)",
                    operation=operation,
                    key=prefix,
                )
        return uploads

    async def _parts_page(
        self, key: str, upload_id: str, marker: int
    ) -> tuple[list[base.Part], int | None]:
        """Parts after number `marker`, and the next marker."""
        query = [("uploadId", upload_id)]
        if marker:
            query.append(("part-number-marker", str(marker)))
        request = Request("ListParts", "GET", key, tuple(query), self._headers.read())
        return await self._sender.read(
            request, lambda answer: parse_parts(answer.body, key, marker), lane=Lane.METADATA
        )
