"""Parts of an unfinished upload that have the only copy of acknowledged bytes: they are not sent
again before the journal has what takes their place. (--durability=journal, a spool of four parts.)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.store.base import Body, Capabilities, Part
from s3mount.store.errors import ConnectionLost
from s3mount.store.memory import MemoryStore
from tests.model.bucket import contents
from tests.model.mounted import KIB, Client, KeptJournal, mounted, with_writeback

PART = 4 * KIB
OLD = b"".join(bytes([65 + n]) * PART for n in range(7))
MINUTE = 60.0


@dataclass
class Watched:
    """Notes each part sent over one that the journal's record of a closed file counts on."""

    store: MemoryStore
    client: Client | None = None
    overwritten: list[int] = field(default_factory=list)
    sent: list[tuple[str, int]] = field(default_factory=list)

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, **options: Any
    ) -> Part:
        self.sent.append((key, number))
        start = (number - 1) * PART
        for low, high in self.promised():
            if key == "f" and low < start + PART and start < high:
                self.overwritten.append(number)
        return await MemoryStore.upload_part(self.store, key, upload_id, number, body)

    def promised(self) -> list[tuple[int, int]]:
        if self.client is None:
            return []
        journal = self.client.fs.state.journal
        assert isinstance(journal, KeptJournal)
        closed = [record for record in journal.load().files.values() if record.closed]
        return [extent for record in closed for extent in record.spool.dropped]


@pytest.fixture
def watched(store: MemoryStore) -> Iterator[Watched]:
    watched = Watched(store)
    with patch.object(store, "upload_part", watched.upload_part):
        yield watched


@pytest.fixture
def config(config: MountConfig) -> MountConfig:
    return with_writeback(config, durability="journal", spool_limit=4 * PART)


async def closed_file(client: Client, watched: Watched) -> int:
    """A handle of a file that was closed and whose Complete has just failed; parts of it are on
    the service only, and the spool has room again."""

    async def down(operation: str, key: str) -> None:
        if operation == "CompleteMultipartUpload":
            raise ConnectionLost("down", operation=operation, key=key)

    watched.store.before = down
    handle = await client.create("f")
    for start in range(0, len(OLD), PART):
        await client.fs.write(handle, start, OLD[start : start + PART])
    await client.fs.flush(handle)
    other = await client.create("g")
    await client.fs.write(other, 0, b"g" * 2 * PART)
    await client.unlink("g")
    await client.release(other)
    await trio.sleep(0.2)
    assert watched.promised() == [(PART, 6 * PART)]
    assert client.fs.state.spool.usage()["chunks"] == 1
    watched.store.before = None
    watched.sent.clear()
    return handle


async def finish(client: Client, store: MemoryStore, handle: int, wanted: bytes) -> None:
    await client.close(handle)
    assert not await client.fs.drain(MINUTE)
    assert contents(store) == {"f": wanted}


async def test_a_part_written_anew_does_not_go_ahead_over_one_that_was_acknowledged(
    store: MemoryStore, config: MountConfig, watched: Watched, autojump_clock: MockClock
) -> None:
    async with mounted(store, config) as client:
        watched.client = client
        handle = await closed_file(client, watched)
        await client.fs.write(handle, PART, b"n" * PART)
        other = await client.create("g")
        await client.fs.write(other, 0, b"g" * 3 * PART)  # what can go ahead makes room for it
        await trio.sleep(0.5)
        assert ("f", 2) not in watched.sent
        assert contents(store) == {}, "it was not committed yet either"
        await client.unlink("g")
        await client.release(other)
        await finish(client, store, handle, OLD[:PART] + b"n" * PART + OLD[2 * PART :])
        assert ("f", 2) in watched.sent
    assert watched.overwritten == []


async def test_a_commit_of_newer_bytes_first_has_them_recorded(
    store: MemoryStore, config: MountConfig, watched: Watched, autojump_clock: MockClock
) -> None:
    async with mounted(store, config) as client:
        watched.client = client
        handle = await closed_file(client, watched)
        await client.fs.write(handle, PART, b"n" * PART)
        await trio.sleep(10)  # a change that goes on holds it up for 5 s
        assert ("f", 2) in watched.sent
        wanted = OLD[:PART] + b"n" * PART + OLD[2 * PART :]
        assert contents(store) == {"f": wanted}
        await finish(client, store, handle, wanted)
    assert watched.overwritten == []


async def test_what_is_written_while_a_commit_is_planned_is_recorded_before_it_is_sent(
    store: MemoryStore, config: MountConfig, watched: Watched, autojump_clock: MockClock
) -> None:
    async with mounted(store, config) as client:
        watched.client = client
        handle = await closed_file(client, watched)
        new = [b"n" * PART]

        async def capabilities() -> Capabilities:
            if new:
                await client.fs.write(handle, PART, new.pop())
            return await MemoryStore.capabilities(store)

        with patch.object(store, "capabilities", capabilities):
            await trio.sleep(10)  # a change that goes on holds it up for 5 s
        assert not new
        await finish(client, store, handle, OLD[:PART] + b"n" * PART + OLD[2 * PART :])
        assert ("f", 2) in watched.sent
    assert watched.overwritten == []
