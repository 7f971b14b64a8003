"""The ObjectStore protocol and its values; its errors are in errors.py.

Every store (memory.py, s3.py and the decorators around them) passes the same contract tests.
Keys are `str`, absolute within the bucket. ETags are given and taken without quotes. Times are
seconds since the epoch, UTC. All methods are coroutines; none blocks the trio loop.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from s3mount.core.config import KIB
from s3mount.store.errors import StoreError


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One version of one key, as HEAD or GET tell it."""

    key: str
    size: int
    etag: str
    last_modified: float
    # x-amz-meta-*, names in lower case without that prefix.
    metadata: Mapping[str, str] = field(default_factory=dict)
    # Names in lower case: those of KEPT_HEADERS that the object has, and x-amz-restore,
    # x-amz-missing-meta, x-amz-tagging-count where the service sends them.
    headers: Mapping[str, str] = field(default_factory=dict)
    version_id: str | None = None
    answered_at: float = 0.0  # the answer's own Date (the service's clock)
    asked_at: float = 0.0  # time.monotonic() just before the request was sent


# What a metadata-only copy must send again, or it is lost (on-bucket-format.md).
KEPT_HEADERS = (
    "content-type",
    "cache-control",
    "content-encoding",
    "content-disposition",
    "content-language",
    "expires",
    "x-amz-storage-class",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-website-redirect-location",
)


@dataclass(frozen=True, slots=True)
class ListedObject:
    key: str
    size: int
    etag: str
    last_modified: float
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class ListPage:
    """Objects and common prefixes, each in ascending order of UTF-8 bytes."""

    objects: Sequence[ListedObject]
    prefixes: Sequence[str]
    next_token: str | None  # what only the store understands; None: this was the last page
    answered_at: float = 0.0
    asked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class GetResult:
    info: ObjectInfo  # info.size is the whole object's size
    start: int
    data: bytes  # exactly the range asked for, cut at the object's end


@dataclass(frozen=True, slots=True)
class PutResult:
    etag: str
    version_id: str | None = None
    answered_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    etag: str
    size: int
    checksum: str | None = None  # CRC32C, base64, where the service checks it


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload in progress."""

    key: str
    upload_id: str
    initiated: float
    initiator: str = ""


@dataclass(frozen=True, slots=True)
class SlicedBody:
    """A body too large for memory: `read(offset, length)` is called in a worker thread."""

    size: int
    read: Callable[[int, int], bytes]
    slice_size: int = 8 * 1024 * 1024

    def slices(self) -> Iterator[bytes]:
        for offset in range(0, self.size, self.slice_size):
            yield self.read(offset, min(self.slice_size, self.size - offset))


Body = bytes | bytearray | memoryview | SlicedBody

# Called (in a worker thread) when the checksum that goes with a body was taken and before anything
# is sent; raises where the bytes are not those that were to be sent. What is damaged in memory
# later does not fit that checksum, and the service refuses it.
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class WriteHeaders:
    """What is stored with an object: user metadata and headers (names in lower case)."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Condition:
    """Commit only if the key is absent (`absent`) or still has `etag`; neither: always."""

    absent: bool = False
    etag: str | None = None


ALWAYS = Condition()


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    key: str
    error: StoreError


# Bytes. There are services whose ETags of larger bodies are no MD5s. The probing looks at one body
# of each kind; from which size on it is so, it does not know.
LARGE_BODY = 64 * KIB


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this service does right, probed with wrong values; False is the safe answer."""

    put_if_absent: bool = False
    put_if_match: bool = False
    complete_if_absent: bool = False
    complete_if_match: bool = False
    copy_source_if_match: bool = False  # CopyObject and UploadPartCopy both
    part_copy: bool = False  # UploadPartCopy with a range copies that range
    checks_crc32c: bool = False  # a wrong x-amz-checksum-crc32c is refused
    checks_md5: bool = False  # a wrong Content-MD5 is refused
    versioned: bool = False  # PUT answers carry a version id
    complete_subset: bool = False  # Complete may leave out parts that were uploaded
    md5_etags: bool = False  # the ETags of PUT and UploadPart are MD5s of their bodies
    large_md5_etags: bool = False  # of bodies over LARGE_BODY, too
    multipart_etags: bool = False  # that of Complete is made of the parts' ETags, as S3's is

    def md5_etag(self, size: int) -> bool:
        """Whether the ETag of an object put as one body of so many bytes is its MD5."""
        return self.md5_etags and (size <= LARGE_BODY or self.large_md5_etags)


@dataclass(frozen=True, slots=True)
class LaneUse:
    """Requests of one lane: under way, waiting for their turn, how many may be under way at
    present (fewer after a SlowDown), and how many at most."""

    busy: int
    waiting: int
    limit: int
    most: int


class ObjectStore(Protocol):
    """One bucket. Errors are StoreErrors; methods that name none raise any of them.

    `origin` of the copies is the store of the source's bucket, where that is another one of the
    same service and credentials.
    """

    @property
    def bucket(self) -> str: ...

    async def capabilities(self) -> Capabilities:
        """Probed at the first call, then remembered; never raises for what cannot be probed."""
        ...

    async def check_bucket(self, prefix: str, *, max_keys: int = 1) -> ListPage:
        """The first request to it, a LIST of one level of `prefix`: raises NoSuchBucket,
        AccessDenied, ... With `max_keys` 1 the page may be empty though there are more."""
        ...

    async def head(self, key: str, *, version_id: str | None = None) -> ObjectInfo:
        """Raises NotFound."""
        ...

    async def checksums(self, key: str) -> Mapping[str, str]:
        """Those stored with the object: 'crc32c', ... (integrity.CHECKSUMS), in base64, with '-N'
        at the end where they are of its N parts. Empty, without a request, where the service is
        not known to store any. Raises NotFound."""
        ...

    async def get(
        self,
        key: str,
        start: int = 0,
        length: int | None = None,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        version_id: str | None = None,
    ) -> GetResult:
        """Bytes [start, start+length), cut at the end; an empty object answers b"" for start 0.

        The answer's ETag is compared with `if_match` even where the service ignores the header
        (PreconditionFailed). Raises NotFound, NotModified, InvalidRange, Archived.
        """
        ...

    async def list(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> ListPage:
        """One page, empty only if it is the last. Raises CorruptAnswer where the answer is
        cut, or names nothing new for thousands of pages."""
        ...

    async def put(
        self,
        key: str,
        body: Body,
        headers: WriteHeaders,
        *,
        condition: Condition = ALWAYS,
        check: Check | None = None,
    ) -> PutResult:
        """The whole object in one request; `check`: see Check.

        A condition is sent only as far as capabilities() know it to be honoured; the caller looks
        first where they do not. After an ambiguous failure a 412 is looked into: it is our own
        success if the object there has our ETag.
        """
        ...

    async def delete(self, key: str) -> None:
        """Deleting what is not there succeeds."""
        ...

    async def delete_many(self, keys: Sequence[str]) -> Sequence[DeleteFailure]:
        """At most 1000 keys; keys that XML cannot carry are deleted singly. [] = all gone."""
        ...

    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_etag: str | None = None,
        replace: WriteHeaders | None = None,
        origin: "ObjectStore | None" = None,
    ) -> PutResult:
        """CopyObject (objects up to 5 GiB). `replace` None keeps metadata and headers as they are.

        Headers that CopyObject would reset (storage class, encryption) must be in `replace`. Tags
        go along on AWS; Ceph drops them from a copy with `replace`.
        With `source_etag` raises PreconditionFailed if the source has another one: by header
        where it is honoured, else by a HEAD just before.
        """
        ...

    async def tags(self, key: str) -> Mapping[str, str]:
        """All of them. Raises NotFound."""
        ...

    async def put_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """In the place of those that it has. Raises NotFound."""
        ...

    async def create_upload(self, key: str, headers: WriteHeaders) -> str:
        """CreateMultipartUpload; returns the upload id."""
        ...

    async def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        body: Body,
        *,
        check: Check | None = None,
    ) -> Part:
        """`check`: see Check."""
        ...

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
        origin: "ObjectStore | None" = None,
    ) -> Part:
        """UploadPartCopy of [start, start+length); where the service cannot (or the source key
        has a '%', which Ceph decodes twice) it reads the range and uploads it."""
        ...

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        condition: Condition = ALWAYS,
    ) -> PutResult:
        """Parts in ascending order. Believed only when the answer's ETag or checksum is that of
        these parts, or a HEAD finds the object with that ETag and the size of all parts: a 200
        with an error inside, and a lost answer (NoSuchUpload at the second try), are looked
        into."""
        ...

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """An upload that is not there any more counts as aborted."""
        ...

    async def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        """All of them, whatever the number of pages. Raises NoSuchUpload."""
        ...

    async def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """All of them below `prefix`."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Requests sent since the start by S3 operation name ('PutObject', ...), and 'Retries',
        'SlowDowns', 'BytesIn', 'BytesOut'."""
        ...

    def lanes(self) -> Mapping[str, LaneUse]:
        """By the lane's name, as it is now; none where requests take no turns."""
        ...

    async def aclose(self) -> None: ...
