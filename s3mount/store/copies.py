"""CopyObject and UploadPartCopy: copies within the service, also from another bucket."""

import functools
from collections.abc import Mapping

from s3mount.store import base, errors, results
from s3mount.store.base import WriteHeaders
from s3mount.store.capabilities import CapabilityProbe
from s3mount.store.checks import check_key, check_match, check_metadata, same_metadata
from s3mount.store.headers import RequestHeaders
from s3mount.store.multipart import MultipartUploads
from s3mount.store.request import Request
from s3mount.store.sender import SERVER_SIDE_PATIENCE, SERVER_SIDE_SILENCE, Sender


class ServerCopies:
    """`store`: that of the target's bucket, which makes the copies."""

    def __init__(
        self,
        store: base.ObjectStore,
        sender: Sender,
        probe: CapabilityProbe,
        headers: RequestHeaders,
        uploads: MultipartUploads,
    ) -> None:
        self._store = store
        self._sender = sender
        self._probe = probe
        self._headers = headers
        self._uploads = uploads

    async def whole(
        self,
        origin: base.ObjectStore,
        source: str,
        target: str,
        source_etag: str | None,
        replace: WriteHeaders | None,
    ) -> base.PutResult:
        operation = "CopyObject"
        check_key(operation, target)
        if replace is not None:
            check_metadata(operation, target, replace.metadata)
        headers = self._headers.copy(origin.bucket, source, replace)
        if source_etag is not None:
            headers |= await self._source_condition(operation, origin, source, source_etag)
        request = Request(operation, "PUT", target, (), headers, silence=SERVER_SIDE_SILENCE)
        try:
            return await self._sender.write(
                operation,
                target,
                lambda: request,
                functools.partial(results.copy_result, operation, target),
                patience=SERVER_SIDE_PATIENCE,
            )
        except errors.PreconditionFailed as error:
            # Our own copy onto itself, its answer lost, may have changed the ETag.
            onto_itself = (origin.bucket, source) == (self._store.bucket, target)
            if not error.ambiguous or not onto_itself or replace is None:
                raise
            info = await self._store.head(target)
            if not same_metadata(info, replace):
                raise
            return base.PutResult(info.etag, info.version_id, info.answered_at)

    async def part(
        self,
        key: str,
        upload_id: str,
        number: int,
        origin: base.ObjectStore,
        source: str,
        start: int,
        length: int,
        source_etag: str | None,
    ) -> base.Part:
        operation = "UploadPartCopy"
        known = await self._probe.known()
        # Ceph decodes the source key of UploadPartCopy twice: 'a%41' is not found there, and
        # 'a%zz' crashes the gateway.
        if known.capabilities.part_copy and "%" not in source:
            condition: Mapping[str, str] = {}
            if source_etag is not None:
                condition = await self._source_condition(operation, origin, source, source_etag)
            copy_source = self._headers.copy_source(origin.bucket, source)
            try:
                return await self._uploads.copied_part(
                    key, upload_id, number, copy_source, start, length, condition
                )
            except (errors.NotImplementedByService, errors.InvalidRequest):
                pass  # e.g. AWS copies no range of an object up to 5 MiB
        got = await origin.get(source, start, length, if_match=source_etag)
        if len(got.data) != length:
            raise errors.InvalidRange("", operation=operation, key=source, status=416)
        return await self._uploads.part(key, upload_id, number, got.data)

    async def _source_condition(
        self, operation: str, origin: base.ObjectStore, source: str, source_etag: str
    ) -> Mapping[str, str]:
        """The header where it is honoured; else looks now (Ceph and moto ignore the header)."""
        if (await self._probe.known()).capabilities.copy_source_if_match:
            return {"x-amz-copy-source-if-match": f'"{source_etag}"'}
        check_match(operation, await origin.head(source), source_etag)
        return {}
