"""`s3mount recover`: the bytes of files that were never closed."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from s3mount.cli.main import main
from s3mount.core.config import KIB, WritebackConfig
from s3mount.core.metadata import Attributes
from s3mount.core.part_schedule import PartSchedule
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.journal_records import FileRecord
from s3mount.writeback.recoverable import Recoverable
from s3mount.writeback.spool import Spool

FIRST = b"first " * 5000  # more than one chunk
LATER = b"later"
SIZE = 100_000


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The cache directory after a mount that left a file with a hole in its middle."""
    mount = tmp_path / "cache" / "bucket-0123" / "mounts" / "4567"
    config = WritebackConfig(
        spool_dir=mount / "spool", spool_limit=64 * 16 * KIB, disk_reserve=0, part_size=16 * KIB
    )
    schedule = PartSchedule(16 * KIB, 1000, 1 << 30, False)
    spool = Spool(config, schedule)
    spool.open()
    file = spool.create_file()
    assert file.try_write(0, FIRST)
    assert file.try_write(80_000, LATER)
    record = FileRecord(
        id=7,
        key="dir/name",
        closed=False,
        size=SIZE,
        visible=0,
        whole=False,
        exclusive=False,
        replaces=False,
        base=BaseObject("dir/name", "etag-of-before", SIZE),
        attributes=Attributes(0o100644, 0, 0, 0, 0, 0),
        kept=None,
        spool=file.unsealed_record(),
        changed_at=1_700_000_000.0,
    )
    added = Recoverable(mount / "recoverable").add(record, config.spool_dir, None)
    assert added is not None
    spool.close()
    return tmp_path / "cache"


def run(cache: Path, *words: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["recover", *words, "--cache-dir", str(cache)], input=answer)


def name_of(cache: Path) -> str:
    listed = run(cache, "list").output.split()
    return listed[0]


def test_they_are_listed(cache: Path) -> None:
    (line,) = run(cache, "list").output.splitlines()
    assert line.endswith("dir/name")


def test_nothing_is_listed_where_nothing_is(tmp_path: Path) -> None:
    assert run(tmp_path, "list").output == ""
    assert run(tmp_path, "save", "1-1", str(tmp_path / "x")).exit_code == 1


def test_one_is_saved_with_its_holes(cache: Path, tmp_path: Path) -> None:
    target = tmp_path / "saved"
    result = run(cache, "save", name_of(cache), str(target))
    assert result.exit_code == 0, result.output
    assert "0-30000, 80000-80005" in result.output
    assert "etag-of-before" in result.output
    wanted = bytearray(SIZE)
    wanted[: len(FIRST)] = FIRST
    wanted[80_000 : 80_000 + len(LATER)] = LATER
    assert target.read_bytes() == bytes(wanted)
    assert name_of(cache)  # it is still there


def test_nothing_is_overwritten(cache: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    result = run(cache, "save", name_of(cache), str(target))
    assert result.exit_code == 1
    assert "nothing is overwritten" in result.output
    assert target.read_bytes() == b"precious"


def test_one_is_dropped_when_that_is_confirmed(cache: Path) -> None:
    name = name_of(cache)
    assert run(cache, "drop", name, answer="n\n").exit_code == 1
    assert name_of(cache) == name
    assert run(cache, "drop", name, answer="y\n").exit_code == 0
    assert run(cache, "list").output == ""
    left = [path for _, _, names in os.walk(cache) for path in names]
    assert not [path for path in left if path.startswith(name)]


def test_one_is_dropped_without_asking(cache: Path) -> None:
    assert run(cache, "drop", name_of(cache), "--yes").exit_code == 0
    assert run(cache, "list").output == ""


@pytest.mark.parametrize("words", [[], ["list"], ["save"], ["drop"]])
def test_there_is_help(words: list[str]) -> None:
    result = CliRunner().invoke(main, ["recover", *words, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_a_file_that_lost_and_is_in_an_upload_is_shown_with_the_uploads_id(cache: Path) -> None:
    (mount,) = cache.glob("*/mounts/*")
    Recoverable(mount / "recoverable").add_upload("big", 5 << 30, "the-upload", 1_700_000_100.0)
    _, line = run(cache, "list").stdout.splitlines()
    assert "0 B of 5" in line
    assert line.endswith("big  and in the upload the-upload")
    name = line.split()[0]
    assert run(cache, "drop", name, "--yes").exit_code == 0
    assert "the-upload" not in run(cache, "list").stdout
