"""Mounts that died, and whose chunk files are not what their journal says."""

import errno
import itertools
import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio

from s3mount.core.config import KIB, MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.store.base import PutResult
from s3mount.store.memory import MemoryStore
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.chunk import BLOCK, CorruptSpool
from s3mount.writeback.file_upload import FileUpload
from s3mount.writeback.intents import ABSENT, Kind
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.journal_records import JournalContents
from s3mount.writeback.recoverable import Recoverable
from tests.model.bucket import files
from tests.model.mounted import EPOCH, with_writeback
from tests.model.recovering import FILE, DeadMount, headers_of, remounted

PART = 256 * KIB
DATA = random.Random(5).randbytes(3 * PART + 100)  # a chunk has four blocks


@pytest.fixture(autouse=True)
def _one_clock() -> Iterator[None]:
    """This machine's clock is the service's."""
    with patch("time.time", lambda: EPOCH + trio.current_time()):
        yield


@pytest.fixture
def config(config: MountConfig) -> MountConfig:
    """Parts of several blocks."""
    writeback = replace(
        config.writeback, part_size=PART, single_put_limit=PART, spool_limit=32 * PART
    )
    return replace(config, writeback=writeback)


@pytest.fixture
async def dead(config: MountConfig) -> DeadMount:
    return DeadMount(config, created=EPOCH + trio.current_time())


def flip(left: JournalContents, spool: Path, file: int, offset: int) -> None:
    """One bit of a file's bytes in its chunk file."""
    (name,) = [c.name for c in left.files[file].spool.chunks if c.index == offset // PART]
    with (spool / name).open("r+b") as chunk:
        chunk.seek(offset % PART)
        (byte,) = chunk.read(1)
        chunk.seek(-1, 1)
        chunk.write(bytes([byte ^ 1]))


def without_first_part(left: JournalContents, file: int) -> JournalContents:
    """It has left the spool, for the upload."""
    record = left.files[file]
    spool = replace(
        record.spool,
        present=((PART, len(DATA)),),
        dirty=((PART, len(DATA)),),
        dropped=((0, PART),),
        chunks=tuple(chunk for chunk in record.spool.chunks if chunk.index),
    )
    return replace(left, files={file: replace(record, spool=spool)})


def journalled(config: MountConfig) -> MountConfig:
    return replace(config, writeback=replace(config.writeback, durability="journal"))


@pytest.mark.parametrize("mode", ["close", "journal"])
@pytest.mark.parametrize("how", ["flipped", "gone", "all gone"])
async def test_what_can_be_read_is_kept_and_the_rest_goes_on(
    store: MemoryStore,
    config: MountConfig,
    dead: DeadMount,
    mode: str,
    how: str,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: object,
) -> None:
    old = store.put_foreign("f", b"as it was").etag
    file = dead.file("f", DATA)
    dead.intent(Kind.PUT, "f", file=file, expects=old)
    dead.intent(Kind.COPY, "g", source="f", source_etag=old, size=9)  # counts on the PUT
    dead.put("other", b"sent", expects=ABSENT)
    left = dead.contents()
    spool = config.writeback.spool_dir
    if how == "flipped":
        flip(left, spool, file, PART + BLOCK + 7)
    for chunk in left.files[file].spool.chunks:
        if how == "all gone" or (how == "gone" and chunk.index == 1):
            (spool / chunk.name).unlink()
    journal = MemoryJournal(left)
    used = journalled(config) if mode == "journal" else config
    with caplog.at_level(logging.WARNING):
        async with remounted(store, used, journal) as client:
            await client.fs.drain(600.0)
            status = client.fs.status()
            assert await client.ls() == ["g", "other"]
    assert files(store) == {"g": b"as it was", "other": b"sent"}
    (failure,) = status["failures"]
    assert "'f'" in failure
    assert "damaged" in failure
    assert ("it was closed" if mode == "journal" else "being closed") in failure
    errors = [record for record in caplog.records if "given up" in record.message]
    assert [record.levelname for record in errors] == ["ERROR"]
    assert not [record for record in caplog.records if "again in" in record.message]
    kept = Recoverable(config.cache_dir / "recoverable").list()
    if how == "all gone":
        assert kept == []
        return
    (entry,) = kept
    hole = (PART + BLOCK, PART + 2 * BLOCK) if how == "flipped" else (PART, 2 * PART)
    assert (entry.key, entry.size) == ("f", len(DATA))
    assert entry.ranges == ((0, hole[0]), (hole[1], len(DATA)))
    assert "s3mount recover list" in failure
    assert f"{len(DATA) - hole[1] + hole[0]} of its {len(DATA)} bytes" in failure
    target = config.cache_dir / "saved"
    Recoverable(config.cache_dir / "recoverable").save(entry, target)
    saved = target.read_bytes()
    assert saved[: hole[0]] + saved[hole[1] :] == DATA[: hole[0]] + DATA[hole[1] :]
    assert "'f'" in status["recovery"]["recoverable"][0]


@pytest.mark.parametrize("part", [PART, 2 * BLOCK])
@pytest.mark.parametrize("size", [PART - 100, len(DATA)])
async def test_what_the_bucket_has_already_is_no_loss(
    store: MemoryStore,
    config: MountConfig,
    dead: DeadMount,
    size: int,
    part: int,
    autojump_clock: object,
) -> None:
    """The answer was heard, and the power cut took that from the journal and reused the chunks.
    The next mount may have another part size."""
    data, headers = DATA[:size], headers_of("f")
    dead.put("f", data, expects=ABSENT)
    store.put_foreign("f", data, headers.metadata, headers.headers)
    left = dead.contents()
    (file,) = left.files
    flip(left, config.writeback.spool_dir, file, BLOCK + 1)
    heir = with_writeback(config, part_size=part)
    # The smaller one would be kept for readers, from the spool.
    heir = replace(heir, read=replace(heir.read, small_object=PART))
    async with remounted(store, heir, MemoryJournal(left)) as client:
        await client.fs.drain(600.0)
        assert client.fs.status()["failures"] == []
        assert await client.read("f") == data
    assert files(store) == {"f": data}
    assert store.counts().get("PutObject", 0) == store.counts().get("CreateMultipartUpload", 0) == 0
    assert Recoverable(config.cache_dir / "recoverable").list() == []


@pytest.mark.parametrize("told_by", ["the intent", "the upload"])
async def test_what_the_bucket_has_with_other_metadata_is_no_loss(
    store: MemoryStore, config: MountConfig, dead: DeadMount, told_by: str, autojump_clock: object
) -> None:
    """It was closed, then its mode was changed; or its upload began before its last write, which
    gave it another mtime. The answer was heard, and the power cut took that from the journal."""
    earlier = replace(FILE, mode=FILE.mode ^ 0o040, mtime_ns=FILE.mtime_ns - 1)
    sent = headers_of("f", earlier)
    store.put_foreign("f", DATA, sent.metadata, sent.headers)
    if told_by == "the intent":
        dead.put("f", DATA, expects=ABSENT)
        left = dead.contents()
        (intent,) = left.intents
        left = replace(left, intents=[replace(intent, headers=sent)])
    else:
        file = dead.file("f", DATA)
        dead.intent(Kind.PUT, "f", file=file, expects=ABSENT)
        await dead.upload(store, "f", {1: DATA[:PART]}, file=file)
        left = dead.contents()
        store.uploads.clear()
        (upload,) = left.uploads.values()
        left = replace(left, uploads={upload.id: replace(upload, headers=sent)})
    (file,) = left.files
    flip(left, config.writeback.spool_dir, file, PART + BLOCK + 1)
    before = store.counts().get("BytesOut", 0)
    async with remounted(store, config, MemoryJournal(left)) as client:
        await client.fs.drain(600.0)
        assert client.fs.status()["failures"] == []
        assert await client.read("f") == DATA
        found = (await client.stat("f")).attributes
        assert (found.mode, found.mtime_ns) == (FILE.mode, FILE.mtime_ns)
    assert files(store) == {"f": DATA}
    assert store.counts().get("BytesOut", 0) == before
    assert store.objects["f"].metadata == headers_of("f").metadata
    assert Recoverable(config.cache_dir / "recoverable").list() == []


@pytest.mark.parametrize("same", [True, False])
async def test_an_edit_that_the_bucket_has_is_no_loss(
    store: MemoryStore, config: MountConfig, dead: DeadMount, same: bool, autojump_clock: object
) -> None:
    """Of what was edited only the new bytes are in the spool, and zeros before them in the block.
    Another host's bytes, or an earlier close's, are not taken for them."""
    base = BaseObject("f", "an-etag-of-old", len(DATA))
    at, new = PART + 100, b"new" * BLOCK
    edited = DATA[:at] + new + DATA[at + len(new) :]
    if not same:
        edited = edited[: at + 3 * BLOCK - 1] + b"?" + edited[at + 3 * BLOCK :]
    headers = headers_of("f")
    file = dead.file("f", new, at=at, base=base)
    dead.intent(Kind.PUT, "f", file=file, expects=base.etag)
    store.put_foreign("f", edited, headers.metadata, headers.headers)
    left = dead.contents()
    flip(left, config.writeback.spool_dir, file, at + BLOCK)
    async with remounted(store, config, MemoryJournal(left)) as client:
        await client.fs.drain(600.0)
        assert len(client.fs.status()["failures"]) == (not same)
    assert files(store) == {"f": edited}
    assert len(Recoverable(config.cache_dir / "recoverable").list()) == (not same)


@pytest.mark.parametrize("damaged", [True, False])
async def test_the_upload_of_what_went_up_in_one_request_is_aborted(
    store: MemoryStore, config: MountConfig, dead: DeadMount, damaged: bool, autojump_clock: object
) -> None:
    """Part 1 was sent ahead; then the file was closed, small enough for one PUT, and the mount
    died between that and the abort."""
    headers = headers_of("f")
    file = dead.file("f", DATA)
    dead.intent(Kind.PUT, "f", file=file, expects=ABSENT)
    await dead.upload(store, "f", {1: DATA[:PART]}, file=file, heard_of=[])
    store.put_foreign("f", DATA, headers.metadata, headers.headers)
    left = dead.contents()
    if damaged:
        flip(left, config.writeback.spool_dir, file, BLOCK + 1)
    journal = MemoryJournal(left)
    async with remounted(store, config, journal) as client:
        await client.fs.drain(600.0)
        await trio.sleep(1.0)
        assert client.fs.status()["failures"] == []
        assert not store.uploads
    assert files(store) == {"f": DATA}
    assert not journal.load().uploads
    assert (
        store.counts().get("PutObject", 0) == store.counts().get("CompleteMultipartUpload", 0) == 0
    )


@pytest.mark.parametrize("at", [0, 2 * BLOCK + 5, PART - 200])
async def test_an_earlier_close_in_the_bucket_is_not_taken_for_it(
    store: MemoryStore, config: MountConfig, dead: DeadMount, at: int, autojump_clock: object
) -> None:
    """Same size, same times: only the bytes tell, wherever they differ."""
    data, headers = DATA[: PART - 100], headers_of("f")
    dead.put("f", data, expects=ABSENT)
    before = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    store.put_foreign("f", before, headers.metadata, headers.headers)
    left = dead.contents()
    (file,) = left.files
    flip(left, config.writeback.spool_dir, file, BLOCK + 1)
    async with remounted(store, config, MemoryJournal(left)) as client:
        await client.fs.drain(600.0)
        assert len(client.fs.status()["failures"]) == 1
    assert files(store) == {"f": before}
    (entry,) = Recoverable(config.cache_dir / "recoverable").list()
    assert entry.bytes == len(data) - BLOCK


async def test_an_edit_of_what_others_have_changed(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    """It would be a conflict: not even the conflict file can be made."""
    etag = store.put_foreign("f", DATA).etag
    file = dead.file("f", b"new" * BLOCK, at=PART, base=BaseObject("f", etag, len(DATA)))
    dead.intent(Kind.PUT, "f", file=file, expects=etag)
    left = dead.contents()
    flip(left, config.writeback.spool_dir, file, PART + 1)
    store.put_foreign("f", b"theirs")
    async with remounted(store, config, MemoryJournal(left)) as client:
        await client.fs.drain(600.0)
        assert await client.read("f") == b"theirs"
    assert files(store) == {"f": b"theirs"}
    assert not store.uploads
    (entry,) = Recoverable(config.cache_dir / "recoverable").list()
    assert (entry.base, entry.ranges) == (etag, ((PART + BLOCK, PART + 3 * BLOCK),))


async def test_its_unfinished_upload_is_aborted(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    file = dead.file("f", DATA)
    dead.intent(Kind.PUT, "f", file=file, expects=ABSENT)
    await dead.upload(store, "f", {1: DATA[:PART], 2: DATA[PART : 2 * PART]}, file=file)
    left = dead.contents()
    flip(left, config.writeback.spool_dir, file, 5)
    journal = MemoryJournal(left)
    async with remounted(store, config, journal) as client:
        await client.fs.drain(600.0)
        await trio.sleep(1.0)
        assert not store.uploads
    assert journal.load().uploads == {}
    (entry,) = Recoverable(config.cache_dir / "recoverable").list()
    assert entry.ranges == ((BLOCK, len(DATA)),)


async def test_the_upload_that_has_the_rest_of_it_stays_until_the_file_is_dropped(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    file = dead.file("f", DATA)
    dead.intent(Kind.PUT, "f", file=file, expects=ABSENT)
    upload_id = await dead.upload(store, "f", {1: DATA[:PART]}, file=file)
    left = without_first_part(dead.contents(), file)
    flip(left, config.writeback.spool_dir, file, 2 * PART)
    journal = MemoryJournal(left)
    async with remounted(store, config, journal) as client:
        await client.fs.drain(600.0)
        assert upload_id in client.fs.status()["failures"][0]
    kept = Recoverable(config.cache_dir / "recoverable")
    (entry,) = kept.list()
    assert entry.in_upload == upload_id
    for still in (True, False):
        journal = MemoryJournal(journal.load())
        async with remounted(store, config, journal):
            await trio.sleep(1.0)
        assert [upload.upload_id for upload in store.uploads.values()] == [upload_id] * still
        kept.drop(entry)
    assert journal.load().uploads == {}


async def test_what_such_an_upload_has_become_is_no_loss(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    file = dead.file("f", DATA)
    dead.intent(Kind.PUT, "f", file=file, expects=ABSENT)
    slots = {n + 1: DATA[n * PART : (n + 1) * PART] for n in range(4)}
    upload_id = await dead.upload(store, "f", slots, file=file)
    await store.complete_upload("f", upload_id, await store.list_parts("f", upload_id))
    left = without_first_part(dead.contents(), file)
    flip(left, config.writeback.spool_dir, file, 2 * PART)
    async with remounted(store, config, MemoryJournal(left)) as client:
        await client.fs.drain(600.0)
        assert client.fs.status()["failures"] == []
    assert files(store) == {"f": DATA}
    assert Recoverable(config.cache_dir / "recoverable").list() == []


async def test_what_such_an_upload_has_become_is_found_with_its_last_attributes(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    """The upload had begun before the last write; a copy of the object onto itself, which gives it
    another ETag, was made, and the power cut took both from the journal."""
    file = dead.file("f", DATA)
    dead.intent(Kind.PUT, "f", file=file, expects=ABSENT)
    await dead.upload(store, "f", {1: DATA[:PART]}, file=file)
    store.uploads.clear()
    store.put_foreign("f", DATA, headers_of("f").metadata, headers_of("f").headers)
    left = without_first_part(dead.contents(), file)
    (upload,) = left.uploads.values()
    begun_with = headers_of("f", replace(FILE, mtime_ns=FILE.mtime_ns - 1))
    left = replace(left, uploads={upload.id: replace(upload, headers=begun_with)})
    async with remounted(store, config, MemoryJournal(left)) as client:
        await client.fs.drain(600.0)
        assert await client.read("f") == DATA
        assert client.fs.status()["failures"] == []
    assert files(store) == {"f": DATA}
    assert not store.uploads


@pytest.mark.parametrize("part", [2 * BLOCK, 2 * BLOCK + 100])
async def test_chunks_of_another_size_that_are_damaged(
    store: MemoryStore, config: MountConfig, dead: DeadMount, part: int, autojump_clock: object
) -> None:
    """They are copied before anything is served; where blocks do not fit what is damaged cannot
    be."""
    file = dead.file("dir/f", DATA)
    dead.intent(Kind.PUT, "dir/f", file=file, expects=ABSENT)
    dead.put("dir/other", b"sent", expects=ABSENT)
    left = dead.contents()
    flip(left, config.writeback.spool_dir, file, PART)
    journal = MemoryJournal(left)
    async with remounted(store, with_writeback(config, part_size=part), journal) as client:
        await client.fs.drain(600.0)
        assert await client.ls("dir") == ["other"]
        (failure,) = client.fs.status()["failures"]
        assert "'dir/f'" in failure
    assert files(store) == {"dir/other": b"sent"}
    (entry,) = Recoverable(config.cache_dir / "recoverable").list()
    assert entry.ranges == ((0, PART), (PART + BLOCK, len(DATA)))
    assert not list(config.writeback.spool_dir.glob("chunk-*"))


async def test_what_can_be_read_after_all_is_sent(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    dead.put("f", DATA, expects=ABSENT)
    commit, failures = FileUpload.commit, [CorruptSpool("chunk-000001", 0)]

    async def fails_once(self: FileUpload, *args: Any, **fields: Any) -> PutResult:
        if failures:
            raise failures.pop()
        return await commit(self, *args, **fields)

    with patch.object(FileUpload, "commit", fails_once):
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            await client.fs.drain(600.0)  # ends with the refusal
            await trio.sleep(2.0)
            assert client.fs.status()["failures"] == []
    assert files(store) == {"f": DATA}
    assert Recoverable(config.cache_dir / "recoverable").list() == []


async def test_a_full_disk_is_waited_for_with_growing_pauses(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    file = dead.file("f", DATA)
    dead.intent(Kind.PUT, "f", file=file, expects=ABSENT)
    left = dead.contents()
    flip(left, config.writeback.spool_dir, file, 0)
    tries: list[float] = []

    def full(*_: object) -> None:
        tries.append(trio.current_time())
        raise OSError(errno.ENOSPC, "disk full")

    async with remounted(store, config, MemoryJournal(left)) as client:
        with patch("s3mount.writeback.recoverable.export", full):
            until = trio.current_time() + 120.0
            while trio.current_time() < until:
                # Whoever asks again and again gets the answer, and no attempt of his own.
                with pytest.raises(FilesystemError, match="cannot be set aside"):
                    await client.fs.flush_all()
                await trio.sleep(0.1)
        assert 10 < len(tries) < 40
        gaps = [after - before for before, after in itertools.pairwise(tries)]
        assert min(gaps) >= 1.0
        assert min(gaps[4:]) >= 4.9
        assert client.fs.status()["failures"] == []
        await client.fs.retry("f")
    assert files(store) == {}
    assert len(Recoverable(config.cache_dir / "recoverable").list()) == 1
