"""A new process goes on with an upload: which parts are kept, which are sent again."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from s3mount.core.errors import FilesystemError
from s3mount.store.base import Part
from s3mount.store.errors import (
    NoSuchUpload,
    ServerError,
)
from s3mount.store.memory import ALL_CAPABILITIES, MemoryStore
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.chunk import CorruptSpool
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.journal_records import SpoolRecord, UploadRecord
from s3mount.writeback.resume import resume_parts
from s3mount.writeback.spool import Spool
from s3mount.writeback.uploader import Uploader
from tests.unit.test_spool_records import flip
from tests.unit.writeback_fixtures import (
    MINIMUM,
    PART,
    Rig,
    Writer,
    configured,
    pattern,
    rig,
    scheduled,
)

ROOMY = 64 * PART


@asynccontextmanager
async def later(
    directory: Path, store: MemoryStore, spooled: SpoolRecord, journal: MemoryJournal
) -> AsyncIterator[tuple[Rig, Writer]]:
    """The next process: the file as the journal has it, and nothing else but store and journal."""
    config = configured(directory, spool_limit=ROOMY)
    schedule = scheduled(config)
    spool = Spool(config, schedule)
    spool.open(keep={chunk.name for chunk in spooled.chunks})
    try:
        async with trio.open_nursery() as nursery:
            uploader = Uploader(store, spool, config, schedule, journal)
            await nursery.start(uploader.run)
            here = Rig(config, store, spool, uploader)
            writer = here.writer()
            writer.file.close()
            writer.file = spool.restore(spooled)
            writer.upload = uploader.upload_for(writer.file)
            yield here, writer
            nursery.cancel_scope.cancel()
    finally:
        spool.close()


class Killed:
    """One process that writes a file of `size` bytes and dies before the commit."""

    def __init__(self, directory: Path, store: MemoryStore | None = None) -> None:
        self.directory = directory
        self.store = store or MemoryStore(minimum_part_size=MINIMUM)
        self.journal = MemoryJournal()
        self.expected = b""
        self.spooled: SpoolRecord

    async def write(self, size: int, *, spool_limit: int = ROOMY) -> None:
        async with rig(
            self.directory, self.store, journal=self.journal, spool_limit=spool_limit
        ) as here:
            writer = here.writer()
            writer.file.record_id = 7
            for offset in range(0, size, MINIMUM):
                await writer.write(offset, pattern(offset, min(MINIMUM, size - offset)))
                await trio.testing.wait_all_tasks_blocked()
            await self._die(writer)

    async def _die(self, writer: Writer) -> None:
        self.expected = bytes(writer.expected)
        self.spooled = writer.file.seal()

    @property
    def record(self) -> UploadRecord:
        (record,) = self.journal.load().uploads.values()
        return record

    async def finish(self) -> dict[str, int]:
        """Resumes and commits in a new process; the requests of that."""
        before = dict(self.store.counts())
        async with later(self.directory, self.store, self.spooled, self.journal) as (here, writer):
            table = await resume_parts(self.store, self.record, writer.file, here.uploader.schedule)
            writer.upload.resume(self.record, table)
            writer.expected = bytearray(self.expected)
            await writer.commit()
            assert writer.stored == self.expected
            assert self.journal.load().uploads == {}
            assert self.store.uploads == {}
        after = self.store.counts()
        return {name: after[name] - before.get(name, 0) for name in after}


async def test_the_upload_is_recorded_before_it_is_asked_for_and_until_it_is_done(
    tmp_path: Path,
) -> None:
    journal = MemoryJournal()
    seen: list[tuple[str, int, bool]] = []

    async def before(operation: str, key: str) -> None:
        uploads = journal.load().uploads
        known = [upload for upload in uploads.values() if upload.upload_id is not None]
        seen.append((operation, len(uploads), bool(known)))

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store, journal=journal) as here:
        writer = here.writer()
        writer.file.record_id = 7
        await writer.write(0, pattern(0, 3 * PART))
        await trio.testing.wait_all_tasks_blocked()
        (record,) = journal.load().uploads.values()
        (upload,) = store.uploads.values()
        assert (record.file, record.key, record.upload_id) == (7, "f", upload.upload_id)
        assert record.headers == writer.headers
        assert {
            number: (part.start, part.end, part.etag) for number, part in record.parts.items()
        } == {
            number: ((number - 1) * PART, number * PART, etag)
            for number, (etag, _) in upload.parts.items()
        }
        assert len(record.parts) == 3
        await writer.commit()
    assert journal.load().uploads == {}
    assert seen[0] == ("CreateMultipartUpload", 1, False)
    assert ("CompleteMultipartUpload", 1, True) in seen


async def test_the_journal_is_synced_before_the_upload_is_asked_for(tmp_path: Path) -> None:
    order: list[str] = []

    class Journal(MemoryJournal):
        def begin_upload(self, record: UploadRecord) -> None:
            order.append("recorded")
            super().begin_upload(record)

        async def sync(self) -> None:
            order.append("synced")
            await super().sync()

    async def before(operation: str, key: str) -> None:
        order.append(operation)

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store, journal=Journal()) as here:
        writer = here.writer()
        await writer.write(0, pattern(0, 2 * PART))
        await trio.testing.wait_all_tasks_blocked()
    assert order[:3] == ["recorded", "synced", "CreateMultipartUpload"]


async def test_a_creation_without_an_answer_stays_recorded_beside_that_of_the_next_try(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    journal = MemoryJournal()
    lost = [True]

    def after(operation: str, key: str) -> None:
        if operation == "CreateMultipartUpload" and lost.pop():
            assert [one.upload_id for one in journal.load().uploads.values()] == [None]
            lost.insert(0, False)
            raise ServerError("lost", operation=operation, key=key, ambiguous=True)

    store = MemoryStore(minimum_part_size=MINIMUM, after=after)
    async with rig(tmp_path, store, journal=journal) as here:
        writer = here.writer()
        await writer.write(0, pattern(0, 2 * PART))
        await trio.sleep(5)
        assert len(store.uploads) == 2
        first, second = journal.load().uploads.values()
        assert first.upload_id is None
        assert second.upload_id in {upload.upload_id for upload in store.uploads.values()}


async def test_an_upload_that_could_not_be_aborted_stays_recorded(tmp_path: Path) -> None:
    journal = MemoryJournal()

    async def before(operation: str, key: str) -> None:
        if operation == "AbortMultipartUpload":
            raise ServerError("not now", operation=operation, key=key)

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store, journal=journal) as here:
        writer = here.writer()
        await writer.write(0, pattern(0, 2 * PART))
        await trio.testing.wait_all_tasks_blocked()
        await writer.upload.abort()
    (record,) = journal.load().uploads.values()
    assert record.upload_id is not None


async def test_parts_that_are_there_are_not_sent_again(tmp_path: Path) -> None:
    killed = Killed(tmp_path)
    await killed.write(5 * PART + 1000)
    counts = await killed.finish()
    assert counts["UploadPart"] == 1, "the last one, which was not full"
    assert counts["BytesOut"] == 1000
    assert counts["CreateMultipartUpload"] == 0


async def test_parts_that_the_journal_does_not_know_are_found_by_their_content(
    tmp_path: Path,
) -> None:
    killed = Killed(tmp_path)
    await killed.write(5 * PART + 1000)
    killed.journal = MemoryJournal(
        replace(
            killed.journal.load(),
            uploads={killed.record.id: replace(killed.record, parts={})},
        )
    )
    counts = await killed.finish()
    assert counts["BytesOut"] == 1000


async def test_a_part_that_was_overwritten_before_the_close_is_sent_again(tmp_path: Path) -> None:
    killed = Killed(tmp_path)
    async with rig(tmp_path, killed.store, journal=killed.journal, spool_limit=ROOMY) as here:
        writer = here.writer()
        await writer.write(0, pattern(0, 4 * PART + 1))
        await trio.testing.wait_all_tasks_blocked()
        await writer.write(PART + 5, b"changed after its part was sent")
        await killed._die(writer)
    counts = await killed.finish()
    assert counts["UploadPart"] == 2
    assert counts["BytesOut"] == PART + 1


async def test_parts_of_other_bytes_and_of_no_use_are_sent_over(tmp_path: Path) -> None:
    """Somebody tore a part, or an older request arrived late."""
    killed = Killed(tmp_path)
    await killed.write(4 * PART + 1)
    (upload,) = killed.store.uploads.values()
    await killed.store.upload_part("f", upload.upload_id, 2, b"x" * PART)
    await killed.store.upload_part("f", upload.upload_id, 3, b"short")
    counts = await killed.finish()
    assert counts["UploadPart"] == 3
    assert counts["BytesOut"] == 2 * PART + 1


async def test_parts_that_left_the_spool_are_kept_if_the_journal_knows_them(
    tmp_path: Path,
) -> None:
    killed = Killed(tmp_path)
    await killed.write(12 * PART, spool_limit=8 * PART)
    assert killed.spooled.dropped
    counts = await killed.finish()
    assert counts["UploadPart"] == 0


async def test_parts_that_left_the_spool_and_are_others_now_are_an_error(tmp_path: Path) -> None:
    killed = Killed(tmp_path)
    await killed.write(12 * PART, spool_limit=8 * PART)
    (upload,) = killed.store.uploads.values()
    await killed.store.upload_part("f", upload.upload_id, 2, b"x" * PART)
    async with later(tmp_path, killed.store, killed.spooled, killed.journal) as (here, writer):
        with pytest.raises(FilesystemError, match="part 2, whose bytes are only there") as caught:
            await resume_parts(killed.store, killed.record, writer.file, here.uploader.schedule)
        assert caught.value.errno == errno.EIO


async def test_an_upload_that_is_gone_says_so(tmp_path: Path) -> None:
    killed = Killed(tmp_path)
    await killed.write(3 * PART)
    killed.store.uploads.clear()
    async with later(tmp_path, killed.store, killed.spooled, killed.journal) as (here, writer):
        with pytest.raises(NoSuchUpload):
            await resume_parts(killed.store, killed.record, writer.file, here.uploader.schedule)


async def test_copies_of_an_old_version_are_kept_while_nothing_newer_lies_on_them(
    tmp_path: Path,
) -> None:
    killed = Killed(tmp_path)
    store, journal = killed.store, killed.journal
    fail = [True]

    async def before(operation: str, key: str) -> None:
        if operation == "CompleteMultipartUpload" and fail[0]:
            raise ServerError("down", operation=operation, key=key)

    store.before = before
    async with rig(tmp_path, store, journal=journal, spool_limit=ROOMY) as here:
        writer = here.writer().on_object(pattern(0, 12 * PART))
        base = writer.base
        assert base is not None
        await writer.write(12 * PART, pattern(12 * PART, PART))
        with pytest.raises(ServerError):
            await writer.commit()
        await killed._die(writer)
    fail[0] = False
    for visible, kept in ((12 * PART, 4), (8 * PART, 3)):
        async with later(tmp_path, store, killed.spooled, journal) as (here, writer):
            schedule = here.uploader.schedule
            table = await resume_parts(
                store, killed.record, writer.file, schedule, base=base, visible=visible
            )
            assert len(table.attempted) == 4
            assert len(table.sent) == kept, (visible, table)
            other = BaseObject(base.key, "another", base.size)
            table = await resume_parts(
                store, killed.record, writer.file, schedule, base=other, visible=visible
            )
            assert len(table.sent) == 1
            writer.file.seal()
            # So that the next round finds its chunk files.


async def test_where_etags_are_no_md5s_the_journals_checksum_counts(tmp_path: Path) -> None:
    killed = Killed(tmp_path, _Encrypted(minimum_part_size=MINIMUM))
    async with rig(tmp_path, killed.store, journal=killed.journal, spool_limit=ROOMY) as here:
        writer = here.writer()
        await writer.write(0, pattern(0, 4 * PART + 1))
        await trio.testing.wait_all_tasks_blocked()
        await writer.write(PART + 5, b"changed after its part was sent")
        await killed._die(writer)
    counts = await killed.finish()
    assert counts["BytesOut"] == PART + 1


class _Encrypted(MemoryStore):
    """ETags of parts tell nothing about their bytes."""

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: object, **options: Any
    ) -> Part:
        part = await super().upload_part(key, upload_id, number, body, **options)  # type: ignore[arg-type]
        stored = self.uploads[upload_id].parts
        etag = f"{number:032x}"
        stored[number] = (etag, stored[number][1])
        return replace(part, etag=etag, checksum=None)

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        return [replace(part, checksum=None) for part in await super().list_parts(key, upload_id)]


# -- damage


async def test_a_byte_flipped_in_a_part_that_the_service_has_does_no_harm(tmp_path: Path) -> None:
    killed = Killed(tmp_path)
    await killed.write(5 * PART + 1000)
    flip(tmp_path / "spool", killed.spooled.chunks[2].name, 77)
    counts = await killed.finish()
    assert counts["BytesOut"] == 1000


async def test_a_byte_flipped_in_one_that_it_does_not_have_is_found_before_it_is_sent(
    tmp_path: Path,
) -> None:
    killed = Killed(tmp_path)
    await killed.write(5 * PART + 1000)
    (upload,) = killed.store.uploads.values()
    del upload.parts[3]
    flip(tmp_path / "spool", killed.spooled.chunks[2].name, 77)
    async with later(tmp_path, killed.store, killed.spooled, killed.journal) as (here, writer):
        table = await resume_parts(killed.store, killed.record, writer.file, here.uploader.schedule)
        writer.upload.resume(killed.record, table)
        writer.expected = bytearray(killed.expected)
        with pytest.raises(CorruptSpool, match=f"{killed.spooled.chunks[2].name}: block 0"):
            await writer.commit()
    assert "f" not in killed.store.objects
    assert 3 not in upload.parts


@pytest.mark.parametrize("size", [100, 4096, PART])
async def test_a_byte_flipped_in_a_sealed_file_is_found_before_it_is_put(
    tmp_path: Path, size: int
) -> None:
    store = MemoryStore(minimum_part_size=MINIMUM)
    async with rig(tmp_path, store) as here:
        writer = here.writer()
        await writer.write(PART + 3, pattern(0, size))
        spooled = writer.file.seal()
    flip(tmp_path / "spool", spooled.chunks[0].name, 3 + size // 2)
    async with later(tmp_path, store, spooled, MemoryJournal()) as (_, writer):
        writer.expected = bytearray(PART + 3 + size)
        with pytest.raises(CorruptSpool, match=spooled.chunks[0].name):
            await writer.commit()
        assert store.objects == {}


async def test_a_byte_flipped_in_a_body_in_the_journal_is_found_before_it_is_put(
    tmp_path: Path,
) -> None:
    store = MemoryStore(minimum_part_size=MINIMUM)
    async with rig(tmp_path, store) as here:
        writer = here.writer()
        await writer.write(0, b"tiny")
        spooled = replace(writer.file.seal(), body=b"tinx")
    async with later(tmp_path, store, spooled, MemoryJournal()) as (_, writer):
        writer.expected = bytearray(b"tiny")
        with pytest.raises(CorruptSpool):
            await writer.commit()
        assert store.objects == {}


async def test_a_part_damaged_in_memory_between_its_check_and_its_checksum_is_sent_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What the service checks is tied to the CRCs of the writers' buffers."""
    damage = [True, False]

    class Store(MemoryStore):
        async def upload_part(
            self, key: str, upload_id: str, number: int, body: object, **options: Any
        ) -> Part:
            data = bytearray(body)  # type: ignore[call-overload]
            if number == 2 and damage.pop(0):
                data[100] ^= 1
            return await super().upload_part(key, upload_id, number, bytes(data), **options)

    store = Store(minimum_part_size=MINIMUM, capabilities=ALL_CAPABILITIES)
    assert (await store.capabilities()).checks_crc32c
    async with rig(tmp_path, store) as here:
        writer = here.writer()
        await writer.write(0, pattern(0, 3 * PART))
        await trio.testing.wait_all_tasks_blocked()
        assert "part 2 has the CRC32C" in caplog.text
        await writer.commit()
        assert damage == []
        assert writer.stored == bytes(writer.expected)


# -- parts that acknowledged bytes are left in


async def test_a_part_that_holds_acknowledged_bytes_is_not_sent_over_before_the_next_record(
    tmp_path: Path,
) -> None:
    killed = Killed(tmp_path)
    async with rig(tmp_path, killed.store, journal=killed.journal) as here:
        writer = here.writer()
        for offset in range(0, 12 * PART, MINIMUM):
            await writer.write(offset, pattern(offset, MINIMUM))
            await trio.testing.wait_all_tasks_blocked()
        start, end = next(iter(writer.file.dropped))

        def write(record: SpoolRecord) -> bool:
            writer.file.recorded(record)
            return True

        writer.file.on_amended = write
        writer.file.recorded(writer.file.seal())
        sent = killed.store.counts()["UploadPart"]
        await writer.write(start, b"n" * (end - start))
        writer.upload.press()
        await trio.testing.wait_all_tasks_blocked()
        assert killed.store.counts()["UploadPart"] == sent, "else a crash now would lose them"
        writer.file.recorded(writer.file.seal())
        writer.upload.press()
        await trio.testing.wait_all_tasks_blocked()
        assert killed.store.counts()["UploadPart"] == sent + (end - start) // PART
        await writer.commit()
        assert writer.stored == bytes(writer.expected)


async def test_after_its_commit_an_amended_record_does_not_count_on_the_old_upload(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as here:
        writer = here.writer()
        for offset in range(0, 12 * PART, MINIMUM):
            await writer.write(offset, pattern(offset, MINIMUM))
            await trio.testing.wait_all_tasks_blocked()
        writer.file.recorded(writer.file.seal())
        assert writer.file.dropped
        await writer.commit()
        amended: list[SpoolRecord] = []

        def write(record: SpoolRecord) -> bool:
            amended.append(record)
            return True

        writer.file.on_amended = write
        writer.file.drop(11 * PART, 12 * PART)
        assert [record.dropped for record in amended] == [((11 * PART, 12 * PART),)]
