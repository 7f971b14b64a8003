"""The queue of intents: what it costs, and what becomes of those who wait in line."""

from itertools import pairwise

import pytest
import trio
import trio.testing

from s3mount.store.base import PutResult
from s3mount.writeback import intent_graph
from s3mount.writeback.bookkeeping import Bookkeeper
from s3mount.writeback.intents import Intent, Kind, NotYetError, State
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.queue import CONCURRENT_INTENTS, IntentQueue


class Carrier:
    """Carries intents out when told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.deleted: list[str] = []
        self.turns = trio.Semaphore(0)

    async def execute(self, intent: Intent) -> PutResult | None:
        self.begun.append(intent.key)
        await self.turns.acquire()
        return PutResult("etag")

    async def delete(self, intents: list[Intent]) -> dict[Intent, Exception]:
        self.deleted += [intent.key for intent in intents]
        return {}


def queue_for(carrier: Carrier) -> IntentQueue:
    books = Bookkeeper(MemoryJournal(), durable_spool=False)
    return IntentQueue(carrier.execute, carrier.delete, books)


async def begun(carrier: Carrier, number: int) -> None:
    while len(carrier.begun) < number:
        await trio.testing.wait_all_tasks_blocked()


async def test_thousands_in_line_cost_each_other_nothing(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    original = intent_graph._is_due

    def counted(intent: Intent, now: float) -> bool:
        nonlocal looks
        looks += 1
        return original(intent, now)

    monkeypatch.setattr(intent_graph, "_is_due", counted)
    carrier = Carrier()
    queue = queue_for(carrier)
    async with trio.open_nursery() as nursery:
        await nursery.start(queue.run)
        intents = [queue.add(Intent(kind=Kind.MKDIR, key=f"{n:04}/")) for n in range(1000)]
        for done in range(1000):
            await begun(carrier, done + 1)
            assert len(carrier.begun) <= done + CONCURRENT_INTENTS
            carrier.turns.release()
        for intent in intents:
            await intent.finished.wait()
        nursery.cancel_scope.cancel()
    assert sorted(carrier.begun) == [f"{n:04}/" for n in range(1000)]
    assert looks <= 3 * 1000


async def test_what_is_put_off_again_and_again_is_not_tried_sooner_for_being_hurried(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tried: list[float] = []

    async def not_yet(intent: Intent) -> PutResult | None:
        tried.append(trio.current_time())
        if len(tried) < 20:  # without pauses it would be so many in no time
            raise NotYetError
        return PutResult("etag")

    queue = IntentQueue(not_yet, Carrier().delete, Bookkeeper(MemoryJournal(), durable_spool=False))
    intent = Intent(kind=Kind.MKDIR, key="a/")
    intent.on_put_off = lambda put_off: queue.resume(put_off, delay=0.25)
    async with trio.open_nursery() as nursery:
        await nursery.start(queue.run)
        queue.add(intent)
        while not intent.finished.is_set():
            queue.hurry(intent)
            with trio.move_on_after(1.0):
                await intent.changed.wait()
        nursery.cancel_scope.cancel()
    pauses = [later - sooner for sooner, later in pairwise(tried)]
    assert pauses == pytest.approx([0.25] * 19)


async def test_a_rename_that_became_a_delete_while_it_stood_in_line_is_carried_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    carrier = Carrier()
    queue = queue_for(carrier)
    async with trio.open_nursery() as nursery:
        await nursery.start(queue.run)
        for number in range(CONCURRENT_INTENTS):
            queue.add(Intent(kind=Kind.MKDIR, key=f"{number:04}/"))
        rename = queue.add(Intent(kind=Kind.COPY, key="new", source="old"))
        await begun(carrier, CONCURRENT_INTENTS)
        queue.become_delete(rename, ["old"], defer=False)
        assert carrier.deleted == []
        for _ in range(CONCURRENT_INTENTS):
            carrier.turns.release()
        await rename.finished.wait()
        assert rename.state is State.DONE
        nursery.cancel_scope.cancel()
    assert carrier.deleted == ["old"]


async def test_what_is_finished_holds_no_files_any_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Else each file that was written would wait for the garbage collector."""
    carrier = Carrier()
    queue = queue_for(carrier)
    told: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(queue.run)
        carrier.turns.release()
        intent = Intent(kind=Kind.MKDIR, key="d/")
        intent.on_done = lambda *_: told.append("done")
        intent.on_finished = lambda _: told.append("finished")
        await queue.add(intent).finished.wait()
        nursery.cancel_scope.cancel()
    assert told == ["done", "finished"]
    names = ("start", "done", "failed", "copied", "retry", "put_off", "finished")
    assert [getattr(intent, f"on_{name}") for name in names] == [None] * 7
    assert intent.content is None
