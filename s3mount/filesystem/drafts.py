"""The drafts of files that are being written, in one commit of the journal for all of them."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from s3mount.filesystem.open_file import OpenFile
    from s3mount.filesystem.state import State

# How long unfinished writes may be unrecorded: a killed mount loses at most these.
DRAFT_INTERVAL = 0.25
# Recording takes at most this share of the loop's time, whatever the size of the files.
DRAFT_SHARE = 0.05


class Drafts:
    """Records what is being written and not closed, in one commit each DRAFT_INTERVAL."""

    def __init__(self, state: "State") -> None:
        self._state = state
        self._changed: set[OpenFile] = set()
        self._wake = trio.Event()

    def changed(self, file: "OpenFile") -> None:
        """To be called after every write; costs next to nothing."""
        if file not in self._changed:
            self._changed.add(file)
            self._wake.set()

    async def run(
        self,
        clock: Callable[[], float] = time.perf_counter,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Until cancelled."""
        task_status.started()
        pause = DRAFT_INTERVAL
        while True:
            await self._wake.wait()
            await trio.sleep(pause)
            self._wake = trio.Event()
            started = clock()
            changed, self._changed = self._changed, set()
            with self._state.books.aftermath():
                for file in changed:
                    if file.records.wants_draft:
                        file.records.write_draft()
            pause = max(DRAFT_INTERVAL, (clock() - started) / DRAFT_SHARE)
