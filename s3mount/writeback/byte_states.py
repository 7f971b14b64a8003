"""Which bytes of a file are here, which of them are nowhere else, and what changed when."""

from s3mount.core.extents import Extents
from s3mount.writeback.change_stamps import ChangeStamps


class ByteStates:
    """`present`: the bytes that can be read here. `dirty`: those of them that the committed object
    does not have. `dropped`: bytes newer than the committed object that exist only as parts of
    the unfinished upload; neither present nor dirty. `published`: the same once a commit has
    completed that upload early and then failed: they are only in that object.
    `write_count` grows with every change of content: the stamp by which a sent part is known
    to be still right.
    """

    def __init__(self, chunk_size: int) -> None:
        self.present = Extents()
        self.dirty = Extents()
        self.dropped = Extents()
        self.published = Extents()
        self._chunk_size = chunk_size
        self._stamps = ChangeStamps(chunk_size)
        self._rewritten: Extents | None = None  # written since begin_commit

    @property
    def write_count(self) -> int:
        return self._stamps.count

    @property
    def unsaved(self) -> bool:
        """Whether anything here is newer than the committed object."""
        return bool(self.dirty or self.dropped or self.published)

    # -- changes

    def _stored(self, start: int, end: int, *, dirty: bool) -> None:
        """These were written here: by a program (`dirty`), or as the committed object has them."""
        self.present.add(start, end)
        if not dirty:
            return
        self.dirty.add(start, end)
        if self.dropped or self.published:
            self.dropped.remove(start, end)
            self.published.remove(start, end)
        if self._rewritten is not None:
            self._rewritten.add(start, end)

    def _truncated(self, size: int) -> None:
        """Bytes at and after `size` are gone."""
        self._stamps.truncated(size)
        for extents in (self.present, self.dirty, self.dropped, self.published, self._rewritten):
            if extents is not None:
                extents.truncate(size)

    def _dropped(self, start: int, end: int) -> None:
        """These live on in the unfinished upload only."""
        for extents in (self.present, self.dirty, self._rewritten):
            if extents is not None:
                extents.remove(start, end)
        self.dropped.add(start, end)

    def changed_since(self, stamp: int, start: int, end: int) -> bool:
        """Whether any byte of [start, end) was written or cut off after `stamp`."""
        return self._stamps.changed_since(stamp, start, end)

    def is_same_as_of(self, stamp: int, start: int, end: int) -> bool:
        """Whether what was read of [start, end) at `stamp` is what is here."""
        return not self._stamps.changed_since(stamp, start, end)

    def stamps(self) -> ChangeStamps:
        """As of now, for a FrozenFile of the record that is made now."""
        return self._stamps.copy()

    def lowest_size_since(self, stamp: int) -> int | None:
        """The smallest size that the file was truncated to after `stamp`."""
        return self._stamps.lowest_size_since(stamp)

    # -- commits

    def begin_commit(self) -> None:
        """What is dirty now is about to be committed; one commit at a time."""
        if self._rewritten is not None:
            raise RuntimeError("this file is being committed already")
        self._rewritten = Extents()

    def commit_succeeded(self, size: int | None = None) -> None:
        """The object has all that was dirty when the commit began below `size`; what lies beyond,
        and what was written since, stays dirty."""
        assert self._rewritten is not None
        if size is not None:
            for start, end in self.dirty.within(size, self.dirty.end):
                self._rewritten.add(start, end)
        self._committed(self._rewritten)
        self._rewritten = None

    def frozen_committed(self, stamp: int) -> None:
        """The object has what was here at `stamp`: chunks written since stay dirty."""
        size, left = self._chunk_size, Extents()
        for start, end in self.dirty:
            for index in range(start // size, -(-end // size)):
                low, high = max(start, index * size), min(end, (index + 1) * size)
                if self.changed_since(stamp, low, high):
                    left.add(low, high)
        self._committed(left)

    def _committed(self, left: Extents) -> None:
        self.dirty = left
        self.dropped.clear()
        self.published.clear()

    def was_published(self) -> None:
        """The unfinished upload was completed in the middle of a commit."""
        for start, end in self.dropped:
            self.published.add(start, end)
        self.dropped.clear()

    def commit_failed(self) -> None:
        """Nothing is known to be in the bucket: all stays dirty."""
        self._rewritten = None
