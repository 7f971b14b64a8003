"""What a crash makes of a file whose PUT is not in the queue while the file is written anew."""

from collections.abc import Callable

from s3mount.namespace import Inode
from s3mount.writeback.bookkeeping import Bookkeeper
from s3mount.writeback.intents import Expected, Intent, Kind


class ParkedIntent:
    """One intent of a file, or none, that is in the journal only: its next close takes its place,
    a crash before that carries it out."""

    def __init__(self, key: Callable[[], str], books: Bookkeeper) -> None:
        """`key()`: the file's, now."""
        self._key = key
        self._books = books
        self._intent: Intent | None = None

    @property
    def is_there(self) -> bool:
        return self._intent is not None

    def park(self, put: Intent) -> None:
        """The PUT has left the queue, as the file is being written anew."""
        self._park_as(put, put.expects)

    def _park_as(self, other: Intent, expects: Expected | None) -> None:
        """A record like that of `other`, later in the order than all that there is by now."""
        self.drop()
        self._intent = Intent(
            kind=other.kind,
            key=self._key(),
            size=other.size,
            file=other.file,
            source_etag=other.source_etag,
            attributes=other.attributes,
            headers=other.headers,
            unanswered=other.unanswered,
            expects=expects,
            replaces=other.replaces,
            acknowledged=True,
            sequence=self._books.new_id(),
            created=other.created,
        )
        self._books.record(self._intent)

    def note_attributes(self, inode: Inode) -> None:
        """The file's attributes changed, and ride in the PUT of what is being written. Until that
        is closed the journal has them for what is there already: after a crash that is all there
        is."""
        version = inode.version
        if self._intent is not None:
            self._intent.attributes = inode.attributes
            self._books.update(self._intent)
        elif version is not None:
            self._intent = Intent(
                kind=Kind.ATTRIBUTES,
                key=self._key(),
                source_etag=version.etag,
                size=version.size,
                acknowledged=True,
                sequence=self._books.new_id(),
            )
            self._intent.attributes = inode.attributes
            self._books.record(self._intent)

    def version_moved(self, old: str, new: str) -> None:
        """A copy of our own gave what it acts on, if that had the ETag `old`, another one."""
        if self._intent is not None and self._intent.source_etag == old != new:
            self._intent.source_etag = new
            self._books.update(self._intent)

    def renamed(self) -> None:
        """The file has another key; to be called after all that its rename added to the queue."""
        if self._intent is not None:
            self._park_as(self._intent, None)

    def drop(self) -> None:
        """What the file has in the queue, or its end, takes its place."""
        if self._intent is not None:
            self._books.forget(self._intent)
            self._intent = None
