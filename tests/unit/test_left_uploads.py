"""Uploads that nobody needs: ended one after the other, and who waits knows when all were tried."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from s3mount.store.base import WriteHeaders
from s3mount.store.errors import ConnectionLost, ServerError
from s3mount.store.memory import MemoryStore
from s3mount.store.memory_bucket import StoredUpload
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.journal_records import JournalContents, UploadRecord
from s3mount.writeback.recovery import ABORT_AFTER, TIDY_INTERVAL, LeftUploads


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


async def test_the_one_that_tells_who_begins_ours_is_ended_by_the_next_mount(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The id of an upload was never learnt; an hour later another one is begun, to see who the
    service says has begun it, and the mount dies at once."""
    rig, now = Rig(), 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    rig.store.clock = lambda: now
    begun = now
    await rig.store.create_upload("k", WriteHeaders())
    rig.journal.begin_upload(UploadRecord(1, None, "k", WriteHeaders(), None, begun))
    now += ABORT_AFTER + 1
    deaths: list[tuple[JournalContents, dict[str, StoredUpload]]] = []

    def die(operation: str, key: str) -> None:
        if operation == "CreateMultipartUpload":
            deaths.append((rig.journal.load(), dict(rig.store.uploads)))

    rig.store.after = die
    for record in rig.journal.load().uploads.values():
        rig.left.add(record)
    async with rig.running():
        await rig.left.tried()
    assert (rig.store.uploads, rig.journal.load().uploads) == ({}, {})
    ((contents, uploads),) = deaths
    assert len(uploads) == 2
    heir = Rig()
    heir.journal = MemoryJournal(contents)
    heir.store.clock, heir.store.uploads = lambda: now, uploads
    heir.left = LeftUploads(heir.store, heir.journal, tuple)
    for record in contents.uploads.values():
        heir.left.add(record)
    async with heir.running():
        await heir.left.tried()
        assert len(heir.store.uploads) == 1
        now += ABORT_AFTER + 1
        await trio.sleep(2 * TIDY_INTERVAL)
    assert (heir.store.uploads, heir.journal.load().uploads) == ({}, {})


async def test_no_second_one_is_begun_to_tell_that_while_the_first_has_no_answer(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    rig, now = Rig(), 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    rig.store.clock = lambda: now
    await rig.store.create_upload("k", WriteHeaders())
    rig.journal.begin_upload(record := UploadRecord(1, None, "k", WriteHeaders(), None, now))
    now += ABORT_AFTER + 1

    def no_answer(operation: str, key: str) -> None:
        if operation == "CreateMultipartUpload":
            raise ConnectionLost("down", operation=operation, key=key)

    rig.store.after = no_answer
    rig.left.add(record)
    async with rig.running():
        await trio.sleep(5 * TIDY_INTERVAL)
        assert len(rig.store.uploads) == 2
        rig.store.after = None
        now += ABORT_AFTER + 1
        await trio.sleep(2 * TIDY_INTERVAL)
    assert (rig.store.uploads, rig.journal.load().uploads) == ({}, {})
