"""An unfinished multipart upload and the journal."""

import errno
import logging

import pytest

from s3mount.core.errors import FilesystemError
from s3mount.store.base import WriteHeaders
from s3mount.store.memory import MemoryStore
from s3mount.writeback.begun_upload import BegunUpload
from s3mount.writeback.journal import MemoryJournal


class _FullJournal(MemoryJournal):
    """Full since the creation was asked for."""

    def learn_upload(self, number: int, upload_id: str) -> None:
        raise FilesystemError(errno.ENOSPC, "no room")


async def test_an_upload_whose_id_finds_no_room_in_the_journal_goes_on_and_the_log_has_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    upload = BegunUpload(store, _FullJournal(), again=lambda work: None, left=lambda record: None)
    with caplog.at_level(logging.WARNING):
        upload_id = await upload.begin("key", WriteHeaders(), None)
    assert upload.upload_id == upload_id
    (record,) = caplog.records
    said = f"upload {upload_id} of 'key' is not in the journal: [ENOSPC] no room"
    assert record.getMessage() == said
    assert record.exc_info is None
