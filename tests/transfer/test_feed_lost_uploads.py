"""Uploads that a feed may have begun, for their creation had no answer: a later feed, or `uploads
resume`, aborts them an hour later where they can be no one else's. The clock is moved."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio

from s3mount.cli.settings import shared_directory
from s3mount.core.config import MIB
from s3mount.store.base import ObjectStore, Upload, WriteHeaders
from s3mount.store.errors import ServerError
from s3mount.store.memory import MemoryStore
from s3mount.store.open import open_store
from s3mount.transfer.feed.books import open_books
from s3mount.writeback.journal_records import UploadRecord
from tests.cli.tools import Tools
from tests.counting_proxy import CountingProxy, lost_answer
from tests.servers import Bucket
from tests.transfer.feeding import Rig

HOUR = 3600.0
PART = 5 * MIB
DATA = os.urandom(PART + 100)
# moto says of every upload that it was begun then.
MOTO_BEGAN = 1289422113.0  # 2010-11-10T20:48:33Z


class Clock:
    """time.time of this process; it stands until it is moved."""

    def __init__(self) -> None:
        self.now = MOTO_BEGAN

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    made = Clock()
    with patch("time.time", made):
        yield made


class Service:
    """A store for each feed. `lose`: so many of the next creations have no answer."""

    def __init__(self, opened: Callable[[], ObjectStore], lose: Callable[[int], None]) -> None:
        self.opened = opened
        self.lose = lose

    async def uploads(self) -> list[Upload]:
        store = self.opened()
        try:
            return list(await store.list_uploads(""))
        finally:
            await store.aclose()


@asynccontextmanager
async def in_memory(clock: Clock, kind: type[MemoryStore] = MemoryStore) -> AsyncIterator[Service]:
    store = kind(clock=clock)
    to_lose = 0

    def after(operation: str, key: str) -> None:
        nonlocal to_lose
        if operation == "CreateMultipartUpload" and to_lose:
            to_lose -= 1
            raise ServerError("lost", operation=operation, key=key, ambiguous=True)

    def lose(count: int) -> None:
        nonlocal to_lose
        to_lose = count

    store.after = after
    yield Service(lambda: store, lose)


@asynccontextmanager
async def on_moto(bucket: Bucket, retries: int = 0) -> AsyncIterator[Service]:
    with CountingProxy(bucket.server.url) as proxy:
        config = bucket.config(endpoint_url=proxy.url, retries=retries)
        probed = open_store(config)
        await probed.capabilities()  # which begins uploads, too
        await probed.aclose()

        def lose(count: int) -> None:
            proxy.inject("CreateMultipartUpload", lost_answer, times=count)

        yield Service(lambda: open_store(config), lose)


@pytest.fixture(params=["memory", "moto"])
async def service(
    request: pytest.FixtureRequest, clock: Clock, moto_bucket: Bucket
) -> AsyncIterator[Service]:
    opening = in_memory(clock) if request.param == "memory" else on_moto(moto_bucket)
    async with opening as made:
        yield made


class Feeds:
    """Of one folder with one file that goes up in parts, each by a new process."""

    def __init__(self, directory: Path, service: Service) -> None:
        self.service = service
        self.rig = Rig(directory, part_size=PART)
        (self.rig.source / "k").write_bytes(DATA)

    async def feed(self) -> int:
        """How many files failed."""
        self.rig.store = self.service.opened()
        try:
            return (await self.rig.feed()).failed_count
        finally:
            await self.rig.store.aclose()

    async def feed_in_vain(self) -> Upload:
        """The upload that it may have begun."""
        self.service.lose(1)
        assert await self.feed() == 1
        (lost,) = await self.service.uploads()
        return lost

    async def recorded(self) -> int:
        """Uploads in the journal."""
        place = self.rig.directory / "shared", "b", "", str(self.rig.source)
        async with open_books(*place) as books:
            return len(books.journal.load().uploads)


async def test_the_first_feed_an_hour_later_aborts_it(
    tmp_path: Path, service: Service, clock: Clock
) -> None:
    feeds = Feeds(tmp_path, service)
    lost = await feeds.feed_in_vain()
    clock.now += 0.9 * HOUR
    assert await feeds.feed() == 0
    assert await service.uploads() == [lost]
    assert await feeds.recorded() == 1
    clock.now += 0.2 * HOUR
    assert await feeds.feed() == 0  # though it has nothing to send
    assert await service.uploads() == []
    assert await feeds.recorded() == 0


async def test_one_that_an_attempt_before_the_answered_one_began_is_aborted_as_well(
    tmp_path: Path, clock: Clock, moto_bucket: Bucket
) -> None:
    async with on_moto(moto_bucket, retries=3) as service:
        feeds = Feeds(tmp_path, service)
        service.lose(2)
        assert await feeds.feed() == 0
        assert moto_bucket.get("k") == DATA
        assert len(await service.uploads()) == 2
        clock.now += 1.1 * HOUR
        assert await feeds.feed() == 0
        assert await service.uploads() == []
        assert await feeds.recorded() == 0


async def test_one_with_a_part_stays(tmp_path: Path, service: Service, clock: Clock) -> None:
    feeds = Feeds(tmp_path, service)
    lost = await feeds.feed_in_vain()
    store = service.opened()
    await store.upload_part("k", lost.upload_id, 1, b"somebody's")
    await store.aclose()
    clock.now += 1.1 * HOUR
    assert await feeds.feed() == 0
    assert await service.uploads() == [lost]


async def test_one_of_another_time_stays(tmp_path: Path, clock: Clock) -> None:
    async with in_memory(clock) as service:
        feeds = Feeds(tmp_path, service)
        lost = await feeds.feed_in_vain()
        store = feeds.rig.memory
        await store.abort_upload("k", lost.upload_id)
        clock.now += 600
        theirs = await store.create_upload("k", WriteHeaders())
        clock.now += 1.1 * HOUR
        assert await feeds.feed() == 0
        assert [one.upload_id for one in await service.uploads()] == [theirs]


class TwoInitiators(MemoryStore):
    """The first upload was begun by somebody else."""

    async def list_uploads(self, prefix: str) -> list[Upload]:
        found = await super().list_uploads(prefix)
        return [
            replace(one, initiator="theirs" if one.upload_id == "upload-1" else "ours")
            for one in found
        ]


async def test_one_of_another_initiator_stays(tmp_path: Path, clock: Clock) -> None:
    async with in_memory(clock, TwoInitiators) as service:
        feeds = Feeds(tmp_path, service)
        lost = await feeds.feed_in_vain()
        clock.now += 1.1 * HOUR
        assert await feeds.feed() == 0
        assert await service.uploads() == [lost]


async def test_one_that_a_feed_goes_on_with_stays(tmp_path: Path, clock: Clock) -> None:
    """Begun at the same time, without a part so far: but its id is known."""
    async with in_memory(clock) as service:
        feeds = Feeds(tmp_path, service)
        lost = await feeds.feed_in_vain()
        store = feeds.rig.memory
        with trio.CancelScope() as killed:

            async def kill(operation: str, key: str) -> None:
                if operation == "UploadPart":
                    killed.cancel()
                    await trio.sleep_forever()

            store.before = kill
            await feeds.feed()
        assert killed.cancelled_caught
        known = set(store.uploads) - {lost.upload_id}
        aborted = trio.Event()

        def see(operation: str, key: str) -> None:
            if lost.upload_id not in store.uploads:
                aborted.set()

        async def let_it_tidy(operation: str, key: str) -> None:
            if operation == "UploadPart":
                await aborted.wait()
                await trio.sleep(0.05)
                assert set(store.uploads) == known

        store.before, store.after = let_it_tidy, see
        clock.now += 1.1 * HOUR
        assert await feeds.feed() == 0
        assert store.objects["k"].data == DATA
        assert store.uploads == {}


async def test_a_resume_without_the_feed_aborts_it_as_well(
    tmp_path: Path, clock: Clock, moto_bucket: Bucket
) -> None:
    shared = shared_directory(tmp_path / "cache/s3mount", moto_bucket.server.url, moto_bucket.name)
    resume = partial(Tools(moto_bucket, tmp_path).run, "uploads", "resume", moto_bucket.name)
    moto_bucket.client.create_multipart_upload(Bucket=moto_bucket.name, Key="k")
    async with open_books(shared, moto_bucket.name, "", "/some/where") as books:
        books.journal.begin_upload(UploadRecord(1, None, "k", WriteHeaders(), None, clock.now))
    clock.now += 0.9 * HOUR
    told = await trio.to_thread.run_sync(resume)
    assert "an upload of 'k' may have been begun at 2010-11-10T20:48:33Z" in told.output
    assert len(uploads_of(moto_bucket)) == 1
    clock.now += 0.2 * HOUR
    told = await trio.to_thread.run_sync(resume)
    assert "may have been begun" not in told.output
    assert uploads_of(moto_bucket) == []


def uploads_of(bucket: Bucket) -> list[Any]:
    return list(bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", ()))
