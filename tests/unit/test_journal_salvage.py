"""Journals that are set aside for damage: the bytes of their files are kept all the same."""

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from s3mount.store.base import WriteHeaders
from s3mount.writeback.journal_log import segment_paths
from s3mount.writeback.journal_records import UploadRecord
from s3mount.writeback.recoverable import Recoverable
from s3mount.writeback.spool import Spool
from s3mount.writeback.sqlite_journal import SqliteJournal
from tests.unit.journal_fixtures import a_file
from tests.unit.test_journal_files import configured, flip, opened
from tests.unit.test_spool_records import new_spool
from tests.unit.writeback_fixtures import pattern

MANY = 60


@dataclass
class Dead:
    """A mount that was killed with closed files, whose journal is then damaged."""

    directory: Path

    def __post_init__(self) -> None:
        self.config = configured(self.directory)
        self.files: dict[str, bytes] = {}
        self.journal: SqliteJournal = opened(self.config)
        self.spool: Spool = new_spool(self.config.cache_dir)
        assert self.spool.config.spool_dir == self.config.writeback.spool_dir
        self.spool.open()

    def closed(self, key: str, size: int) -> int:
        data = self.files[key] = pattern(0, size, salt=len(self.files))
        file = self.spool.create_file()
        assert file.try_write(0, data)
        number = self.journal.new_id()
        self.journal.write_file(a_file(number, key, size=size, spool=file.seal()))
        return number

    def dies(self) -> None:
        self.journal.abandon()
        self.spool.close()

    def salvaged(self) -> dict[str, bytes]:
        """What the next mount has of them; checks that it tells so."""
        journal = opened(self.config)
        assert not journal.load()
        kept = Recoverable(self.config.cache_dir / "recoverable")
        found = {}
        for entry in kept.list():
            assert entry.ranges == ((0, entry.size),)
            kept.save(entry, self.directory / entry.name)
            found[entry.key] = (self.directory / entry.name).read_bytes()
        (problem,) = journal.report()["problems"]
        assert ("s3mount recover list" in problem) == bool(found)
        if found:
            assert f"what can be read of {len(found)} files in it is kept" in problem
        journal.abandon()
        return found


def cut_short(dead: Dead) -> None:
    path = dead.config.cache_dir / "journal.sqlite"
    path.write_bytes(path.read_bytes()[:1000])


def vanish(dead: Dead) -> None:
    (dead.config.cache_dir / "journal.sqlite").unlink()


def no_database(dead: Dead) -> None:
    flip(dead.config.cache_dir / "journal.sqlite", 5)


@pytest.mark.parametrize("harm", [cut_short, vanish, no_database])
async def test_with_sqlites_file_gone_what_is_in_the_log_is_kept(
    tmp_path: Path, harm: Callable[[Dead], None]
) -> None:
    dead = Dead(tmp_path)
    for number in range(5):
        dead.closed(f"dir/{number}", 1000 if number % 2 else 300_000)
    dead.journal.forget_file(dead.closed("gone", 500))
    del dead.files["gone"]
    dead.dies()
    harm(dead)
    assert dead.salvaged() == dead.files


async def test_with_the_log_damaged_what_sqlite_has_is_kept(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    for number in range(5):
        dead.closed(f"f{number}", 200_000)
    await dead.journal.compact()
    dead.dies()
    flip(segment_paths(dead.config.cache_dir)[0], 5)
    assert dead.salvaged() == dead.files


@pytest.mark.parametrize("seed", range(8))
async def test_of_a_damaged_file_of_sqlites_the_rows_that_can_be_read_are_kept(
    tmp_path: Path, seed: int
) -> None:
    dead = Dead(tmp_path)
    for number in range(MANY):
        dead.closed(f"f{number}", 3000)
    await dead.journal.compact()
    dead.dies()
    path = dead.config.cache_dir / "journal.sqlite"
    pages = path.stat().st_size // 4096
    page = random.Random(seed).randrange(2, pages)  # not the first two: what the file is, its tree
    with path.open("r+b") as database:
        database.seek(page * 4096)
        database.write(b"\xff" * 4096)
    found = dead.salvaged()
    assert len(found) >= MANY // 2
    assert all(dead.files[key] == data for key, data in found.items())


async def test_the_upload_that_has_the_rest_of_a_file_is_named(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    number = dead.closed("f", 300_000)
    record = dead.journal.new_id()
    dead.journal.begin_upload(UploadRecord(record, number, "f", WriteHeaders(), "the-id", 1.0))
    spool = dead.spool.create_file()
    assert spool.try_write(262_144, b"behind")
    sealed = spool.seal()
    dropped = replace(sealed, dropped=((0, 262_144),))
    dead.journal.write_file(a_file(number, "f", size=262_150, spool=dropped))
    dead.dies()
    vanish(dead)
    opened(dead.config).abandon()
    (entry,) = Recoverable(dead.config.cache_dir / "recoverable").list()
    assert (entry.ranges, entry.in_upload) == (((262_144, 262_150),), "the-id")


@pytest.mark.parametrize("what", ["another mount's", "a newer version's"])
async def test_what_is_not_this_mounts_is_not_taken_for_its_files(
    tmp_path: Path, what: str
) -> None:
    dead = Dead(tmp_path)
    dead.closed("f", 1000)
    await dead.journal.compact()
    dead.dies()
    with sqlite3.connect(dead.config.cache_dir / "journal.sqlite") as database:
        if what == "a newer version's":
            database.execute("PRAGMA user_version=99")
        else:
            text = database.execute("SELECT data FROM meta").fetchone()[0]
            database.execute("UPDATE meta SET data = ?", (text.replace("/mnt", "/abc"),))
    database.close()
    opened(dead.config).abandon()
    assert Recoverable(dead.config.cache_dir / "recoverable").list() == []
