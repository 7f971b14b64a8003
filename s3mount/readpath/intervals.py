"""Sorted intervals of one object: which cached piece holds a given byte."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Interval(Protocol):
    """Bytes [start, end) of the object, start < end; both never change."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


Piece = TypeVar("Piece", bound=Interval)


class IntervalIndex(Generic[Piece]):
    """Pieces in ascending order; they may overlap, but none lies within another.

    Hence the ends ascend as the starts do, and the piece with the greatest start not above an
    offset is the one that holds it, if any does.
    """

    __slots__ = ("_pieces", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._pieces: list[Piece] = []

    def __len__(self) -> int:
        return len(self._pieces)

    def __iter__(self) -> Iterator[Piece]:
        return iter(list(self._pieces))

    def find(self, offset: int) -> Piece | None:
        """The piece that holds the byte at `offset`."""
        position = bisect_right(self._starts, offset) - 1
        if position < 0:
            return None
        piece = self._pieces[position]
        return piece if offset < piece.end else None

    def next_start(self, offset: int, limit: int) -> int:
        """Where the first piece after `offset` starts; `limit` if there is none before it."""
        position = bisect_right(self._starts, offset)
        if position == len(self._starts):
            return limit
        return min(self._starts[position], limit)

    def add(self, piece: Piece) -> list[Piece] | None:
        """Adds it and returns the pieces it swallows; None if another one holds all of it."""
        position = bisect_right(self._starts, piece.start)
        if position and self._pieces[position - 1].end >= piece.end:
            return None
        first = bisect_left(self._starts, piece.start)
        last = first
        while last < len(self._pieces) and self._pieces[last].end <= piece.end:
            last += 1
        swallowed = self._pieces[first:last]
        self._starts[first:last] = [piece.start]
        self._pieces[first:last] = [piece]
        return swallowed

    def remove(self, piece: Piece) -> None:
        """Removes this very piece; nothing happens if it is not here."""
        position = bisect_left(self._starts, piece.start)
        if position < len(self._pieces) and self._pieces[position] is piece:
            del self._starts[position]
            del self._pieces[position]

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) that no piece holds, ascending."""
        found: list[tuple[int, int]] = []
        while start < end:
            piece = self.find(start)
            if piece is not None:
                start = piece.end
                continue
            stop = self.next_start(start, end)
            found.append((start, stop))
            start = stop
        return found
