"""Parts ahead of the commit, commits, edits, conditions, failures."""

import errno
from pathlib import Path

import pytest
import trio
import trio.testing

from s3mount.core.errors import FilesystemError
from s3mount.store.base import (
    Condition,
    WriteHeaders,
)
from s3mount.store.errors import (
    AccessDenied,
    ConnectionLost,
    NoSuchUpload,
    PreconditionFailed,
    ServerError,
)
from s3mount.store.memory import CEPH_CAPABILITIES, NO_CAPABILITIES, MemoryStore
from s3mount.writeback.body import CommitSuperseded
from s3mount.writeback.file_upload import FileUpload
from tests.unit.writeback_fixtures import KIB, MINIMUM, PART, Writer, disk_bytes, pattern, rig


def _parts(store: MemoryStore) -> dict[int, bytes]:
    (upload,) = store.uploads.values()
    return {number: data for number, (_, data) in upload.parts.items()}


async def _written_in_order(
    writer: Writer, size: int, step: int = 64 * KIB, *, hurried: bool = False
) -> None:
    """Appends `size` bytes; unless hurried, slowly enough for the parts to arrive meanwhile."""
    start = len(writer.expected)
    for offset in range(start, start + size, step):
        await writer.write(offset, pattern(offset, min(step, start + size - offset)))
        if not hurried:
            await trio.testing.wait_all_tasks_blocked()


async def test_a_small_file_is_one_put_and_nothing_else(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await writer.write(0, b"hello")
        await writer.commit()
        assert writer.stored == b"hello"
        assert r.store.objects["f"].metadata == {"mode": "33188"}
        assert r.store.counts() == {"PutObject": 1, "BytesOut": 5}
        assert not writer.file.unsaved


async def test_a_file_of_exactly_one_part_and_an_empty_one_are_one_put(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for key, size in (("full", PART), ("empty", 0)):
            writer = r.writer(key)
            await _written_in_order(writer, size)
            await trio.testing.wait_all_tasks_blocked()
            await writer.commit()
            assert writer.stored == bytes(writer.expected)
        assert r.store.counts()["PutObject"] == 2
        assert "CreateMultipartUpload" not in r.store.counts()


async def test_parts_arrive_before_the_last_write(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 3 * PART + 10)
        await trio.testing.wait_all_tasks_blocked()
        assert set(_parts(r.store)) == {1, 2, 3}
        assert "f" not in r.store.objects, "nobody sees half a file"
        await _written_in_order(writer, 2 * PART)
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert r.store.counts()["UploadPart"] == 6


async def test_a_part_written_again_is_sent_again_under_its_number(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 4 * PART)
        await trio.testing.wait_all_tasks_blocked()
        await writer.write(10, b"the header, at last")
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert r.store.counts()["UploadPart"] == 5
        assert r.store.uploads == {}


async def test_a_sequential_file_of_any_size_passes_through_a_small_spool(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        most = 0
        for _ in range(60):
            await _written_in_order(writer, PART, hurried=True)
            most = max(most, disk_bytes(r.config))
        assert most <= r.config.spool_limit
        assert writer.file.present.covers(0, PART), "the first part stays"
        assert writer.file.present.covers(59 * PART, 60 * PART), "the last part stays"
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert r.store.counts()["UploadPart"] == 60


async def test_many_large_files_at_once_pass_through_a_spool_that_cannot_hold_their_ends(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        writers = [r.writer(f"f{number}") for number in range(12)]

        async def run(number: int) -> None:
            for _ in range(6):
                await _written_in_order(writers[number], PART, hurried=True)
            await writers[number].commit()

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(run, number)
        for writer in writers:
            assert writer.stored == bytes(writer.expected)


async def test_a_sent_part_is_dropped_only_under_pressure_and_oldest_first(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 8 * PART)
        await trio.testing.wait_all_tasks_blocked()
        assert writer.file.present.covers(0, 8 * PART)
        await _written_in_order(writer, PART)
        assert list(writer.file.dropped) == [(PART, 2 * PART)]


async def test_a_dropped_part_rewritten_as_a_whole_is_sent_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 12 * PART)
        await trio.testing.wait_all_tasks_blocked()
        assert writer.file.dropped.covers(PART, 2 * PART)
        await writer.write(PART, b"n" * PART)
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert r.store.counts()["CompleteMultipartUpload"] == 1


async def test_a_dropped_part_rewritten_in_part_publishes_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 12 * PART)
        await trio.testing.wait_all_tasks_blocked()
        await writer.write(PART + 100, b"changed")
        assert not writer.upload.needs_early_publish(PART + 100, 7)
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert r.store.counts()["CompleteMultipartUpload"] == 2
        assert "published before it is complete" in caplog.text


async def test_a_dropped_part_cut_and_grown_again_has_a_hole_of_zeros(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 12 * PART)
        await trio.testing.wait_all_tasks_blocked()
        assert writer.file.dropped.covers(2 * PART, 3 * PART)
        writer.truncate(2 * PART + 1000)
        writer.truncate(4 * PART)
        await writer.commit()
        assert writer.stored == bytes(writer.expected)


async def test_reading_a_dropped_range_asks_for_an_early_publish(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 12 * PART)
        assert not writer.upload.needs_early_publish(0, PART)
        assert writer.upload.needs_early_publish(PART, 1)
        assert not writer.upload.needs_early_publish(PART, 1, writing=True)
        await writer.commit()
        assert not writer.upload.needs_early_publish(PART, 1)
        assert writer.read() == bytes(writer.expected)


async def test_early_publishing_is_refused_by_option(tmp_path: Path) -> None:
    async with rig(tmp_path, refuse_early_publish=True) as r:
        writer = r.writer()
        await _written_in_order(writer, 12 * PART)
        with pytest.raises(FilesystemError) as caught:
            writer.upload.needs_early_publish(PART, 1)
        assert caught.value.errno == errno.ENOSPC
        await writer.write(PART + 100, b"changed")
        with pytest.raises(FilesystemError) as caught:
            await writer.commit()
        assert caught.value.errno == errno.ENOSPC


async def test_scattered_edits_that_fill_the_spool_ask_to_be_published(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with rig(tmp_path) as r, trio.open_nursery() as nursery:
        writer = r.writer().on_object(pattern(0, 100 * PART))

        def publish(upload: FileUpload) -> bool:
            nursery.start_soon(writer.commit)
            return True

        r.uploader.on_early_publish = publish
        for number in range(60):
            await writer.write(number * PART + 1, b"x" * (PART // 2))
        await writer.commit()
        assert writer.stored == bytes(writer.expected)


async def test_a_file_that_cannot_be_published_does_not_keep_others_from_being_asked(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """An unlinked file that has most of the spool, beside one that has a name."""
    async with rig(tmp_path) as r, trio.open_nursery() as nursery:
        unlinked = r.writer("unlinked").on_object(pattern(0, 100 * PART))
        named = r.writer("named").on_object(pattern(0, 100 * PART))

        def publish(upload: FileUpload) -> bool:
            if upload is named.upload:
                nursery.start_soon(named.commit)
            return upload is named.upload

        r.uploader.on_early_publish = publish
        for number in range(5):
            await unlinked.write(number * PART + 1, b"x" * (PART // 2))
        for number in range(30):
            await named.write(number * PART + 1, b"x" * (PART // 2))
        await named.commit()
        assert named.stored == bytes(named.expected)


# -- edits


async def test_an_append_copies_the_old_bytes_on_the_server(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer().on_object(pattern(0, 20 * PART))
        await writer.write(20 * PART, b"appended" * 1000)
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert r.store.counts()["BytesOut"] == 8000
        assert "GetObject" not in r.store.counts()


async def test_a_change_in_the_middle_reads_no_more_than_a_part(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer().on_object(pattern(0, 20 * PART))
        await writer.write(10 * PART + 5, b"x" * 4096)
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert r.store.counts()["BytesOut"] == MINIMUM
        assert sum(length for _, length in writer.base_reads) < MINIMUM


async def test_a_large_append_sends_parts_ahead(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer().on_object(pattern(0, 5 * PART + 1000))
        await _written_in_order(writer, 20 * PART, 50_000)
        await trio.testing.wait_all_tasks_blocked()
        assert len(_parts(r.store)) >= 18
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert r.store.counts()["BytesOut"] < 21 * PART + PART


async def test_holes_are_zeros_and_a_truncated_tail_does_not_come_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer().on_object(pattern(0, 6 * PART))
        writer.truncate(2 * PART + 7)
        await writer.write(5 * PART, b"after the hole")
        await writer.commit()
        assert writer.stored == bytes(writer.expected)


async def test_a_base_that_answers_too_few_bytes_fails_the_commit(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer().on_object(pattern(0, PART))

        async def short(offset: int, length: int) -> bytes:
            return b"x" * (length - 1)

        writer.read_base = short  # type: ignore[method-assign]
        await writer.write(10, b"x")
        with pytest.raises(FilesystemError) as caught:
            await writer.commit()
        assert caught.value.errno == errno.EIO
        assert r.store.objects["f"].data == pattern(0, PART)


# -- conditions


@pytest.mark.parametrize("size", [100, 5 * PART])
@pytest.mark.parametrize("honoured", [True, False])
async def test_an_edit_never_overwrites_what_it_has_not_seen(
    tmp_path: Path, size: int, honoured: bool
) -> None:
    store = MemoryStore(minimum_part_size=MINIMUM)
    if not honoured:
        store = MemoryStore(minimum_part_size=MINIMUM, capabilities=NO_CAPABILITIES)
    async with rig(tmp_path, store) as r:
        writer = r.writer().on_object(pattern(0, size))
        assert writer.base is not None
        seen = writer.base.etag
        await writer.write(size, b"appended")
        store.put_foreign("f", b"another host's")
        with pytest.raises(PreconditionFailed):
            await writer.commit(Condition(etag=seen))
        assert store.objects["f"].data == b"another host's"
        assert writer.file.unsaved


@pytest.mark.parametrize("size", [100, 3 * PART])
async def test_an_exclusive_create_fails_where_the_key_is_taken(tmp_path: Path, size: int) -> None:
    store = MemoryStore(minimum_part_size=MINIMUM, capabilities=CEPH_CAPABILITIES)
    async with rig(tmp_path, store) as r:
        writer = r.writer()
        await _written_in_order(writer, size)
        store.put_foreign("f", b"first")
        with pytest.raises(PreconditionFailed):
            await writer.commit(Condition(absent=True))
        await writer.commit(Condition(absent=True), key="f.conflict")
        assert writer.stored == bytes(writer.expected)
        assert store.objects["f"].data == b"first"


# -- other headers or another key at the commit


@pytest.mark.parametrize("size", [3 * PART, 12 * PART])
async def test_headers_changed_since_the_upload_began_are_those_of_the_object(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3mount.writeback.commit.RESEND_LIMIT", 4 * PART)
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, size)
        await trio.testing.wait_all_tasks_blocked()
        writer.headers = WriteHeaders({"mode": "33152"})
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert r.store.objects["f"].metadata == {"mode": "33152"}
        assert r.store.uploads == {}
        assert r.store.counts()["UploadPart"] == (3 + 3 if size == 3 * PART else 12)


@pytest.mark.parametrize("size", [3 * PART, 12 * PART])
async def test_a_file_renamed_while_it_is_written_ends_under_the_new_name_only(
    tmp_path: Path, size: int
) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer("old")
        await _written_in_order(writer, size)
        await trio.testing.wait_all_tasks_blocked()
        await writer.commit(key="new")
        assert set(r.store.objects) == {"new"}
        assert writer.stored == bytes(writer.expected)
        assert r.store.uploads == {}


async def test_a_renamed_file_never_replaces_what_has_taken_its_old_name(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer("old")
        await _written_in_order(writer, 12 * PART)
        await trio.testing.wait_all_tasks_blocked()
        r.store.put_foreign("old", b"a newer file")
        with pytest.raises(FilesystemError) as caught:
            await writer.commit(key="new")
        assert caught.value.errno == errno.ESTALE
        assert r.store.objects["old"].data == b"a newer file"


# -- failures


async def test_after_a_transient_failure_the_next_commit_keeps_what_was_sent(
    tmp_path: Path,
) -> None:
    failing = {"CompleteMultipartUpload"}

    def before(operation: str, key: str) -> None:
        if operation in failing:
            failing.discard(operation)
            raise ServerError("try again", operation=operation, key=key, status=500)

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store) as r:
        writer = r.writer()
        await _written_in_order(writer, 4 * PART + 1)
        with pytest.raises(ServerError):
            await writer.commit()
        assert writer.file.dirty.covers(0, 4 * PART + 1)
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert store.counts()["UploadPart"] == 5


async def test_a_lost_answer_of_complete_is_no_conflict(tmp_path: Path) -> None:
    failing = {"CompleteMultipartUpload"}

    def after(operation: str, key: str) -> None:
        if operation in failing:
            failing.discard(operation)
            raise ConnectionLost("gone", operation=operation, key=key, ambiguous=True)

    store = MemoryStore(minimum_part_size=MINIMUM, after=after)
    async with rig(tmp_path, store) as r:
        writer = r.writer()
        await _written_in_order(writer, 3 * PART)
        with pytest.raises(ConnectionLost):
            await writer.commit(Condition(absent=True))
        await writer.commit(Condition(absent=True))
        assert writer.stored == bytes(writer.expected)
        assert store.counts()["UploadPart"] == 3


async def test_an_upload_that_was_cleaned_away_is_sent_anew(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 4 * PART)
        await trio.testing.wait_all_tasks_blocked()
        r.store.uploads.clear()
        await writer.commit()
        assert writer.stored == bytes(writer.expected)


async def test_dropped_bytes_in_a_lost_upload_are_an_error_never_zeros(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 12 * PART)
        await trio.testing.wait_all_tasks_blocked()
        r.store.uploads.clear()
        for _ in range(2):
            with pytest.raises((FilesystemError, NoSuchUpload)):
                await writer.commit()
        assert "f" not in r.store.objects


async def test_a_background_part_is_tried_again_until_it_is_sent(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    down = True

    def before(operation: str, key: str) -> None:
        if operation == "UploadPart" and down:
            raise ConnectionLost("no network", operation=operation, key=key)

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store) as r:
        writer = r.writer()
        await _written_in_order(writer, 3 * PART)
        await trio.sleep(20)
        assert _parts(store) == {}
        assert "no network" in str(writer.upload.error)
        assert writer.upload.failures > 1
        down = False
        await trio.sleep(40)
        assert set(_parts(store)) == {1, 2, 3}


async def test_a_final_failure_reaches_the_waiting_writer_and_the_commit_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    def before(operation: str, key: str) -> None:
        if operation == "UploadPart":
            raise AccessDenied("no", operation=operation, key=key, status=403)

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store) as r:
        writer = r.writer()
        started = trio.current_time()
        with pytest.raises(AccessDenied):
            await _written_in_order(writer, 12 * PART)
        with pytest.raises(AccessDenied):
            await writer.commit()
        assert trio.current_time() - started < 1
        assert writer.read() == bytes(writer.expected)


async def test_a_file_too_large_for_the_service_fails_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, max_object_size=10 * PART, max_parts=10) as r:
        writer = r.writer()
        writer.truncate(10 * PART + 1)
        with pytest.raises(FilesystemError) as caught:
            await writer.commit()
        assert caught.value.errno == errno.EFBIG
        assert r.store.counts() == {}


async def test_a_damaged_spool_file_is_never_uploaded(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await writer.write(0, pattern(0, PART))
        (chunk,) = r.config.spool_dir.glob("chunk-*")
        with chunk.open("r+b") as file:
            file.seek(1000)
            file.write(b"?")
        with pytest.raises(FilesystemError) as caught:
            await writer.commit()
        assert caught.value.errno == errno.EIO
        assert r.store.objects == {}


# -- writers and truncations while a commit runs


async def test_bytes_written_during_a_commit_stay_dirty_for_the_next(tmp_path: Path) -> None:
    started, go_on = trio.Event(), trio.Event()

    async def before(operation: str, key: str) -> None:
        if operation == "CompleteMultipartUpload":
            started.set()
            await go_on.wait()

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store) as r, trio.open_nursery() as nursery:
        writer = r.writer()
        await _written_in_order(writer, 3 * PART)
        as_it_was = bytes(writer.expected)
        nursery.start_soon(writer.commit)
        await started.wait()
        await writer.write(PART, b"during")
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert writer.stored == as_it_was
        assert list(writer.file.dirty) == [(PART, PART + 6)]
        await writer.commit()
        assert writer.stored == bytes(writer.expected)


async def test_a_truncation_during_a_commit_supersedes_it(tmp_path: Path) -> None:
    store = MemoryStore(minimum_part_size=MINIMUM)
    async with rig(tmp_path, store) as r:
        writer = r.writer()
        await _written_in_order(writer, 3 * PART - 5)
        await trio.testing.wait_all_tasks_blocked()

        def before(operation: str, key: str) -> None:
            if operation == "CreateMultipartUpload":
                writer.truncate(PART + 1)

        await writer.upload.abort()
        store.before = before
        with pytest.raises(CommitSuperseded):
            await writer.commit()
        assert "f" not in store.objects
        await writer.commit()
        assert writer.stored == bytes(writer.expected)


async def test_a_cancelled_commit_leaves_all_as_it_was_and_can_be_repeated(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def before(operation: str, key: str) -> None:
        if operation in {"UploadPart", "PutObject"}:
            await trio.sleep(10)

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store) as r:
        for key, size in (("small", 10), ("large", 6 * PART)):
            writer = r.writer(key)
            await _written_in_order(writer, size)
            with trio.move_on_after(5) as scope:
                await writer.commit()
            assert scope.cancelled_caught
            assert writer.file.dirty.covers(0, size)
            await writer.commit()
            assert writer.stored == bytes(writer.expected)
            writer.file.close()
        assert r.uploader.memory.used == 0
        assert r.spool.usage()["chunks"] == 0


async def test_bytes_in_flight_are_bounded(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    now = most = 0

    async def before(operation: str, key: str) -> None:
        nonlocal now, most
        if operation == "UploadPart":
            now += 1
            most = max(most, now)
            await trio.sleep(1)
            now -= 1

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store, spool_limit=40 * PART, bytes_in_flight=3 * PART) as r:
        writer = r.writer()
        await _written_in_order(writer, 20 * PART)
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert most == 3


async def test_large_parts_are_sent_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3mount.writeback.body.SLICED_OVER", PART // 2)
    monkeypatch.setattr("s3mount.writeback.body.SLICE", PART // 4)
    async with rig(tmp_path) as r:
        writer = r.writer().on_object(pattern(0, 8 * PART))
        await writer.write(3 * PART + 10, b"x" * 1000)
        await writer.write(8 * PART + 9, pattern(0, 3 * PART))
        await writer.commit()
        assert writer.stored == bytes(writer.expected)


async def test_abort_removes_the_upload_and_stops_its_parts(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 3 * PART)
        await trio.testing.wait_all_tasks_blocked()
        await writer.upload.abort()
        assert r.store.uploads == {}
        assert writer.read() == bytes(writer.expected)
        await writer.commit()
        assert writer.stored == bytes(writer.expected)


async def test_closing_a_file_with_an_unfinished_upload_aborts_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        await _written_in_order(writer, 3 * PART)
        await trio.testing.wait_all_tasks_blocked()
        writer.file.close()
        await trio.testing.wait_all_tasks_blocked()
        assert r.store.uploads == {}
        assert r.spool.usage()["chunks"] == 0


# -- found by random histories


async def test_a_part_on_its_way_is_stopped_where_the_commit_sends_its_number_shorter(
    tmp_path: Path,
) -> None:
    """The file grew after the commit was called: two requests for one number, in any order."""
    gate = trio.Event()
    gate.set()

    async def before(operation: str, key: str) -> None:
        if operation == "UploadPart":
            await gate.wait()

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store) as r:
        writer = r.writer()
        await _written_in_order(writer, 2 * PART + PART // 2)
        gate = trio.Event()
        committed = bytes(writer.expected)
        async with trio.open_nursery() as nursery:
            async with writer.upload._commit_lock:
                nursery.start_soon(writer.commit)
                await trio.testing.wait_all_tasks_blocked()
                await _written_in_order(writer, PART)
                assert 3 in writer.upload.flights
            await trio.testing.wait_all_tasks_blocked()
            assert 3 not in writer.upload.flights
            gate.set()
        assert writer.stored == committed
        await writer.commit()
        assert writer.stored == bytes(writer.expected)


async def test_an_object_published_on_the_way_is_not_taken_for_the_file_when_its_answer_is_lost(
    tmp_path: Path,
) -> None:
    lost = [True]

    def after(operation: str, key: str) -> None:
        if operation == "CompleteMultipartUpload" and lost:
            lost.clear()
            raise ServerError("no answer", operation=operation, key=key, ambiguous=True)

    store = MemoryStore(minimum_part_size=MINIMUM, after=after, capabilities=CEPH_CAPABILITIES)
    async with rig(tmp_path, store) as r:
        writer = r.writer()
        await _written_in_order(writer, 12 * PART)
        await trio.testing.wait_all_tasks_blocked()
        assert writer.file.dropped.covers(PART, 2 * PART)
        await writer.write(PART + 100, b"changed")
        with pytest.raises(ServerError):
            await writer.commit()
        await writer.commit()
        assert writer.stored == bytes(writer.expected)
        assert store.uploads == {}
