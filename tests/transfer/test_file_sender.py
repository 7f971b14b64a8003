"""Local files sent as objects on a store in memory: requests counted, parts resumed."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.part_schedule import PartSchedule
from s3mount.store.base import Body, Part, SlicedBody, WriteHeaders
from s3mount.store.errors import NoSuchUpload, ServerError
from s3mount.store.memory import CEPH_CAPABILITIES, NO_CAPABILITIES, MemoryStore
from s3mount.transfer.file_sender import FileSender
from s3mount.transfer.local_file import FileChanged, LocalFile
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.journal_records import UploadRecord

KIB = 1024
PART = 64 * KIB
HEADERS = WriteHeaders({"mode": "33188", "mtime": "1.0", "ctime": "5"}, {"content-type": "a/b"})


def pattern(size: int) -> bytes:
    """No two parts alike."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


class Rig:
    def __init__(self, directory: Path, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore(minimum_part_size=1)
        self.journal = MemoryJournal()
        self.schedule = PartSchedule(PART, 1000, 1 << 40)
        self.sender = FileSender(self.store, self.journal, self.schedule, single_put_limit=PART)
        self.path = directory / "file"

    def write(self, data: bytes) -> None:
        self.path.write_bytes(data)

    def opened(self) -> LocalFile:
        return LocalFile(self.path, content_up_to=PART)

    def stored(self, key: str = "k") -> bytes:
        return self.store.objects[key].data

    @property
    def requests(self) -> dict[str, int]:
        """Without the bytes."""
        return {name: count for name, count in self.store.counts().items() if "Bytes" not in name}

    @property
    def records(self) -> list[UploadRecord]:
        return list(self.journal.load().uploads.values())

    async def cut_off(self, data: bytes, after: int) -> UploadRecord:
        """A process that dies once the service has `after` parts."""
        self.write(data)
        parts = 0

        async def die(operation: str, key: str) -> None:
            nonlocal parts
            if operation == "UploadPart":
                parts += 1
            if parts > after or operation == "CompleteMultipartUpload":
                raise ServerError("killed")

        self.store.before = die
        with self.opened() as file, pytest.raises(ServerError):
            await self.sender.send(file, "k", HEADERS)
        self.store.before = None
        (record,) = self.records
        return record


@pytest.fixture
def here(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_a_small_file_is_one_request(here: Rig) -> None:
    here.write(b"hello")
    with here.opened() as file:
        sent = await here.sender.send(file, "k", HEADERS)
    assert (sent.sent, sent.kept) == (5, 0)
    assert here.stored() == b"hello"
    assert here.store.objects["k"].metadata == HEADERS.metadata
    assert here.requests == {"PutObject": 1}


async def test_a_large_file_goes_up_in_parts_of_the_schedule(here: Rig) -> None:
    data = pattern(5 * PART + 1)
    here.write(data)
    told: list[int] = []
    with here.opened() as file:
        sent = await here.sender.send(file, "k", HEADERS, progress=told.append)
    assert here.stored() == data
    assert here.store.objects["k"].headers["content-type"] == "a/b"
    assert here.requests == {
        "CreateMultipartUpload": 1,
        "UploadPart": 6,
        "CompleteMultipartUpload": 1,
    }
    assert sum(told) == sent.sent == len(data)
    assert here.records == []


async def test_the_upload_is_in_the_journal_before_it_is_asked_for(here: Rig) -> None:
    here.write(pattern(3 * PART))
    seen: list[tuple[str, int]] = []
    here.store.before = lambda operation, key: seen.append((operation, len(here.records)))
    with here.opened() as file:
        await here.sender.send(file, "k", HEADERS)
    assert seen[0] == ("CreateMultipartUpload", 1)
    assert here.records == []


@pytest.mark.parametrize("capabilities", [CEPH_CAPABILITIES, NO_CAPABILITIES])
async def test_a_later_process_sends_only_the_parts_that_are_missing(
    tmp_path: Path, capabilities: object
) -> None:
    here = Rig(tmp_path, MemoryStore(minimum_part_size=1, capabilities=capabilities))  # type: ignore[arg-type]
    data = pattern(10 * PART)
    record = await here.cut_off(data, after=6)
    before = here.store.counts()["UploadPart"]
    later = WriteHeaders({**HEADERS.metadata, "ctime": "9"}, HEADERS.headers)
    with here.opened() as file:
        sent = await here.sender.send(file, "k", later, earlier=record)
    assert here.store.counts()["UploadPart"] - before == 4
    assert (sent.kept, sent.sent) == (6 * PART, 4 * PART)
    assert here.stored() == data
    assert here.records == []
    assert here.store.uploads == {}


async def test_parts_that_differ_from_the_file_are_sent_again(here: Rig) -> None:
    data = pattern(10 * PART)
    record = await here.cut_off(data, after=10)
    changed = bytearray(data)
    changed[3 * PART] ^= 1
    stat = here.path.stat()
    here.write(bytes(changed))
    os.utime(here.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    before = here.store.counts()["UploadPart"]
    with here.opened() as file:
        await here.sender.send(file, "k", HEADERS, earlier=record)
    assert here.store.counts()["UploadPart"] - before == 1
    assert here.stored() == bytes(changed)


async def test_an_upload_begun_for_another_state_of_the_file_is_aborted(here: Rig) -> None:
    record = await here.cut_off(pattern(10 * PART), after=6)
    data = pattern(4 * PART)[::-1]
    here.write(data)
    headers = WriteHeaders({**HEADERS.metadata, "mtime": "2.0"}, HEADERS.headers)
    with here.opened() as file:
        await here.sender.send(file, "k", headers, earlier=record)
    assert here.stored() == data
    assert here.store.objects["k"].metadata["mtime"] == "2.0"
    assert here.records == []
    assert here.store.uploads == {}


async def test_an_upload_that_is_gone_is_begun_anew(here: Rig) -> None:
    data = pattern(10 * PART)
    record = await here.cut_off(data, after=6)
    here.store.uploads.clear()
    with here.opened() as file:
        sent = await here.sender.send(file, "k", HEADERS, earlier=record)
    assert sent.kept == 0
    assert here.stored() == data
    assert here.records == []


@pytest.mark.parametrize("part_size", [PART // 2, 3 * PART // 2, PART])
async def test_an_upload_of_another_tool_is_gone_on_with_in_its_part_size(
    here: Rig, part_size: int
) -> None:
    data = pattern(10 * PART + 77)
    here.write(data)
    upload_id = await here.store.create_upload("k", HEADERS)
    for number in (1, 2, 4):
        start = (number - 1) * part_size
        await here.store.upload_part("k", upload_id, number, data[start : start + part_size])
    before = here.store.counts()["UploadPart"]
    with here.opened() as file:
        record = UploadRecord(1, None, "k", WriteHeaders(), upload_id, time.time())
        sent = await here.sender.resume(record, file)
    assert here.store.counts()["UploadPart"] - before == -(-len(data) // part_size) - 3
    assert sent.kept == 3 * part_size
    assert here.stored() == data


async def test_parts_beyond_the_end_of_the_file_do_not_get_into_the_object(tmp_path: Path) -> None:
    here = Rig(tmp_path, MemoryStore(minimum_part_size=1, capabilities=CEPH_CAPABILITIES))
    record = await here.cut_off(pattern(10 * PART), after=9)
    here.write(pattern(3 * PART))
    with here.opened() as file:
        with pytest.raises(NoSuchUpload):
            await here.sender.resume(record, file)
        await here.sender.send(file, "k", HEADERS)
    assert here.stored() == pattern(3 * PART)
    assert here.store.uploads == {}


class Changing(MemoryStore):
    """Calls `change` when the third part comes."""

    def __init__(self, path: Path) -> None:
        super().__init__(minimum_part_size=1)
        self.path = path

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, **options: Any
    ) -> Part:
        if number == 3:
            with self.path.open("r+b") as file:
                file.seek(PART * 8)
                file.write(b"changed")
        return await super().upload_part(key, upload_id, number, body, **options)


async def test_a_file_that_changes_while_it_is_read_is_not_published(tmp_path: Path) -> None:
    here = Rig(tmp_path, Changing(tmp_path / "file"))
    here.write(pattern(10 * PART))
    with here.opened() as file, pytest.raises(FileChanged):
        await here.sender.send(file, "k", HEADERS)
    assert here.store.objects == {}
    assert here.store.uploads == {}
    assert here.records == []


async def test_a_file_that_shrinks_while_it_is_read_is_not_published(here: Rig) -> None:
    here.write(pattern(10 * PART))
    with here.opened() as file:
        os.truncate(here.path, PART)
        with pytest.raises(FileChanged):
            await here.sender.send(file, "k", HEADERS)
    assert here.store.objects == {}
    assert here.store.uploads == {}


async def test_a_cancelled_sending_leaves_its_parts_for_the_next(here: Rig) -> None:
    data = pattern(10 * PART)
    here.write(data)
    with trio.CancelScope() as scope:
        done = 0

        def progress(amount: int) -> None:
            nonlocal done
            done += amount
            if done >= 4 * PART:
                scope.cancel()

        with here.opened() as file:
            await here.sender.send(file, "k", HEADERS, progress=progress)
    assert scope.cancelled_caught
    (record,) = here.records
    assert len(record.parts) >= 4
    with here.opened() as file:
        sent = await here.sender.send(file, "k", HEADERS, earlier=record)
    assert sent.kept >= 4 * PART
    assert here.stored() == data


async def test_a_file_over_the_largest_object_is_refused_before_a_request(tmp_path: Path) -> None:
    here = Rig(tmp_path)
    with here.path.open("wb") as file:
        file.truncate((1 << 40) + 1)
    with here.opened() as opened, pytest.raises(FilesystemError) as caught:
        await here.sender.send(opened, "k", HEADERS)
    assert caught.value.errno == errno.EFBIG
    assert here.requests == {}


async def test_parts_over_32_mib_are_read_in_slices(tmp_path: Path) -> None:
    part = 33 << 20
    bodies: list[Body] = []

    class Watching(MemoryStore):
        async def upload_part(
            self, key: str, upload_id: str, number: int, body: Body, **options: Any
        ) -> Part:
            bodies.append(body)
            return await super().upload_part(key, upload_id, number, body, **options)

    here = Rig(tmp_path, Watching(minimum_part_size=1))
    here.sender.schedule = PartSchedule(part, 100, 1 << 40)
    with here.path.open("wb") as file:
        file.truncate(part)
        file.write(b"end of the file")
        file.seek(part + 5)
        file.write(b"x")
    with here.opened() as opened:
        await here.sender.send(opened, "k", HEADERS)
    assert here.stored() == here.path.read_bytes()
    slices = {body.size: body.slice_size for body in bodies if isinstance(body, SlicedBody)}
    assert slices == {part: 8 << 20, 6: 6}


def test_a_file_that_changed_just_now_is_read_when_the_tick_is_over(here: Rig) -> None:
    here.write(b"1")
    with here.opened() as file:
        assert time.time_ns() - file.stat.st_ctime_ns >= 20_000_000


def test_what_is_no_regular_file_is_not_opened_as_one(here: Rig, tmp_path: Path) -> None:
    os.mkfifo(here.path)
    with pytest.raises(FilesystemError) as caught:
        here.opened()
    assert caught.value.errno == errno.EINVAL
    (tmp_path / "link").symlink_to(here.path)
    with pytest.raises(OSError) as refused:
        LocalFile(tmp_path / "link")
    assert refused.value.errno == errno.ELOOP
