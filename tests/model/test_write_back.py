"""--durability=journal: close returns once the file is in the journal, and what follows."""

import errno
import os
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.store.errors import ConnectionLost
from s3mount.store.memory import MemoryStore
from s3mount.writeback.intents import Intent
from s3mount.writeback.spooled_file import SpooledFile
from tests.model.bucket import attributes_of, contents, leftovers, requests
from tests.model.mounted import KIB, Client, KeptJournal, mounted, with_writeback

ONE, TWO, THREE = b"one " * 700, b"two " * 900, b"three " * 300
LARGE = b"large!" * 4000
MINUTE = 60.0


@pytest.fixture
def config(config: MountConfig) -> MountConfig:
    return with_writeback(config, durability="journal")


@pytest.fixture
async def client(store: MemoryStore, config: MountConfig) -> AsyncIterator[Client]:
    async with mounted(store, config) as client:
        await client.ls()
        yield client


def journal(client: Client) -> KeptJournal:
    kept = client.fs.state.journal
    assert isinstance(kept, KeptJournal)
    return kept


async def sent(client: Client, store: MemoryStore) -> dict[str, int]:
    """All requests since the mount, once everything is sent."""
    assert not await client.fs.drain(MINUTE)
    await trio.sleep(1)
    assert leftovers(client.fs, store) == []
    return requests({"ListObjectsV2": 1}, store.counts())


async def test_close_returns_without_the_bucket_and_fsync_does_not(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    handle = await client.create("f")
    await client.fs.write(handle, 0, ONE)
    await client.fs.flush(handle)
    assert contents(store) == {}
    (record,) = journal(client).load().files.values()
    assert record.closed
    assert (record.key, record.size, record.spool.body) == ("f", len(ONE), ONE)
    assert len(journal(client).load().intents) == 1
    await client.fs.fsync(handle, False)
    assert contents(store) == {"f": ONE}
    await client.release(handle)
    assert await sent(client, store) == {"PutObject": 1}


async def test_a_closed_file_is_in_the_bucket_within_a_second(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", ONE)
    await trio.sleep(1)
    assert contents(store) == {"f": ONE}


@pytest.mark.parametrize("first", [ONE, LARGE], ids=["small", "large"])
async def test_a_closed_file_is_sent_as_it_was_closed_though_the_next_change_has_begun(
    client: Client, store: MemoryStore, autojump_clock: MockClock, first: bytes
) -> None:
    await client.write("f", first)
    handle = await client.open("f", os.O_WRONLY)
    for number in range(100):
        await client.fs.write(handle, len(first) + number, b"x")
        await client.fs.write(handle, number, b"y")
        await trio.sleep(0.1)
        if number > 10:
            assert contents(store) == {"f": first}
    await client.close(handle)
    counted = await sent(client, store)
    assert contents(store) == {"f": b"y" * 100 + first[100:] + b"x" * 100}
    assert counted.get("PutObject", 0) + counted.get("CompleteMultipartUpload", 0) == 2


async def test_fsync_does_not_wait_until_another_program_has_written(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", ONE)
    handle, other = await client.open("f", os.O_WRONLY), await client.open("f", os.O_WRONLY)
    await client.fs.write(handle, len(ONE), TWO)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.fs.fsync, handle, False)
        await trio.lowlevel.checkpoint()
        await client.fs.write(other, 0, b"O")
    assert trio.current_time() - begun < 0.1
    assert contents(store)["f"][1:] == (ONE + TWO)[1:]
    await client.release(handle)
    await client.release(other)


async def test_an_fsync_of_a_file_that_is_removed_meanwhile_leaves_nothing_in_the_spool(
    client: Client,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    real = SpooledFile.sync

    async def slow(file: SpooledFile) -> None:
        await real(file)
        await trio.sleep(5)

    monkeypatch.setattr(SpooledFile, "sync", slow)
    handle = await client.create("f")
    await client.fs.write(handle, 0, LARGE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.fs.fsync, handle, False)
        await trio.sleep(1)
        await client.unlink("f")
    await client.release(handle)
    assert not await client.fs.drain(MINUTE)
    await trio.sleep(1)
    assert contents(store) == {}
    assert client.fs.state.spool.pool.live == 0


async def test_a_file_made_and_removed_within_the_delay_costs_nothing(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", LARGE)
    await client.unlink("f")
    counted = await sent(client, store)
    # Its full parts went ahead while it was written; nothing else did.
    assert set(counted) <= {"CreateMultipartUpload", "UploadPart", "AbortMultipartUpload"}
    assert store.uploads == {}


async def test_a_tiny_file_made_and_removed_within_the_delay_costs_nothing(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", ONE)
    await client.unlink("f")
    assert await sent(client, store) == {}


async def test_attributes_and_a_rename_soon_after_ride_in_the_put(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    """As rsync does it, to a name that is there already."""
    await client.write("f", ONE)
    assert await sent(client, store) == {"PutObject": 1}
    await client.write(".f.tmp", TWO)
    await client.setattr(".f.tmp", mode=0o600)
    await client.setattr(".f.tmp", uid=5, gid=6)
    await client.setattr(".f.tmp", mtime_ns=7_000_000_001, atime_ns=1)
    await client.rename(".f.tmp", "f")
    assert await sent(client, store) == {"PutObject": 2}
    assert contents(store) == {"f": TWO}
    found = attributes_of(store.objects["f"])
    assert (found.mode & 0o777, found.uid, found.gid) == (0o600, 5, 6)
    assert found.mtime_ns == 7_000_000_001


async def test_n_closes_of_tiny_files_are_n_puts_and_n_syncs_at_most(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    kept = journal(client)
    syncs = 0
    sync = kept.sync

    async def counting() -> None:
        nonlocal syncs
        syncs += 1
        await sync()

    kept.sync = counting  # type: ignore[method-assign]
    commits = client.fs.state.books.commits
    for number in range(50):
        await client.write(f"f{number}", ONE)
    assert client.fs.state.books.commits - commits == 50
    assert syncs == 50
    assert await sent(client, store) == {"PutObject": 50}


async def test_a_log_loop_is_coalesced(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    for line in range(200):
        await client.write("log", b"line %03d\n" % line, os.O_APPEND)
    counted = await sent(client, store)
    assert contents(store) == {"log": b"".join(b"line %03d\n" % line for line in range(200))}
    assert counted["PutObject"] <= 2


async def test_what_is_closed_while_it_is_sent_follows(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    async def slow(operation: str, key: str) -> None:
        await trio.sleep(2)

    async with mounted(store, config) as client:
        await client.write("f", ONE)
        store.before = slow
        await trio.sleep(1)
        await client.write("f", TWO, os.O_APPEND)  # while ONE is on its way
        assert contents(store) == {}
        (record,) = journal(client).load().files.values()
        assert record.size == len(ONE + TWO)
        assert not await client.fs.drain(MINUTE)
        assert contents(store) == {"f": ONE + TWO}


async def test_an_object_of_others_that_grows_while_its_metadata_is_asked_for(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    """What was sent is known with its size: the next append finds it as it is."""

    async def slow(operation: str, key: str) -> None:
        if operation == "HeadObject":
            await trio.sleep(2)

    store.put_foreign("f", b"base,", {"colour": "red"})
    async with mounted(store, config) as client:
        handle = await client.open("f", os.O_WRONLY | os.O_APPEND)
        await client.write("f", b"one,", os.O_APPEND)
        store.before = slow
        await trio.sleep(1)
        await client.fs.write(handle, 0, b"two,")  # while the HEAD is on its way
        await trio.sleep(3)
        await client.release(handle)
        await client.write("f", b"three", os.O_APPEND)
        assert not await client.fs.drain(MINUTE)
        assert contents(store) == {"f": b"base,one,two,three"}


async def test_half_a_file_that_is_written_anew_is_never_published(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", ONE)
    handle = await client.open("f", os.O_WRONLY | os.O_TRUNC)
    await client.fs.write(handle, 0, TWO[:100])
    await trio.sleep(MINUTE)
    assert contents(store) == {}
    # What was acknowledged is what a crash would leave.
    (record,) = [one for one in journal(client).load().files.values() if one.closed]
    assert record.spool.body == ONE
    await client.fs.write(handle, 100, TWO[100:])
    await client.close(handle)
    await trio.sleep(1)
    assert contents(store) == {"f": TWO}
    await sent(client, store)


async def test_half_a_file_does_not_get_published_by_a_rename_of_its_directory(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    await client.write("d/f", ONE)
    handle = await client.open("d/f", os.O_WRONLY | os.O_TRUNC)
    await client.fs.write(handle, 0, TWO[:100])
    await client.rename("d", "e")
    await trio.sleep(MINUTE)
    assert TWO[:100] not in contents(store).values()
    await client.fs.write(handle, 100, TWO[100:])
    await client.close(handle)
    assert not await client.fs.drain(MINUTE)
    assert contents(store) == {"e/": b"", "e/f": TWO}


async def test_two_hosts_create_exclusively_and_the_later_ones_bytes_are_kept(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    handle = await client.create("f", os.O_WRONLY | os.O_EXCL)
    await client.fs.write(handle, 0, ONE)
    store.put_foreign("f", TWO)
    await client.close(handle)  # safe here, so that is no failure
    await trio.sleep(2)
    found = contents(store)
    assert found.pop("f") == TWO
    ((name, data),) = found.items()
    assert name.startswith("f.conflict-")
    assert data == ONE
    assert any("'f'" in told for told in client.fs.status()["failures"])
    await trio.sleep(5)
    assert await client.read("f") == TWO


async def test_fsync_of_a_directory_waits_for_a_killed_writers_file_in_it(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    """Nobody waits for its bytes, which go to the disk before its PUT enters the queue."""
    await client.mkdir("d")
    handle = await client.create("d/f")
    await client.fs.write(handle, 0, LARGE)
    await client.release(handle)
    await client.fsyncdir("d")
    assert store.objects["d/f"].data == LARGE


async def test_a_killed_writers_file_is_recorded_as_closed(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    handle = await client.create("f")
    await client.fs.write(handle, 0, ONE)
    await client.release(handle)
    (record,) = journal(client).load().files.values()
    assert record.closed
    assert record.spool.body == ONE


async def test_what_is_never_closed_is_recorded_and_not_published(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    handle = await client.create("f")
    await client.fs.write(handle, 0, ONE)
    await trio.sleep(0.3)
    (record,) = journal(client).load().files.values()
    assert not record.closed
    assert record.spool.body == ONE
    await client.fs.write(handle, 0, TWO)
    await trio.sleep(0.3)
    (record,) = journal(client).load().files.values()
    assert record.spool.body == TWO
    await trio.sleep(MINUTE)
    assert contents(store) == {}
    await client.fs.fsync(handle, False)
    assert not journal(client).load()
    await client.close(handle)


async def test_a_draft_follows_a_rename_and_ends_with_the_file(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    handle = await client.create("f")
    await client.fs.write(handle, 0, ONE)
    await trio.sleep(0.3)
    await client.rename("f", "g")
    await trio.sleep(0.3)
    (record,) = journal(client).load().files.values()
    assert record.key == "g"
    await client.unlink("g")
    assert not journal(client).load()
    await client.release(handle)


async def test_chmod_of_a_file_that_waits_for_its_put_is_recorded(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", ONE)
    await client.setattr("f", mode=0o711)
    (intent,) = journal(client).load().intents
    assert intent.attributes is not None
    assert intent.attributes.mode & 0o777 == 0o711
    await client.rename("f", "g")
    (intent,) = journal(client).load().intents
    assert intent.key == "g"


async def test_attributes_of_a_file_being_written_leave_no_record_behind_a_rename(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", ONE)
    assert not await client.fs.drain(MINUTE)
    handle = await client.open("f", os.O_RDWR)
    await client.fs.write(handle, 0, TWO)
    await client.setattr("f", mode=0o711)
    assert [intent.key for intent in journal(client).load().intents] == ["f"]
    await client.rename("f", "g")
    assert {intent.key for intent in journal(client).load().intents} == {"g"}
    await client.close(handle)
    await sent(client, store)
    assert contents(store) == {"g": TWO}


@pytest.mark.parametrize("known", [False, True])
async def test_what_could_not_be_sent_for_long_does_not_overwrite_newer_work(
    client: Client, store: MemoryStore, autojump_clock: MockClock, known: bool
) -> None:
    """A whole rewrite, of a name that was free or not, behind an outage of minutes."""
    if known:
        await client.write("f", THREE)
        await client.write("mine", THREE)
    assert not await client.fs.drain(MINUTE)

    async def down(operation: str, key: str) -> None:
        raise ConnectionLost("down", operation=operation, key=key)

    store.before = down
    await client.write("f", ONE)
    await client.write("mine", ONE)
    await trio.sleep(10 * MINUTE)
    store.put_foreign("f", TWO)
    store.before = None
    await trio.sleep(MINUTE)
    found = contents(store)
    assert (found.pop("f"), found.pop("mine")) == (TWO, ONE)
    ((name, data),) = found.items()
    assert name.startswith("f.conflict-")
    assert data == ONE
    assert len(client.fs.status()["failures"]) == 1


async def test_the_last_close_wins_as_long_as_it_is_sent_at_once(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", ONE)
    assert not await client.fs.drain(MINUTE)
    store.put_foreign("f", TWO)
    await client.write("f", THREE)
    assert not await client.fs.drain(MINUTE)
    assert contents(store) == {"f": THREE}


async def test_ordered_changes_reach_the_bucket_in_their_order(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    seen: list[str] = []

    async def slow(operation: str, key: str) -> None:
        if operation in ("PutObject", "DeleteObject", "DeleteObjects", "CopyObject"):
            await trio.sleep(5.0 - len(seen))  # the earlier one takes longer
            seen.append(key)

    async with mounted(store, with_writeback(config, ordered=True)) as client:
        await client.write("old", ONE)
        assert not await client.fs.drain(MINUTE)
        store.before = slow
        await client.write("b", ONE)
        await client.write("a", TWO)
        await client.unlink("old")
        await client.mkdir("d")
        assert not await client.fs.drain(MINUTE)
    assert seen == ["b", "a", "old", "d/"]


async def test_what_the_journal_has_no_room_for_is_not_acknowledged(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    kept = journal(client)
    record, full = kept.record, True

    def failing(intent: Intent) -> None:
        if full:
            raise FilesystemError(errno.ENOSPC, "the journal's disk is full")
        record(intent)

    kept.record = failing  # type: ignore[method-assign]
    handle = await client.create("f")
    await client.fs.write(handle, 0, ONE)
    for call in (lambda: client.fs.flush(handle), lambda: client.mkdir("d")):
        with pytest.raises(FilesystemError) as caught:
            await call()
        assert caught.value.errno == errno.ENOSPC
    full = False
    await client.fs.flush(handle)
    await client.release(handle)
    assert not await client.fs.drain(MINUTE)
    assert contents(store) == {"d/": b"", "f": ONE}


async def test_ordered_changes_that_follow_from_another_do_not_wait_for_it_for_ever(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    async def slow(operation: str, key: str) -> None:
        await trio.sleep(2)

    async with mounted(store, with_writeback(config, ordered=True)) as client:
        await client.ls()
        store.before = slow
        await client.write("f", ONE)
        await trio.sleep(1)
        await client.write("f", TWO, os.O_APPEND)  # is sent once ONE is there
        assert not await client.fs.drain(MINUTE)
        assert contents(store) == {"f": ONE + TWO}
        await client.mkdir("d")
        assert not await client.fs.drain(MINUTE)
    assert contents(store) == {"d/": b"", "f": ONE + TWO}


async def test_what_was_sealed_before_an_older_state_was_stored_builds_on_that(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    """Its bytes reach the disk only after the PUT that was under way: the parts are gone then."""
    config = with_writeback(config, spool_limit=16 * KIB)
    sync = SpooledFile.sync

    async def slow_sync(file: SpooledFile) -> None:
        await trio.sleep(5)
        await sync(file)

    async def slow(operation: str, key: str) -> None:
        await trio.sleep(3 if operation == "CompleteMultipartUpload" else 0)

    async with mounted(store, config) as client:
        await client.write("f", LARGE)
        store.before = slow
        await trio.sleep(1)  # LARGE is being completed
        handle = await client.open("f", os.O_WRONLY | os.O_APPEND)
        await client.fs.write(handle, 0, TWO)
        with patch.object(SpooledFile, "sync", slow_sync):
            await client.fs.flush(handle)
        assert contents(store) == {"f": LARGE}
        (record,) = [one for one in journal(client).load().files.values() if one.closed]
        assert record.base is not None
        assert record.base.etag == store.objects["f"].etag
        assert (record.size, record.visible) == (len(LARGE + TWO), len(LARGE))
        assert record.spool.dropped == ()
        await client.release(handle)
        assert not await client.fs.drain(MINUTE)
        assert contents(store) == {"f": LARGE + TWO}
