"""With write-back a PUT starts some time after the close. Where it cannot send what that has left
(FileRecords.freezes), it does not start in the middle of the next change."""

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from s3mount.filesystem.open_file import OpenFile

# A program that goes on writing for longer holds up no longer what was closed before.
PATIENCE = 5.0
AGAIN = 0.25  # seconds until the next look


class HalfWritten:
    """One per OpenFile. Other hosts would see half a change, and nothing but the next close tells
    when it is whole; a close that waited for the bucket has no such moment."""

    def __init__(self, file: "OpenFile") -> None:
        self.awaited = 0  # commits whose callers wait for the bucket: their PUT starts at once
        self._file = file
        self._since: float | None = None

    @property
    def puts_off(self) -> bool:
        """Whether a program is writing, and the PUT that is about to start can wait for it."""
        file = self._file
        if (
            not file.state.writes_back
            or self.awaited
            or file.records.changes == file.changes
            or not file.is_being_written
            or file.state.spool.waiting
            or file.records.freezes
        ):
            self._since = None
            return False
        if self._since is None:
            self._since = trio.current_time()
        return trio.current_time() < self._since + PATIENCE
