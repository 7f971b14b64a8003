"""Files larger than the spool that lose against another host (ruling 12): what had left it."""

import errno
import os
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.store.memory import ALL_CAPABILITIES, MemoryStore
from s3mount.writeback.journal_records import JournalContents
from s3mount.writeback.recoverable import Recoverable
from tests.model.mounted import KeptJournal, memory_store, mounted, with_writeback
from tests.model.recovering import remounted

PART = 4096
OURS = b"".join(n.to_bytes(2, "big") * (PART // 2) for n in range(15)) + b"end"
THEIRS = b"theirs"


@pytest.fixture
def config(config: MountConfig) -> MountConfig:
    return with_writeback(config, spool_limit=8 * PART)


def kept(store: MemoryStore) -> dict[str, bytes]:
    return {key: o.data for key, o in store.objects.items() if ".conflict-" in key}


async def lose(store: MemoryStore, config: MountConfig) -> tuple[list[str], JournalContents]:
    """A file of twice the spool is created in the same moment as another host creates it. Answers
    what the status says of it, and what is left in the journal."""
    async with mounted(store, config) as client:
        writer = await client.create("f", os.O_WRONLY | os.O_EXCL)
        for offset in range(0, len(OURS), PART):
            await client.fs.write(writer, offset, OURS[offset : offset + PART])
            await trio.sleep(0.1)
        store.put_foreign("f", THEIRS)
        with pytest.raises(FilesystemError) as raised:
            await client.fs.flush(writer)
        assert raised.value.errno == errno.EEXIST
        await client.release(writer)
        await trio.sleep(2)
        (conflict,) = client.fs.status()["conflicts"]
        left = client.fs.state.journal.load()
    assert store.objects["f"].data == THEIRS
    return list(conflict["kept"]), left


async def test_what_had_left_it_stays_in_the_upload_and_the_rest_is_beside(
    config: MountConfig, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = memory_store()
    names, _ = await lose(store, config)
    (upload,) = store.uploads.values()
    assert f"upload {upload.upload_id} of f" in names
    found = bytearray(len(OURS))
    for number, (_, data) in upload.parts.items():
        found[(number - 1) * PART : (number - 1) * PART + len(data)] = data
    for key, data in kept(store).items():
        assert key in names
        start = int(key.rpartition(".at-")[2])
        found[start : start + len(data)] = data
    assert found == OURS
    assert "see s3mount recover list" in caplog.text


async def test_ending_the_upload_by_hand_brings_the_whole_file_back(
    config: MountConfig, autojump_clock: MockClock
) -> None:
    """As the README tells: theirs is moved out of the way, then the upload is completed."""
    store = memory_store()
    await lose(store, config)
    (entry,) = Recoverable(config.cache_dir / "recoverable").list()
    assert (entry.key, entry.size) == ("f", len(OURS))
    assert entry.in_upload is not None
    await store.copy("f", "f.theirs")
    parts = await store.list_parts("f", entry.in_upload)
    await store.complete_upload("f", entry.in_upload, parts)
    assert store.objects["f"].data == OURS
    assert store.objects["f.theirs"].data == THEIRS


async def test_no_later_mount_aborts_the_upload_until_it_was_dropped(
    config: MountConfig, autojump_clock: MockClock
) -> None:
    store = memory_store()
    _, left = await lose(store, config)
    (upload,) = left.uploads.values()
    assert list(store.uploads) == [upload.upload_id], "and the journal knows that it is ours"
    recoverable = Recoverable(config.cache_dir / "recoverable")
    for dropped in (False, True):
        if dropped:
            recoverable.drop(recoverable.list()[0])
        journal = KeptJournal(left)
        async with remounted(store, config, journal):
            await trio.sleep(1.0)
        left = journal.load()
        assert bool(store.uploads) == bool(left.uploads) == (not dropped)


async def test_a_list_that_cannot_be_written_costs_no_bytes(
    config: MountConfig, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Recoverable, "add_upload", full)
    store = memory_store()
    names, left = await lose(store, config)
    (upload,) = store.uploads.values()
    assert f"upload {upload.upload_id} of f" in names
    assert not left.uploads, "else the next mount would abort it"


@pytest.mark.parametrize("versioned", [False, True])
async def test_what_was_published_early_and_is_replaced_is_read_from_its_version(
    config: MountConfig,
    versioned: bool,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without versions what only the replaced object had is gone, and the log says so."""
    store = memory_store(capabilities=replace(ALL_CAPABILITIES, versioned=versioned))
    completed: list[str] = []

    def replaced_before_the_second(operation: str, key: str) -> None:
        if operation == "CompleteMultipartUpload" and key == "f":
            completed.append(key)
            if len(completed) == 2:
                store.put_foreign("f", THEIRS)

    async with mounted(store, config) as client:
        writer = await client.create("f", os.O_RDWR)
        for offset in range(0, len(OURS), PART):
            await client.fs.write(writer, offset, OURS[offset : offset + PART])
            await trio.sleep(0.1)
        # Into a part that has left the spool: what is there is published, and then changed.
        await client.fs.write(writer, PART + 5, b"changed")
        store.before = replaced_before_the_second
        with pytest.raises(FilesystemError) as raised:
            await client.fs.flush(writer)
        assert raised.value.errno == errno.ESTALE
        await client.release(writer)
        (conflict,) = client.fs.status()["conflicts"]
        store.before = None
    assert store.objects["f"].data == THEIRS
    assert sorted(conflict["kept"]) == sorted(kept(store))
    wanted = OURS[: PART + 5] + b"changed" + OURS[PART + 12 :]
    if versioned:
        assert list(kept(store).values()) == [wanted]
    else:
        assert "was replaced by another host and is lost" in caplog.text
        for key, data in kept(store).items():
            start = int(key.rpartition(".at-")[2])
            assert wanted[start : start + len(data)] == data
    assert not store.uploads


async def test_in_a_versioned_bucket_the_version_that_was_changed_can_still_be_read(
    config: MountConfig, autojump_clock: MockClock
) -> None:
    store = memory_store(capabilities=replace(ALL_CAPABILITIES, versioned=True))
    store.put_foreign("f", OURS)
    async with mounted(store, config) as client:
        writer = await client.open("f", os.O_WRONLY)
        await client.fs.write(writer, 5, b"changed")
        store.put_foreign("f", THEIRS)
        with pytest.raises(FilesystemError):
            await client.fs.flush(writer)
        await client.release(writer)
    assert list(kept(store).values()) == [OURS[:5] + b"changed" + OURS[12:]]
