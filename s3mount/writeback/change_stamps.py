"""When what of a file was changed, coarse enough to cost nothing at each write."""


class ChangeStamps:
    """`count` grows with every change of content: the stamp by which a sent part is known to be
    still right. Writes are known by their chunk."""

    def __init__(self, chunk_size: int) -> None:
        self.count = 0
        self._chunk_size = chunk_size
        self._by_chunk: dict[int, int] = {}
        # (stamp, size), ascending in both: a later, smaller truncation covers an earlier one.
        self._truncations: list[tuple[int, int]] = []

    def copy(self) -> "ChangeStamps":
        """As they are now."""
        copy = ChangeStamps(self._chunk_size)
        copy.count = self.count
        copy._by_chunk = self._by_chunk.copy()
        copy._truncations = self._truncations.copy()
        return copy

    def written(self, index: int) -> None:
        """In this chunk."""
        self.count += 1
        self._by_chunk[index] = self.count

    def truncated(self, size: int) -> None:
        self.count += 1
        while self._truncations and self._truncations[-1][1] >= size:
            self._truncations.pop()
        self._truncations.append((self.count, size))
        beyond = -(-size // self._chunk_size)
        for index in [index for index in self._by_chunk if index >= beyond]:
            del self._by_chunk[index]

    def changed_since(self, stamp: int, start: int, end: int) -> bool:
        """Whether any byte of [start, end) was written or cut off after `stamp`."""
        if self.count <= stamp:
            return False
        if any(when > stamp and size < end for when, size in self._truncations):
            return True
        size, by_chunk = self._chunk_size, self._by_chunk
        return any(
            by_chunk.get(index, 0) > stamp for index in range(start // size, (end - 1) // size + 1)
        )

    def lowest_size_since(self, stamp: int) -> int | None:
        """The smallest size that the file was truncated to after `stamp`."""
        return min((size for when, size in self._truncations if when > stamp), default=None)
