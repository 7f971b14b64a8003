"""A journal whose SQLite file is damaged, and whose disk fails, while it is in use."""

import errno
import logging
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from s3mount.core.errors import ConfigurationError, FilesystemError
from s3mount.writeback import journal_log, sqlite_journal
from s3mount.writeback.sqlite_journal import SqliteJournal
from tests.unit.journal_fixtures import a_file, an_intent

BEFORE, AFTER = range(1, 400), range(400, 420)


def opened(directory: Path) -> SqliteJournal:
    return SqliteJournal(directory, "mount")


def overwrite(path: Path) -> None:
    """Every page but the first, which SQLite keeps in memory."""
    size = path.stat().st_size
    assert size > 8 * 4096
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(1).randbytes(size - 4096))


def cut_short(path: Path) -> None:
    os.truncate(path, 4096)


def vanish(path: Path) -> None:
    path.unlink()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(100):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def filled(directory: Path) -> SqliteJournal:
    """All but the last commits are in SQLite's file, and nowhere else on the disk."""
    journal = opened(directory)
    for number in BEFORE:
        journal.record(an_intent(number, f"key {number}"))
        journal.write_file(a_file(number, f"key {number}", size=number))
    await journal.compact()
    # As one that was opened again, with nothing of the file in memory.
    journal.abandon()
    return opened(directory)


@pytest.mark.parametrize("damage", [overwrite, cut_short, vanish])
async def test_a_damaged_file_is_made_anew_and_nothing_is_lost(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "journal"
    directory.mkdir()
    journal = await filled(directory)
    # Its memory of the file goes, as it does in a large one.
    journal._database._connection.execute("PRAGMA shrink_memory")
    damage(directory / "journal.sqlite")
    for number in AFTER:
        journal.record(an_intent(number, f"key {number}"))
    journal.forget(an_intent(1, ""))
    journal.forget_file(1)
    with caplog.at_level(logging.ERROR):
        await journal.compact()
    for where in (journal.report()["problems"], [r.message for r in caplog.records]):
        (problem,) = where
        assert "damaged while it was in use" in problem
        assert "nothing is lost" in problem
        assert "see to its disk" in problem
    journal.record(an_intent(1000, "later"))
    await journal.sync()
    # As a crash leaves it.
    shutil.copytree(directory, tmp_path / "left")
    await journal.compact()
    journal.abandon()
    for place in (directory, tmp_path / "left"):
        found = opened(place)
        contents = found.load()
        assert [intent.sequence for intent in contents.intents] == [*BEFORE, *AFTER, 1000][1:]
        assert sorted(contents.files) == [*BEFORE][1:]
        assert not found.problems
        found.abandon()
    kept = list(directory.glob("journal.sqlite.damaged-*"))
    assert len(kept) == (damage is not vanish)


async def test_while_it_cannot_be_made_anew_the_log_has_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount goes on meanwhile."""
    journal = await filled(tmp_path)
    journal._database._connection.execute("PRAGMA shrink_memory")
    cut_short(tmp_path / "journal.sqlite")
    failures = [sqlite3.OperationalError("disk I/O error"), OSError(errno.ENOSPC, "full")]
    rebuild = journal._database.rebuild

    def failing(*args: Any) -> Path:
        if failures:
            raise failures.pop()
        return rebuild(*args)

    monkeypatch.setattr(journal._database, "rebuild", failing)
    for name in ("IDLE", "RETRY"):
        monkeypatch.setattr(sqlite_journal, name, 0.05)
    monkeypatch.setattr(sqlite_journal, "IDLE_SIZE", 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        for number in AFTER:
            journal.record(an_intent(number, f"key {number}"))
        await until(lambda: bool(journal.report()["problems"]))
        (problem,) = journal.report()["problems"]
        assert "nothing is lost" in problem
        journal.record(an_intent(1000, "meanwhile"))  # the mount goes on
        await journal.sync()
        await until(lambda: "made anew" in journal.report()["problems"][0])
        await until(lambda: len(journal.report()["problems"]) == 1)
        nursery.cancel_scope.cancel()
    journal.abandon()
    found = opened(tmp_path)
    numbers = [intent.sequence for intent in found.load().intents]
    assert numbers == [*BEFORE, *AFTER, 1000]
    found.abandon()


async def test_a_damaged_file_with_nothing_in_it_is_removed_at_the_end(tmp_path: Path) -> None:
    journal = await filled(tmp_path)
    for number in BEFORE:
        journal.forget(an_intent(number, ""))
        journal.forget_file(number)
    journal._database._connection.execute("PRAGMA shrink_memory")
    cut_short(tmp_path / "journal.sqlite")
    await journal.aclose()
    assert journal.report()["problems"] == []
    assert os.listdir(tmp_path) == []


async def test_a_trouble_that_passed_is_no_problem_any_more(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: object,
) -> None:
    journal = opened(tmp_path)
    real = os.fdatasync

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "the disk fails")

    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        monkeypatch.setattr(os, "fdatasync", failing)
        journal.record(an_intent(1, "key"))
        with pytest.raises(FilesystemError):
            await journal.sync()
        await trio.sleep(10.0)
        assert any("cannot be synced" in problem for problem in journal.report()["problems"])
        monkeypatch.setattr(os, "fdatasync", real)
        await journal.sync()
        assert journal.report()["problems"] == []
        await trio.sleep(10.0)
        assert journal.report()["problems"] == []
        nursery.cancel_scope.cancel()
    assert sum("works again" in record.message for record in caplog.records) <= 2
    assert sum("cannot be synced" in record.message for record in caplog.records) <= 3
    journal.abandon()
    assert len(opened(tmp_path).load().intents) == 1


# -- held by another program


def held(directory: Path) -> sqlite3.Connection:
    """As a backup program, or sqlite3(1), may hold it."""
    other = sqlite3.connect(directory / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other


async def test_a_file_that_another_program_holds_at_the_start_is_told_and_nothing_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect
    (await filled(tmp_path)).abandon()
    other = held(tmp_path)

    def impatient(*arguments: Any, **named: Any) -> sqlite3.Connection:
        found: sqlite3.Connection = connect(*arguments, **{**named, "timeout": 0.1})
        return found

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", impatient)
        with pytest.raises(ConfigurationError, match=r"cannot be used \(database is locked\)"):
            opened(tmp_path)
    other.close()
    journal = opened(tmp_path)
    assert len(journal.load().intents) == len(BEFORE)
    assert not journal.problems
    journal.abandon()


async def test_on_a_slow_disk_a_commit_waits_for_no_more_than_the_sync_that_runs_and_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """A power cut takes at most what was changed since the last but one began."""
    begun: list[float] = []

    async def slow(work: Callable[..., Any], *args: Any, **_: Any) -> Any:
        result = work(*args)
        if work is journal_log.sync_segments:
            begun.append(trio.current_time())
            await trio.sleep(0.3)
        return result

    monkeypatch.setattr("trio.to_thread.run_sync", slow)
    journal = opened(tmp_path)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        # The second comes when the sync of the first has just begun, the third long after.
        for number, at in enumerate((1.0, 1.09, 5.0), 1):
            await trio.sleep_until(start + at)
            journal.record(an_intent(number, "key"))
        await trio.sleep(5)
        assert [round(at - start, 3) for at in begun] == [1.08, 1.38, 5.08]
        nursery.cancel_scope.cancel()
    journal.abandon()


async def test_what_was_recorded_while_a_sync_ran_does_not_count_as_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    async def slow(work: Callable[..., Any], *args: Any, **_: Any) -> Any:
        await trio.sleep(0.3)
        return work(*args)

    monkeypatch.setattr("trio.to_thread.run_sync", slow)
    journal = opened(tmp_path)
    start = trio.current_time()
    assert journal.synced_until == float("inf")  # there is nothing yet
    async with trio.open_nursery() as nursery:
        await trio.sleep(1.0)
        journal.record(an_intent(1, "first"))
        assert journal.synced_until < start + 1.0
        nursery.start_soon(journal.sync)
        await trio.sleep(0.1)
        assert journal.synced_until < start + 1.0
        await trio.sleep(0.1)
        journal.record(an_intent(2, "second"))
    assert journal.synced_until == start + 1.0  # when that sync began
    await journal.sync()
    assert journal.synced_until == float("inf")
    journal.abandon()
