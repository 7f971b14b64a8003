"""Multipart uploads: parts and listings by the wire, Complete and abort by boto3."""

import functools
from collections.abc import Mapping, Sequence

from s3mount.store import base, integrity, results
from s3mount.store.base import Body, Condition, WriteHeaders
from s3mount.store.call import Lane
from s3mount.store.capabilities import CapabilityProbe
from s3mount.store.headers import RequestHeaders
from s3mount.store.listing import parse_parts, parse_uploads
from s3mount.store.rare import RareRequests
from s3mount.store.sender import SERVER_SIDE_PATIENCE, Sender
from s3mount.store.wire import Answer, Request, body_size


class MultipartUploads:
    def __init__(
        self,
        bucket: str,
        sender: Sender,
        rare: RareRequests,
        probe: CapabilityProbe,
        headers: RequestHeaders,
    ) -> None:
        self._bucket = bucket
        self._sender = sender
        self._rare = rare
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

    async def part(self, key: str, upload_id: str, number: int, body: Body) -> base.Part:
        operation = "UploadPart"
        can = (await self._probe.known()).capabilities
        size = body_size(body)
        query = (("partNumber", str(number)), ("uploadId", upload_id))
        digest = integrity.Digest()

        def build() -> Request:
            nonlocal digest
            digest = integrity.digest_for(
                body, size, checks_crc32c=can.checks_crc32c, checks_md5=can.checks_md5
            )
            headers = self._headers.read() | digest.headers()
            return Request(operation, "PUT", key, query, headers, body)

        def parse(answer: Answer) -> base.Part:
            etag = results.checked_etag(operation, key, digest, self._etags, answer)
            return base.Part(number, etag, size, digest.crc32c)

        return await self._sender.write(operation, key, build, parse, size=size)

    async def copied_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        source: str,
        start: int,
        length: int,
        condition: Mapping[str, str],
    ) -> base.Part:
        operation = "UploadPartCopy"
        headers = self._headers.read() | self._headers.copy_source(self._bucket, source)
        headers |= condition
        headers["x-amz-copy-source-range"] = f"bytes={start}-{start + length - 1}"
        query = (("partNumber", str(number)), ("uploadId", upload_id))
        request = Request(operation, "PUT", key, query, headers)
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
        known = await self._probe.known()
        conditions: dict[str, str] = {}
        if condition.absent and known.capabilities.complete_if_absent:
            conditions["IfNoneMatch"] = "*"
        elif condition.etag is not None and known.capabilities.complete_if_match:
            conditions["IfMatch"] = known.if_match(condition.etag)
        return await self._sender.call(
            "CompleteMultipartUpload",
            key,
            lambda: self._rare.complete(key, upload_id, parts, conditions),
            patience=SERVER_SIDE_PATIENCE,
        )

    async def abort(self, key: str, upload_id: str) -> None:
        try:
            await self._sender.call(
                "AbortMultipartUpload", key, lambda: self._rare.abort(key, upload_id)
            )
        except (base.NoSuchUpload, base.NotFound):
            return

    async def parts(self, key: str, upload_id: str) -> Sequence[base.Part]:
        parts: list[base.Part] = []
        marker: int | None = 0
        while marker is not None:
            try:
                found, marker = await self._parts_page(key, upload_id, marker)
            except base.NotFound as error:  # Ceph: NoSuchKey
                raise base.NoSuchUpload(
                    str(error), operation="ListParts", key=key, status=404, code=error.code
                ) from error
            parts += found
        return parts

    async def pending(self, prefix: str) -> Sequence[base.Upload]:
        operation = "ListMultipartUploads"
        uploads: list[base.Upload] = []
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
            found, markers = await self._sender.read(
                request, lambda answer: parse_uploads(answer.body, prefix), lane=Lane.METADATA
            )
            uploads += found
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
            request, lambda answer: parse_parts(answer.body, key), lane=Lane.METADATA
        )
