"""The order of writes and fsyncs that sqlite_journal.py promises, seen from close(2) and fsync."""

import contextlib
import errno
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.filesystem.build import open_filesystem
from s3mount.filesystem.records import FileRecords, Sealed
from s3mount.store.base import Part, PutResult
from s3mount.store.memory import MemoryStore
from s3mount.writeback import sqlite_journal
from s3mount.writeback.sqlite_journal import SqliteJournal
from tests.io_order import IoOrder, recorded
from tests.model.bucket import contents
from tests.model.mounted import KIB, Client, tiny_config, with_writeback

LOG = "journal.log-"
LARGE = bytes(range(256)) * 80  # five parts


class NotingStore(MemoryStore):
    """Notes when a request that changes the bucket is sent."""

    order: IoOrder

    async def put(self, key: str, *rest: Any, **options: Any) -> PutResult:
        self.order.note("request", key)
        return await super().put(key, *rest, **options)

    async def create_upload(self, key: str, *rest: Any, **options: Any) -> str:
        self.order.note("request", key)
        answer = await super().create_upload(key, *rest, **options)
        self.order.note("begun", key)
        return answer

    async def upload_part(self, key: str, *rest: Any, **options: Any) -> Part:
        self.order.note("part", key)
        return await super().upload_part(key, *rest, **options)

    async def delete(self, key: str, *rest: Any, **options: Any) -> Any:
        self.order.note("request", key)
        return await super().delete(key, *rest, **options)


@contextlib.asynccontextmanager
async def durable(
    directory: Path, config: MountConfig, store: MemoryStore
) -> AsyncIterator[Client]:
    journal = SqliteJournal(directory, "mount")
    fs = await open_filesystem(config, store, journal=journal)
    async with trio.open_nursery() as nursery:
        await nursery.start(fs.run)
        await fs.recover()
        client = Client(fs)
        yield client
        for handle in list(client.handles):
            await client.release(handle)
        assert not await fs.drain(60.0)
        await fs.aclose()
        nursery.cancel_scope.cancel()


@pytest.fixture
def store() -> NotingStore:
    return NotingStore(minimum_part_size=4 * KIB)


@pytest.fixture
def slow_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those who wait for a sync get one."""
    monkeypatch.setattr(sqlite_journal, "GROUP_DELAY", 60.0)


def noting_records(monkeypatch: pytest.MonkeyPatch, order: IoOrder) -> None:
    write = FileRecords.write

    def noted(records: FileRecords, sealed: Sealed) -> None:
        order.note("record")
        write(records, sealed)

    monkeypatch.setattr(FileRecords, "write", noted)


def assert_recorded(order: IoOrder, began: int, returned: int) -> None:
    """Between the two, first bytes, then their record went to the disk. (The log may have more by
    then: the parts that the service has taken meanwhile.)"""
    commit = order.index("write", LOG, after=order.index("record", after=began))
    assert commit < returned
    assert order.unsynced(commit, "chunk-") == set()
    assert order.is_synced(commit, order.events[commit][1], before=returned)


@pytest.mark.usefixtures("slow_group")
@pytest.mark.parametrize("data", [b"tiny", LARGE], ids=["tiny", "large"])
async def test_bytes_are_synced_before_their_record_is_committed_and_that_before_close_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: NotingStore, data: bytes
) -> None:
    config = with_writeback(tiny_config(tmp_path), durability="journal")
    with recorded(tmp_path, monkeypatch) as order:
        store.order = order
        noting_records(monkeypatch, order)
        async with durable(tmp_path, config, store) as client:
            handle = await client.create("f")
            for at in range(0, len(data), 3000):
                await client.fs.write(handle, at, data[at : at + 3000])
            order.note("close")
            await client.fs.flush(handle)
            order.note("closed")
            began, returned = order.index("close"), order.index("closed")
            assert_recorded(order, began, returned)
            if data is LARGE:
                order.last("write", "chunk-", before=began)
            else:
                syncs = [event for event in order.events[began:returned] if event[0] == "sync"]
                assert len(syncs) == 1
                assert set(contents(store)) == set()
            await client.release(handle)
        # Before any part goes up the journal knows of the upload.
        assert order.index("request", "f") > order.index("write", LOG)
    assert contents(store) == {"f": data}


@pytest.mark.usefixtures("slow_group")
@pytest.mark.parametrize("then", ["leave", "flush"])
async def test_what_a_killed_writer_wrote_is_synced_before_its_record_replaces_that_of_a_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: NotingStore, then: str
) -> None:
    """RELEASE without FLUSH. Else a power cut takes what close had acknowledged."""
    config = with_writeback(tiny_config(tmp_path), durability="journal")
    with recorded(tmp_path, monkeypatch) as order:
        store.order = order
        noting_records(monkeypatch, order)
        async with durable(tmp_path, config, store) as client:
            handle = await client.create("f")
            await client.fs.write(handle, 0, LARGE[::-1])
            await client.fs.flush(handle)
            closed = len(order.events)
            await client.fs.write(handle, 0, LARGE)
            await client.release(handle)
            if then == "flush":
                await client.fs.flush_all()
        record = order.index("record", after=closed)
        assert order.unsynced(record, "chunk-") == set()
    assert contents(store) == {"f": LARGE}


@pytest.mark.usefixtures("slow_group")
async def test_each_close_of_a_handle_that_processes_share_is_on_the_disk_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: NotingStore
) -> None:
    config = with_writeback(tiny_config(tmp_path), durability="journal")
    with recorded(tmp_path, monkeypatch) as order:
        store.order = order
        noting_records(monkeypatch, order)
        async with durable(tmp_path, config, store) as client:
            handle = await client.create("f")
            for data in (LARGE[::-1], LARGE):
                began = len(order.events)
                await client.fs.write(handle, 0, data)
                await client.fs.flush(handle)
                assert_recorded(order, began, len(order.events))
            await client.release(handle)
    assert contents(store) == {"f": LARGE}


@pytest.mark.usefixtures("slow_group")
async def test_a_link_too_many_for_the_memory_is_on_the_disk_before_it_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: NotingStore
) -> None:
    monkeypatch.setattr("s3mount.writeback.chunk_pool.ChunkPool.in_memory", lambda *_: None)
    config = with_writeback(tiny_config(tmp_path), durability="journal")
    with recorded(tmp_path, monkeypatch) as order:
        store.order = order
        noting_records(monkeypatch, order)
        async with durable(tmp_path, config, store) as client:
            await client.symlink("link", b"target")
            assert order.unsynced(order.index("record"), "chunk-") == set()
            order.last("write", "chunk-", before=order.index("record"))


@pytest.mark.usefixtures("slow_group")
async def test_the_record_of_an_fsync_replaces_that_of_a_close_only_when_its_bytes_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: NotingStore
) -> None:
    """Else a power cut in the middle of an fsync takes what close had acknowledged."""
    config = with_writeback(tiny_config(tmp_path), durability="journal")
    with recorded(tmp_path, monkeypatch) as order:
        store.order = order
        noting_records(monkeypatch, order)
        async with durable(tmp_path, config, store) as client:
            handle = await client.create("f")
            await client.fs.write(handle, 0, LARGE[::-1])
            await client.fs.flush(handle)
            order.note("closed")
            await client.fs.write(handle, 0, LARGE)
            assert order.unsynced(order.index("closed"), "chunk-") == set()
            assert order.unsynced(len(order.events), "chunk-")
            await client.fs.fsync(handle, False)
            assert order.unsynced(order.last("record", before=len(order.events)), "chunk-") == set()
            await client.release(handle)
    assert contents(store) == {"f": LARGE}


@pytest.mark.usefixtures("slow_group")
@pytest.mark.parametrize("durability", ["close", "journal"])
async def test_the_id_of_an_upload_is_on_the_disk_before_its_first_part_goes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: NotingStore, durability: str
) -> None:
    """An upload with parts whose id nobody knows is aborted by nobody."""
    config = with_writeback(tiny_config(tmp_path), durability=durability)
    with recorded(tmp_path, monkeypatch) as order:
        store.order = order
        async with durable(tmp_path, config, store) as client:
            await client.write("f", LARGE, step=3000)
        learnt = order.index("write", LOG, after=order.index("begun", "f"))
        first = order.index("part", "f")
        assert order.is_synced(learnt, order.events[learnt][1], before=first)
    assert contents(store) == {"f": LARGE}


@pytest.mark.parametrize("durability", ["close", "journal"])
async def test_an_intent_is_committed_before_it_is_acknowledged_and_before_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: NotingStore, durability: str
) -> None:
    config = with_writeback(tiny_config(tmp_path), durability=durability)
    with recorded(tmp_path, monkeypatch) as order:
        store.order = order
        async with durable(tmp_path, config, store) as client:
            for name, change in (("d", client.mkdir("d")), ("g", client.mknod("g", 0o10644))):
                order.note("begin", name)
                await change
                order.note("acknowledged", name)
        for name, key in (("d", "d/"), ("g", "g")):
            began, told = order.index("begin", name), order.index("acknowledged", name)
            commit = order.index("write", LOG, after=began)
            assert began < commit < told
            assert order.index("request", key) > commit


@pytest.mark.parametrize("durability", ["close", "journal"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_what_cannot_be_recorded_is_not_acknowledged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: NotingStore,
    number: int,
    durability: str,
) -> None:
    """Its outcome is open: it may be carried out, as after a lost answer of an NFS server."""

    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    store.order = IoOrder()
    directory = tmp_path / "cache"
    directory.mkdir()
    config = with_writeback(tiny_config(directory), durability=durability)
    async with durable(directory, config, store) as client:
        await client.mkdir("d")
        for name in "fgh":
            await client.write(name, b"old")
        assert not await client.fs.drain(60.0)
        changes: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.mkdir("e"),
            lambda: client.unlink("f"),
            lambda: client.rename("g", "i"),
            lambda: client.rename("d", "c"),
            lambda: client.write("h", b"new"),
        ]
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", failing)
            for change in changes:
                with pytest.raises(FilesystemError) as caught:
                    await change()
                assert caught.value.errno == number
        for handle in list(client.handles):
            await client.release(handle)
        # The disk is well again: the next change is recorded, and the others with it.
        await client.mkdir("next")
        shutil.copytree(directory, tmp_path / "copy")
        copy = SqliteJournal(tmp_path / "copy", "mount")
        copy.abandon()
        assert "next/" in {record.key for record in copy.load().intents}
        assert not await client.fs.drain(60.0)
        names = sorted(await client.ls())
    assert {key.rstrip("/") for key in contents(store)} == set(names)
    assert contents(store)["h"] in (b"old", b"new")
