"""Where the read path's background tasks run."""

import errno
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import trio

from s3mount.core.errors import FilesystemError

Arguments = TypeVarTuple("Arguments")


class Background:
    """A nursery that is there while run() is active."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ends by cancellation only."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def spawn(
        self,
        task: Callable[[*Arguments], Awaitable[object]],
        *arguments: *Arguments,
    ) -> None:
        """Starts a task, which must not raise. FilesystemError(EIO) when run() is not active."""
        if self._nursery is None:
            raise FilesystemError(errno.EIO, "the read path is not running")
        self._nursery.start_soon(task, *arguments)
