"""What has been sent of the files, as status and progress bars show it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from s3mount.store.base import Body, SlicedBody
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection
from s3mount.store.errors import AccessDenied
from s3mount.store.exchange import SEND_SLICE
from s3mount.store.handed import reporting
from s3mount.store.memory import MemoryStore
from s3mount.store.request import Request
from s3mount.store.wire import Wire
from s3mount.writeback.traffic import Traffic
from tests.unit.tiny_server import TinyServer, config_for
from tests.unit.writeback_fixtures import MINIMUM, PART, pattern, rig


async def test_a_body_counts_as_far_as_it_is_handed_over_and_as_a_whole_when_acknowledged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    everything = Traffic()
    one, other = Traffic(everything), Traffic(everything)
    assert everything.per_second() is None
    with one.sending(0, 1000):
        (body,) = one.bodies
        body.hand(400)
        await trio.sleep(4)
        assert (one.sent, other.sent, everything.sent) == (400, 0, 400)
        assert one.per_second() == pytest.approx(100)
        assert everything.per_second() == pytest.approx(100)
        await trio.sleep(6)
    assert (one.sent, everything.sent, everything.acknowledged) == (1000, 1000, 1000)
    assert everything.per_second() == pytest.approx(100)
    assert not everything.bodies


async def test_a_body_that_fails_is_taken_back() -> None:
    everything = Traffic()
    one = Traffic(everything)
    with pytest.raises(OSError, match="reset"), one.sending(0, 1000):
        (body,) = one.bodies
        body.hand(400)
        raise OSError("reset")
    assert (one.sent, everything.sent, everything.acknowledged) == (0, 0, 0)


async def test_a_pause_does_not_dilute_what_is_sent_after_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    traffic = Traffic()
    with traffic.sending(0, 1):
        pass
    await trio.sleep(3600)
    with traffic.sending(0, 10_000):
        await trio.sleep(60)
        (body,) = traffic.bodies
        body.hand(6_000)
        # Within the memory of the rate the hour before is forgotten.
        assert traffic.per_second() == pytest.approx(100, rel=0.01)


@pytest.fixture
def server() -> Iterator[TinyServer]:
    server = TinyServer()
    yield server
    server.close()


async def test_the_wire_reports_what_the_connection_has_taken_in_the_thread_that_sends(
    server: TinyServer,
) -> None:
    config = config_for(server)
    wire = Wire(config, Connection(config), Counts(), 1)
    size = 3 * SEND_SLICE + 5
    sliced = SlicedBody(size, lambda _, length: bytes(length), SEND_SLICE)
    bodies: list[Body] = [bytearray(size), sliced]
    for body in bodies:
        seen: list[tuple[int, int]] = []

        def report(count: int, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((count, threading.get_ident()))

        request = Request("PutObject", "PUT", "k", body=body)
        with reporting(report):
            await trio.to_thread.run_sync(wire.send, request, time.monotonic() + 100)
        assert [count for count, _ in seen] == [0, SEND_SLICE, 2 * SEND_SLICE, 3 * SEND_SLICE, size]
        assert threading.get_ident() not in {thread for _, thread in seen}
    wire.close()


async def test_what_is_left_of_a_file_is_what_was_written_less_the_parts_that_are_right(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer()
        for offset in range(0, 3 * PART, PART):
            await writer.write(offset, pattern(offset, PART))
        await writer.write(3 * PART, b"tail")
        await trio.testing.wait_all_tasks_blocked()
        assert len(writer.upload.table.sent) == 3
        assert writer.upload.unsent_bytes == 4
        assert r.uploader.traffic.acknowledged == 3 * PART
        await writer.write(10, b"changed")  # the first part is to be sent again
        assert writer.upload.unsent_bytes == PART + 4
        await writer.commit()
        assert writer.upload.unsent_bytes == 0
        assert r.uploader.traffic.acknowledged == 4 * PART + 4


async def test_of_an_edit_only_what_was_written_is_left_to_be_sent(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        writer = r.writer().on_object(pattern(0, 5 * PART))
        await writer.write(PART, b"x" * 100)
        assert writer.upload.unsent_bytes == 100
        await writer.commit()
        assert writer.upload.unsent_bytes == 0


async def test_failures_in_a_row_are_counted_until_one_try_succeeds(tmp_path: Path) -> None:
    refused = True

    def before(operation: str, key: str) -> None:
        if operation == "PutObject" and refused:
            raise AccessDenied("no", operation=operation, key=key)

    store = MemoryStore(minimum_part_size=MINIMUM, before=before)
    async with rig(tmp_path, store) as r:
        writer = r.writer()
        await writer.write(0, b"hello")
        for _ in range(2):
            with pytest.raises(AccessDenied):
                await writer.commit()
        assert writer.upload.failures == 2
        assert r.uploader.traffic.sent == 0
        refused = False
        await writer.commit()
        assert writer.upload.failures == 0
        assert r.uploader.traffic.acknowledged == 5
