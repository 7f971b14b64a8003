"""The version of an object that is read from."""

from dataclasses import dataclass

# What makes cached bytes the right ones: the key, the ETag and the size.
Identity = tuple[str, str, int]


@dataclass(slots=True, eq=False)
class RemoteObject:
    """One version of one object and where it is now.

    Whoever holds an open file keeps one RemoteObject per version and shares it among its readers.
    Our own copy (rename, chmod) moves it by ReadPath.repin(), which GETs in flight notice.
    """

    key: str
    etag: str
    size: int
    version_id: str | None = None
    # Set once the key no longer shows this version: from then on it is read by its version id.
    by_version: bool = False

    @property
    def identity(self) -> Identity:
        return (self.key, self.etag, self.size)
