"""The object that a file's changes are made to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BaseObject:
    """The committed object under a file's dirty bytes; `key` is where its bytes are now."""

    key: str
    etag: str
    size: int
    version_id: str | None = None
