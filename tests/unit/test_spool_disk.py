"""The spool's disk: what is synced and when, and what becomes of its errors."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from s3mount.core.errors import FilesystemError
from s3mount.writeback import chunk as chunks
from s3mount.writeback import chunk_files
from s3mount.writeback.chunk import BLOCK, CorruptSpool, SpoolDiskError
from s3mount.writeback.spool import Spool
from tests.unit.test_spool_records import flip, new_spool
from tests.unit.writeback_fixtures import PART, pattern, rig


class Disk:
    """Stands between the spool and the kernel: counts what is synced, and fails on demand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[int] = []  # inode numbers of files
        self.directories = 0
        self.failing: dict[str, int] = {}
        self.torn: int | None = None  # a failing pwrite writes so many bytes before
        for module in (chunks, chunk_files):
            monkeypatch.setattr(module, "os", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _perhaps(self, name: str) -> None:
        if name in self.failing:
            raise OSError(self.failing[name], "injected")

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        if self.torn and "pwrite" in self.failing:
            some = min(self.torn, len(data) - 1)
            done, self.torn = os.pwrite(fd, data[:some], offset), None
            return done
        self._perhaps("pwrite")
        return os.pwrite(fd, data, offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._perhaps("pread")
        return os.pread(fd, length, offset)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            self._perhaps("create")
        return os.open(path, flags, mode)

    def fdatasync(self, fd: int) -> None:
        self._perhaps("fdatasync")
        self.synced.append(os.fstat(fd).st_ino)
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        self._perhaps("fsync")
        self.directories += 1
        os.fsync(fd)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = new_spool(tmp_path)
    spool.open()
    yield spool
    spool.close()


def _inodes(spool: Spool) -> list[int]:
    return [path.stat().st_ino for path in sorted(spool.config.spool_dir.glob("chunk-*"))]


# -- sync


async def test_sync_covers_the_chunks_written_since_and_no_others(disk: Disk, spool: Spool) -> None:
    file = spool.create_file()
    await file.write(0, pattern(0, 3 * PART))
    await file.sync()
    assert sorted(disk.synced) == sorted(_inodes(spool))
    await file.sync()
    assert len(disk.synced) == 3, "nothing was written since"
    await file.write(PART + 7, b"again")
    await file.sync()
    assert disk.synced[3:] == [_inodes(spool)[1]]


async def test_sync_covers_the_copy_and_the_sealed_chunk_that_it_replaced(
    disk: Disk, spool: Spool
) -> None:
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    file.seal()
    await file.write(5, b"before the sealed one was synced")
    await file.sync()
    assert sorted(disk.synced) == sorted(_inodes(spool))
    assert len(disk.synced) == 2


async def test_what_is_written_while_a_sync_runs_is_synced_by_the_next(
    disk: Disk, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    real = disk.fdatasync

    def slow(fd: int) -> None:
        trio.from_thread.run_sync(file.try_write, 0, b"late")
        real(fd)

    monkeypatch.setattr(disk, "fdatasync", slow)
    await file.sync()
    monkeypatch.setattr(disk, "fdatasync", real)
    await file.sync()
    assert len(disk.synced) == 2


async def test_two_syncs_at_once_both_return_after_the_bytes_are_on_the_disk(
    disk: Disk, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    finished: list[bool] = []
    real = disk.fdatasync

    def slow(fd: int) -> None:
        trio.from_thread.run(trio.testing.wait_all_tasks_blocked)
        real(fd)
        finished.append(True)

    monkeypatch.setattr(disk, "fdatasync", slow)

    async def sync() -> None:
        await file.sync()
        assert finished

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sync)
        nursery.start_soon(sync)
    assert len(finished) == 1


async def test_the_directory_is_synced_for_new_files_only(disk: Disk, spool: Spool) -> None:
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    assert disk.directories == 0
    await file.sync()
    assert disk.directories == 1
    await file.write(5, b"again")
    await file.sync()
    assert disk.directories == 1
    file.close()
    recycled = spool.create_file()
    await recycled.write(0, pattern(0, PART))
    await recycled.sync()
    assert disk.directories == 1


async def test_files_made_ahead_need_no_sync_of_the_directory(disk: Disk, spool: Spool) -> None:
    await spool.prepare()
    assert disk.directories == 1
    for _ in range(8):
        file = spool.create_file()
        await file.write(0, pattern(0, 2 * PART))
        await file.sync()
    assert disk.directories == 1
    assert len(disk.synced) == 16


async def test_with_write_back_files_are_made_ahead_again_and_again(
    disk: Disk, tmp_path: Path
) -> None:
    async with rig(tmp_path, durability="journal", spool_limit=64 * PART) as here:
        for _ in range(6):
            while disk.directories < 1 + len(here.spool.files) // 3:  # a thread makes them
                await trio.testing.wait_all_tasks_blocked(0.001)
            await trio.testing.wait_all_tasks_blocked(0.01)
            before = disk.directories
            file = here.spool.create_file()
            await file.write(0, pattern(0, 4 * PART))
            await file.sync()
            assert not here.spool.pool.files.uncertain & {
                chunk.name for chunk, _, _ in file.pieces(0, 4 * PART)
            }
            assert before == 1 + (len(here.spool.files) - 1) // 3


async def test_a_tiny_file_has_nothing_to_sync(disk: Disk, spool: Spool) -> None:
    file = spool.create_file()
    await file.write(0, b"tiny")
    await file.sync()
    assert (disk.synced, disk.directories) == ([], 0)


# -- errors


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_a_failed_sync_is_told_and_the_next_one_writes_everything_again(
    disk: Disk, spool: Spool, number: int
) -> None:
    """After a failed fdatasync the kernel takes pages for clean that never reached the disk."""
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    disk.failing["fdatasync"] = number
    for _ in range(2):
        with pytest.raises(SpoolDiskError, match="cannot sync chunk-000001") as caught:
            await file.sync()
        assert caught.value.errno == number
    del disk.failing["fdatasync"]
    path = spool.config.spool_dir / "chunk-000001"
    written: list[int] = []

    def pwrite(fd: int, data: Any, offset: int) -> int:
        written.append(offset)
        return os.pwrite(fd, data, offset)

    disk.pwrite = pwrite  # type: ignore[method-assign]
    await file.sync()
    assert written == list(range(0, PART, BLOCK))
    assert disk.synced == [path.stat().st_ino]
    assert path.read_bytes() == pattern(0, PART)


async def test_what_the_disk_lost_with_a_failed_sync_is_found_by_the_next(
    disk: Disk, spool: Spool
) -> None:
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    disk.failing["fdatasync"] = errno.EIO
    with pytest.raises(SpoolDiskError):
        await file.sync()
    disk.failing.clear()
    flip(spool.config.spool_dir, "chunk-000001", 2 * BLOCK)
    for _ in range(2):
        with pytest.raises(CorruptSpool, match="block 2"):
            await file.sync()


async def test_a_failed_sync_of_the_directory_is_told_and_tried_again(
    disk: Disk, spool: Spool
) -> None:
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    disk.failing["fsync"] = errno.EIO
    with pytest.raises(SpoolDiskError):
        await file.sync()
    disk.failing.clear()
    await file.sync()
    assert disk.directories == 1


LAST = PART - BLOCK // 2
# (offset, bytes that reach the disk): none of them ends inside a block that is all new.
TORN = [(0, None), (0, BLOCK), (50, None), (50, 100), (50, 2 * BLOCK), (LAST, None), (LAST, 100)]


@pytest.mark.parametrize(("offset", "torn"), TORN)
async def test_a_write_that_the_disk_refuses_loses_nothing_written_before(
    disk: Disk, spool: Spool, torn: int | None, offset: int
) -> None:
    """EIO to the program; of the range written it may be old or new bytes, and never EIO later."""
    old, new = pattern(0, PART), pattern(offset, 2 * BLOCK, salt=1)
    file = spool.create_file()
    await file.write(0, old)
    disk.failing["pwrite"], disk.torn = errno.EIO, torn
    with pytest.raises(FilesystemError) as caught:
        await file.write(offset, new[: PART - offset])
    assert caught.value.errno == errno.EIO
    disk.failing.clear()
    found = file.read(0, PART)
    end = min(PART, offset + 2 * BLOCK)
    assert found[:offset] == old[:offset]
    assert found[end:] == old[end:]
    assert all(found[at] in (old[at], new[at - offset]) for at in range(offset, end))
    file.verify(0, PART)
    await file.write(offset, new)
    assert file.read(offset, 2 * BLOCK) == new


@pytest.mark.parametrize("torn", [100, BLOCK + 100])
async def test_a_block_overwritten_as_a_whole_and_torn_reads_as_damaged_until_it_is_written(
    disk: Disk, spool: Spool, torn: int
) -> None:
    """Nothing is there to compare its bytes with: they are not taken for what was written."""
    new = pattern(0, 2 * BLOCK, salt=1)
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    disk.failing["pwrite"], disk.torn = errno.EIO, torn
    with pytest.raises(FilesystemError):
        await file.write(0, new)
    disk.failing.clear()
    flip(spool.config.spool_dir, "chunk-000001", torn + 7)
    with pytest.raises(CorruptSpool, match=f"block {torn // BLOCK}"):
        file.read(0, PART)
    await file.write(0, new)
    assert file.read(0, 2 * BLOCK) == new
    file.verify(0, PART)


@pytest.mark.parametrize("offset", [3 * BLOCK, 2 * BLOCK - 10])
async def test_damage_done_by_a_failing_write_elsewhere_in_its_blocks_is_not_blessed(
    disk: Disk, spool: Spool, offset: int
) -> None:
    """A disk that fails a write and spoils what it had: the block reads as damaged."""
    file = spool.create_file()
    await file.write(0, pattern(0, 3 * BLOCK))
    name = "chunk-000001"

    def spoils(fd: int, data: Any, offset: int) -> int:
        flip(spool.config.spool_dir, name, BLOCK + 5)
        raise OSError(errno.EIO, "injected")

    disk.pwrite = spoils  # type: ignore[method-assign]
    with pytest.raises(FilesystemError):
        file.try_write(offset, b"beside the damage")
    del disk.pwrite
    with pytest.raises(CorruptSpool, match="block 1"):
        file.verify(0, 2 * BLOCK)


async def test_a_full_disk_makes_writers_wait_and_then_fail_with_enospc(
    disk: Disk, spool: Spool, autojump_clock: trio.testing.MockClock
) -> None:
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    disk.failing["pwrite"] = errno.ENOSPC
    with pytest.raises(FilesystemError) as caught:
        await file.write(PART, pattern(PART, PART))
    assert caught.value.errno == errno.ENOSPC
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.write, PART, pattern(PART, PART))
        await trio.sleep(50)
        assert spool.usage()["waiting"] == 1
        disk.failing.clear()
        spool.wake()
    assert file.read(0, 2 * PART) == pattern(0, 2 * PART)
    file.verify(0, 2 * PART)


@pytest.mark.parametrize("operation", ["pwrite", "pread", "create"])
async def test_a_copy_that_the_disk_refuses_leaves_the_sealed_bytes(
    disk: Disk, spool: Spool, operation: str
) -> None:
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    record = file.seal()
    used = spool.usage()["used"]
    disk.failing[operation] = errno.EIO
    with pytest.raises(FilesystemError) as caught:
        await file.write(5, b"changed")
    assert caught.value.errno == errno.EIO
    disk.failing.clear()
    assert file.read(0, PART) == pattern(0, PART)
    assert (spool.config.spool_dir / record.chunks[0].name).read_bytes() == pattern(0, PART)
    assert spool.usage()["chunks"] == 1
    await file.write(5, b"changed")
    assert file.read(5, 7) == b"changed"
    assert spool.usage()["used"] == used + PART


async def test_a_file_that_cannot_be_created_is_an_error_and_leaks_nothing(
    disk: Disk, spool: Spool
) -> None:
    file = spool.create_file()
    disk.failing["create"] = errno.EIO
    with pytest.raises(SpoolDiskError, match="cannot create"):
        file.try_write(0, pattern(0, PART))
    assert spool.usage()["used"] == spool.usage()["chunks"] == 0
    disk.failing.clear()
    assert file.try_write(0, pattern(0, PART))


async def test_a_read_that_the_disk_refuses_is_eio_and_the_next_one_works(
    disk: Disk, spool: Spool
) -> None:
    file = spool.create_file()
    await file.write(0, pattern(0, PART))
    disk.failing["pread"] = errno.EIO
    with pytest.raises(SpoolDiskError, match="cannot read chunk-000001") as caught:
        file.read(0, 10)
    assert caught.value.errno == errno.EIO
    disk.failing.clear()
    assert file.read(0, 10) == pattern(0, 10)


async def test_a_commit_whose_bytes_cannot_be_read_fails_and_works_when_they_can(
    disk: Disk, tmp_path: Path
) -> None:
    async with rig(tmp_path) as here:
        small, large = here.writer("small"), here.writer("large")
        await small.write(BLOCK, pattern(0, PART // 2))
        disk.failing["pread"] = errno.EIO
        await large.write(0, pattern(0, 3 * PART))
        for writer in (small, large):
            with pytest.raises(SpoolDiskError):
                await writer.commit()
        assert here.store.objects == {}
        disk.failing.clear()
        for writer in (small, large):
            await writer.commit()
            assert writer.stored == bytes(writer.expected)


async def test_bytes_flipped_at_any_stage_never_reach_an_object(tmp_path: Path) -> None:
    """Before its part goes up the flip is found; afterwards it does no harm."""
    async with rig(tmp_path, spool_limit=64 * PART) as here:
        before, after, partial = (here.writer(key) for key in ("before", "after", "partial"))
        for writer in (before, after):
            await writer.write(0, pattern(0, 3 * PART + 5))
        _flip_in(here.spool, before, PART + 9)
        await trio.testing.wait_all_tasks_blocked(0.05)
        _flip_in(here.spool, after, PART + 9)
        with pytest.raises(CorruptSpool):
            await before.commit()
        await after.commit()
        assert after.stored == bytes(after.expected)
        assert set(here.store.objects) == {"after"}
        await partial.write(0, pattern(0, PART))
        _flip_in(here.spool, partial, BLOCK + 9)
        with pytest.raises(CorruptSpool):
            await partial.write(BLOCK + 100, b"the rest of the block is damaged")


def _flip_in(spool: Spool, writer: Any, offset: int) -> None:
    chunk, low, _ = writer.file.pieces(offset, offset + 1)[0]
    flip(spool.config.spool_dir, chunk.name, low)


async def test_a_flip_between_the_two_reads_of_a_large_body_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies over a limit are read twice: for their checksum, and to be sent."""
    monkeypatch.setattr("s3mount.writeback.body.SLICED_OVER", PART)
    async with rig(tmp_path, single_put_limit=8 * PART) as here:
        writer = here.writer()
        writer.expected = bytearray(pattern(0, PART + PART // 2))
        await writer.file.write(0, bytes(writer.expected))
        upload: Callable[..., Any] = here.store.put

        async def put(key: str, body: Any, *args: Any, **options: Any) -> Any:
            assert b"".join(body.slices()) == bytes(writer.expected)
            _flip_in(here.spool, writer, PART + 7)
            return await upload(key, body, *args, **options)

        monkeypatch.setattr(here.store, "put", put)
        with pytest.raises(CorruptSpool):
            await writer.commit()
        assert here.store.objects == {}
