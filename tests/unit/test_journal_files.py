"""Journals among the files of their mounts: made, set aside, looked at from elsewhere."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from s3mount.core.config import (
    AttributeDefaults,
    MountConfig,
    NamespaceConfig,
    ReadConfig,
    StoreConfig,
    WritebackConfig,
)
from s3mount.core.errors import ConfigurationError
from s3mount.writeback import journal_files, local_disk
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.journal_files import check_disk, open_journal, other_journals
from s3mount.writeback.journal_log import segment_paths
from s3mount.writeback.local_disk import unfit_for_journal
from s3mount.writeback.sqlite_journal import SqliteJournal
from tests.unit.journal_fixtures import a_file, an_intent


def configured(directory: Path, name: str = "mnt") -> MountConfig:
    cache = directory / "bucket" / "mounts" / name
    cache.mkdir(parents=True, exist_ok=True)
    return MountConfig(
        mountpoint=Path("/") / name,
        prefix="",
        store=StoreConfig(bucket="bucket"),
        defaults=AttributeDefaults(0, 0),
        namespace=NamespaceConfig(),
        writeback=WritebackConfig(spool_dir=cache / "spool"),
        read=ReadConfig(),
        cache_dir=cache,
    )


def opened(config: MountConfig) -> SqliteJournal:
    journal = open_journal(config)
    assert isinstance(journal, SqliteJournal)
    return journal


def left_unfinished(config: MountConfig) -> None:
    """A mount that died with one change and one file that is not sent."""
    journal = opened(config)
    journal.record(an_intent(journal.new_id(), "gone"))
    journal.write_file(a_file(journal.new_id(), "file"))
    journal.abandon()
    config.writeback.spool_dir.mkdir(exist_ok=True)
    (config.writeback.spool_dir / "chunk-000001").write_bytes(b"unsent")


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def damage_database(config: MountConfig) -> None:
    flip(config.cache_dir / "journal.sqlite", 20)


def damage_log(config: MountConfig) -> None:
    flip(segment_paths(config.cache_dir)[0], 5)


def come_from_the_future(config: MountConfig) -> None:
    base = sqlite3.connect(config.cache_dir / "journal.sqlite")
    base.execute("PRAGMA user_version=99")
    base.close()


def be_cut_short(config: MountConfig) -> None:
    os.truncate(config.cache_dir / "journal.sqlite", 1000)


def vanish(config: MountConfig) -> None:
    (config.cache_dir / "journal.sqlite").unlink()


HARMS = [damage_database, damage_log, come_from_the_future, be_cut_short, vanish]


@pytest.mark.parametrize("harm", HARMS)
async def test_a_journal_that_cannot_be_used_is_set_aside_with_its_spool_and_reported(
    tmp_path: Path, harm: Callable[[MountConfig], None], caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(tmp_path)
    left_unfinished(config)
    segment = segment_paths(config.cache_dir)[0]
    harm(config)
    before = segment.read_bytes()
    journal = opened(config)
    assert not journal.load()
    (aside,) = config.cache_dir.glob("journal.corrupt-*")
    (spool,) = config.cache_dir.glob("spool.set-aside-*")
    assert (aside / segment.name).read_bytes() == before
    if harm is not vanish:
        assert (aside / "journal.sqlite").stat().st_size > 0
    assert (spool / "chunk-000001").read_bytes() == b"unsent"
    (problem,) = journal.report()["problems"]
    assert str(aside) in problem
    assert str(spool) in problem
    assert problem in caplog.text
    # The new one works.
    journal.record(an_intent(1, "next"))
    journal.abandon()
    journal = opened(config)
    assert [record.key for record in journal.load().intents] == ["next"]
    assert not journal.problems
    await journal.aclose()


async def test_a_journal_of_another_mount_is_set_aside(tmp_path: Path) -> None:
    """As after two mounts were given one --cache-dir by moving it about."""
    config = configured(tmp_path)
    left_unfinished(config)
    for other in (
        replace(config, prefix="p/"),
        replace(config, mountpoint=Path("/else")),
        replace(config, store=replace(config.store, endpoint_url="http://else")),
        replace(config, store=replace(config.store, bucket="else")),
    ):
        journal = opened(other)
        assert not journal.load()
        assert "belongs to another mount" in journal.problems[0]
        journal.record(an_intent(1, "x"))
        journal.abandon()
        config = other
    assert len(list(config.cache_dir.glob("journal.corrupt-*"))) == 4


async def test_a_journal_with_nothing_left_in_it_is_removed(tmp_path: Path) -> None:
    config = configured(tmp_path)
    journal = opened(config)
    intent = an_intent(journal.new_id(), "x")
    journal.record(intent)
    journal.forget(intent)
    await journal.aclose()
    assert [path.name for path in config.cache_dir.iterdir()] == ["identity.json"]
    assert json.loads((config.cache_dir / "identity.json").read_text())["mountpoint"] == "/mnt"


DEATH = """
import os, sys
from pathlib import Path
from s3mount.writeback import journal_log
from tests.unit.test_journal_files import configured, opened
import trio
left = int(sys.argv[2])
def dying(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return real(*args, **kwargs)
    return call
os.fsync, os.fdatasync = dying(os.fsync), dying(os.fdatasync)
Path.rename, Path.unlink, os.pwrite = dying(Path.rename), dying(Path.unlink), dying(os.pwrite)
async def main():
    journal = opened(configured(Path(sys.argv[1])))
    await journal.aclose()
trio.run(main)
print("lived")
"""


def test_a_death_while_a_journal_is_made_or_removed_leaves_one_that_works(tmp_path: Path) -> None:
    for steps in range(40):
        command = [sys.executable, "-c", DEATH, str(tmp_path), str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        journal = opened(configured(tmp_path))
        assert not journal.problems, steps
        journal.abandon()  # the next one finds it as after a death, too
        if "lived" in done.stdout:
            assert steps > 5
            return
        assert done.returncode == -9, done.stderr
    raise AssertionError("it never lived")


async def test_what_mounts_elsewhere_left_is_reported_and_not_touched(tmp_path: Path) -> None:
    config, dead, damaged, clean = (
        configured(tmp_path, name) for name in ("mnt", "dead", "damaged", "clean")
    )
    left_unfinished(dead)
    left_unfinished(damaged)
    flip(damaged.cache_dir / "journal.sqlite", 20)
    await opened(clean).aclose()
    journal = opened(config)
    before = [snapshot(each.cache_dir) for each in (dead, damaged, clean)]
    found = other_journals(config)
    assert [snapshot(each.cache_dir) for each in (dead, damaged, clean)] == before
    assert len(found) == 2
    assert "the journal of the mount on /damaged cannot be used" in found[0]
    assert "the mount on /dead ended before 1 changes of 1 files were in the bucket" in found[1]
    journal.others = found
    assert journal.report()["others"] == found
    await journal.aclose()


async def test_a_read_only_mount_leaves_the_journal_alone(tmp_path: Path) -> None:
    config = configured(tmp_path)
    left_unfinished(config)
    before = snapshot(tmp_path)
    assert isinstance(open_journal(replace(config, read_only=True)), MemoryJournal)
    assert snapshot(tmp_path) == before


def test_memory_and_network_file_systems_are_refused_for_write_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    config = configured(tmp_path)
    later = replace(config, writeback=replace(config.writeback, durability="journal"))
    check_disk(later, said.append)
    assert said == []
    for kind in local_disk._UNFIT.values():
        monkeypatch.setattr(journal_files, "unfit_for_journal", lambda path, kind=kind: kind)
        with pytest.raises(ConfigurationError, match=rf"is on {kind}; choose .*--cache-dir"):
            check_disk(later, said.append)
        assert said == []
        check_disk(config, said.append)
        assert f"is on {kind}" in said.pop()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs at its usual place")
def test_a_tmpfs_is_known_by_the_directory_that_will_be_made_in_it() -> None:
    assert unfit_for_journal(Path("/dev/shm/not/yet/there")) == "tmpfs"


def test_a_disk_that_has_no_room_refuses_the_mount_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ConfigurationError, match=r"No space left.*--cache-dir"):
        open_journal(configured(tmp_path))
