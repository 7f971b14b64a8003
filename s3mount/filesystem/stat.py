"""What the file system answers with, in values that know no FUSE."""

from dataclasses import dataclass, field

from s3mount.core.metadata import Attributes


@dataclass(frozen=True, slots=True)
class Stat:
    number: int
    attributes: Attributes
    size: int
    nlink: int
    blocks: int  # of 512 bytes
    entry_timeout: float
    attr_timeout: float


@dataclass(frozen=True, slots=True)
class DirEntry:
    name: bytes
    stat: Stat
    next_position: int


@dataclass(frozen=True, slots=True)
class OpenResult:
    handle: int
    keep_cache: bool


@dataclass(frozen=True, slots=True)
class StatFs:
    block_size: int
    blocks: int
    free: int
    files: int
    free_files: int
    name_max: int


@dataclass(frozen=True, slots=True)
class Change:
    """One that is not in the bucket yet; `bytes` are those of a file."""

    what: str
    kind: str  # that of its intent
    bytes: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Pending:
    """What has been acknowledged or written but is not in the bucket yet."""

    intents: int
    bytes: int
    files: int
    errors: list[str] = field(default_factory=list)
    unfinished: int = 0  # of the files: those that programs are still writing
    sent: int = 0  # bytes of files sent since the mount began, as far as connections took them
    per_second: float | None = None  # of these, at present
    eta: float | None = None  # seconds until `bytes` are sent, None where nobody can say

    def __bool__(self) -> bool:
        return bool(self.intents or self.files)
