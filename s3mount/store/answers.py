"""From an HTTP answer to values and typed errors. No I/O."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from s3mount.store import errors, xml
from s3mount.store.base import (
    KEPT_HEADERS,
    ObjectInfo,
)
from s3mount.store.errors import StoreError
from s3mount.store.integrity import CHECKSUMS

META_PREFIX = "x-amz-meta-"
MAX_SIZE = 2**63 - 1  # off_t
# Seconds: the year 2242. Times are kept as nanoseconds in 64 bits, and none but a broken clock is
# further from now.
_LATEST = 2.0**33
_CONTROLS = re.compile("[\x00-\x1f\x7f]+")
_SHOWN_HEADERS = frozenset(KEPT_HEADERS) | {
    "x-amz-restore",
    "x-amz-missing-meta",
    "x-amz-tagging-count",
}

_BY_CODE: Mapping[str, type[StoreError]] = {
    "NoSuchBucket": errors.NoSuchBucket,
    "InvalidBucketName": errors.NoSuchBucket,
    "NoSuchKey": errors.NotFound,
    "NoSuchVersion": errors.NotFound,
    "NoSuchUpload": errors.NoSuchUpload,
    "AccessDenied": errors.AccessDenied,
    "AccountProblem": errors.AccessDenied,
    "UserSuspended": errors.AccessDenied,
    "InvalidAccessKeyId": errors.BadCredentials,
    "SignatureDoesNotMatch": errors.BadCredentials,
    "ExpiredToken": errors.BadCredentials,
    "ExpiredTokenException": errors.BadCredentials,
    "InvalidToken": errors.BadCredentials,
    "TokenRefreshRequired": errors.BadCredentials,
    "InvalidClientTokenId": errors.BadCredentials,
    "RequestTimeTooSkewed": errors.ClockSkewed,
    "RequestExpired": errors.ClockSkewed,
    "QuotaExceeded": errors.QuotaExceeded,
    "XMinioStorageFull": errors.QuotaExceeded,
    "PreconditionFailed": errors.PreconditionFailed,
    "ConditionalRequestConflict": errors.PreconditionFailed,
    "InvalidRange": errors.InvalidRange,
    "InvalidPart": errors.InvalidPart,
    "EntityTooLarge": errors.EntityTooLarge,
    "KeyTooLongError": errors.KeyTooLong,
    "KeyTooLong": errors.KeyTooLong,
    "InvalidObjectName": errors.KeyTooLong,
    "InvalidURI": errors.KeyTooLong,
    "MetadataTooLarge": errors.MetadataTooLarge,
    "NotImplemented": errors.NotImplementedByService,
    "InvalidObjectState": errors.Archived,
    "SlowDown": errors.SlowDown,
    "SlowDownRead": errors.SlowDown,
    "SlowDownWrite": errors.SlowDown,
    "ServiceUnavailable": errors.SlowDown,
    "TooManyRequests": errors.SlowDown,
    "Throttling": errors.SlowDown,
    "ThrottlingException": errors.SlowDown,
    "RequestLimitExceeded": errors.SlowDown,
    "BandwidthLimitExceeded": errors.SlowDown,
    "InternalError": errors.ServerError,
    "OperationAborted": errors.ServerError,
    # The body was damaged or held up on its way: sending it again is right.
    "BadDigest": errors.CorruptAnswer,
    "XAmzContentChecksumMismatch": errors.CorruptAnswer,
    "IncompleteBody": errors.ConnectionLost,
    "RequestTimeout": errors.ConnectionLost,
}
_BY_STATUS: Mapping[int, type[StoreError]] = {
    304: errors.NotModified,
    401: errors.BadCredentials,
    403: errors.AccessDenied,
    404: errors.NotFound,
    408: errors.ConnectionLost,
    412: errors.PreconditionFailed,
    413: errors.EntityTooLarge,
    414: errors.KeyTooLong,
    416: errors.InvalidRange,
    429: errors.SlowDown,
    501: errors.NotImplementedByService,
    503: errors.SlowDown,
    507: errors.QuotaExceeded,
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
            kind = errors.ServerError if status >= 500 else errors.InvalidRequest
        if kind is errors.NotFound and operation in _BUCKET_OPERATIONS:
            kind = errors.NoSuchBucket
    if kind is errors.NotFound and operation in _UPLOAD_OPERATIONS:
        kind = errors.NoSuchUpload
    if kind is None:
        kind = errors.ServerError
    ambiguous = kind in {errors.ServerError, errors.ConnectionLost}
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
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return _seconds(parsed)


def iso_date(value: str) -> float:
    """Whole seconds since the epoch of a listing's date: Ceph's lists carry milliseconds that
    its HEAD lacks, and the two must compare equal. 0.0 if it is nonsense."""
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return 0.0
    return float(int(_seconds(parsed)))


def _seconds(parsed: datetime) -> float:
    seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    return seconds if 0 <= seconds <= _LATEST else 0.0


def size_of(text: str) -> int:
    """Of an object, in bytes. Raises ValueError for what no file can have."""
    size = int(text)
    if not 0 <= size <= MAX_SIZE:
        raise ValueError(f"a size of {size}")
    return size


def object_info(
    key: str, headers: Mapping[str, str], asked_at: float, size: int | None = None
) -> ObjectInfo:
    """From the headers of HEAD or GET, names in any case. Raises CorruptAnswer without an ETag
    or a size (`size`: the whole object's, where Content-Length is only that of a range)."""
    lowered = {name.lower(): _one_line(value) for name, value in headers.items()}
    etag = lowered.get("etag", "").strip('"')
    if size is None:
        with suppress(ValueError):
            size = size_of(lowered.get("content-length", ""))
    if not etag or size is None:
        raise errors.CorruptAnswer("no ETag or no size", operation="HeadObject", key=key)
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


def stored_checksums(headers: Mapping[str, str]) -> dict[str, str]:
    """Of an object, from the answer to a HEAD: by the end of their headers' names."""
    prefix = "x-amz-checksum-"
    found = {name.lower().removeprefix(prefix): value for name, value in headers.items()}
    return {name: found[name] for name in CHECKSUMS if name in found}


def version_id(headers: Mapping[str, str]) -> str | None:
    """None also for the 'null' version of a bucket without versioning."""
    value = headers.get("x-amz-version-id")
    return None if value in {None, "", "null"} else value


def _one_line(value: str) -> str:
    """A folded header as one line: what is kept of an object is sent again, and with a line's end
    in it no request can be."""
    return value if value.isprintable() else _CONTROLS.sub(" ", value).strip(" ")


def _header_text(value: str) -> str:
    """http.client reads headers as Latin-1; services send UTF-8 there."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except UnicodeError:
        return value
