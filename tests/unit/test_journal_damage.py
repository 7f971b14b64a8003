"""What the journal's files hold after power cuts, damage, deaths and failures of the disk."""

import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from s3mount.core.errors import FilesystemError
from s3mount.writeback import journal_log
from s3mount.writeback.journal_database import JournalUnusable
from s3mount.writeback.journal_records import JournalContents
from s3mount.writeback.sqlite_journal import SqliteJournal
from tests.unit.journal_fixtures import a_file, an_intent

COMMITS = 8


def opened(directory: Path) -> SqliteJournal:
    return SqliteJournal(directory, "mount")


def contents_of(directory: Path, scratch: Path) -> tuple[JournalContents, list[str]]:
    """What a start after a crash finds, without changing it."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(directory, scratch)
    journal = opened(scratch)
    journal.abandon()
    return journal.load(), journal.problems


def segment_of(directory: Path) -> Path:
    (path,) = journal_log.segment_paths(directory)
    return path


def commit(journal: SqliteJournal, number: int) -> None:
    """One commit of two rows, and what the one before it did is forgotten."""
    with journal.transaction():
        journal.record(an_intent(number, f"key {number}"))
        journal.write_file(a_file(1, f"key {number}", size=number))
        if number > 1:
            journal.forget(an_intent(number - 1, ""))


def last_commit(contents: JournalContents) -> int:
    """Which of the commits is the last one in there; checks that it is there as a whole."""
    if not contents:
        return 0
    (intent,) = contents.intents
    assert contents.files[1].size == intent.sequence
    assert contents.files[1].key == intent.key == f"key {intent.sequence}"
    return intent.sequence


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[int]]:
    """A journal of COMMITS commits, all in its log, and where each of them ends."""
    directory = tmp_path / "journal"
    directory.mkdir()
    journal = opened(directory)
    ends = []
    for number in range(1, COMMITS + 1):
        commit(journal, number)
        ends.append(int(journal.report()["log"]))
    journal.abandon()
    return directory, ends


@pytest.mark.parametrize("filled", [False, True], ids=["shorter", "zeros"])
def test_a_log_cut_anywhere_holds_the_commits_before_the_cut(
    written: tuple[Path, list[int]], tmp_path: Path, filled: bool
) -> None:
    """What did not reach the disk is missing, or still the zeros that a segment begins with."""
    directory, ends = written
    whole = segment_of(directory).read_bytes()
    assert not any(whole[ends[-1] :])
    cuts = random.Random(1).sample(range(journal_log.HEADER_SIZE, ends[-1]), 60)
    for cut in [*cuts, *ends, *(end - 1 for end in ends), journal_log.HEADER_SIZE]:
        image = whole[:cut].ljust(len(whole) if filled else cut, b"\0")
        segment_of(directory).write_bytes(image)
        found, problems = contents_of(directory, tmp_path / "scratch")
        intact = [end for end in ends if image[:end] == whole[:end]]
        assert last_commit(found) == len(intact)
        rest = image[max(intact, default=journal_log.HEADER_SIZE) :]
        assert bool(problems) == any(rest), (cut, problems)


def test_damage_of_the_log_leaves_a_prefix_and_is_reported(
    written: tuple[Path, list[int]], tmp_path: Path
) -> None:
    directory, ends = written
    whole = segment_of(directory).read_bytes()
    for at in random.Random(2).sample(range(journal_log.HEADER_SIZE, ends[-1]), 60):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        segment_of(directory).write_bytes(damaged)
        found, problems = contents_of(directory, tmp_path / "scratch")
        assert last_commit(found) == sum(end <= at for end in ends)
        assert len(problems) == 1
        (kept,) = (tmp_path / "scratch").glob("journal.torn-*/*")
        assert kept.read_bytes() == damaged
    for at in range(journal_log.HEADER_SIZE):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        segment_of(directory).write_bytes(damaged)
        with pytest.raises(JournalUnusable):
            contents_of(directory, tmp_path / "scratch")


async def test_damage_of_the_database_is_found(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    directory.mkdir()
    journal = opened(directory)
    for number in range(1, COMMITS + 1):
        commit(journal, number)
    await journal.compact()
    journal.abandon()
    database = directory / "journal.sqlite"
    whole = database.read_bytes()
    noticed = 0
    for at in random.Random(3).sample(range(len(whole)), 150):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        database.write_bytes(damaged)
        try:
            found, _ = contents_of(directory, tmp_path / "scratch")
        except JournalUnusable:
            noticed += 1
        else:
            assert last_commit(found) == COMMITS, at  # a byte that means nothing
    assert noticed > 10
    for length in (0, 1, 100, 4096, len(whole) // 2, len(whole) - 1):
        database.write_bytes(whole[:length])
        with pytest.raises(JournalUnusable):
            contents_of(directory, tmp_path / "scratch")
    # Rows that vanish without a trace in the structure.
    for rows in ("records WHERE kind = 1", "records", "meta"):
        database.write_bytes(whole)
        with sqlite3.connect(database) as connection:
            connection.execute(f"DELETE FROM {rows}")
        connection.close()
        with pytest.raises(JournalUnusable):
            contents_of(directory, tmp_path / "scratch")


async def test_damage_of_what_sqlite_has_yet_to_merge_is_found(tmp_path: Path) -> None:
    """Of its write-ahead log SQLite drops what is damaged, and says nothing."""
    directory, dead = tmp_path / "journal", tmp_path / "dead"
    directory.mkdir()
    journal = opened(directory)
    for number in range(1, COMMITS + 1):
        commit(journal, number)
        if number in (3, 6, COMMITS):
            await journal.compact()
    shutil.copytree(directory, dead)
    journal.abandon()
    ahead = dead / "journal.sqlite-wal"
    whole = ahead.read_bytes()
    damages = [whole[:length] for length in (0, 30, 5000, len(whole) // 2, len(whole) - 1)]
    for at in random.Random(4).sample(range(len(whole)), 80):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        damages.append(bytes(damaged))
    noticed = 0
    for damage in damages:
        ahead.write_bytes(damage)
        try:
            found, problems = contents_of(dead, tmp_path / "scratch")
        except JournalUnusable:
            noticed += 1
        else:
            assert last_commit(found) == COMMITS or problems
    assert noticed > len(damages) // 2


async def test_foreign_and_newer_journals_are_not_used(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    directory.mkdir()
    journal = opened(directory)
    commit(journal, 1)
    journal.abandon()
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(JournalUnusable, match="another mount"):
        SqliteJournal(directory, "other")
    with sqlite3.connect(directory / "journal.sqlite") as connection:
        connection.execute("PRAGMA user_version=2")
    connection.close()
    with pytest.raises(JournalUnusable, match="newer"):
        opened(directory)
    log = segment_of(directory).name
    assert (directory / log).read_bytes() == before[log]


async def test_files_of_the_journal_that_are_missing_are_noticed(
    written: tuple[Path, list[int]],
) -> None:
    directory, _ = written
    segment = segment_of(directory)
    segment.rename(directory.parent / "elsewhere")
    with pytest.raises(JournalUnusable, match="missing"):
        opened(directory)
    (directory.parent / "elsewhere").rename(segment)
    (directory / "journal.sqlite").unlink()
    with pytest.raises(JournalUnusable, match="missing"):
        opened(directory)


CHILD = """
import sys, trio
from pathlib import Path
from s3mount.writeback import sqlite_journal
from tests.unit.test_journal_damage import commit, opened
sqlite_journal.SEGMENT_SIZE = 3000  # about ten commits

async def main():
    journal = opened(Path(sys.argv[1]))
    begin = max((record.sequence for record in journal.load().intents), default=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        for number in range(begin + 1, 1_000_000):
            commit(journal, number)
            print(number, flush=True)
            await trio.sleep(0)

trio.run(main)
"""


@pytest.mark.parametrize("seed", range(4))
def test_what_was_committed_survives_kill_9(tmp_path: Path, seed: int) -> None:
    """Twice in a row, each time in the middle of commits and moves to SQLite."""
    for death in range(2):
        command = [sys.executable, "-c", CHILD, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            enough = random.Random(seed * 10 + death).randint(1, 400)
            try:
                acknowledged = [int(child.stdout.readline()) for _ in range(enough)]
            finally:
                child.send_signal(signal.SIGKILL)
            acknowledged += map(int, child.stdout.read().split("\n")[:-1])
        journal = opened(tmp_path)
        journal.abandon()
        # One commit may have been made whose number was not printed any more.
        assert last_commit(journal.load()) in (acknowledged[-1], acknowledged[-1] + 1)
        assert not journal.problems


async def test_syncs_are_shared_and_cover_what_was_committed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)
    durable: list[bytes] = []

    def remembering(fd: int) -> None:
        real(fd)
        durable.append(segment_of(tmp_path).read_bytes())

    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", remembering)
    async with trio.open_nursery() as nursery:
        for number in range(1, 21):

            async def one(number: int = number) -> None:
                commit(journal, number)
                await journal.sync()
                assert f"key {number}".encode() in durable[-1]

            nursery.start_soon(one)
    assert 1 <= len(durable) <= 3
    await journal.sync()
    assert len(durable) <= 3  # nothing new
    journal.abandon()


async def test_commits_are_synced_soon_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)
    synced = trio.Event()
    token = trio.lowlevel.current_trio_token()
    calls: list[int] = []

    def remembering(fd: int) -> None:
        calls.append(journal.commits)
        token.run_sync_soon(synced.set)

    monkeypatch.setattr(os, "fdatasync", remembering)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        for number in range(1, 11):
            commit(journal, number)
        with trio.fail_after(100):
            await synced.wait()
        nursery.cancel_scope.cancel()
    assert calls == [10]  # one for the group
    journal.abandon()


async def test_a_commit_that_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)
    commit(journal, 1)
    real = os.pwrite
    for number in (errno.ENOSPC, errno.EIO):

        def failing(fd: int, data: bytes, offset: int, number: int = number) -> int:
            if len(data) > 60:
                return real(fd, data[:60], offset)  # the rest fails, as on a full disk
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", lambda *args: failing(args[0], args[1][:100], args[2]))
            with pytest.raises(FilesystemError) as caught:
                commit(journal, 2)
        assert caught.value.errno == number
    commit(journal, 2)  # the row of the first one is still known
    journal.abandon()
    journal = opened(tmp_path)
    assert last_commit(journal.load()) == 2
    assert not journal.problems
    await journal.aclose()


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_after_a_failed_fsync_all_that_is_in_doubt_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As the kernel does it: a failed fsync is told once, and the pages are lost."""
    journal = opened(tmp_path)
    commit(journal, 1)
    await journal.sync()
    first = segment_of(tmp_path)
    size = first.stat().st_size
    left, real = times, os.fdatasync

    def failing(fd: int) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OSError(errno.EIO, "lost")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", failing)
    number, refusals = 1, 0
    while left >= 0:
        number += 1
        commit(journal, number)
        try:
            await journal.sync()
        except FilesystemError:
            refusals += 1
    # The first sync tries the old segment and a new one; each later one a new one.
    assert refusals == times - 1
    commit(journal, number + 1)
    await journal.sync()
    journal.abandon()
    assert journal.report()["problems"] == []  # it passed
    os.truncate(first, size)  # the lost pages
    journal = opened(tmp_path)
    assert last_commit(journal.load()) == number + 1
    assert not journal.problems
    await journal.aclose()
