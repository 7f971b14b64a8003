"""What an unfinished upload has on the server, and whether it still equals the file."""

from collections.abc import Iterator
from dataclasses import dataclass

from s3mount.core.extents import Extents, total_within
from s3mount.core.part_schedule import PartSchedule
from s3mount.store.base import Part
from s3mount.writeback.spooled_file import SpooledFile


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part that the server acknowledged. `stamp`: see FileBody. `base`: the ETag of the
    version whose bytes are in it, None where all came from the spool. `order`: parts of all
    files by age, the oldest has the smallest."""

    part: Part
    start: int
    end: int
    stamp: int
    base: str | None
    order: int = 0


class PartTable:
    """`attempted`: number -> [start, end) of every part that may be on the server, that of a
    request without an answer too. `sent`: those acknowledged since they were last attempted."""

    def __init__(self, file: SpooledFile, schedule: PartSchedule) -> None:
        self.attempted: dict[int, tuple[int, int]] = {}
        self.sent: dict[int, SentPart] = {}
        self._held: set[int] = set()  # numbers whose bytes are all here as well
        self._file = file
        self._schedule = schedule

    def attempt(self, number: int, start: int, end: int) -> None:
        """A request for this number begins: what is on the server is in doubt."""
        self.forget(number)
        self.attempted[number] = (start, end)

    def forget(self, number: int) -> None:
        """The part of this number will be sent again."""
        self.sent.pop(number, None)
        self._held.discard(number)

    def acknowledge(self, number: int, sent: SentPart, *, droppable: bool = True) -> None:
        """The server has it. Not `droppable`: the bytes here stay (the journal does not know)."""
        self.sent[number] = sent
        if sent.base is None and droppable:
            self._held.add(number)

    def clear(self) -> None:
        self.attempted.clear()
        self.sent.clear()
        self._held.clear()

    def valid(self, number: int, base: str | None, file: SpooledFile | None = None) -> bool:
        """Whether a sent part equals the file as it is now, or `file`, a frozen state of it, over
        the base with ETag `base`."""
        sent = self.sent.get(number)
        return (
            sent is not None
            and (sent.base is None or sent.base == (base or ""))
            and (file or self._file).is_same_as_of(sent.stamp, sent.start, sent.end)
        )

    def acknowledged_of(self, dirty: Extents) -> int:
        """How many of these bytes are in parts that still equal the file."""
        return sum(
            total_within(dirty, sent.start, sent.end)
            for sent in self.sent.values()
            if not self._file.changed_since(sent.stamp, sent.start, sent.end)
        )

    def droppable(self, ends: bool) -> Iterator[tuple[int, int]]:
        """(order, number) of sent parts whose chunks can go; with `ends` the file's first and
        last ones too."""
        extent = max(self._file.present.end, self._file.dropped.end)
        last = self._schedule.slot_of(extent - 1) if extent else 0
        for number in tuple(self._held):
            sent = self.sent[number]
            whole = (sent.start, sent.end) == self._schedule.bounds(number - 1)
            at_an_end = number - 1 in {0, last}
            if whole and (ends or not at_an_end) and self.valid(number, None):
                # One that was sent of a frozen state: the file may have given back what is clean.
                here = self._file.present.covers(sent.start, sent.end)
                # And what is to be sent as it was needs the numbers of parts that changed since.
                frozen = self._file.frozen_at
                if here and (
                    frozen is None or not self._file.changed_since(frozen, sent.start, sent.end)
                ):
                    yield sent.order, number

    def drop(self, number: int) -> None:
        """The bytes of this part stay in the unfinished upload only."""
        sent = self.sent[number]
        self._held.discard(number)
        self._file.drop(sent.start, sent.end)
