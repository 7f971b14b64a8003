"""What one change of the tree records is one commit, and what the journal's failure does."""

import errno

import pytest
import trio
import trio.testing

from s3mount.core.errors import FilesystemError
from s3mount.writeback.bookkeeping import Bookkeeper
from s3mount.writeback.intents import Intent, Kind
from s3mount.writeback.journal import MemoryJournal


class FailingJournal(MemoryJournal):
    """Cannot write while `full`, nor sync while `failing`; counts its syncs."""

    def __init__(self) -> None:
        super().__init__()
        self.full = self.failing = False
        self.synced = 0

    def record(self, intent: Intent) -> None:
        if self.full:
            raise FilesystemError(errno.ENOSPC, "the journal's disk is full")
        super().record(intent)

    async def sync(self) -> None:
        self.synced += 1
        if self.failing:
            raise FilesystemError(errno.EIO, "the journal's disk fails")
        await super().sync()


@pytest.fixture
def journal() -> FailingJournal:
    return FailingJournal()


@pytest.fixture
async def books(journal: FailingJournal) -> Bookkeeper:
    return Bookkeeper(journal, durable_spool=False)


def put(books: Bookkeeper, key: str) -> Intent:
    return Intent(kind=Kind.PUT, key=key, sequence=books.new_id())


def keys(journal: MemoryJournal) -> list[str]:
    return [record.key for record in journal.load().intents]


async def test_a_change_is_one_commit_of_what_is_at_its_end(
    books: Bookkeeper, journal: FailingJournal
) -> None:
    with books.change():
        first, second = put(books, "a"), put(books, "b")
        books.record(first)
        with books.change():
            books.record(second)
        books.forget(second)
        first.key = "c"
        books.update(first)
        assert keys(journal) == []
    assert keys(journal) == ["c"]
    assert books.commits == 1


async def test_what_cannot_be_recorded_is_told_at_the_end_and_recorded_later(
    books: Bookkeeper, journal: FailingJournal
) -> None:
    done: list[str] = []
    journal.full = True
    reached = False
    with pytest.raises(FilesystemError) as caught, books.change():
        books.record(put(books, "a"))
        books.once_recorded(lambda: done.append("a"))
        reached = True
    assert reached
    assert caught.value.errno == errno.ENOSPC
    assert (keys(journal), done) == ([], [])
    journal.full = False
    with books.change():
        books.record(put(books, "b"))
    assert keys(journal) == ["a", "b"]
    assert done == ["a"]


async def test_what_is_done_already_is_not_undone_by_a_failure(
    books: Bookkeeper, journal: FailingJournal
) -> None:
    journal.full = True
    with books.aftermath():
        books.record(put(books, "a"))
    assert keys(journal) == []


async def test_an_error_inside_a_change_leaves_the_record_of_what_was_changed(
    books: Bookkeeper, journal: FailingJournal
) -> None:
    with pytest.raises(KeyError), books.change():
        books.record(put(books, "a"))
        raise KeyError("a bug")
    assert keys(journal) == ["a"]


async def test_with_write_back_things_are_given_back_once_the_commit_is_synced(
    journal: FailingJournal, autojump_clock: trio.testing.MockClock
) -> None:
    books = Bookkeeper(journal, durable_spool=True)
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(books.run)
        with books.change():
            books.record(put(books, "a"))
            books.once_recorded(lambda: done.append("a"))
        assert done == []
        await books.sync()
        assert done == ["a"]
        with books.change():
            books.record(put(books, "b"))
            books.once_recorded(lambda: done.append("b"))
        await trio.sleep(1)  # without anybody who waits
        assert (done, journal.synced) == (["a", "b"], 2)
        nursery.cancel_scope.cancel()


async def test_what_another_ones_failed_sync_was_to_give_back_is_given_back_with_a_later_one(
    journal: FailingJournal, autojump_clock: trio.testing.MockClock
) -> None:
    books = Bookkeeper(journal, durable_spool=True)
    told: list[tuple[bool, list[str]]] = []
    done: list[str] = []
    books.on_synced = lambda: told.append((books.hurry(), list(done)))
    async with trio.open_nursery() as nursery:
        await nursery.start(books.run)
        with books.change():
            books.record(put(books, "a"))
            books.once_recorded(lambda: done.append("a"))
        journal.failing = True
        with pytest.raises(FilesystemError):
            await books.sync()
        assert told == [(True, [])]
        await trio.sleep(10)
        assert 10 <= journal.synced <= 30, "not without a pause, though it is hurried"
        journal.failing = False
        await trio.sleep(1)
        assert done == ["a"]
        assert told[-1] == (False, ["a"])
        nursery.cancel_scope.cancel()
