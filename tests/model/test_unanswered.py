"""Requests whose answers nobody heard, from mounts that died: what they wrote is not others' work.

What the journal has of an intent may have changed since they were sent.
"""

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest
import trio

from s3mount.core.config import MountConfig
from s3mount.store.errors import ConnectionLost
from s3mount.store.memory import MemoryStore
from tests.model.bucket import attributes_of, files, permissions
from tests.model.lives import Lives
from tests.model.mounted import EPOCH, Client, with_writeback

OF_PARTS = bytes(range(256)) * 64  # 16 KiB: its ETag is another one after a copy
A_MOMENT = 0.5
# A delete that had to wait for so long looks first.
LONG = 15.0


@pytest.fixture(autouse=True)
def _one_clock() -> Iterator[None]:
    """This machine's clock is the service's."""
    with patch("time.time", lambda: EPOCH + trio.current_time()):
        yield


@pytest.fixture
def lives(store: MemoryStore, config: MountConfig) -> Lives:
    return Lives(store, with_writeback(config, durability="journal", namespace_delay=0.0))


def never_sent(store: MemoryStore, operation: str) -> None:
    """From now on, in this life."""

    async def before(asked: str, _: str) -> None:
        if asked == operation:
            await trio.sleep_forever()

    store.before = before


def never_answered(store: MemoryStore, operation: str) -> None:
    """Carried out."""

    async def after(asked: str, _: str) -> None:
        if asked == operation:
            await trio.sleep_forever()

    store.after = after


def unreachable(store: MemoryStore) -> None:
    """As far as the file is concerned."""

    def before(asked: str, key: str) -> None:
        if "f" in key:
            raise ConnectionLost("unreachable", operation=asked, key=key)

    store.before = before


async def back_later(store: MemoryStore, client: Client) -> None:
    await trio.sleep(LONG)
    store.before = None
    assert not await client.fs.drain(600.0)


def answer_lost(store: MemoryStore, operation: str) -> None:
    """Of the first request of the kind, carried out; afterwards the service is unreachable."""

    def after(asked: str, key: str) -> None:
        if asked == operation:
            store.after = None
            unreachable(store)
            raise ConnectionLost("reset", operation=asked, key=key, ambiguous=True)

    store.after = after


class TestFiles:
    @pytest.mark.parametrize("flags", [0, os.O_EXCL])
    async def test_stored_by_a_mount_that_had_recovered_it(
        self, store: MemoryStore, lives: Lives, autojump_clock: object, flags: int
    ) -> None:
        """The third mount would write something else than what the second one sent."""
        never_sent(store, "PutObject")
        async with lives.one() as client:
            handle = await client.create("f", os.O_RDWR | flags)
            await client.fs.write(handle, 0, b"bytes")
            await client.close(handle)
        never_answered(store, "PutObject")
        async with lives.one() as client:
            await trio.sleep(A_MOMENT)
            assert files(store) == {"f": b"bytes"}
            await client.setattr("f", mode=0o600)
            await client.edit("f", 5, b" more")
        assert await lives.last() == []
        assert files(store) == {"f": b"bytes more"}
        assert permissions(store, "f") == 0o600

    async def test_stored_before_its_attributes_changed_and_an_attempt_failed(
        self, store: MemoryStore, lives: Lives, autojump_clock: object
    ) -> None:
        """The attempt that began last would have written other attributes than those that are
        there."""
        answer_lost(store, "PutObject")
        async with lives.one() as client:
            await client.write("f", b"bytes")
            await trio.sleep(A_MOMENT)
            await client.setattr("f", mode=0o600)
            await trio.sleep(LONG)
        assert permissions(store, "f") == 0o644
        assert await lives.last() == []
        assert files(store) == {"f": b"bytes"}
        assert permissions(store, "f") == 0o600

    async def test_removed_after_a_change_whose_answer_was_lost(
        self, store: MemoryStore, lives: Lives, autojump_clock: object
    ) -> None:
        store.put_foreign("f", b"bytes")
        answer_lost(store, "PutObject")
        async with lives.one() as client:
            await client.edit("f", 0, b"B")
            await trio.sleep(A_MOMENT)
            assert files(store) == {"f": b"Bytes"}
            await client.unlink("f")
        assert await lives.last() == []
        assert files(store) == {}

    async def test_removed_after_a_recovery_while_the_service_was_away(
        self, store: MemoryStore, lives: Lives, autojump_clock: object
    ) -> None:
        store.put_foreign("f", b"bytes")
        never_answered(store, "PutObject")
        async with lives.one() as client:
            await client.edit("f", 0, b"B")
            await trio.sleep(A_MOMENT)
        assert files(store) == {"f": b"Bytes"}
        unreachable(store)
        async with lives.one() as client:
            await client.unlink("f")
            await back_later(store, client)
            assert client.fs.status()["failures"] == []
        assert files(store) == {}


class TestAttributes:
    """Of an object in parts: the copy that changes them gives it another ETag."""

    @pytest.fixture
    async def changed(self, store: MemoryStore, lives: Lives, autojump_clock: object) -> Lives:
        """A mount died whose chmod was carried out."""
        async with lives.one() as client:
            await client.write("f", OF_PARTS, step=4096)
            assert not await client.fs.drain(600.0)
            never_answered(store, "CopyObject")
            before = store.objects["f"].etag
            await client.setattr("f", mode=0o600)
            await trio.sleep(A_MOMENT)
        assert permissions(store, "f") == 0o600
        assert store.objects["f"].etag != before
        return lives

    async def test_changed_again(
        self, store: MemoryStore, changed: Lives, autojump_clock: object
    ) -> None:
        unreachable(store)
        async with changed.one() as client:
            await client.setattr("f", mode=0o644)
            await back_later(store, client)
            assert client.fs.status()["failures"] == []
        assert permissions(store, "f") == 0o644

    async def test_the_file_was_renamed(
        self, store: MemoryStore, changed: Lives, autojump_clock: object
    ) -> None:
        unreachable(store)
        async with changed.one() as client:
            await client.rename("f", "g")
            await back_later(store, client)
            assert client.fs.status()["failures"] == []
        assert files(store) == {"g": OF_PARTS}
        assert permissions(store, "g") == 0o600

    async def test_the_file_was_removed(
        self, store: MemoryStore, changed: Lives, autojump_clock: object
    ) -> None:
        unreachable(store)
        async with changed.one() as client:
            await client.unlink("f")
            await back_later(store, client)
            assert client.fs.status()["failures"] == []
        assert files(store) == {}

    async def test_again_by_a_mount_that_died_as_well(
        self, store: MemoryStore, changed: Lives, autojump_clock: object
    ) -> None:
        unreachable(store)
        async with changed.one() as client:
            await client.setattr("f", uid=7)
            never_answered(store, "CopyObject")
            store.before = None
            await trio.sleep(LONG)
            assert attributes_of(store.objects["f"]).uid == 7
        unreachable(store)
        async with changed.one() as client:
            await client.setattr("f", gid=8)
        assert await changed.last() == []
        found = attributes_of(store.objects["f"])
        assert (found.mode & 0o777, found.uid, found.gid) == (0o600, 7, 8)
