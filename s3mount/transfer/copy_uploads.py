"""The uploads of copies in parts, where there is no mount that keeps the books of them."""

from collections.abc import Awaitable, Callable

from s3mount.store.base import ObjectStore, WriteHeaders
from s3mount.writeback.begun_upload import BegunUpload
from s3mount.writeback.doubts import Doubts
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.journal_records import UploadRecord


class ToolUploads:
    """See copier.CopyUploads. `left`: the keys of uploads that may still be there, for the tool
    to tell of at its end: there is no later process that would see to them."""

    def __init__(self, store: ObjectStore) -> None:
        self.doubts = Doubts(store)
        self.left: list[str] = []
        self._store = store
        self._journal = MemoryJournal()

    async def begin_upload(self, key: str, headers: WriteHeaders) -> tuple[BegunUpload, str]:
        def not_ended(work: Callable[[], Awaitable[bool]]) -> None:
            self.left.append(key)  # there is no later for `work`

        begun = BegunUpload(self._store, self._journal, not_ended, self._gone)
        try:
            return begun, await begun.begin(key, headers, None)
        except BaseException:
            record = begun.leave()
            if record is not None:
                self._gone(record)
            raise

    def progressed(self) -> None:
        """Nobody waits here for signs of life: each request has its deadline."""

    def _gone(self, record: UploadRecord) -> None:
        self.left.append(record.key)
