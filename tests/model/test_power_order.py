"""What the journal's disk must have before the bucket hears of a change, and before a program is
told: after a power cut the journal is that of its last sync."""

import contextlib
import os
import stat
from collections.abc import AsyncIterator, Iterator
from unittest.mock import patch

import pytest
import trio

from s3mount.core.config import MountConfig
from s3mount.filesystem.build import open_filesystem
from s3mount.store.memory import MemoryStore
from s3mount.writeback.intents import Kind
from s3mount.writeback.journal_records import JournalContents
from tests.model.mounted import KIB, Client, KeptJournal, with_writeback


class SlowDisk(KeptJournal):
    """Nothing is synced but when somebody asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.on_disk = self.load()

        self._synced_until = 0.0
        self._lock = trio.Lock()

    @property
    def synced_until(self) -> float:
        return self._synced_until

    async def sync(self) -> None:
        async with self._lock:  # or one that began sooner, and ends later, would take it back
            now, began = self.load(), trio.current_time()
            await trio.sleep(0.01)
            self.on_disk, self._synced_until = now, began


@pytest.fixture
def journal() -> SlowDisk:
    return SlowDisk()


@contextlib.asynccontextmanager
async def running(
    store: MemoryStore, config: MountConfig, journal: SlowDisk
) -> AsyncIterator[Client]:
    fs = await open_filesystem(config, store, clock=store.monotonic, journal=journal)
    async with trio.open_nursery() as nursery:
        await nursery.start(fs.run)
        yield Client(fs)
        await fs.drain(60.0)
        await fs.aclose()
        nursery.cancel_scope.cancel()


def seen_at(store: MemoryStore, journal: SlowDisk, wanted: str) -> list[JournalContents]:
    """What is on the disk at each request of that name."""
    found: list[JournalContents] = []

    def before(operation: str, key: str) -> None:
        if operation == wanted:
            found.append(journal.on_disk)

    store.before = before
    return found


async def test_a_rename_is_on_the_disk_before_the_bucket_hears_of_it(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, autojump_clock: object
) -> None:
    store.put_foreign("a", b"content", {})
    async with running(store, config, journal) as client:
        seen = seen_at(store, journal, "CopyObject")
        await client.rename("a", "b")
        await client.fs.drain(60.0)
    assert [[intent.kind for intent in contents.intents] for contents in seen] == [[Kind.COPY]]


@pytest.mark.parametrize("later", ["chmod", "unlink", "mkdir"])
async def test_an_earlier_change_is_on_the_disk_before_the_bucket_hears_of_a_later_one(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, later: str, autojump_clock: object
) -> None:
    """A mount that leaves, or an fsync, hurries changes to the bucket whose group of the journal
    is not on its disk: of two changes a power cut must not take the earlier one alone."""
    for name in ("a", "b"):
        store.put_foreign(name, b"content", {})
    async with running(store, config, journal) as client:
        await client.stat("b")
        request = {"chmod": "CopyObject", "unlink": "DeleteObject", "mkdir": "PutObject"}[later]
        found: list[tuple[str, list[str]]] = []

        def before(operation: str, key: str) -> None:
            if operation == request:
                found.append((key, [intent.key for intent in journal.on_disk.intents]))

        store.before = before
        await client.setattr("a", mode=0o600)
        if later == "chmod":
            await client.setattr("b", mode=0o600)
        elif later == "unlink":
            await client.unlink("b")
        else:
            await client.mkdir("d")
        await client.fs.drain(60.0)
    on_disk = dict(found)
    name = {"chmod": "b", "unlink": "b", "mkdir": "d/"}[later]
    assert on_disk[name] == ["a", name]


async def test_the_end_of_a_put_is_on_the_disk_before_the_next_put_of_the_same_file(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, autojump_clock: object
) -> None:
    """Else a replay would put the older bytes over the newer ones."""
    async with running(store, config, journal) as client:
        seen = seen_at(store, journal, "PutObject")
        for content in (b"first", b"second", b"third"):
            await client.write("f", content)
    numbers = [[intent.sequence for intent in contents.intents] for contents in seen]
    assert numbers[0] == []  # the first one need not wait
    assert all(len(each) == 1 for each in numbers[1:])
    assert len({each[0] for each in numbers[1:]}) == 2


async def test_with_write_back_an_fsync_keeps_what_was_renamed_before(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, autojump_clock: object
) -> None:
    """A power cut must not bring the old name back beside the file that was fsynced after it."""
    store.put_foreign("a", b"content", {})
    async with running(store, with_writeback(config, durability="journal"), journal) as client:
        await client.rename("a", "b")
        handle = await client.create("f")
        await client.fs.write(handle, 0, b"new")
        await client.fs.fsync(handle, False)
        assert [intent.key for intent in journal.on_disk.intents][:1] == ["b"]
        await client.close(handle)


@pytest.mark.parametrize("later", ["chmod", "fsync"])
async def test_a_put_that_changed_since_its_close_is_on_the_disk_as_it_is_before_it_is_sent(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, later: str, autojump_clock: object
) -> None:
    """Else a replay would know neither its bytes nor its metadata, and take it for another
    host's."""
    async with running(store, with_writeback(config, durability="journal"), journal) as client:
        seen = seen_at(store, journal, "PutObject")
        await client.write("f", b"content")
        if later == "chmod":
            await client.setattr("f", mode=0o600)
        else:
            handle = await client.open("f", os.O_WRONLY)
            await client.fs.write(handle, 0, b"longer content")
            await client.fs.fsync(handle, False)
            await client.release(handle)
        await client.fs.drain(60.0)
    (contents,) = seen
    (intent,), (record,) = contents.intents, contents.files.values()
    assert intent.attributes is not None
    assert stat.S_IMODE(intent.attributes.mode) == (0o600 if later == "chmod" else 0o644)
    assert record.size == len(store.objects["f"].data)


async def test_a_chmod_before_a_close_is_off_the_disk_before_the_bucket_has_what_was_closed(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, autojump_clock: object
) -> None:
    """Else a replay would report that it cannot change the mode of what was there before."""
    store.put_foreign("f", b"content", {})
    async with running(store, config, journal) as client:
        handle = await client.open("f", os.O_WRONLY)
        await client.fs.write(handle, 0, b"changed")
        await client.setattr("f", mode=0o600)
        await journal.sync()
        assert [intent.kind for intent in journal.on_disk.intents] == [Kind.ATTRIBUTES]
        seen = seen_at(store, journal, "PutObject")
        await client.close(handle)
    assert [[intent.kind for intent in contents.intents] for contents in seen] == [[Kind.PUT]]


async def test_the_copies_of_a_directory_are_on_the_disk_before_the_old_place_is_emptied(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, autojump_clock: object
) -> None:
    """Else a replay would show what is left at the old place until it has looked."""
    for name in ("d/", "d/f"):
        store.put_foreign(name, b"", {})
    async with running(store, config, journal) as client:
        seen = seen_at(store, journal, "DeleteObjects")
        await client.rename("d", "e")
        await client.fs.drain(60.0)
    assert [[intent.copied_phase for intent in contents.intents] for contents in seen] == [[True]]


async def test_a_copy_with_another_etag_is_on_the_disk_before_its_source_goes(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, autojump_clock: object
) -> None:
    """Else a replay would find neither the source nor, by its ETag, the copy."""
    async with running(store, config, journal) as client:
        await client.write("a", b"in parts " * 4 * KIB)
        before = store.objects["a"].etag
        seen = seen_at(store, journal, "DeleteObject")
        await client.rename("a", "b")
        await client.fs.drain(60.0)
    assert store.objects["b"].etag != before
    assert [[intent.copied_phase for intent in contents.intents] for contents in seen] == [[True]]


async def test_no_commit_has_a_copy_without_the_file_that_is_a_change_of_it(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, autojump_clock: object
) -> None:
    """Else a replay would delete the source, and look there for the bytes that it needs."""
    found: list[tuple[str, bool]] = []
    async with running(store, with_writeback(config, durability="journal"), journal) as client:
        await client.write("a", b"in parts " * 4 * KIB)
        await client.fs.drain(60.0)
        await client.rename("a", "b")
        await client.edit("b", 8 * KIB, b"changed")
        commit = journal.transaction

        @contextlib.contextmanager
        def committed() -> Iterator[None]:
            with commit():
                yield
            left = journal.load()
            copied = [one.copied_phase for one in left.intents if one.kind is Kind.COPY]
            bases = [record.base.key for record in left.files.values() if record.base is not None]
            found.extend(zip(bases, copied, strict=False))

        with patch.object(journal, "transaction", committed):
            await client.fs.drain(60.0)
    assert set(found) == {("a", False), ("b", True)}


async def test_a_chmod_of_what_is_being_written_acts_on_the_copy_once_a_rename_has_made_it(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, autojump_clock: object
) -> None:
    """Until the close the journal has it for what is in the bucket: after a crash it would have
    been dropped as that of a version which others have replaced."""
    async with running(store, config, journal) as client:
        await client.write("a", b"in parts " * 4 * KIB)
        before = store.objects["a"].etag
        handle = await client.open("a", os.O_WRONLY)
        await client.fs.write(handle, 0, b"changed")
        await client.rename("a", "b")
        await client.setattr("b", mode=0o600)
        await trio.sleep(2)
        etag = store.objects["b"].etag
        assert etag != before
        found = [(one.kind, one.key, one.source_etag) for one in journal.load().intents]
        assert found == [(Kind.ATTRIBUTES, "b", etag)]
        await client.close(handle)


async def test_fsync_of_a_directory_outlives_a_power_cut(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, autojump_clock: object
) -> None:
    """SQLite commits by the unlink of its journal, whose PUT must not be done again."""
    async with running(store, config, journal) as client:
        await client.write("f", b"content")
        await client.unlink("f")
        root = await client.fs.opendir(client.fs.state.namespace.root.number)
        await client.fs.fsyncdir(root)
        assert not journal.on_disk.intents
        assert not journal.on_disk.files
        await client.fs.releasedir(root)
    assert not store.objects


async def test_a_mount_that_ends_at_once_leaves_no_chunk_file(
    store: MemoryStore, config: MountConfig, journal: SlowDisk, autojump_clock: object
) -> None:
    """They are given back when the commit that forgot them is synced, mostly by somebody else."""
    config = with_writeback(config, durability="journal")
    async with running(store, config, journal) as client:
        await client.write("f", b"content " * 8 * KIB)
    assert not journal.load().files
    assert list(config.writeback.spool_dir.glob("chunk-*")) == []
