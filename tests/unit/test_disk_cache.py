"""The block cache on disk: survives restarts, bounded, damage is found and fetched again."""

import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trio

from s3mount.core.config import KIB, MIB, ReadConfig
from s3mount.readpath import disk_cache
from s3mount.readpath.disk_cache import DiskCache
from s3mount.readpath.read_path import ReadPath
from s3mount.readpath.remote import RemoteObject
from s3mount.store.memory import MemoryStore

KEY = ("k", "etag", 2 * MIB)
DATA = Random(0).randbytes(2 * MIB)


@asynccontextmanager
async def running(
    directory: Path, limit: int = 64 * MIB, namespace: str = "n", reserve: int = 0
) -> AsyncIterator[DiskCache]:
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            cache = DiskCache(directory, limit, namespace, reserve=reserve)
            await nursery.start(cache.run)
            await cache.written()
            yield cache
            await cache.written()
            nursery.cancel_scope.cancel()


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def test_what_was_stored_is_found_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "c") as cache:
        cache.store(KEY, 0, DATA[: 300 * KIB])
        cache.store(KEY, 300 * KIB, DATA[300 * KIB : 1 * MIB])
        await cache.written()
        used = cache.used
    async with running(tmp_path / "c") as cache:
        assert cache.used == used == sum(path.stat().st_size for path in files(tmp_path))
        assert await cache.load(KEY, 0, 300 * KIB) == DATA[: 300 * KIB]
        assert await cache.load(KEY, 290 * KIB, 299 * KIB) == DATA[290 * KIB : 299 * KIB]
        assert await cache.load(KEY, 301 * KIB, MIB) == DATA[301 * KIB : MIB]
        assert await cache.load(KEY, 290 * KIB, 310 * KIB) is None
        assert await cache.load(KEY, MIB, MIB + 1) is None
        assert cache.split(KEY, 100, 2 * MIB) == [
            (100, 300 * KIB),
            (300 * KIB, MIB),
            (MIB, 2 * MIB),
        ]


@pytest.mark.parametrize(
    "other", [("other", "etag", 2 * MIB), ("k", "new", 2 * MIB), ("k", "etag", MIB)]
)
async def test_another_version_finds_nothing(tmp_path: Path, other: tuple[str, str, int]) -> None:
    async with running(tmp_path) as cache:
        cache.store(KEY, 0, DATA[:KIB])
        await cache.written()
        assert await cache.load(other, 0, KIB) is None
    async with running(tmp_path, namespace="another bucket") as cache:
        assert await cache.load(KEY, 0, KIB) is None


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def flip_a_checksum(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[13] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def replace_by_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [flip_a_byte, flip_a_checksum, cut_short, replace_by_zeros, make_empty]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("restart", [True, False])
async def test_a_damaged_file_is_dropped(
    tmp_path: Path, damage: Callable[[Path], None], restart: bool
) -> None:
    async with running(tmp_path) as cache:
        cache.store(KEY, 0, DATA[: 300 * KIB])
        await cache.written()
        damage(files(tmp_path)[0])
        if not restart:
            assert await cache.load(KEY, 200 * KIB, 300 * KIB) is None
            assert cache.used == 0
            assert cache.damaged == 1
    if restart:
        async with running(tmp_path) as cache:
            assert await cache.load(KEY, 200 * KIB, 300 * KIB) is None
            assert cache.used == 0
    assert files(tmp_path) == []


async def test_a_file_that_vanished_is_just_not_found(tmp_path: Path) -> None:
    async with running(tmp_path) as cache:
        cache.store(KEY, 0, DATA[:KIB])
        await cache.written()
        files(tmp_path)[0].unlink()
        assert await cache.load(KEY, 0, KIB) is None
        assert cache.used == cache.damaged == 0


async def test_the_least_recently_used_files_go_when_the_limit_is_reached(tmp_path: Path) -> None:
    async with running(tmp_path, limit=400 * KIB) as cache:
        for number in range(3):
            cache.store(KEY, number * 100 * KIB, DATA[: 100 * KIB])
        await cache.written()
        assert await cache.load(KEY, 0, KIB) is not None
        for number in range(3, 5):
            cache.store(KEY, number * 100 * KIB, DATA[: 100 * KIB])
        await cache.written()
        assert cache.used <= 400 * KIB
        held = [await cache.load(KEY, n * 100 * KIB, n * 100 * KIB + 1) for n in range(5)]
        assert [found is not None for found in held] == [True, False, False, True, True]
        assert sum(path.stat().st_size for path in files(tmp_path)) == cache.used
    async with running(tmp_path, limit=400 * KIB) as cache:
        assert await cache.load(KEY, 0, KIB) is not None


async def test_a_smaller_limit_shrinks_the_cache_of_the_last_run(tmp_path: Path) -> None:
    async with running(tmp_path) as cache:
        for number in range(4):
            cache.store(KEY, number * 100 * KIB, DATA[: 100 * KIB])
    async with running(tmp_path, limit=150 * KIB) as cache:
        await cache.written()
        assert cache.used <= 150 * KIB
        assert len(files(tmp_path)) == 1


async def test_nobody_else_may_read_the_cache(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir(mode=0o755)
    async with running(tmp_path / "c") as cache:
        cache.store(KEY, 0, DATA[:KIB])
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
    file, lock = sorted(files(tmp_path), key=lambda path: path.name == "c.lock")
    assert lock.stat().st_size == 0
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    async with running(tmp_path) as cache:
        cache.store(KEY, 0, DATA[:KIB])
    left = files(tmp_path)[0].parent / ".5-17.123"
    left.write_bytes(b"half")
    async with running(tmp_path) as cache:
        assert not left.exists()
        assert await cache.load(KEY, 0, KIB) == DATA[:KIB]


async def test_nothing_is_written_where_the_disk_is_nearly_full(tmp_path: Path) -> None:
    async with running(tmp_path, reserve=1 << 60) as cache:
        cache.store(KEY, 0, DATA[:KIB])
        await cache.written()
        assert cache.skipped == 1
    assert files(tmp_path) == []


async def test_a_moved_version_keeps_its_files_and_a_dropped_one_loses_them(
    tmp_path: Path,
) -> None:
    moved = ("new", "etag", 2 * MIB)
    async with running(tmp_path) as cache:
        cache.store(KEY, 0, DATA[:KIB])
        cache.move(KEY, moved)
        await cache.written()
        assert await cache.load(moved, 0, KIB) == DATA[:KIB]
        assert await cache.load(KEY, 0, KIB) is None
    async with running(tmp_path) as cache:
        assert await cache.load(moved, 0, KIB) == DATA[:KIB]
        cache.drop(moved)
        assert cache.used == 0
        assert await cache.load(moved, 0, KIB) is None
    assert files(tmp_path) == []


async def test_a_directory_that_cannot_be_made_is_no_cache_but_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with running(tmp_path / "file" / "c") as cache:
        cache.store(KEY, 0, DATA[:KIB])
        await cache.written()
        assert await cache.load(KEY, 0, KIB) is None


async def test_a_second_mount_reads_from_disk_and_damage_from_the_bucket(tmp_path: Path) -> None:
    store = MemoryStore()
    data = Random(1).randbytes(6 * MIB)
    stored = store.put_foreign("k", data)
    config = ReadConfig(disk_dir=tmp_path / "blocks")

    async def read_all() -> tuple[bytes, dict[str, int]]:
        async with trio.open_nursery() as nursery:
            path = ReadPath(store, config, namespace="here")
            await nursery.start(path.run)
            await path.disk_written()
            reader = path.open(RemoteObject("k", stored.etag, len(data)))
            found = bytearray()
            while part := await reader.read(len(found), 128 * KIB):
                found += part
            reader.close()
            await path.disk_written()
            nursery.cancel_scope.cancel()
        return bytes(found), path.stats()

    with trio.fail_after(100):
        found, _ = await read_all()
        assert found == data
        gets = store.counts()["GetObject"]
        found, stats = await read_all()
        assert found == data
        assert store.counts()["GetObject"] == gets
        assert stats["disk_read_bytes"] == len(data)
        damaged = max(files(tmp_path), key=lambda path: path.stat().st_size)
        flip_a_byte(damaged)
        found, stats = await read_all()
        assert found == data
        assert store.counts()["GetObject"] == gets + 1
        assert stats["disk_damaged"] == 1


async def test_of_two_mounts_one_has_the_cache_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "LOCK_INTERVAL", 0.01)
    async with trio.open_nursery() as nursery:
        async with running(tmp_path / "c") as first:
            first.store(KEY, 0, DATA[: 300 * KIB])
            await first.written()
            second = DiskCache(tmp_path / "c", MIB, "n", reserve=0)
            second.store(("queued", "before", 1), 0, b"x")
            await nursery.start(second.run)
            await second.written()
            # It neither finds nor changes anything, and goes on.
            assert await second.load(KEY, 0, 300 * KIB) is None
            second.store(KEY, 300 * KIB, DATA[300 * KIB : 400 * KIB])
            second.drop(KEY)
            await second.written()
            assert await first.load(KEY, 0, 300 * KIB) == DATA[: 300 * KIB]
            assert len(files(tmp_path / "c")) == 1
        with trio.fail_after(100):
            while await second.load(KEY, 0, 300 * KIB) is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
        second.store(KEY, 300 * KIB, DATA[300 * KIB : 400 * KIB])
        await second.written()
        assert await second.load(KEY, 300 * KIB, 400 * KIB) == DATA[300 * KIB : 400 * KIB]
        nursery.cancel_scope.cancel()
