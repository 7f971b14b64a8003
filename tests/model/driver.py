"""Carries each operation out on the file system and on the reference, and compares.

An operation is a name and four small numbers; which file or directory they mean is found among
those that the reference has at that moment, so that any list of operations makes sense and
hypothesis may leave out any of them.
"""

from collections.abc import Iterator

import trio

from tests.model.acting import (
    PATIENCE,
    NothingToDo,
    Operation,
    counts,
)
from tests.model.bucket import leftovers
from tests.model.file_operations import FileOperations
from tests.model.host_operations import HostOperations
from tests.model.mounted import mounted
from tests.model.name_operations import NameOperations
from tests.model.unreliable import UnreliableStore


class Driver(FileOperations, NameOperations, HostOperations):
    async def run(self, operations: list[Operation]) -> None:
        """Ends with a remount."""
        left = iter(operations)
        while await self._one_mount(left):
            pass
        async with mounted(self.store, self.config, served=self.served) as self.client:
            await self._compare_all()

    async def _one_mount(self, left: Iterator[Operation]) -> bool:
        """Until a remount; False: the operations are at their end."""
        async with mounted(self.store, self.config, self.shuffle, self.served) as self.client:
            await self._compare_all()
            for name, *numbers in left:
                if name == "remount":
                    with trio.fail_after(PATIENCE):
                        await self._before_remount()
                    counts[name] += 1
                    return True
                try:
                    with trio.fail_after(PATIENCE):
                        await getattr(self, f"op_{name}")(*numbers)
                except NothingToDo:
                    continue
                counts[name] += 1
            with trio.fail_after(PATIENCE):
                await self._before_remount()
            return False

    async def _before_remount(self) -> None:
        self._say("remount()")
        for handle in list(self.handles):
            await self._close(handle)
        for path, node in self.tree.walk():
            await self._compare_stat(path, node)  # what is shown now must be what was stored
        await self._drain()
        await trio.sleep(1.0 if self.served is None else 100.0)  # aborts of uploads end
        if isinstance(self.store, UnreliableStore):
            await self.store.forget_uploads(self._uploads_recorded)
        self._check_bucket()
        if self.served is not None:
            self._drop_unknown_uploads()
        left = leftovers(self.client.fs, self.store)
        assert not left, f"left over: {left}"

    def _uploads_recorded(self) -> bool:
        """An abort whose answer was lost is asked for again."""
        kept = self.client.fs.state.journal.load()
        return any(record.upload_id is not None for record in kept.uploads.values())

    def _drop_unknown_uploads(self) -> None:
        """Nothing can be known of an upload whose creation was not answered."""
        for upload_id, upload in list(self.store.uploads.items()):
            if not upload.parts:
                del self.store.uploads[upload_id]
                self.unknown_uploads += 1
