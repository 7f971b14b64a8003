"""Reads while a slow recovery goes on: what a rename had moved before the crash is read at once.

The mount serves after half a minute at the latest; until a rename was looked at its files are read
from where they were.
"""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.store.errors import ServerError
from s3mount.store.memory import MemoryStore
from s3mount.writeback.intents import Kind
from s3mount.writeback.journal import MemoryJournal
from tests.model.bucket import files
from tests.model.mounted import EPOCH
from tests.model.recovering import DIRECTORY, FILE, DeadMount, headers_of, remounted

LARGE = bytes(range(256)) * 100
SIZES = pytest.mark.parametrize("data", [b"moved", LARGE])


@pytest.fixture(autouse=True)
def _one_clock() -> Iterator[None]:
    """This machine's clock is the service's."""
    with patch("time.time", lambda: EPOCH + trio.current_time()):
        yield


@pytest.fixture
async def dead(config: MountConfig) -> DeadMount:
    return DeadMount(config, created=EPOCH + trio.current_time())


def ours(store: MemoryStore, key: str, data: bytes) -> str:
    headers = headers_of(key, DIRECTORY if key.endswith("/") else FILE)
    return store.put_foreign(key, data, headers.metadata, headers.headers).etag


def slow_looks(store: MemoryStore) -> None:
    """What the recovery does first takes long."""

    async def slow(operation: str, key: str) -> None:
        if operation in {"HeadObject", "ListObjectsV2"}:
            await trio.sleep(20.0)
            if failing:  # then its intent waits for the next attempt
                raise failing.pop()("down", operation=operation, key=key)

    failing = [ServerError]
    store.before = slow


@SIZES
async def test_a_file_that_was_renamed_before_the_crash(
    store: MemoryStore,
    config: MountConfig,
    dead: DeadMount,
    data: bytes,
    autojump_clock: MockClock,
) -> None:
    etag = ours(store, "new", data)
    dead.intent(Kind.COPY, "new", source="old", source_etag=etag, size=len(data), attributes=FILE)
    slow_looks(store)
    async with remounted(store, config, MemoryJournal(dead.contents())) as client:
        assert await client.read("new") == data
        store.before = None
    assert files(store) == {"new": data}


@SIZES
async def test_a_file_in_a_directory_that_was_renamed_before_the_crash(
    store: MemoryStore,
    config: MountConfig,
    dead: DeadMount,
    data: bytes,
    autojump_clock: MockClock,
) -> None:
    ours(store, "new/", b"")
    etag = ours(store, "new/f", data)
    dead.intent(
        Kind.ATTRIBUTES, "old/f", source_etag=etag, size=len(data), attributes=FILE, shown=FILE
    )
    dead.intent(Kind.RENAME_TREE, "new/", source="old/", shown=DIRECTORY)
    slow_looks(store)
    async with remounted(store, config, MemoryJournal(dead.contents())) as client:
        assert await client.read("new/f") == data
        store.before = None
    assert files(store) == {"new/f": data}
