"""Streams of unknown length, on a store in memory: parts while it comes in, bounded memory."""

import contextlib
import os
import threading
from typing import Any

import pytest
import trio

from s3mount.core.part_schedule import PartSchedule
from s3mount.store.base import Body, Part, WriteHeaders
from s3mount.store.errors import AccessDenied
from s3mount.store.memory import MemoryStore
from s3mount.transfer.feed.stream import StreamSender
from s3mount.writeback.journal import MemoryJournal

KIB = 1024
PART = 64 * KIB
HEADERS = WriteHeaders({"mode": "33188"})


async def agree(size: int) -> None:
    pass


def sender(store: MemoryStore, journal: MemoryJournal, limit: int = PART) -> StreamSender:
    schedule = PartSchedule(PART, 100, 1 << 40)
    return StreamSender(store, journal, schedule, single_put_limit=limit, bytes_in_flight=4 * PART)


def piped(data: bytes) -> int:
    """The end of a pipe that a thread writes `data` into."""
    reading, writing = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(writing, "wb") as pipe:
            pipe.write(data)

    threading.Thread(target=write, daemon=True).start()
    return reading


@pytest.mark.parametrize("limit", [PART, 3 * PART])
@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 3 * PART, 9 * PART, 9 * PART + 5])
async def test_every_length_comes_out_right(size: int, limit: int) -> None:
    store, journal = MemoryStore(minimum_part_size=1), MemoryJournal()
    data = os.urandom(size)
    fd = piped(data)
    told: list[int] = []
    sent = await sender(store, journal, limit).send(fd, "k", HEADERS, agree, told.append)
    os.close(fd)
    assert store.objects["k"].data == data
    assert store.objects["k"].metadata == HEADERS.metadata
    assert sent.sent == sum(told) == size
    assert journal.load().uploads == {}
    assert ("PutObject" in store.counts()) == (size <= limit)


async def test_parts_go_up_while_the_stream_comes_in_and_no_more_is_read_than_fits() -> None:
    held = trio.Event()

    class Slow(MemoryStore):
        async def upload_part(
            self, key: str, upload_id: str, number: int, body: Body, **options: Any
        ) -> Part:
            await held.wait()
            return await super().upload_part(key, upload_id, number, body, **options)

    store = Slow(minimum_part_size=1)
    reading, writing = os.pipe()
    written = 0

    def write() -> None:
        nonlocal written
        with open(writing, "wb", buffering=0) as pipe:
            for _ in range(64):
                pipe.write(bytes(PART // 4))
                written += PART // 4

    threading.Thread(target=write, daemon=True).start()
    async with trio.open_nursery() as nursery:
        work = sender(store, MemoryJournal())
        nursery.start_soon(work.send, reading, "k", HEADERS, agree, lambda amount: None)
        await trio.sleep(0.3)
        # Four parts are held, and what a pipe holds.
        assert written <= 4 * PART + 64 * KIB + PART // 4
        held.set()
    os.close(reading)
    assert len(store.objects["k"].data) == 16 * PART


async def failing_check(size: int) -> None:
    raise OSError("not wanted")


def refuse_parts(operation: str, key: str) -> None:
    if operation == "UploadPart":
        raise AccessDenied("no")


@pytest.mark.parametrize("size", [5, 9 * PART])
async def test_what_is_not_wanted_is_not_stored(size: int) -> None:
    store, journal = MemoryStore(minimum_part_size=1), MemoryJournal()
    fd = piped(bytes(size))
    with pytest.raises(OSError, match="not wanted"):
        await sender(store, journal).send(fd, "k", HEADERS, failing_check, lambda amount: None)
    os.close(fd)
    assert (store.objects, store.uploads, journal.load().uploads) == ({}, {}, {})


async def test_what_cannot_be_sent_is_aborted() -> None:
    store, journal = MemoryStore(minimum_part_size=1), MemoryJournal()
    store.before = refuse_parts
    fd = piped(bytes(9 * PART))
    with pytest.raises(BaseExceptionGroup) as group:
        await sender(store, journal).send(fd, "k", HEADERS, agree, lambda amount: None)
    assert group.group_contains(AccessDenied)
    os.close(fd)
    assert (store.objects, store.uploads, journal.load().uploads) == ({}, {}, {})


@pytest.mark.parametrize("given", [0, 3 * PART])
async def test_a_producer_that_says_nothing_can_be_given_up(given: int) -> None:
    store, journal = MemoryStore(minimum_part_size=1), MemoryJournal()
    reading, writing = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(writing, bytes(given))

    producer = threading.Thread(target=write)
    producer.start()
    with trio.move_on_after(0.3) as scope:
        await sender(store, journal).send(reading, "k", HEADERS, agree, lambda amount: None)
    assert scope.cancelled_caught
    os.close(reading)
    producer.join()
    os.close(writing)
    assert (store.objects, store.uploads, journal.load().uploads) == ({}, {}, {})
