"""What is recorded is what is found again, in memory and on disk."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.store.base import WriteHeaders
from s3mount.writeback.journal import Journal, MemoryJournal
from s3mount.writeback.journal_records import ChunkRecord, PartRecord, UploadRecord
from s3mount.writeback.sqlite_journal import SqliteJournal
from tests.sizes import examples
from tests.unit.journal_fixtures import a_file, an_intent, call, calls, files, intents, uploads

Calls = Sequence[tuple[Any, ...]]
# What a mount does between two of its calls: another commit, a move to SQLite, a death.
steps = st.lists(st.tuples(st.sampled_from(["alone", "compact", "die"]), st.lists(calls)))


class Refused(Exception):
    pass


def reopened(directory: Path) -> SqliteJournal:
    return SqliteJournal(directory, "mount")


@settings(deadline=None, max_examples=examples(25))
@given(steps)
def test_both_forms_hold_the_same(story: Sequence[tuple[str, Calls]]) -> None:
    async def play(directory: Path) -> None:
        memory, disk = MemoryJournal(), reopened(directory)
        for after, made in story:
            for journal in (memory, disk):
                with journal.transaction():
                    for name, *arguments in made:
                        call(journal, name, *arguments)
            if after == "compact":
                await disk.compact()
            elif after == "die":
                disk.abandon()
                disk = reopened(directory)
                assert disk.load() == memory.load()
        disk.abandon()
        disk = reopened(directory)
        assert disk.load() == memory.load()
        assert not disk.problems
        await disk.aclose()

    with tempfile.TemporaryDirectory() as directory:
        trio.run(play, Path(directory))


@settings(deadline=None, max_examples=examples(20))
@given(intents, files, uploads)
def test_every_record_is_found_again_field_by_field(intent: Any, file: Any, upload: Any) -> None:
    async def play(directory: Path) -> None:
        disk = reopened(directory)
        call(disk, "record", intent)
        disk.write_file(file)
        disk.begin_upload(upload)
        disk.abandon()
        disk = reopened(directory)
        found = disk.load()
        assert found.intents == [intent]
        assert found.files == {file.id: file}
        assert found.uploads == {upload.id: upload}
        assert disk.new_id() > max(intent.sequence, file.id, upload.id)
        await disk.aclose()

    with tempfile.TemporaryDirectory() as directory:
        trio.run(play, Path(directory))


@pytest.fixture(params=["memory", "disk"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return MemoryJournal() if request.param == "memory" else reopened(tmp_path)


def found_in(journal: Journal, directory: Path) -> Any:
    if isinstance(journal, SqliteJournal):
        journal.abandon()
        journal = reopened(directory)
    return journal.load()


async def test_a_transaction_that_raises_records_nothing(journal: Journal, tmp_path: Path) -> None:
    chunks = [ChunkRecord(index, f"c{index}", b"", b"", True) for index in range(3)]
    journal.record(an_intent(1, "old"))
    journal.write_file(a_file(2, "file", chunks))
    upload = UploadRecord(3, 2, "file", WriteHeaders(), None, 1.0)
    journal.begin_upload(upload)
    journal.write_part(3, PartRecord(1, 0, 5, "e1"))
    with pytest.raises(Refused), journal.transaction():
        journal.forget(an_intent(1, "old"))
        journal.write_file(a_file(2, "file", chunks[:1]))
        with journal.transaction():
            journal.write_part(3, PartRecord(2, 5, 9, "e2"))
            journal.end_upload(3)
        journal.record(an_intent(4, "new"))
        raise Refused
    # What it knows of its rows is as before, too: these touch them all.
    journal.write_part(3, PartRecord(3, 9, 12, "e3"))
    journal.write_file(a_file(2, "file", [replace(chunks[0], name="other"), *chunks[1:]]))
    found = found_in(journal, tmp_path)
    assert [record.key for record in found.intents] == ["old"]
    assert [chunk.name for chunk in found.files[2].spool.chunks] == ["other", "c1", "c2"]
    assert set(found.uploads[3].parts) == {1, 3}


async def test_numbers_are_not_given_again_after_a_crash(tmp_path: Path) -> None:
    disk = reopened(tmp_path)
    given_before = [disk.new_id() for _ in range(5)]
    disk.record(an_intent(given_before[-1], "key"))
    disk.abandon()
    disk = reopened(tmp_path)
    assert disk.new_id() > given_before[-1]
    await disk.aclose()
    memory = MemoryJournal(disk.load())
    assert memory.new_id() > given_before[-1]
