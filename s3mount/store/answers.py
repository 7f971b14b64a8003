"""From an HTTP answer to values and typed errors. No I/O."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from s3mount.store import base, xml
from s3mount.store.base import KEPT_HEADERS, ObjectInfo, StoreError

META_PREFIX = "x-amz-meta-"
_SHOWN_HEADERS = frozenset(KEPT_HEADERS) | {
    "x-amz-restore",
    "x-amz-missing-meta",
    "x-amz-tagging-count",
}

_BY_CODE: Mapping[str, type[StoreError]] = {
    "NoSuchBucket": base.NoSuchBucket,
    "InvalidBucketName": base.NoSuchBucket,
    "NoSuchKey": base.NotFound,
    "NoSuchVersion": base.NotFound,
    "NoSuchUpload": base.NoSuchUpload,
    "AccessDenied": base.AccessDenied,
    "AccountProblem": base.AccessDenied,
    "UserSuspended": base.AccessDenied,
    "InvalidAccessKeyId": base.BadCredentials,
    "SignatureDoesNotMatch": base.BadCredentials,
    "ExpiredToken": base.BadCredentials,
    "ExpiredTokenException": base.BadCredentials,
    "InvalidToken": base.BadCredentials,
    "TokenRefreshRequired": base.BadCredentials,
    "InvalidClientTokenId": base.BadCredentials,
    "RequestTimeTooSkewed": base.ClockSkewed,
    "RequestExpired": base.ClockSkewed,
    "QuotaExceeded": base.QuotaExceeded,
    "XMinioStorageFull": base.QuotaExceeded,
    "PreconditionFailed": base.PreconditionFailed,
    "ConditionalRequestConflict": base.PreconditionFailed,
    "InvalidRange": base.InvalidRange,
    "InvalidPart": base.InvalidPart,
    "EntityTooLarge": base.EntityTooLarge,
    "KeyTooLongError": base.KeyTooLong,
    "KeyTooLong": base.KeyTooLong,
    "InvalidObjectName": base.KeyTooLong,
    "InvalidURI": base.KeyTooLong,
    "MetadataTooLarge": base.MetadataTooLarge,
    "NotImplemented": base.NotImplementedByService,
    "InvalidObjectState": base.Archived,
    "SlowDown": base.SlowDown,
    "SlowDownRead": base.SlowDown,
    "SlowDownWrite": base.SlowDown,
    "ServiceUnavailable": base.SlowDown,
    "TooManyRequests": base.SlowDown,
    "Throttling": base.SlowDown,
    "ThrottlingException": base.SlowDown,
    "RequestLimitExceeded": base.SlowDown,
    "BandwidthLimitExceeded": base.SlowDown,
    "InternalError": base.ServerError,
    "OperationAborted": base.ServerError,
    # The body was damaged or held up on its way: sending it again is right.
    "BadDigest": base.CorruptAnswer,
    "XAmzContentChecksumMismatch": base.CorruptAnswer,
    "IncompleteBody": base.ConnectionLost,
    "RequestTimeout": base.ConnectionLost,
}
_BY_STATUS: Mapping[int, type[StoreError]] = {
    304: base.NotModified,
    401: base.BadCredentials,
    403: base.AccessDenied,
    404: base.NotFound,
    408: base.ConnectionLost,
    412: base.PreconditionFailed,
    413: base.EntityTooLarge,
    414: base.KeyTooLong,
    416: base.InvalidRange,
    429: base.SlowDown,
    501: base.NotImplementedByService,
    503: base.SlowDown,
    507: base.QuotaExceeded,
}
_UPLOAD_OPERATIONS = {
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "ListParts",  # Ceph answers NoSuchKey
    "UploadPart",
}
_BUCKET_OPERATIONS = {"ListObjectsV2", "DeleteObjects", "ListMultipartUploads"}


def error_for(
    operation: str, key: str, status: int | None, code: str, message: str, request_id: str
) -> StoreError:
    """The typed error of an answer that is not a success.

    It is `ambiguous` where the service may have carried the request out nevertheless.
    """
    kind = _BY_CODE.get(code)
    if kind is None and status is not None:
        kind = _BY_STATUS.get(status)
        if kind is None:
            kind = base.ServerError if status >= 500 else base.InvalidRequest
        if kind is base.NotFound and operation in _BUCKET_OPERATIONS:
            kind = base.NoSuchBucket
    if kind is base.NotFound and operation in _UPLOAD_OPERATIONS:
        kind = base.NoSuchUpload
    if kind is None:
        kind = base.ServerError
    ambiguous = kind in {base.ServerError, base.ConnectionLost}
    return kind(
        message,
        operation=operation,
        key=key,
        status=status,
        code=code,
        request_id=request_id,
        ambiguous=ambiguous,
    )


def error_fields(body: bytes) -> dict[str, str]:
    """The children of an <Error>: Code, Message, RequestId, Region, ...; {} if it is none."""
    try:
        root, _ = xml.parse(body)
    except xml.NotXml:
        return {}
    return xml.fields(root) if xml.local_name(root) == "Error" else {}


@lru_cache(maxsize=4096)
def http_date(value: str) -> float:
    """Seconds since the epoch of an HTTP date; 0.0 if it is missing or nonsense."""
    try:
        parsed = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return 0.0
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def iso_date(value: str) -> float:
    """Whole seconds since the epoch of a listing's date: Ceph's lists carry milliseconds that
    its HEAD lacks, and the two must compare equal. 0.0 if it is nonsense."""
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return 0.0
    return float(int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()))


def object_info(
    key: str, headers: Mapping[str, str], asked_at: float, size: int | None = None
) -> ObjectInfo:
    """From the headers of HEAD or GET, names in any case. Raises CorruptAnswer without an ETag
    or a size (`size`: the whole object's, where Content-Length is only that of a range)."""
    lowered = {name.lower(): value for name, value in headers.items()}
    etag = lowered.get("etag", "").strip('"')
    length = lowered.get("content-length", "")
    if size is None and length.isdigit():
        size = int(length)
    if not etag or size is None:
        raise base.CorruptAnswer("no ETag or no size", operation="HeadObject", key=key)
    return ObjectInfo(
        key=key,
        size=size,
        etag=etag,
        last_modified=http_date(lowered.get("last-modified", "")),
        metadata={
            name[len(META_PREFIX) :]: _header_text(value)
            for name, value in lowered.items()
            if name.startswith(META_PREFIX)
        },
        headers={name: value for name, value in lowered.items() if name in _SHOWN_HEADERS},
        version_id=version_id(lowered),
        answered_at=http_date(lowered.get("date", "")),
        asked_at=asked_at,
    )


def version_id(headers: Mapping[str, str]) -> str | None:
    """None also for the 'null' version of a bucket without versioning."""
    value = headers.get("x-amz-version-id")
    return None if value in {None, "", "null"} else value


def _header_text(value: str) -> str:
    """http.client reads headers as Latin-1; services send UTF-8 there."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except UnicodeError:
        return value
