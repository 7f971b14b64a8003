"""Which bytes of a file make up which part of a multipart upload.

A *slot* is a place in this fixed grid, numbered from 0; its part has the number slot + 1. The grid
depends on nothing but the settings, so that a part can go up before the file's size is known.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

# A tenth of the parts each size, then twice that size: small files get small parts, and
# eight doublings of 8 MiB hold 5 TiB in 10,000 parts.
TIERS = 10


class PartSchedule:
    """Part sizes start at `part_size` and double every tenth of `max_parts`, until the parts that
    are left hold `max_object_size`. `equal`: all parts alike, for services that want them so.

    Every bound is a multiple of `part_size`. `limit` is the largest size of a file that fits.
    """

    def __init__(
        self, part_size: int, max_parts: int, max_object_size: int, equal: bool = False
    ) -> None:
        if part_size <= 0 or max_parts <= 0 or max_object_size <= 0:
            raise ValueError("part_size, max_parts and max_object_size must be positive")
        self.part_size = part_size
        self.max_parts = max_parts
        self._first_slots: list[int] = []
        self._offsets: list[int] = []
        self._sizes: list[int] = []
        slot, offset, size = 0, 0, part_size
        tier = max(1, max_parts // TIERS)
        while True:
            self._first_slots.append(slot)
            self._offsets.append(offset)
            self._sizes.append(size)
            left = max_parts - slot
            if equal or left <= tier or offset + left * size >= max_object_size:
                break
            slot += tier
            offset += tier * size
            size *= 2
        self.limit = min(max_object_size, offset + left * size)

    def slot_of(self, offset: int) -> int:
        """The slot that holds the byte at `offset`."""
        tier = bisect_right(self._offsets, offset) - 1
        return self._first_slots[tier] + (offset - self._offsets[tier]) // self._sizes[tier]

    def bounds(self, slot: int) -> tuple[int, int]:
        """[start, end) of a slot, whatever the file's size."""
        tier = bisect_right(self._first_slots, slot) - 1
        start = self._offsets[tier] + (slot - self._first_slots[tier]) * self._sizes[tier]
        return start, start + self._sizes[tier]

    def slots_within(self, ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
        """The slots that lie in one of these ranges as a whole."""
        for start, end in ranges:
            for slot in range(self.slot_of(start), self.slot_of(end - 1) + 1):
                low, high = self.bounds(slot)
                if start <= low and high <= end:
                    yield slot

    def slots(self, size: int) -> range:
        """All slots that a file of `size` bytes touches."""
        return range(self.slot_of(size - 1) + 1) if size > 0 else range(0)
