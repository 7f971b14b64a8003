"""A set of byte offsets, kept as sorted, disjoint, non-touching half-open ranges."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Extents:
    """Half-open ranges [start, end). Adding at or after the last range is O(1), all else O(log n)
    to find and O(ranges touched) to change. Empty ranges (start >= end) are ignored everywhere."""

    __slots__ = ("_ends", "_starts", "_total")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._total = 0
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        if not ends or start > ends[-1]:
            starts.append(start)
            ends.append(end)
            self._total += end - start
            return
        if start >= starts[-1]:
            if end > ends[-1]:
                self._total += end - ends[-1]
                ends[-1] = end
            return
        # Ranges first..last-1 touch or overlap the new one and melt into it.
        first = bisect_left(ends, start)
        last = bisect_right(starts, end)
        if first < last:
            start = min(start, starts[first])
            end = max(end, ends[last - 1])
            self._total -= sum(ends[first:last]) - sum(starts[first:last])
        starts[first:last] = [start]
        ends[first:last] = [end]
        self._total += end - start

    def remove(self, start: int, end: int) -> None:
        starts, ends = self._starts, self._ends
        if start >= end or not ends or start >= ends[-1]:
            return
        first = bisect_right(ends, start)
        last = bisect_left(starts, end)
        if first >= last:
            return
        kept: list[tuple[int, int]] = []
        if starts[first] < start:
            kept.append((starts[first], start))
        if ends[last - 1] > end:
            kept.append((end, ends[last - 1]))
        self._total -= sum(ends[first:last]) - sum(starts[first:last])
        self._total += sum(b - a for a, b in kept)
        starts[first:last] = [a for a, _ in kept]
        ends[first:last] = [b for _, b in kept]

    def truncate(self, size: int) -> None:
        """Drops everything at and after `size`."""
        if self._ends and self._ends[-1] > size:
            self.remove(size, self._ends[-1])

    def clear(self) -> None:
        self._starts.clear()
        self._ends.clear()
        self._total = 0

    def covers(self, start: int, end: int) -> bool:
        """Whether every offset of [start, end) is in; an empty range always is."""
        if start >= end:
            return True
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._ends[index] >= end

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any offset of [start, end) is in."""
        if start >= end:
            return False
        index = bisect_right(self._ends, start)
        return index < len(self._starts) and self._starts[index] < end

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of [start, end) is in, ascending."""
        if start >= end:
            return []
        found = []
        for index in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                break
            found.append((max(start, self._starts[index]), min(end, self._ends[index])))
        return found

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of [start, end) is not in, ascending."""
        missing = []
        for a, b in self.within(start, end):
            if start < a:
                missing.append((start, a))
            start = b
        if start < end:
            missing.append((start, end))
        return missing

    def copy(self) -> "Extents":
        twin = Extents()
        twin._starts = self._starts.copy()
        twin._ends = self._ends.copy()
        twin._total = self._total
        return twin

    @property
    def total(self) -> int:
        """How many offsets are in."""
        return self._total

    @property
    def end(self) -> int:
        """One past the last offset; 0 when empty."""
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __len__(self) -> int:
        """How many separate ranges."""
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extents):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Extents({list(self)})"


def total_within(extents: Extents, start: int, end: int) -> int:
    """How many offsets of [start, end) are in."""
    return sum(b - a for a, b in extents.within(start, end))
