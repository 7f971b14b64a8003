"""What the journal keeps: plain values, enough to finish after a crash what was acknowledged."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from s3mount.core.metadata import Attributes
from s3mount.store.base import (
    ALWAYS,
    Condition,
    ObjectInfo,
    WriteHeaders,
)
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.intents import Expected, Intent, Kind

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """One chunk file of a spooled file: the file's bytes from index * chunk size on.

    `filled` and `crcs` are packed little-endian unsigned 32-bit integers, one for each block of
    64 KiB: how many of its bytes count, and their checksum.
    """

    index: int
    name: str  # of the file in the spool's directory
    filled: bytes
    crcs: bytes
    dense: bool


@dataclass(frozen=True, slots=True)
class SpoolRecord:
    """What a file has in the spool. Ranges are sorted, disjoint and half-open."""

    present: Ranges  # here
    dirty: Ranges  # in no committed object
    dropped: Ranges  # left the spool: in parts of the unfinished upload only
    published: Ranges  # in an object that the unfinished upload was completed to early
    chunks: tuple[ChunkRecord, ...]
    chunk_size: int  # of `chunks`; a mount with another part size has another one
    # The bytes of a tiny file's first chunk, instead of a chunk file; `body_crcs` as in
    # ChunkRecord, over blocks that are full but for the last one.
    body: bytes | None = None
    body_crcs: bytes = b""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file with bytes that the bucket does not have; replaces the one with the same id."""

    id: int  # chosen by the mount, unique among the files of its journal
    key: str  # where its object will be
    closed: bool  # False: written but never closed, hence recoverable, not to be published
    size: int
    visible: int  # leading bytes of `base` that still show through
    whole: bool  # the old object was thrown away by O_TRUNC, or there was none
    exclusive: bool  # O_EXCL: the first commit must not find the name taken
    replaces: bool  # the key may hold another object (renamed over it)
    base: BaseObject | None
    attributes: Attributes
    kept: ObjectInfo | None  # the object's metadata and headers that are not ours, if asked for
    spool: SpoolRecord
    changed_at: float  # wall clock


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A part that the service acknowledged; replaces the one of the same number."""

    number: int
    start: int
    end: int
    etag: str
    checksum: str | None = None
    base: str | None = None  # ETag of the version whose bytes are in it; None: all from the spool


@dataclass(slots=True)
class UploadRecord:
    """A multipart upload, journalled before CreateMultipartUpload is sent."""

    id: int  # chosen by the mount
    file: int | None  # the FileRecord whose bytes it takes
    key: str
    headers: WriteHeaders
    upload_id: str | None  # None: the answer is not known
    begun_at: float  # wall clock
    parts: dict[int, PartRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IntentRecord:
    """The data of an Intent (see there)."""

    sequence: int
    kind: Kind
    key: str
    source: str | None = None
    also_delete: tuple[str, ...] = ()
    source_etag: str | None = None
    attributes: Attributes | None = None
    headers: WriteHeaders | None = None
    unanswered: tuple[WriteHeaders, ...] = ()
    condition: Condition = ALWAYS
    size: int = 0
    replaces: bool = False
    file: int | None = None
    expects: Expected | None = None
    acknowledged: bool = False
    copied_phase: bool = False
    shown: Attributes | None = None
    created: float = 0.0  # wall clock
    lives: tuple[float, ...] = ()  # of one that was replayed already: see Intent
    waits_for: tuple[int, ...] = ()  # sequences, sorted

    @classmethod
    def of(cls, intent: Intent) -> "IntentRecord":
        return cls(
            sequence=intent.sequence,
            kind=intent.kind,
            key=intent.key,
            source=intent.source,
            also_delete=tuple(intent.also_delete),
            source_etag=intent.source_etag,
            attributes=intent.attributes,
            headers=intent.headers,
            unanswered=intent.unanswered,
            condition=intent.condition,
            size=intent.size,
            replaces=intent.replaces,
            file=intent.file,
            expects=intent.expects,
            acknowledged=intent.acknowledged,
            copied_phase=intent.copied_phase,
            shown=intent.shown,
            created=intent.created,
            lives=intent.lives,
            waits_for=tuple(sorted(other.sequence for other in intent.waits_for)),
        )


@dataclass(frozen=True, slots=True)
class JournalContents:
    """All that was recorded and not forgotten; intents in the order in which they were made."""

    intents: list[IntentRecord] = field(default_factory=list)
    files: Mapping[int, FileRecord] = field(default_factory=dict)
    uploads: Mapping[int, UploadRecord] = field(default_factory=dict)
    # Wall clock: the last commit of the process that wrote it.
    written_at: float = field(default=0.0, compare=False)

    @property
    def last_id(self) -> int:
        """The largest number that stands for anything in here."""
        sequences = (record.sequence for record in self.intents)
        return max([0, *sequences, *self.files, *self.uploads])

    def __bool__(self) -> bool:
        return bool(self.intents or self.files or self.uploads)
