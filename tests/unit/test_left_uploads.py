"""Uploads that nobody needs: ended one after the other, and who waits knows when all were tried."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from s3mount.store.base import WriteHeaders
from s3mount.store.errors import ServerError
from s3mount.store.memory import MemoryStore
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.journal_records import UploadRecord
from s3mount.writeback.recovery import TIDY_INTERVAL, LeftUploads


class Rig:
    def __init__(self) -> None:
        self.store = MemoryStore(minimum_part_size=1)
        self.journal = MemoryJournal()
        self.left = LeftUploads(self.store, self.journal, tuple)

    async def record(self, key: str) -> UploadRecord:
        upload_id = await self.store.create_upload(key, WriteHeaders())
        record = UploadRecord(self.journal.new_id(), None, key, WriteHeaders(), upload_id, 0.0)
        self.journal.begin_upload(record)
        return record

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.left.run)
            yield
            nursery.cancel_scope.cancel()


async def test_with_nothing_to_end_there_is_nothing_to_wait_for() -> None:
    await Rig().left.tried()


async def test_one_that_comes_while_others_are_ended_is_waited_for_as_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    first, second = await rig.record("first"), await rig.record("second")

    def add_second(operation: str, key: str) -> None:
        if (operation, key) == ("AbortMultipartUpload", "first"):
            rig.left.add(second)

    rig.store.after = add_second
    rig.left.add(first)
    async with rig.running():
        await rig.left.tried()
        assert rig.store.uploads == {}
        assert rig.journal.load().uploads == {}
        assert rig.left.report == []
    assert trio.current_time() < TIDY_INTERVAL


async def test_who_waits_already_waits_for_those_that_come_before_all_were_tried(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    first, second = await rig.record("first"), await rig.record("second")
    rig.left.add(first)
    with trio.fail_after(TIDY_INTERVAL):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.left.tried)
            await trio.testing.wait_all_tasks_blocked()
            rig.left.add(second)
            async with rig.running():
                await rig.left.tried()
    assert rig.store.uploads == {}


async def test_one_that_cannot_be_ended_is_reported_and_tried_again_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    record = await rig.record("k")

    def fail(operation: str, key: str) -> None:
        if operation == "AbortMultipartUpload":
            raise ServerError("not now", operation=operation, key=key)

    rig.store.before = fail
    rig.left.add(record)
    async with rig.running():
        await rig.left.tried()
        assert rig.left.report == [f"upload {record.upload_id} of 'k' is to be aborted"]
        assert len(rig.journal.load().uploads) == 1
        rig.store.before = None
        await trio.sleep(TIDY_INTERVAL + 1)
        assert (rig.left.report, rig.store.uploads) == ([], {})
        assert rig.journal.load().uploads == {}
