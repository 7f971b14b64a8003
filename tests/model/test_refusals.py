"""Errors of what was acknowledged stay until they are resolved; who waits hears of them at once."""

import errno
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.store.errors import (
    AccessDenied,
    ConnectionLost,
    QuotaExceeded,
    StoreError,
)
from s3mount.store.memory import MemoryStore
from tests.model.bucket import contents, leftovers
from tests.model.mounted import Client, memory_store, mounted

HOUR = 3600.0
LONGEST = 300.0
ONE, TWO = b"one " * 700, b"two " * 900


class Refusing:
    """A service that refuses operations of some names on some keys, and counts these refusals."""

    def __init__(self) -> None:
        self.store = memory_store(before=self.before)
        self.rules: dict[tuple[str, str], type[StoreError]] = {}
        self.refused = 0
        self.hang: set[str] = set()

    async def before(self, operation: str, key: str) -> None:
        if operation == "PutObject" and key in self.hang:
            await trio.sleep_forever()
        for (name, where), error in self.rules.items():
            if operation.startswith(name) and where in (key, ""):
                self.refused += 1
                raise error("no", operation=operation, key=key, status=403)


@pytest.fixture
def service() -> Refusing:
    return Refusing()


@pytest.fixture
def store(service: Refusing) -> MemoryStore:
    return service.store


@pytest.fixture
async def client(store: MemoryStore, config: MountConfig) -> AsyncIterator[Client]:
    async with mounted(store, config) as client:
        yield client


def errors(client: Client) -> list[str]:
    status: dict[str, Any] = client.fs.status()
    return [intent["error"] for intent in status["intents"] if intent["error"]]


async def test_a_refused_close_is_told_at_once_and_retried_until_it_succeeds(
    client: Client, service: Refusing, store: MemoryStore, autojump_clock: MockClock
) -> None:
    service.rules["PutObject", "f"] = QuotaExceeded
    started = trio.current_time()
    with pytest.raises(QuotaExceeded):
        await client.write("f", ONE)
    assert trio.current_time() - started < 1
    await trio.sleep(HOUR)
    assert "no" in errors(client)[0]
    assert await client.read("f") == ONE
    # Pauses double up to five minutes: neither forgotten nor hammered.
    assert HOUR / LONGEST <= service.refused <= HOUR / LONGEST + 10
    service.rules.clear()
    await trio.sleep(LONGEST)
    assert contents(store) == {"f": ONE}
    assert errors(client) == []
    assert leftovers(client.fs, store) == []


async def test_retry_does_not_wait_for_the_pause(
    client: Client, service: Refusing, store: MemoryStore, autojump_clock: MockClock
) -> None:
    service.rules["PutObject", "f"] = AccessDenied
    with pytest.raises(AccessDenied):
        await client.write("f", ONE)
    await trio.sleep(HOUR)
    service.rules.clear()
    assert [change.what for change in await client.fs.retry("f")] == ["put 'f'"]
    await trio.sleep(1)
    assert contents(store) == {"f": ONE}
    with pytest.raises(FilesystemError) as caught:
        await client.fs.retry("f")
    assert caught.value.errno == errno.ENOENT


async def test_what_is_written_after_a_refused_close_supersedes_it(
    client: Client, service: Refusing, store: MemoryStore, autojump_clock: MockClock
) -> None:
    service.rules["PutObject", "f"] = AccessDenied
    with pytest.raises(AccessDenied):
        await client.write("f", ONE)
    service.rules.clear()
    before = store.counts().get("PutObject", 0)
    await client.write("f", TWO)
    await trio.sleep(HOUR)
    assert contents(store) == {"f": TWO}
    assert store.counts()["PutObject"] == before + 1


async def test_an_acknowledged_unlink_stays_done_though_the_bucket_refuses_it(
    client: Client, service: Refusing, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", ONE)
    service.rules["DeleteObject", ""] = AccessDenied
    await client.unlink("f")
    await trio.sleep(HOUR)
    assert contents(store) == {"f": ONE}
    assert await client.ls() == []
    assert len(errors(client)) == 1
    service.rules.clear()
    await trio.sleep(LONGEST)
    assert contents(store) == {}
    assert await client.ls() == []


async def test_after_a_refusal_callers_are_told_and_what_they_asked_for_is_undone(
    client: Client, service: Refusing, store: MemoryStore, autojump_clock: MockClock
) -> None:
    for name in ("a", "b"):
        await client.write(name, ONE)
    service.rules["DeleteObject", ""] = AccessDenied
    await client.unlink("a")
    await trio.sleep(HOUR)
    with pytest.raises(AccessDenied):
        await client.unlink("b")
    assert await client.ls() == ["b"]
    service.rules.clear()
    await trio.sleep(LONGEST)
    assert contents(store) == {"b": ONE}  # what was acknowledged is done, the other is not


async def test_what_waits_for_something_refused_hears_of_it(
    client: Client, service: Refusing, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("a", ONE)
    service.rules["CopyObject", ""] = AccessDenied
    await client.rename("a", "b")
    handle = await client.open("b", 1)
    await client.fs.write(handle, 0, TWO)
    started = trio.current_time()
    with pytest.raises(AccessDenied):
        await client.fs.fsync(handle, False)
    assert trio.current_time() - started < 5
    service.rules.clear()
    await client.fs.fsync(handle, False)
    await client.close(handle)
    assert contents(store) == {"b": TWO}


async def test_cancel_frees_a_caller_stuck_in_close(
    client: Client, service: Refusing, store: MemoryStore, autojump_clock: MockClock
) -> None:
    service.hang.add("f")
    outcome: list[int | None] = []

    async def close() -> None:
        try:
            await client.write("f", ONE)
        except FilesystemError as error:
            outcome.append(error.errno)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        await trio.sleep(5)
        assert outcome == []
        await client.fs.cancel("f")
        await trio.sleep(1)
        assert outcome == [errno.ECANCELED]
    assert contents(store) == {}
    assert not client.fs.state.queue.unfinished()


async def test_cancel_frees_a_caller_whose_upload_waits_for_its_next_try(
    client: Client, service: Refusing, store: MemoryStore, autojump_clock: MockClock
) -> None:
    service.rules["PutObject", "f"] = ConnectionLost
    outcome: list[int | None] = []

    async def close() -> None:
        try:
            await client.write("f", ONE)
        except FilesystemError as error:
            outcome.append(error.errno)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        await trio.sleep(5)
        await client.fs.cancel("f")
    assert outcome == [errno.ECANCELED]


async def test_cancel_gives_up_an_unlink_and_shows_the_file_again(
    client: Client, service: Refusing, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", ONE)
    service.rules["DeleteObject", ""] = AccessDenied
    await client.unlink("f")
    await trio.sleep(HOUR)
    assert [change.kind for change in await client.fs.cancel("f")] == ["delete"]
    assert await client.ls() == ["f"]
    assert await client.read("f") == ONE


async def test_leaving_does_not_wait_for_what_is_refused(
    client: Client, service: Refusing, store: MemoryStore, autojump_clock: MockClock
) -> None:
    service.rules["PutObject", "f"] = AccessDenied
    with pytest.raises(AccessDenied):
        await client.write("f", ONE)
    await client.mkdir("d")
    started = trio.current_time()
    left = await client.fs.drain(None)
    assert trio.current_time() - started < 10
    assert (left.intents, left.files) == (1, 1)
    assert contents(store) == {"d/": b""}
    service.rules.clear()
