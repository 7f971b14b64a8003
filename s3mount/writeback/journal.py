"""Where intents are recorded before they are acknowledged.

The order of every mutation: record the intent, answer the program, change the bucket, forget the
intent. This module holds the protocol and the form that lives in memory, for a mount that waits
for S3 in close; a durable form implements the same three calls.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from s3mount.writeback.intents import Intent


class Journal(Protocol):
    def record(self, intent: "Intent") -> None:
        """A new intent; when this returns it may be acknowledged."""
        ...

    def update(self, intent: "Intent") -> None:
        """The intent was changed before it started (coalesced, retargeted)."""
        ...

    def forget(self, intent: "Intent") -> None:
        """Carried out, cancelled, or failed for good and reported."""
        ...

    def unfinished(self) -> Iterable["Intent"]:
        """In the order in which they were recorded."""
        ...


class MemoryJournal:
    """Keeps intents as long as the process lives."""

    def __init__(self) -> None:
        self._intents: dict[int, Intent] = {}

    def record(self, intent: "Intent") -> None:
        self._intents[intent.sequence] = intent

    def update(self, intent: "Intent") -> None:
        self._intents[intent.sequence] = intent

    def forget(self, intent: "Intent") -> None:
        self._intents.pop(intent.sequence, None)

    def unfinished(self) -> Iterable["Intent"]:
        return list(self._intents.values())
