"""The rare requests, by boto3: one attempt each, in the calling thread, typed errors.

Complete and abort. What comes once per file goes by wire.py, and so do the listings: keys that
XML 1.0 cannot carry break botocore's parser.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from botocore import exceptions as boto

from s3mount.core.config import StoreConfig
from s3mount.store import base
from s3mount.store.answers import error_for, http_date, version_id
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection

T = TypeVar("T")

_UNSENT = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)
_REFUSED = {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken"}


class RareRequests:
    """May be called from any thread; boto3's clients are thread-safe."""

    def __init__(self, config: StoreConfig, connection: Connection, counts: Counts) -> None:
        self._bucket = config.bucket
        self._connection = connection
        self._counts = counts
        self._payer = {"RequestPayer": "requester"} if config.requester_pays else {}

    def complete(
        self, key: str, upload_id: str, parts: Sequence[base.Part], conditions: dict[str, str]
    ) -> base.PutResult:
        """`conditions`: IfMatch or IfNoneMatch. The ETag is '' where the answer lacks it (Ceph's
        first answer does): then the caller must look what has become of it."""
        operation = "CompleteMultipartUpload"
        listed = [_part_fields(part) for part in parts]
        answer = self._call(
            operation,
            key,
            lambda client: client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": listed},
                **conditions,
                **self._payer,
            ),
        )
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        etag = answer.get("ETag", "").strip('"')
        return base.PutResult(etag, version_id(headers), http_date(headers.get("date", "")))

    def abort(self, key: str, upload_id: str) -> None:
        self._call(
            "AbortMultipartUpload",
            key,
            lambda client: client.abort_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, **self._payer
            ),
        )

    def _call(self, operation: str, key: str, request: Callable[[Any], T]) -> T:
        for last in (False, True):
            self._counts.add(operation)
            refused = self._connection.credentials()
            try:
                return request(self._connection.client())
            except boto.ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                if last or code not in _REFUSED:
                    raise _typed(operation, key, error) from error
                if not self._connection.reload_credentials(refused):
                    raise _typed(operation, key, error) from error
            except boto.BotoCoreError as error:
                raise _untyped(operation, key, error) from error
        raise AssertionError  # unreachable: the second round returns or raises


def _typed(operation: str, key: str, error: boto.ClientError) -> base.StoreError:
    answer: Any = error.response
    meta = answer.get("ResponseMetadata", {})
    status = meta.get("HTTPStatusCode")
    fields = answer.get("Error", {})
    code = fields.get("Code", "")
    return error_for(
        operation,
        key,
        status,
        "" if code == str(status) else code,  # botocore's stand-in where there was no body
        fields.get("Message", ""),
        meta.get("RequestId", ""),
    )


def _untyped(operation: str, key: str, error: boto.BotoCoreError) -> base.StoreError:
    kind: type[base.StoreError] = base.ConnectionLost
    ambiguous = not isinstance(error, _UNSENT)
    if isinstance(error, boto.NoCredentialsError | boto.CredentialRetrievalError):
        kind, ambiguous = base.BadCredentials, False
    elif type(error).__name__ == "ResponseParserError":
        kind = base.CorruptAnswer
    return kind(str(error), operation=operation, key=key, ambiguous=ambiguous)


def _part_fields(part: base.Part) -> dict[str, object]:
    fields: dict[str, object] = {"PartNumber": part.number, "ETag": f'"{part.etag}"'}
    if part.checksum is not None:
        fields["ChecksumCRC32C"] = part.checksum
    return fields
