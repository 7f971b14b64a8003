"""Files of the cache directory that hold what nobody wrote there: they are as good as gone."""

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from s3mount.core.errors import ConfigurationError
from s3mount.core.metadata import Attributes
from s3mount.filesystem.directories import locked, locked_now
from s3mount.namespace import StatCache, Version
from s3mount.namespace.stat_cache import Row
from s3mount.store import capabilities
from s3mount.writeback.chunk import SpoolDiskError
from s3mount.writeback.chunk_files import ChunkFiles
from s3mount.writeback.journal_files import look_at, other_journals
from s3mount.writeback.recoverable import Recoverable, RecoverableFile
from tests.unit.test_journal_files import configured

GOOD = RecoverableFile("1-2", "k", 10, ((0, 5),), "etag", 1e9, "upload")
NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("mode", "abc"),
        ("mtime", 1.5e300),
        ("size", b"\xff"),
        ("etag", b"\xff"),
        ("xattrs", "5"),
        ("xattrs", "[]"),
        ("xattrs", NESTED),
        ("xattrs", '{"a": 5}'),
        ("xattrs", '{"a": "zz"}'),
    ],
)
async def test_known_attributes_of_another_type_are_forgotten(
    tmp_path: Path, column: str, value: object
) -> None:
    row = Row.of("d/a", Version("e", 7, 1e9), Attributes(0o100640, 1, 2, 3, 4, 5), 2e9, 5)
    path = tmp_path / "stat.db"
    first = StatCache(path, 1000)
    await first.store([row])
    await first.aclose()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE attributes SET {column} = ?", (value,))
    connection.close()
    second = StatCache(path, 1000)
    assert await second.load("d/") == {}
    await second.store([row])
    assert await second.load("d/") == {"a": row}
    await second.aclose()


@pytest.mark.parametrize(
    "damage",
    [
        {"name": "../../x"},
        {"size": "10"},
        {"size": -1},
        {"ranges": [[0, "5"]]},
        {"key": None},
        {"base": 5},
        {"in_upload": []},
        {"changed_at": "now"},
        {"changed_at": 1e300},
        {"changed_at": float("nan")},
    ],
)
def test_a_file_to_recover_that_makes_no_sense_is_not_listed(
    tmp_path: Path, damage: dict[str, object]
) -> None:
    kept = Recoverable(tmp_path)
    (tmp_path / "1-2.json").write_text(json.dumps(asdict(GOOD)))
    (tmp_path / "3-4.json").write_text(NESTED)
    assert kept.list() == [GOOD]
    (tmp_path / "1-2.json").write_text(json.dumps(asdict(GOOD) | damage))
    assert kept.list() == []


def test_what_a_service_honours_is_not_believed_from_nested_nonsense(tmp_path: Path) -> None:
    path = tmp_path / "capabilities.json"
    path.write_text(NESTED)
    assert capabilities._load(path) is None


@pytest.mark.parametrize(
    "text",
    ["5", "[]", "null", "{}", '{"mountpoint": 5}', '{"source": 5}', NESTED, "\udcff"],
)
def test_a_journal_of_nobody_is_reported(tmp_path: Path, text: str) -> None:
    other = tmp_path / "bucket" / "mounts" / "other"
    other.mkdir(parents=True)
    (other / "journal.sqlite").touch()
    (other / "identity.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=r"damaged|codec"):
        look_at(other)
    [problem] = other_journals(configured(tmp_path))
    assert f"the journal in {other} cannot be looked at" in problem


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_journal_whose_lock_is_no_file_keeps_nobody_waiting(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    other = tmp_path / "bucket" / "mounts" / "other"
    other.mkdir(parents=True)
    (other / "journal.sqlite").touch()
    make(other / "lock")
    [problem] = other_journals(configured(tmp_path))
    assert f"the journal in {other} cannot be looked at" in problem


def test_a_lock_that_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    for lock in (lambda: locked(tmp_path, print), lambda: locked_now(tmp_path)):
        with pytest.raises(ConfigurationError, match="lock cannot be opened"), lock():
            pass


def test_a_journal_whose_identity_is_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").touch()
    os.mkfifo(tmp_path / "identity.json")
    with pytest.raises(ValueError, match="is no file"):
        look_at(tmp_path)


def test_a_chunk_that_leads_nowhere_is_no_chunk(tmp_path: Path) -> None:
    (tmp_path / "chunk-000001").symlink_to("nowhere")
    files = ChunkFiles(tmp_path)
    files.open({"chunk-000001"})
    with pytest.raises(SpoolDiskError):
        files.reopen("chunk-000001")
    files.close(())
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
