"""The disk whose power can be cut: what was fsynced survives, the rest need not."""

import mmap
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.crash_disk import CrashDisk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[CrashDisk]:
    with CrashDisk(tmp_path) as disk:
        yield disk


def write(path: Path, data: bytes, *, sync: bool) -> None:
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        if sync:
            os.fsync(out.fileno())


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_a_write_without_fsync_is_lost_and_one_with_it_is_kept(disk: CrashDisk) -> None:
    write(disk.path / "kept", b"kept" * 5000, sync=True)
    write(disk.path / "lost", b"lost" * 5000, sync=False)
    assert (disk.path / "lost").read_bytes() == b"lost" * 5000
    disk.cut()
    assert os.listdir(disk.path) == ["kept"]
    assert (disk.path / "kept").read_bytes() == b"kept" * 5000


def test_an_overwrite_without_fsync_leaves_the_old_bytes_and_size(disk: CrashDisk) -> None:
    path = disk.path / "file"
    write(path, b"a" * 10000, sync=True)
    with path.open("r+b") as out:
        out.write(b"b" * 12000)
    disk.cut()
    assert path.read_bytes() == b"a" * 10000
    path.write_bytes(b"")  # a truncation alone
    disk.cut()
    assert path.read_bytes() == b"a" * 10000


def test_names_survive_an_fsync_of_their_directory_only(disk: CrashDisk) -> None:
    for name in ("a", "b", "c"):
        write(disk.path / name, name.encode(), sync=True)
    (disk.path / "a").rename(disk.path / "a2")
    (disk.path / "b").unlink()
    disk.cut()
    assert sorted(os.listdir(disk.path)) == ["a", "b", "c"]
    (disk.path / "a").rename(disk.path / "a2")
    (disk.path / "b").unlink()
    (disk.path / "d").mkdir()
    sync_directory(disk.path)
    (disk.path / "c").unlink()
    disk.cut()
    assert sorted(os.listdir(disk.path)) == ["a2", "c", "d"]
    assert (disk.path / "a2").read_bytes() == b"a"


def test_a_new_file_that_is_fsynced_keeps_the_new_directories_above_it(disk: CrashDisk) -> None:
    (disk.path / "x" / "y").mkdir(parents=True)
    write(disk.path / "x" / "y" / "file", b"z", sync=True)
    write(disk.path / "x" / "other", b"z", sync=False)
    disk.cut()
    assert (disk.path / "x" / "y" / "file").read_bytes() == b"z"
    assert os.listdir(disk.path / "x") == ["y"]


def test_a_random_cut_keeps_some_blocks_of_what_was_not_synced(disk: CrashDisk) -> None:
    path = disk.path / "file"
    write(path, b"a" * 4096 * 100, sync=True)
    with path.open("r+b") as out:
        out.write(b"b" * 4096 * 100)
    disk.cut(random.Random(1))
    data = path.read_bytes()
    blocks = {data[begin : begin + 4096] for begin in range(0, len(data), 4096)}
    assert blocks == {b"a" * 4096, b"b" * 4096}


def test_a_cut_tells_up_to_when_the_journal_was_fsynced(disk: CrashDisk) -> None:
    before = time.monotonic()
    write(disk.path / "journal.log-1", b"a", sync=True)
    write(disk.path / "journal.log-2", b"b", sync=True)
    synced = time.monotonic()
    write(disk.path / "journal.log-2", b"volatile", sync=False)
    write(disk.path / "journal.log-1", b"synced beside it", sync=True)
    assert before < disk.cut() < synced
    assert (disk.path / "journal.log-2").read_bytes() == b"b"


def test_an_orderly_stop_loses_nothing(disk: CrashDisk) -> None:
    write(disk.path / "file", b"abc", sync=False)
    disk.remount()
    assert (disk.path / "file").read_bytes() == b"abc"


def test_shared_mappings_and_locks_work(disk: CrashDisk) -> None:
    path = disk.path / "file"
    write(path, bytes(8192), sync=True)
    with path.open("r+b") as out, mmap.mmap(out.fileno(), 8192) as mapped:
        mapped[5000:5003] = b"abc"
        mapped.flush()
        assert path.read_bytes()[5000:5003] == b"abc"
        os.fsync(out.fileno())
    disk.cut()
    assert path.read_bytes()[5000:5003] == b"abc"


COMMIT = """
import os, signal, sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute("PRAGMA journal_mode=WAL")
base.execute("PRAGMA synchronous=FULL")
base.execute("CREATE TABLE t (n INTEGER)")
for number in range(50):
    base.execute("INSERT INTO t VALUES (?)", (number,))
base.execute("PRAGMA synchronous=OFF")
for number in range(50, 100):
    base.execute("INSERT INTO t VALUES (?)", (number,))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_sqlite_in_wal_mode_keeps_what_it_synced_and_a_prefix_of_the_rest(
    disk: CrashDisk, seed: int | None
) -> None:
    subprocess.run([sys.executable, "-c", COMMIT, str(disk.path / "base")], check=False)
    disk.cut(None if seed is None else random.Random(seed))
    base = sqlite3.connect(disk.path / "base")
    assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    rows = [number for (number,) in base.execute("SELECT n FROM t ORDER BY n")]
    base.close()
    assert rows == list(range(len(rows)))
    assert len(rows) >= 50
    if seed is None:
        assert len(rows) == 50
